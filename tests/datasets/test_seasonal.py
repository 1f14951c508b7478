"""Samples of periods and seasons."""

import logging
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from torch.utils.data import DataLoader, Subset
from torchgeo.datasets import DatasetNotFoundError, RGBBandsMissingError

from torchgeo_caco.datasets import SeasonalTemporalDataset, collate
from torchgeo_caco.datasets.replacing import find_empty
from torchgeo_caco.stores import FolderWriter, PackedWriter

BANDS = ('B2', 'B3', 'B4', 'B8')
COUNTS = {'p0': 8, 'p1': 7, 'p2': 12, 'p3': 9, 'p4': 10}
WRITERS = {'folder': FolderWriter, 'packed': PackedWriter}


def write(root: Path, layout: str = 'packed', dtype: str = 'uint16', **extra: int) -> Path:
    """Five places of 7 to 12 dates, one every 100 days; pixel = 1000 place + 10 date + band."""
    with WRITERS[layout](root, bands=BANDS, shape=(4, 5), dtype=dtype, **extra) as writer:
        for place, (name, count) in enumerate(COUNTS.items()):
            dates = np.datetime64('2016-01-01') + 100 * np.arange(count)
            pixels = 1000 * place + 10 * np.arange(count)[:, None] + np.arange(4)
            images = np.broadcast_to(pixels[..., None, None], (count, 4, 4, 5))
            writer.add(name, dates, images.astype(dtype))
    return root


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    """A packed store."""
    return write(tmp_path_factory.mktemp('packed'))


@pytest.mark.parametrize('layout', list(WRITERS))
def test_sample(layout, tmp_path):
    dataset = SeasonalTemporalDataset(write(tmp_path / 's', layout), bands=('B04', 'B2'))
    assert dataset.location_names == ('p0', 'p2', 'p3', 'p4')  # p1 has 5 + 2 dates
    assert len(dataset) == 4
    for index, place in enumerate((0, 2, 3, 4)):
        sample = dataset[index]
        image, dates = sample['image'], sample['dates']
        assert (image.shape, image.dtype) == ((2, 3, 2, 4, 5), torch.uint16)
        assert (dates.shape, dates.dtype) == ((2, 3), torch.int64)
        assert (sample['index'].item(), sample['index'].dtype) == (index, torch.int64)
        # What is shown is what the dates say, of the right place and bands.
        days = dates.numpy().astype('datetime64[D]')
        times = (days - np.datetime64('2016-01-01')).astype(int) // 100
        assert image[..., 0, 0, 0].tolist() == (1000 * place + 10 * times + 2).tolist()
        assert image[..., 1, 3, 4].tolist() == (1000 * place + 10 * times).tolist()
        count = len(dataset.dates_of(index))
        assert (times[0] < count - 5).all()
        assert (times[1] >= count - 5).all()
        assert len(np.unique(times)) == 6


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'int16', 'float32'])
def test_keeps_the_stores_data_type(dtype, tmp_path):
    dataset = SeasonalTemporalDataset(write(tmp_path / 's', dtype=dtype))
    assert dataset[0]['image'].dtype == getattr(torch, dtype)


def test_one_period_with_replacement(root):
    # As published SeCo and TeCo draw.
    dataset = SeasonalTemporalDataset(root, periods=1, replacement=True)
    assert len(dataset) == 5
    draws = dataset.draw(np.full(500, 1), np.arange(500))
    assert draws.shape == (500, 1, 3)
    assert set(draws.ravel()) == set(range(7))
    assert any(len(set(draw[0])) < 3 for draw in draws)
    assert dataset[1]['image'].shape == (1, 3, 3, 4, 5)


def test_flatten_is_torchgeos_time_and_channels(root):
    shaped, flat = (SeasonalTemporalDataset(root, flatten=f, seed=3) for f in (False, True))
    for dataset in (shaped, flat):
        dataset.set_epoch(0)
    image = flat[2]['image']
    assert image.shape == (18, 4, 5)
    assert torch.equal(image, shaped[2]['image'].reshape(18, 4, 5))


def test_single_images(root):
    dataset = SeasonalTemporalDataset(root, bands=('B4',), sample='image', flatten=True)
    assert len(dataset) == sum(COUNTS.values())
    assert dataset.location_names == tuple(COUNTS)
    pixels = [(s['index'].item(), s['image'].shape, int(s['image'][0, 0, 0])) for s in dataset]
    expected = [
        (place, (1, 4, 5), 1000 * place + 10 * time + 2)
        for place, count in enumerate(COUNTS.values())
        for time in range(count)
    ]
    assert pixels == expected
    assert SeasonalTemporalDataset(root, sample='image')[0]['image'].shape == (1, 1, 3, 4, 5)


