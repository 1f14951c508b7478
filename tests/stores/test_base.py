"""What holds for every store."""

import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from torchgeo_caco.stores import (
    FolderStore,
    FolderWriter,
    PackedStore,
    PackedWriter,
    SeasonalStore,
    canonical_band,
    open_store,
)

WRITERS = {'folder': FolderWriter, 'packed': PackedWriter}
LONDON = ('EPSG:32630', Affine(10, 0, 699_000, 0, -10, 5_710_000))


@pytest.fixture(params=list(WRITERS))
def store(request, tmp_path) -> SeasonalStore:
    """Two places of four and two dates, written in no order; pixel = 1000 l + 100 t + 10 band."""
    root = tmp_path / 'store'
    with WRITERS[request.param](root, bands=('B2', 'B3', 'B4'), shape=(5, 6), nodata=0) as writer:
        for number, name, days in ((1, 'b', (9, 3)), (0, 'a', (7, 1, 5, 3))):
            rank = np.argsort(np.argsort(days))
            pixels = 1000 * number + 100 * rank[:, None] + 10 * np.arange(1, 4)
            images = np.broadcast_to(pixels[..., None, None], (len(days), 3, 5, 6))
            dates = np.datetime64('2020-01-01') + np.array(days, 'timedelta64[D]')
            crs, transform = LONDON if name == 'b' else (None, None)
            writer.add(name, dates, images.astype('uint16'), crs=crs, transform=transform)
    return open_store(root)


def test_facts(store):
    assert store.names == ('a', 'b')
    assert len(store) == 2
    assert store.counts.tolist() == [4, 2]
    assert store.bands == ('B2', 'B3', 'B4')
    assert (store.dtype, store.shape, store.nodata) == (np.uint16, (5, 6), 0)
    assert store.dates(0).astype(str).tolist() == [f'2020-01-0{d}' for d in (2, 4, 6, 8)]


def test_reads_in_chronological_order_any_bands(store):
    assert store.read(0, range(4))[..., 0, 0].tolist() == [
        [100 * t + b for b in (10, 20, 30)] for t in range(4)
    ]
    batch = store.read_batch(np.array([1, 0, 1]), np.array([[1], [3], [1]]), ['B04', 'B2'])
    assert batch.shape == (3, 1, 2, 5, 6)
    assert batch[:, 0, :, 4, 5].tolist() == [[1130, 1110], [330, 310], [1130, 1110]]


def test_reads_into_an_array(store):
    out = np.zeros((1, 2, 3, 5, 6), 'uint16')
    assert store.read_batch(np.array([0]), np.array([[0, 2]]), out=out) is out
    assert out[0, :, 0, 0, 0].tolist() == [10, 210]
    with pytest.raises(ValueError, match=r'uint16 array of shape \(1, 1, 3, 5, 6\)'):
        store.read_batch(np.array([0]), np.array([[0]]), out=out)


def test_locations(store):
    frame = store.locations
    assert frame.location.tolist() == ['a', 'b']
    assert frame.dates.tolist() == [4, 2]
    assert frame.crs == 'EPSG:4326'
    assert frame.geometry[0] is None
    point = frame.geometry[1].centroid
    assert (point.x, point.y) == pytest.approx((-0.133, 51.5), abs=0.01)
    metres = frame.geometry[1:].to_crs('EPSG:32630').area
    assert metres.iloc[0] == pytest.approx(50 * 60, rel=1e-3)


def test_wrong_requests(store):
    with pytest.raises(ValueError, match='no band B8; it has B2, B3, B4'):
        store.read(0, [0], ['B8'])
    with pytest.raises(IndexError, match='a has dates 0 to 3, not 4'):
        store.read(0, [4])
    with pytest.raises(IndexError, match='b has dates 0 to 1, not -1'):
        store.read_batch(np.array([0, 1]), np.array([[0], [-1]]))
    with pytest.raises(IndexError, match='locations 0 to 1, not 2'):
        store.read(2, [0])


def test_pickle(store):
    before = store.read(1, [0, 1])
    again = pickle.loads(pickle.dumps(store))
    assert np.array_equal(again.read(1, [0, 1]), before)


