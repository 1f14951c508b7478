"""Downloads from a real server on this machine, compared with rasterio alone."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import rasterio
from pyproj import Transformer
from stac_archive import TILES, write_cog

from torchgeo_caco.acquisition import Dates, Quality, download
from torchgeo_caco.acquisition.patch import patch_grid
from torchgeo_caco.cli import main
from torchgeo_caco.datasets import SeasonalTemporalDataset
from torchgeo_caco.stores import FolderStore


def nearest(archive, scene: str, asset: str, lon: float, lat: float) -> np.ndarray:
    """A patch of 64 pixels of 10 m by hand: each pixel's centre looked up in the whole file."""
    grid = patch_grid(lon, lat, 64, 10)
    with rasterio.open(archive.root / scene / f'{asset}.tif') as file:
        pixels, code, step = file.read(1), file.crs.to_epsg(), file.res[0]
        left, top = file.bounds.left, file.bounds.top
    x, y = np.meshgrid(*(np.arange(64) * 10 + 5, -np.arange(64) * 10 - 5))
    x, y = x + grid.transform.c, y + grid.transform.f
    if code != grid.crs.to_epsg():
        x, y = Transformer.from_crs(grid.crs.to_epsg(), code, always_xy=True).transform(x, y)
    columns, rows = np.floor((x - left) / step).astype(int), np.floor((top - y) / step).astype(int)
    inside = (columns >= 0) & (rows >= 0) & (columns < len(pixels)) & (rows < len(pixels))
    return np.where(
        inside, pixels[rows.clip(0, len(pixels) - 1), columns.clip(0, len(pixels) - 1)], 0
    )


def by_hand(archive, day: str, asset: str, lon: float, lat: float) -> np.ndarray:
    """What the store should hold: the western tile, what it lacks from the eastern one."""
    parts = []
    for tile in TILES:
        part = nearest(archive, f'S2A_{tile}_{day}_good', asset, lon, lat).astype(int)
        parts.append(np.where(part > 0, part - 1000 * (day >= '2022'), 0))
    return np.where(parts[0] > 0, parts[0], parts[1])


def test_pixels_equal_those_read_by_hand(archive, server, plan, places, root):
    plan = replace(plan, bands=('B4', 'B3', 'B2', 'B5'))
    summary = download(places, root, plan, progress=False)
    assert (summary.done, summary.unfillable, summary.failed, summary.report) == (3, 0, 0, ())
    store = FolderStore(root)
    assert store.names == ('east', 'seam', 'west')
    assert (store.shape, store.dtype, store.nodata) == ((64, 64), np.uint16, 0)
    for number, place in enumerate(places.sort_values('location').itertuples()):
        lon, lat = place.geometry.x, place.geometry.y
        days = [str(day).replace('-', '') for day in store.dates(number)]
        assert days == ['20181218', '20190312', '20190604', '20221218', '20230312', '20230604']
        images = store.read(number, range(6), ['B4', 'B3', 'B2', 'B5'])
        assert images.all()
        for image, day in zip(images, days, strict=True):
            for pixels, asset in zip(image, ('red', 'green', 'blue', 'rededge1'), strict=True):
                hand = by_hand(archive, day, asset, lon, lat)
                if place.location == 'west':
                    assert np.array_equal(pixels, hand)
                else:
                    # Between zones GDAL finds the nearest pixel to an eighth of one.
                    assert (pixels == hand).mean() > 0.9
    zones = {
        rasterio.open(root / name / '20181218' / 'B4.tif').crs.to_epsg() for name in store.names
    }
    assert zones == {32632, 32633}


def test_both_baselines_are_on_one_scale(plan, places, root):
    download(places[:1], root, plan, progress=False)
    means = FolderStore(root).read(0, range(6)).mean(axis=(1, 2, 3))
    assert np.abs(means - 2000).max() < 50
    entry = json.loads((root / 'ledger.jsonl').read_text())
    assert [image['offsets'] for image in entry['images']] == [[0]] * 3 + [[-1000]] * 3
    assert [image['baselines'] for image in entry['images']] == [[2.14]] * 3 + [[5.09]] * 3


def test_the_dataset_opens_it_at_once(plan, places, root):
    download(places, root, replace(plan, scale='0-255'), progress=False)
    dataset = SeasonalTemporalDataset(root, seasons_per_period=3)
    sample = dataset[0]
    assert sample['image'].shape == (2, 3, 3, 64, 64)
    assert sample['image'].dtype.__str__() == 'torch.uint8'
    assert 40 < sample['image'].float().mean() < 60  # 0.2 of 255
    assert sample['dates'][1].min() - sample['dates'][0].max() > 3 * 365


def test_only_windows_are_read(archive, server, plan, places, root):
    # One band of one scene as large as in truth, compared with what was sent of it.
    large = np.random.default_rng(0).integers(1, 4000, (2048, 2048)).astype(np.uint16)
    scene = 'S2A_32TQR_20181218_good'
    code, left, top = TILES['32TQR']
    path = archive.root / scene / 'red.tif'
    small = path.read_bytes()
    write_cog(path, large, code, rasterio.Affine(10, 0, left, 0, -10, top))
    try:
        download(places[:1], root, plan, progress=False)
        sent, size = server.sent[f'/files/{scene}/red.tif'], path.stat().st_size
        assert sent < 0.03 * size
        # Those that are cloudy, snowy or elsewhere are judged by their classes alone.
        assert not [p for p in server.requests if 'cloudy' in p and not p.endswith('scl.tif')]
    finally:
        path.write_bytes(small)