def test_draws_depend_on_seed_epoch_and_location_only(root):
    dataset = SeasonalTemporalDataset(root, seed=5)
    every = np.arange(4)
    draws = dataset.draw(every, 7)
    assert np.array_equal(SeasonalTemporalDataset(root, seed=5).draw(every, 7), draws)
    assert np.array_equal(dataset.draw(every[::-1], 7)[::-1], draws)
    assert np.array_equal(dataset.draw(every[2:3], 7), draws[2:3])
    many = np.tile(every, 50)
    epochs = np.repeat(np.arange(50), 4)
    several = dataset.draw(many, epochs)
    assert np.array_equal(several[28:32], draws)
    for other in (
        dataset.draw(many, epochs + 50),
        SeasonalTemporalDataset(root).draw(many, epochs),
    ):
        assert (several != other).any((1, 2)).mean() > 0.9


def test_the_first_date_is_any_date(root):
    dataset = SeasonalTemporalDataset(root)
    first = dataset.draw(np.full(300, 1), np.arange(300))[:, :, 0]
    assert set(first[:, 0]) == set(range(7))
    assert set(first[:, 1]) == set(range(7, 12))


def dates_of_an_epoch(loader: DataLoader) -> torch.Tensor:
    """Dates of all samples in the order of their locations."""
    batches = list(loader)
    order = torch.cat([batch['index'] for batch in batches]).argsort()
    return torch.cat([batch['dates'] for batch in batches])[order]


@pytest.mark.parametrize('workers', [0, 2])
def test_epoch_reaches_persistent_workers(root, workers):
    dataset = SeasonalTemporalDataset(root, split='2017-01-01')
    loader = DataLoader(
        dataset, batch_size=2, shuffle=True, num_workers=workers, collate_fn=collate,
        persistent_workers=workers > 0,
    )  # fmt: skip
    seen = []
    for epoch in (0, 1, 0):
        dataset.set_epoch(epoch)
        seen.append(dates_of_an_epoch(loader))
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[1])
    times = dataset.draw(np.arange(len(dataset)), 0)
    expected = [dataset.dates_of(i)[t].astype(np.int64) for i, t in enumerate(times)]
    assert seen[0].tolist() == np.stack(expected).tolist()


@pytest.mark.parametrize('workers', [0, 1])
def test_a_plain_loader_shows_new_dates_every_epoch(root, workers):
    dataset = SeasonalTemporalDataset(root)
    runs = []
    for _ in range(2):
        torch.manual_seed(0)
        loader = DataLoader(dataset, batch_size=2, num_workers=workers)
        runs.append([dates_of_an_epoch(loader) for _ in range(3)])
    first, again = runs
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[1], first[2])
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def tell_memory(samples):
    """A batch, and whether it already lay in shared memory."""
    return {'shared': samples[0]['image'].is_shared(), **collate(samples)}


@pytest.mark.parametrize(
    ('layout', 'workers', 'method'),
    [
        ('folder', 0, None), ('folder', 2, 'fork'), ('packed', 0, None), ('packed', 2, 'fork'),
        ('packed', 1, 'spawn'),
    ],
)  # fmt: skip
def test_workers_of_any_kind_give_the_same(tmp_path, layout, workers, method):
    extra = {'shard_images': 12} if layout == 'packed' else {}
    dataset = SeasonalTemporalDataset(write(tmp_path / 's', layout, **extra))
    dataset.set_epoch(3)
    # A spawned worker does not know this module.
    how = collate if method == 'spawn' else tell_memory
    loader = DataLoader(
        dataset, batch_size=2, num_workers=workers, collate_fn=how, multiprocessing_context=method
    )
    batches = list(loader)
    assert [batch['index'].tolist() for batch in batches] == [[0, 1], [2, 3]]
    for batch in batches:
        assert batch.get('shared', True) == (workers > 0)
        assert batch['image'].dtype == torch.uint16
        whole = torch.stack([dataset[int(i)]['image'] for i in batch['index']])
        assert torch.equal(batch['image'], whole)


