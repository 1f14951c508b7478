"""The folder layout, as archives have it in practice."""

import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning

from torchgeo_caco.stores import FolderStore, FolderWriter, folder
from torchgeo_caco.stores.folder import folder_date

DAY = np.array(['2020-01-01'], 'datetime64[D]')


def write(path: Path, image: np.ndarray, **profile: object) -> None:
    """Write one band."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = image.shape
    with rasterio.open(
        path, 'w', driver='GTiff', height=height, width=width, count=1, dtype=image.dtype,
        transform=rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000), **profile,
    ) as file:  # fmt: skip
        file.write(image, 1)


def band(size: int = 12, value: int = 7, dtype: str = 'uint16') -> np.ndarray:
    """An image of one value."""
    return np.full((size, size), value, dtype)


@pytest.mark.parametrize(
    'name',
    [
        '20200113', '20200113T105031', '20200113T105031_20200113T105028_T31UDQ', '2020-01-13',
        '2020_01_13', '2020_01_13_x', '2020.01.13',
    ],
)  # fmt: skip
def test_names_that_start_with_a_date(name):
    assert folder_date(name) == np.datetime64('2020-01-13')


@pytest.mark.parametrize(
    'name',
    ['', 'x20200113', '20200230', '20201313', '202001', '2020-0113', 'S2A_20200113', '.2020'],
)
def test_names_that_do_not(name):
    assert folder_date(name) is None


def test_other_entries_are_ignored(tmp_path):
    for day in ('20200301T101010', '20200101T101010_20200101T101500_T31', '2019-05-05'):
        write(tmp_path / '000001' / day / 'B4.tif', band())
    write(tmp_path / '000001' / 'mosaic' / 'B4.tif', band())
    write(tmp_path / '.cache' / '20200101' / 'B4.tif', band())
    (tmp_path / '000001' / '20200101.json').touch()
    (tmp_path / 'manifest.csv').touch()
    (tmp_path / 'empty').mkdir()
    store = FolderStore(tmp_path)
    assert store.names == ('000001',)
    assert store.dates(0).astype(str).tolist() == ['2019-05-05', '2020-01-01', '2020-03-01']


def test_same_day_twice(tmp_path):
    for hour, value in ((12, 2), (10, 1)):
        write(tmp_path / 'a' / f'20200101T{hour}0000' / 'B4.tif', band(value=value))
    store = FolderStore(tmp_path)
    assert store.counts.tolist() == [2]
    assert store.read(0, [0, 1])[:, 0, 0, 0].tolist() == [1, 2]


def test_bands_are_in_sentinel_order_whatever_they_are_called(tmp_path):
    names = ['B12', 'B01', 'B8A', 'B09', 'B02', 'B8', 'B10', 'SCL']
    for value, name in enumerate(names):
        write(tmp_path / 'a' / '20200101' / f'{name}.tif', band(value=value))
    for value, name in enumerate(['B12', 'B1', 'B8A', 'B9', 'B2', 'B08', 'B10', 'SCL']):
        write(tmp_path / 'b' / '20200101' / f'{name}.TIF', band(value=value))
    store = FolderStore(tmp_path)
    assert store.bands == ('B01', 'B02', 'B8', 'B8A', 'B09', 'B10', 'B12', 'SCL')
    for location in (0, 1):
        image = store.read(location, [0], ['B2', 'B08', 'B9', 'SCL'])
        assert image[0, :, 0, 0].tolist() == [4, 5, 3, 7]


def test_nodata_is_the_first_images(tmp_path):
    write(tmp_path / 'a' / '20200101' / 'B4.tif', band(), nodata=65535)
    assert FolderStore(tmp_path).nodata == 65535


def test_sizes_off_by_a_pixel_or_two(tmp_path):
    ramp = np.arange(14, dtype='uint16') * np.ones((14, 1), 'uint16')
    write(tmp_path / 'a' / '20200101' / 'B4.tif', ramp[:12, :12])
    write(tmp_path / 'a' / '20200102' / 'B4.tif', ramp[:, :13])
    write(tmp_path / 'a' / '20200103' / 'B4.tif', ramp[:11, :10])
    store = FolderStore(tmp_path)
    assert store.shape == (12, 12)
    images = store.read(0, [0, 1, 2])[:, 0]
    assert images[0, 0].tolist() == images[1, 0].tolist() == list(range(12))
    assert images[2, 0].tolist() == [0, *range(10), 9]
    assert FolderStore(tmp_path, size=8).read(0, [0])[0, 0, 0].tolist() == list(range(2, 10))


def test_coarser_bands_are_resampled_to_the_finest(tmp_path):
    # As SeCo: 20 m and 60 m bands at a half and a sixth, sizes rounded either way.
    rows = {'B4': 265, 'B5': 132, 'B1': 44}
    for name, size in rows.items():
        centres = (np.arange(size) + 0.5) / size * 1000
        image = np.broadcast_to(centres[:, None], (size, size)).astype('uint16')
        write(tmp_path / 'a' / '20200101' / f'{name}.tif', image)
    image = FolderStore(tmp_path).read(0, [0], list(rows))[0]
    assert image.shape == (3, 265, 265)
    inside = slice(4, -4)
    difference = np.abs(image.astype(int) - image[0].astype(int))
    assert difference[:, inside].max() <= 4
    assert len(np.unique(image[2, inside, 0])) > 200  # not blocks


def test_unlike_sizes_are_refused(tmp_path):
    write(tmp_path / 'a' / '20200101' / 'B4.tif', band(60))
    for size in (40, 64, 90, 15):
        write(tmp_path / 'a' / '20200102' / 'B4.tif', band(size))
        with pytest.raises(ValueError, match=rf'B4\.tif has {size} x {size} pixels; 60 x 60'):
            FolderStore(tmp_path).read(0, [1])


def test_missing_band(tmp_path):
    for name in ('B2', 'B3'):
        write(tmp_path / 'a' / '20200101' / f'{name}.tif', band())
    write(tmp_path / 'a' / '20200102' / 'B2.tif', band())
    store = FolderStore(tmp_path)
    assert store.read(0, [1], ['B2']).all()
    with pytest.raises(ValueError, match=r'20200102.B3\.tif is missing; each date needs B2, B3'):
        store.read(0, [1])


def test_damaged_files(tmp_path):
    random = np.random.default_rng(0).integers(0, 60_000, (64, 64)).astype('uint16')
    for day in ('20200101', '20200102', '20200103'):
        write(tmp_path / 'a' / day / 'B4.tif', random)
    truncated = tmp_path / 'a' / '20200102' / 'B4.tif'
    os.truncate(truncated, truncated.stat().st_size // 2)
    (tmp_path / 'a' / '20200103' / 'B4.tif').write_text('<html>404</html>')
    store = FolderStore(tmp_path)
    for time, message in ((1, 'damaged'), (2, 'no readable GeoTIFF')):
        with pytest.raises(ValueError, match=rf'B4\.tif is {message}'):
            store.read(0, [time])
    assert np.array_equal(store.read(0, [0])[0, 0], random)


def test_first_image_damaged_or_without_bands(tmp_path):
    (tmp_path / 'a' / '20200101').mkdir(parents=True)
    with pytest.raises(ValueError, match=r'20200101 has no band; files like B4\.tif'):
        FolderStore(tmp_path)
    (tmp_path / 'a' / '20200101' / 'B4.tif').touch()
    with pytest.raises(ValueError, match='no readable GeoTIFF'):
        FolderStore(tmp_path)


def spoil_bands(day: Path) -> None:
    (day / 'B4.tif').unlink()


def spoil_one_size(day: Path) -> None:
    write(day / 'B4.tif', band(40))


def spoil_all_sizes(day: Path) -> None:
    # As the others with a resampling; all would be enlarged to it.
    for name in ('B2', 'B4'):
        write(day / f'{name}.tif', band(24))


def spoil_type(day: Path) -> None:
    for name in ('B2', 'B4'):
        write(day / f'{name}.tif', band(dtype='int16'))


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (spoil_bands, r'B4\.tif is missing; each date needs B2, B4, as .*p01.20200101 has'),
        (spoil_one_size, r'B4\.tif has 40 x 40 pixels; 12 x 12'),
        (spoil_type, r'B2\.tif has 1 band\(s\) of int16; one of uint16 was'),
        (spoil_all_sizes, r'B2\.tif has 24 x 24 pixels; 12 x 12'),
    ],
)
@pytest.mark.parametrize('count', [3, 40])
def test_an_odd_first_image_is_the_bad_one(spoil, message, count, tmp_path):
    for i in range(count):
        for name in ('B2', 'B4'):
            write(tmp_path / f'p{i:02}' / '20200101' / f'{name}.tif', band())
    if count == 40:
        # Neither the second nor any other place decides for all; nor does one without bands.
        spoil(tmp_path / 'p01' / '20200101')
        (tmp_path / 'p03' / '20200101' / 'B2.tif').write_text('')
        message = message.replace('p01', 'p04')
    spoil(tmp_path / 'p00' / '20200101')
    store = FolderStore(tmp_path)
    assert (store.bands, store.shape, store.dtype) == (('B2', 'B4'), (12, 12), np.uint16)
    for i in range(4, count) if count == 40 else range(1, count):
        assert (store.read(i, [0]) == 7).all()
    with pytest.raises(ValueError, match=rf'p00.20200101.{message}'):
        store.read(0, [0])


def test_of_two_that_differ_the_first_counts(tmp_path):
    write(tmp_path / 'a' / '20200101' / 'B4.tif', band(20))
    write(tmp_path / 'b' / '20200101' / 'B4.tif', band(12))
    assert FolderStore(tmp_path).shape == (20, 20)
    # Sizes that differ a little are no difference.
    for name, size in (('b', 21), ('c', 21), ('d', 22)):
        write(tmp_path / name / '20200101' / 'B4.tif', band(size))
    assert FolderStore(tmp_path).shape == (20, 20)


def test_few_images_are_opened(tmp_path, monkeypatch):
    for i in range(60):
        (tmp_path / f'p{i:02}' / '20200101').mkdir(parents=True)
    write(tmp_path / 'p59' / '20200101' / 'B4.tif', band())
    # It is none of those that vote.
    assert FolderStore(tmp_path).shape == (12, 12)
    for i in range(60):
        write(tmp_path / f'p{i:02}' / '20200101' / 'B4.tif', band())
    opened: list[Path] = []
    header = folder._header
    monkeypatch.setattr(folder, '_header', lambda path: opened.append(path) or header(path))
    FolderStore(tmp_path)
    assert len(opened) == 25


def test_data_types(tmp_path):
    write(tmp_path / 'a' / '20200101' / 'B4.tif', band())
    write(tmp_path / 'a' / '20200102' / 'B4.tif', band(dtype='uint8'))
    with pytest.raises(ValueError, match=r'B4\.tif has 1 band\(s\) of uint8; one of uint16 was'):
        FolderStore(tmp_path).read(0, [1])
    write(tmp_path / 'a' / '20200101' / 'B4.tif', band(dtype='float64'))
    with pytest.raises(ValueError, match=r'B4\.tif is float64, not one of uint8, uint16'):
        FolderStore(tmp_path)


def test_no_georeference_no_warning(tmp_path, recwarn):
    with FolderWriter(tmp_path, bands=('B4', 'B3'), shape=(4, 4)) as writer:
        writer.add('a', DAY, np.ones((1, 2, 4, 4), 'uint16'))
    with rasterio.Env(), pytest.warns(NotGeoreferencedWarning):
        rasterio.open(tmp_path / 'a' / '20200101' / 'B4.tif').close()
    recwarn.clear()
    store = FolderStore(tmp_path)
    store.read(0, [0])
    assert store.locations.geometry.tolist() == [None]
    assert not recwarn


def test_half_a_location_is_not_seen(tmp_path, monkeypatch):
    writer = FolderWriter(tmp_path, bands=('B4',), shape=(4, 4))
    writer.add('a', DAY, np.ones((1, 1, 4, 4), 'uint16'))
    monkeypatch.setattr(os, 'replace', lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        writer.add('b', DAY, np.ones((1, 1, 4, 4), 'uint16'))
    assert FolderStore(tmp_path).names == ('a',)


@pytest.mark.skipif('TORCHGEO_CACO_REAL_DATA' not in os.environ, reason='needs real images')
def test_real_images():
    store = FolderStore(Path(os.environ['TORCHGEO_CACO_REAL_DATA']) / 'seasonal_real')
    assert (len(store), store.shape, store.dtype) == (113, (64, 64), np.uint16)
    assert (store.counts.min(), store.counts.max()) == (7, 24)
    image = store.read(0, [0], ['B4', 'B3', 'B2'])[0]
    assert np.median(image) > 100
    inside = store.locations.geometry.dropna().bounds
    assert len(inside) > 50
    assert inside.minx.between(-180, 180).all()
    assert inside.miny.between(-90, 90).all()