@pytest.mark.parametrize('layout', list(WRITERS))
def test_writers_refuse(layout, tmp_path):
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'notes.txt').touch()
    writer = WRITERS[layout]
    with pytest.raises(FileExistsError, match='full exists and is not empty'):
        writer(tmp_path / 'full', bands=('B4',), shape=(2, 2))
    with pytest.raises(ValueError, match='one of uint8, uint16, int16, float32, not float64'):
        writer(tmp_path / 'x', bands=('B4',), shape=(2, 2), dtype='float64')
    with pytest.raises(ValueError, match='named twice in B4, B04'):
        writer(tmp_path / 'x', bands=('B4', 'B04'), shape=(2, 2))
    with (
        pytest.raises(ValueError, match='no location was added'),
        writer(tmp_path / 'x', bands=('B4',), shape=(2, 2)),
    ):
        pass


@pytest.mark.parametrize('layout', list(WRITERS))
def test_writers_refuse_locations(layout, tmp_path):
    day, image = np.array(['2020-01-01'], 'datetime64[D]'), np.ones((1, 1, 2, 2), 'uint16')
    with WRITERS[layout](tmp_path / 'x', bands=('B4',), shape=(2, 2)) as writer:
        writer.add('a', day, image)
        for name in ('a', '', '.b', 'b/c'):
            with pytest.raises(ValueError, match='there already or no name'):
                writer.add(name, day, image)
        for wrong in (image[0], image.astype('uint8'), image[:0], image[..., :1]):
            with pytest.raises(ValueError, match=r'must be uint16 of shape \(1, 1, 2, 2\)'):
                writer.add('b', day, wrong)
    assert open_store(tmp_path / 'x').names == ('a',)


@settings(max_examples=15, deadline=None)
@given(
    layout=st.sampled_from(list(WRITERS)),
    dtype=st.sampled_from(['uint8', 'uint16', 'int16', 'float32']),
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    bands=st.lists(st.sampled_from(['B2', 'B03', 'B8A', 'B11', 'VV']), min_size=1, unique=True),
    days=st.dictionaries(
        st.text('abcxyz019_-', min_size=1),
        st.lists(st.integers(0, 30), min_size=1, max_size=4),
        min_size=1,
        max_size=4,
    ),
    shard_images=st.integers(1, 6),
)
def test_round_trip(layout, dtype, size, bands, days, shard_images):
    """What is written is read, whatever the order of locations and dates."""
    random = np.random.default_rng(0)
    extra = {'shard_images': shard_images} if layout == 'packed' else {}
    written = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / 'store'
        with WRITERS[layout](
            root, bands=bands, shape=size, dtype=dtype, nodata=None, **extra
        ) as writer:
            for name, offsets in days.items():
                dates = np.datetime64('2019-12-20') + np.array(offsets, 'timedelta64[D]')
                images = random.integers(0, 127, (len(dates), len(bands), *size)).astype(dtype)
                writer.add(name, dates, images)
                order = np.argsort(dates, kind='stable')
                written[name] = dates[order], images[order]
        store = open_store(root)
        assert isinstance(store, FolderStore if layout == 'folder' else PackedStore)
        assert store.names == tuple(sorted(days))
        assert (store.dtype, store.shape, store.nodata) == (dtype, size, None)
        for i, name in enumerate(store.names):
            dates, images = written[name]
            assert np.array_equal(store.dates(i), dates)
            assert np.array_equal(store.read(i, range(len(dates)), bands), images)


@pytest.mark.parametrize(
    ('name', 'short'),
    [
        ('B4', 'B4'), ('B04', 'B4'), ('b04', 'B4'), ('B12', 'B12'), ('B8A', 'B8A'),
        ('B08A', 'B8A'), ('b8a', 'B8A'), ('VV', 'VV'), ('Blue', 'Blue'), ('B', 'B'), ('', ''),
    ],
)  # fmt: skip
def test_canonical_band(name, short):
    assert canonical_band(name) == short


def test_open_store_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'nowhere is no folder.*<location>/<date>/<band>'):
        open_store(tmp_path / 'nowhere')
    with pytest.raises(FileNotFoundError, match='has no location'):
        open_store(tmp_path)
    (tmp_path / 'images-00000.npy').touch()
    with pytest.raises(ValueError, match=r'unfinished packed store, without meta\.json'):
        open_store(tmp_path)