def test_unset_epoch_draws_anew_for_a_location_that_comes_twice(root):
    torch.manual_seed(0)
    samples = SeasonalTemporalDataset(root).__getitems__([1] * 20)
    assert len({tuple(sample['dates'].ravel().tolist()) for sample in samples}) > 15


def test_collate_copies_nothing(root):
    dataset = SeasonalTemporalDataset(root)
    samples = dataset.__getitems__([3, 0, 2])
    batch = collate(samples)
    assert {key: value.shape for key, value in batch.items()} == {
        'image': (3, 2, 3, 3, 4, 5), 'index': (3,), 'dates': (3, 2, 3)
    }  # fmt: skip
    for key, value in batch.items():
        assert value.data_ptr() == samples[0][key].data_ptr()
        assert all(torch.equal(v, s[key]) for v, s in zip(value, samples, strict=True))
    later = collate(samples[1:])
    assert later['image'].data_ptr() == samples[1]['image'].data_ptr()
    assert later['index'].tolist() == [0, 2]


@pytest.mark.parametrize(
    'rearrange',
    [
        lambda s: s[::-1],
        lambda s: s[::2],
        lambda s: [s[0], s[0], s[1]],
        lambda s: [{k: v.clone() for k, v in x.items()} for x in s],
        lambda s: [{**x, 'image': x['image'].transpose(-1, -2)} for x in s],
        lambda s: [{**x, 'image': x['image'][..., :2]} for x in s],
        lambda s: [s[0], {**s[1], 'image': s[1]['image'].view(torch.int16)}][:1],
    ],
)
def test_collate_stacks_what_is_not_one_tensor(root, rearrange):
    samples = rearrange(SeasonalTemporalDataset(root).__getitems__([0, 1, 2]))
    batch = collate(samples)
    for key in batch:
        assert torch.equal(batch[key], torch.stack([sample[key] for sample in samples]))


def test_pickles(root):
    dataset = SeasonalTemporalDataset(root)
    dataset.set_epoch(4)
    again = pickle.loads(pickle.dumps(dataset))
    assert again.location_names == dataset.location_names
    assert torch.equal(again[2]['dates'], dataset[2]['dates'])


def test_transforms_see_each_sample(root):
    dataset = SeasonalTemporalDataset(
        root, transforms=lambda s: {'image': s['image'].float() / 10, 'twice': 2 * s['index']}
    )
    batch = next(iter(DataLoader(Subset(dataset, [3, 1]), batch_size=2, collate_fn=collate)))
    assert batch['twice'].tolist() == [6, 2]
    assert batch['image'].dtype == torch.float32


def test_locations_without_a_date_are_counted(tmp_path, caplog):
    root = write(tmp_path / 's', 'folder')
    for name in ('empty', 'odd/Jan2016', '.hidden', 'p9.partial', '__MACOSX', 'notes'):
        (root / name).mkdir(parents=True)
    (root / 'odd' / 'Jan2016' / 'B4.tif').touch()
    (root / 'notes' / 'readme.txt').touch()
    (root / 'empty' / '.DS_Store').touch()
    dataset = SeasonalTemporalDataset(root, seasons=2)
    assert dataset.skipped == ('empty', 'odd')
    assert dataset.location_names == dataset.store.names == tuple(COUNTS)
    assert [record.getMessage() for record in caplog.records] == [
        f'{root}: 2 of 7 locations skipped: fewer than 2 dates in a period, e.g. empty'
    ]
    with pytest.raises(ValueError, match=r'2 of 7 locations cannot be used: .*, e\.g\. empty\.'):
        SeasonalTemporalDataset(root, seasons=2, on_bad_location='raise')
    with pytest.raises(ValueError, match='2 of 7 locations cannot be used: no date, e'):
        SeasonalTemporalDataset(root, sample='image', on_bad_location='raise')
    assert SeasonalTemporalDataset(root).skipped == ('empty', 'odd', 'p1')


