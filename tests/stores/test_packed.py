"""The packed store: its files, and what happens when they are not whole."""

import json
import pickle

import geopandas as gpd
import numpy as np
import pytest
from affine import Affine

from torchgeo_caco.stores import PackedStore, PackedWriter, open_store

TRANSFORM = Affine(10, 0, 500_000, 0, -10, 5_000_000)


def dates(count: int) -> np.ndarray:
    """As many days in a row."""
    return np.datetime64('2020-01-01') + np.arange(count)


@pytest.fixture
def root(tmp_path):
    """Places c, a, b of 3, 2, 4 dates in shards of 5 images; pixel = image of all, from 0."""
    root = tmp_path / 'packed'
    number = 0
    with PackedWriter(
        root, bands=('B4', 'B3'), shape=(3, 2), dtype='int16', nodata=-1, scale='reflectance',
        shard_images=5,
    ) as writer:  # fmt: skip
        for name, count in (('c', 3), ('a', 2), ('b', 4)):
            images = np.arange(number, number + count, dtype='int16').repeat(12)
            writer.add(
                name, dates(count), images.reshape(-1, 2, 3, 2), crs='EPSG:32631',
                transform=TRANSFORM,
            )  # fmt: skip
            number += count
    return root


def test_files_can_be_read_without_this_package(root):
    shards = [np.load(path) for path in sorted(root.glob('images-*.npy'))]
    assert [shard.shape for shard in shards] == [(5, 2, 3, 2), (4, 2, 3, 2)]
    index = gpd.read_parquet(root / 'index.parquet')
    assert index.crs == 'EPSG:4326'
    assert index.location.tolist() == list('aabbbbccc')
    assert index.shard.tolist() == [0, 0, 1, 1, 1, 1, 0, 0, 0]
    assert index.row.tolist() == [3, 4, 0, 1, 2, 3, 0, 1, 2]
    assert index.date.dt.day.tolist() == [1, 2, 1, 2, 3, 4, 1, 2, 3]
    assert list(index['transform'][0]) == list(TRANSFORM)[:6]
    assert index.geometry.is_valid.all()
    assert {path.name for path in root.iterdir()} == {
        'images-00000.npy', 'images-00001.npy', 'index.parquet', 'meta.json'
    }  # fmt: skip


def test_a_batch_from_several_shards(root):
    store = PackedStore(root)
    assert (store.scale, store.nodata) == ('reflectance', -1)
    batch = store.read_batch(np.array([1, 0, 2]), np.array([[3, 0], [1, 1], [2, 0]]))
    assert batch[:, :, 1, 2, 1].tolist() == [[8, 5], [4, 4], [2, 0]]


def test_locations_that_outgrow_a_shard_stay_whole(tmp_path):
    with PackedWriter(
        tmp_path, bands=('B4',), shape=(1, 1), dtype='uint8', shard_images=2
    ) as writer:
        for name, count in (('a', 1), ('b', 5), ('c', 2)):
            writer.add(name, dates(count), np.arange(count, dtype='uint8').reshape(-1, 1, 1, 1))
    assert gpd.read_parquet(tmp_path / 'index.parquet').shard.tolist() == [0, *[1] * 5, 2, 2]
    assert PackedStore(tmp_path).read(1, range(5)).ravel().tolist() == list(range(5))


def test_pickles_small_and_opens_again(root):
    store = PackedStore(root)
    store.read(0, [0])
    data = pickle.dumps(store)
    assert len(data) < 500
    assert pickle.loads(data).read(2, [1])[0, 0, 0, 0] == 1


def test_an_interrupted_store_does_not_open(tmp_path):
    with (
        pytest.raises(KeyboardInterrupt),
        PackedWriter(tmp_path, bands=('B4',), shape=(1, 1), dtype='uint8') as writer,
    ):
        writer.add('a', dates(1), np.ones((1, 1, 1, 1), 'uint8'))
        raise KeyboardInterrupt
    with pytest.raises(ValueError, match='unfinished'):
        open_store(tmp_path)
    with pytest.raises(FileNotFoundError, match=r'meta\.json is missing'):
        PackedStore(tmp_path)


@pytest.mark.parametrize('text', ['', '[]', '{"format": "zarr"}'])
def test_another_meta(root, text):
    (root / 'meta.json').write_text(text)
    with pytest.raises(ValueError, match=r'meta\.json is no torchgeo_caco\.PackedStore'):
        PackedStore(root)


def test_another_version(root):
    meta = json.loads((root / 'meta.json').read_text())
    (root / 'meta.json').write_text(json.dumps({**meta, 'version': 99}))
    with pytest.raises(ValueError, match=r'version 99; .* version 1 was expected'):
        PackedStore(root)


def test_damaged_index(root):
    path = root / 'index.parquet'
    index = gpd.read_parquet(path)
    for wrong in (index[:-1], index[::-1], index.assign(date=index.date[::-1].to_numpy())):
        wrong.to_parquet(path)
        with pytest.raises(ValueError, match=r'must have 9 rows .*, sorted by location and date'):
            PackedStore(root)
    path.write_bytes(b'PAR1')
    with pytest.raises(ValueError, match='no readable index'):
        PackedStore(root)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r'index\.parquet is missing'):
        PackedStore(root)


def test_damaged_shard(root):
    path = root / 'images-00001.npy'
    whole = path.read_bytes()
    store = PackedStore(root)
    path.write_bytes(whole[:-4])
    with pytest.raises(ValueError, match=r'images-00001\.npy cannot be read'):
        store.read(1, [0])
    np.save(path, np.load(root / 'images-00000.npy'))
    with pytest.raises(ValueError, match=r'holds int16 of shape \(5, 2, 3, 2\)'):
        store.read(1, [0])
    assert store.read(0, [0]).shape == (1, 2, 3, 2)