def test_finished_places_are_never_fetched_again(server, plan, places, root):
    download(places[:2], root, plan, progress=False)
    server.requests.clear()
    before = {path: path.stat().st_mtime_ns for path in root.rglob('*.tif')}
    assert download(places[:2], root, plan, progress=False).requests == 0
    assert not server.requests
    summary = download(places, root, plan, progress=False)
    assert summary.done == 3
    assert before.items() <= {p: p.stat().st_mtime_ns for p in root.rglob('*.tif')}.items()


def test_what_cannot_be_filled_makes_room_for_a_later_place(plan, places, root):
    far = places.iloc[[0]].set_geometry(places.iloc[[0]].translate(5)).assign(location='far')
    table = pd.concat([far, places])
    summary = download(table, root, plan, count=2, workers=1, progress=False)
    assert (summary.done, summary.unfillable) == (2, 1)
    assert FolderStore(root).names == ('seam', 'west')
    assert summary.report[0].startswith('far: unfillable: no image in 2018-12-07/2018-12-22: no sc')
    assert (root / 'report.txt').read_text().splitlines() == list(summary.report)


def test_judged_on_the_patch_and_not_on_the_scene(server, plan, places, root):
    # With snow allowed, the snowy passes come first, for they claim less cloud; they have no bands.
    snow = replace(plan, quality=Quality(snow=1))
    summary = download(places[:1], root, snow, progress=False)
    assert summary.done == 1
    assert len(summary.report) == 6
    assert (
        'west: scene given up: S2A_32TQR_20181214_snowy: red: answered with 404' in summary.report
    )


def test_dates_of_two_periods():
    dates = Dates(plan_reference := np.datetime64('2023-06-01').astype(object))
    assert plan_reference.year == 2023
    early, late = dates.windows('a')
    middles = [[a + (b - a) / 2 for a, b in period] for period in (early, late)]
    for period in middles:
        assert {(b - a).days for a, b in itertools.pairwise(period)} == {84}
    assert {(b - a).days for a, b in zip(*middles, strict=True)} == {1461}
    assert dates.windows('a') == dates.windows('a')
    newest = {dates.windows(str(i))[1][-1] for i in range(300)}
    shifts = [(plan_reference - (b - (b - a) / 2).date()).days for a, b in newest]
    assert 0 <= min(shifts) < 10
    assert 354 < max(shifts) <= 364


@pytest.mark.parametrize(
    'name', ['Paris/1', '.hid', '', '..', 'a\0', 'plan.json', 'ledger.jsonl', 'é' * 121]
)
def test_names_that_cannot_be_folders_are_refused(name, server, plan, places, root):
    places.loc[1, 'location'] = name
    with pytest.raises(ValueError, match=r'^location name .* expected\.$'):
        download(places, root, plan, progress=False)
    assert not server.requests
    assert not (root / 'ledger.jsonl').exists()


@pytest.mark.parametrize(
    'text', ['', '[]', '{}', '3', '{"dates": 3}', '{"dates": {"reference": 1}}']
)
def test_damaged_settings(text, plan, places, root, tmp_path, capsys):
    root.mkdir()
    (root / 'plan.json').write_text(text)
    with pytest.raises(ValueError, match=r'plan\.json is damaged: the settings of an earlier call'):
        download(places[:1], root, plan, progress=False)
    places.to_parquet(tmp_path / 'places.parquet')
    assert main(['download', str(tmp_path / 'places.parquet'), '-o', str(root)]) == 1
    assert f'{root / "plan.json"} is damaged' in capsys.readouterr().err
    assert (root / 'plan.json').read_text() == text


@pytest.mark.parametrize(
    ('line', 'why'),
    [
        ('3', 'it is no object'), ('["place", "status", "lon", "lat"]', 'it is no object'),
        ('{"place": "west", "status": "failed", "lon": null, "lat": 1}', 'lon is missing'),
        ('{"place": "west", "status": "done", "lon": 1, "lat": 1}', 'images is missing'),
        ('{"place"', 'Expecting'),
    ],
)  # fmt: skip
def test_damaged_ledger(line, why, plan, places, root):
    root.mkdir()
    (root / 'ledger.jsonl').write_text(f'{line}\n')
    with pytest.raises(ValueError, match=rf'ledger.jsonl: line 1 is damaged \({why}.*delete it'):
        download(places[:1], root, plan, progress=False)


def test_other_settings_or_places_are_refused(plan, places, root):
    download(places[:1], root, plan, progress=False)
    with pytest.raises(ValueError, match=r'begun with other settings \(size\)'):
        download(places[:1], root, replace(plan, size=32), progress=False)
    moved = places[:1].set_geometry(places[:1].translate(0.1))
    with pytest.raises(ValueError, match='west lay at'):
        download(moved, root, plan, progress=False)