def test_too_few_dates(root, caplog):
    with caplog.at_level(logging.WARNING):
        SeasonalTemporalDataset(root, split='2017-01-01')
    assert not caplog.records
    caplog.clear()
    SeasonalTemporalDataset(root, seasons=4)
    assert [record.getMessage() for record in caplog.records] == [
        f'{root}: 2 of 5 locations skipped: fewer than 4 dates in a period, e.g. p0'
    ]
    with pytest.raises(ValueError, match='1 of 5 locations cannot be used: fewer than 3 dates'):
        SeasonalTemporalDataset(root, on_bad_location='raise')
    with pytest.raises(ValueError, match=r'5 of 5 locations cannot be used: .* e\.g\. p0\.'):
        SeasonalTemporalDataset(root, seasons=6)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'bands': ('B4', 'B5')}, 'no band B5; it has B2, B3, B4, B8'),
        ({'periods': 3}, 'periods must be 1 or 2'),
        ({'seasons': 0}, 'seasons at least 1'),
        ({'split': 'oldest'}, 'split must be'),
        ({'sample': 'pixel'}, "sample must be 'location' or 'image', not 'pixel'"),
        ({'on_bad_location': 'ignore'}, "on_bad_location must be 'skip' or 'raise'"),
    ],
)
def test_wrong_arguments(root, arguments, message):
    with pytest.raises(ValueError, match=message):
        SeasonalTemporalDataset(root, **arguments)


def test_wrong_indices_and_epochs(root):
    dataset = SeasonalTemporalDataset(root)
    assert dataset[-1]['index'] == 3
    for index in (4, -5):
        with pytest.raises(IndexError, match='samples 0 to 3'):
            dataset[index]
    with pytest.raises(ValueError, match='must not be negative: -1'):
        dataset.set_epoch(-1)


def test_no_dataset(tmp_path):
    with pytest.raises(DatasetNotFoundError, match=r'^.*nowhere is no folder; one with <location>'):
        SeasonalTemporalDataset(tmp_path / 'nowhere')
    with pytest.raises(DatasetNotFoundError, match='has no location; <location>/<date>/<band>'):
        SeasonalTemporalDataset(tmp_path)


@pytest.mark.parametrize('flatten', [False, True])
@pytest.mark.parametrize('sample', ['location', 'image'])
def test_plot(root, flatten, sample):
    dataset = SeasonalTemporalDataset(root, sample=sample, flatten=flatten, bands=BANDS)
    item = dataset[0]
    figure = dataset.plot(item, suptitle='Somewhere')
    days = [str(np.datetime64(d, 'D')) for d in item['dates'].ravel().tolist()]
    assert [axis.get_title() for axis in figure.axes] == days
    assert figure.get_suptitle() == 'Somewhere'
    labels = [axis.get_ylabel() for axis in figure.axes]
    assert labels == (['period 0', '', '', 'period 1', '', ''] if sample == 'location' else [''])
    assert not any(axis.get_title() for axis in dataset.plot(item, show_titles=False).axes)
    plt.close('all')


def test_plot_has_one_stretch_and_shows_red_green_blue(root):
    dataset = SeasonalTemporalDataset(root, bands=('B2', 'B3', 'B4'))
    sample = dataset[1]
    ramp = torch.linspace(100, 3000, 6 * 20).reshape(2, 3, 1, 4, 5)
    sample['image'] = torch.cat([0 * ramp + 5, ramp.flip(0), ramp], 2)
    figure = dataset.plot(sample)
    shown = np.stack([axis.images[0].get_array() for axis in figure.axes])
    assert shown.shape == (6, 4, 5, 3)
    assert (np.diff(shown[..., 0].ravel()) >= 0).all()
    assert (shown[..., 0].min(), shown[..., 0].max()) == (0, 1)
    assert shown[:3, ..., 0].max() < 0.5 < shown[:3, ..., 1].min() + 0.01
    assert not shown[..., 2].any()
    plt.close('all')


def test_plot_of_other_bands(root):
    dataset = SeasonalTemporalDataset(root, bands=('B8', 'B3', 'B2'))
    with pytest.raises(RGBBandsMissingError):
        dataset.plot(dataset[0])


def test_plot_of_nothing_but_nodata(root):
    dataset = SeasonalTemporalDataset(root)
    sample = dataset[0]
    sample['image'] = torch.zeros_like(sample['image'])
    figure = dataset.plot(sample)
    assert not np.stack([axis.images[0].get_array() for axis in figure.axes]).any()
    plt.close('all')


def test_a_location_that_cannot_be_read_is_replaced(tmp_path, caplog):
    root = write(tmp_path / 's', 'folder')
    shutil.rmtree(root / 'p1')  # has too few dates
    for path in (root / 'p2').rglob('B4.tif'):
        path.unlink()
    with pytest.raises(ValueError, match=r'p2.\d+.B4\.tif is missing'):
        SeasonalTemporalDataset(root, on_bad_location='raise').__getitems__([1, 2])
    dataset = SeasonalTemporalDataset(root)
    assert dataset.replaced == ()
    chosen = set()
    for epoch in range(6):
        dataset.set_epoch(epoch)
        samples = dataset.__getitems__([3, 1, 0])
        alone = dataset[1]
        assert all(torch.equal(alone[key], samples[1][key]) for key in alone)
        assert torch.equal(samples[0]['image'], dataset[3]['image'])
        assert [samples[i]['index'].item() for i in (0, 2)] == [3, 0]
        place = alone['index'].item()
        assert (alone['image'].numpy() // 1000 == (0, 2, 3, 4)[place]).all()
        chosen.add(place)
    assert len(chosen) > 1
    assert 1 not in chosen
    assert dataset.replaced == ('p2',)
    said = [r.getMessage() for r in caplog.records if 'takes its place' in r.getMessage()]
    assert len(said) == 1
    images = SeasonalTemporalDataset(root, sample='image', on_bad_location='skip')
    assert images[15]['index'].item() != 1


@pytest.mark.parametrize('nodata', [0.0, 7.0, float('nan')])
def test_images_without_data_are_found(nodata):
    images = np.full((3, 2, 2, 20, 20), nodata, 'float32')
    assert find_empty(images, nodata) == (0, 0)
    images[:, :, 1, 3, 3] = 1
    assert find_empty(images, nodata) is None
    images[2, 1] = nodata
    assert find_empty(images, nodata) == (2, 1)
    # NaN is no data, whatever else is.
    images[2, 1] = np.nan
    assert find_empty(images, nodata) == find_empty(images, None) == (2, 1)
    images[2, 1, 0, 0, 0] = 0 if np.isnan(nodata) else nodata
    assert find_empty(images, nodata) == (None if np.isnan(nodata) else (2, 1))
    assert find_empty(images, None) is None
    assert find_empty(np.zeros((1, 1, 1, 4, 4), 'uint8'), None) is None


@pytest.mark.parametrize('layout', list(WRITERS))
def test_what_is_nodata_if_the_store_says_none(layout, tmp_path):
    dates = np.datetime64('2016-01-01') + 100 * np.arange(10)
    for dtype, values in (('uint8', (0, 255, 9)), ('float32', (0, np.nan, 9))):
        root = tmp_path / dtype
        with WRITERS[layout](root, ('B2', 'B3', 'B4'), (4, 4), dtype, nodata=None) as writer:
            for name, value in zip('abc', values, strict=True):
                writer.add(name, dates, np.full((10, 3, 4, 4), value, dtype))

    def bad(dtype: str, **arguments: float | None) -> list[str]:
        arguments |= {'on_bad_location': 'raise'}
        dataset = SeasonalTemporalDataset(tmp_path / dtype, **arguments)
        found = []
        for i, name in enumerate('abc'):
            try:
                dataset[i]
            except ValueError as error:
                said = str(error).partition('nothing but nodata ')[2]
                found.append(name + said.partition(';')[0])
        return found

    assert bad('uint8') == bad('uint8', nodata=0) == ['a(0)']
    assert bad('uint8', nodata=255) == ['b(255)']
    assert bad('uint8', nodata=None) == []
    assert bad('float32') == ['a(0)', 'b(nan)']
    assert bad('float32', nodata=9) == ['b(nan)', 'c(9)']
    assert bad('float32', nodata=None) == ['b(nan)']
    # What the store says holds.
    with WRITERS[layout](tmp_path / 's', ('B2', 'B3', 'B4'), (4, 4), 'uint8', nodata=9) as writer:
        for name, value in zip('abc', (0, 255, 9), strict=True):
            writer.add(name, dates, np.full((10, 3, 4, 4), value, 'uint8'))
    assert bad('s', nodata=255) == ['c(9)']


@pytest.mark.skipif('TORCHGEO_CACO_REAL_DATA' not in os.environ, reason='needs real images')
def test_real_images(caplog):
    root = Path(os.environ['TORCHGEO_CACO_REAL_DATA']) / 'seasonal_real'
    dataset = SeasonalTemporalDataset(root)
    assert len(dataset) == 112
    assert '1 of 113 locations skipped' in caplog.text
    batch = next(iter(DataLoader(dataset, batch_size=8, collate_fn=collate)))
    assert batch['image'].shape == (8, 2, 3, 3, 64, 64)
    assert (batch['dates'][:, 0].amax(1) < batch['dates'][:, 1].amin(1)).all()
