"""From any store to a packed one: whole or not at all, and equal to its source."""

import multiprocessing
import os
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
from affine import Affine
from filelock import FileLock
from rasterio.crs import CRS

from torchgeo_caco.cli import main
from torchgeo_caco.datasets import SeasonalTemporalDataset
from torchgeo_caco.stores import (
    FolderStore,
    FolderWriter,
    PackedStore,
    PackedWriter,
    open_store,
    pack,
    packing,
    verify,
)

TRANSFORM = Affine(10, 0, 500_000, 0, -10, 5_000_000)
#: Bytes of 20 images of the source below: two or three locations.
SHARD = 20 * 3 * 6 * 7 * 2
fork = multiprocessing.get_context('fork')


@pytest.fixture(scope='module')
def source(tmp_path_factory) -> Path:
    """Ten places of 6 to 8 dates in the folder layout, the last one without a georeference."""
    root = tmp_path_factory.mktemp('source') / 'folder'
    rng = np.random.default_rng(0)
    with FolderWriter(root, ('B2', 'B3', 'B4'), (6, 7), 'uint16', nodata=0) as writer:
        for n in range(10):
            count = 6 + n % 3
            days = np.datetime64('2016-01-01') + (200 * np.arange(count) + n).astype('m8[D]')
            images = rng.integers(1, 9999, (count, 3, 6, 7)).astype('uint16')
            place = {} if n == 9 else {'crs': 'EPSG:32631', 'transform': TRANSFORM}
            writer.add(f'p{n}', days, images, **place)
    return root


class Watched(FolderStore):
    """Tells which locations are read, before they are."""

    def __init__(self, root: Path, tell: Callable[[int], Any]) -> None:
        super().__init__(root)
        self.tell = tell

    def read(self, location, times, bands=None):
        self.tell(location)
        return super().read(location, times, bands)


def assert_equal(packed: PackedStore, source: FolderStore) -> None:
    """Names, dates, pixels and places are the source's."""
    assert packed.names == source.names
    assert (packed.bands, packed.dtype, packed.shape) == (source.bands, source.dtype, source.shape)
    for i in range(len(source)):
        times = range(source.counts[i])
        assert np.array_equal(packed.dates(i), source.dates(i))
        assert np.array_equal(packed.read(i, times), source.read(i, times))
        assert packed.places(i) == source.places(i)


@pytest.mark.parametrize('workers', [0, 2])
def test_everything_arrives(source, tmp_path, workers):
    packed = pack(open_store(source), tmp_path / 'p', workers=workers, shard_bytes=SHARD)
    assert packed.sizes == [13, 14, 15, 13, 14]
    assert_equal(packed, FolderStore(source))
    verify(FolderStore(source), packed, workers)
    index = gpd.read_parquet(tmp_path / 'p' / 'index.parquet')
    assert index.crs == 'EPSG:4326'
    assert index.location.is_monotonic_increasing
    assert set(index['crs'].dropna()) == {'EPSG:32631'}
    assert index.geometry[index.location == 'p9'].isna().all()
    assert index.geometry[index.location != 'p9'].is_valid.all()
    assert {path.name for path in (tmp_path / 'p').iterdir()} == {
        'meta.json', 'index.parquet', *(f'images-0000{i}.npy' for i in range(5))
    }  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ['p']
    assert len(SeasonalTemporalDataset(tmp_path / 'p', seasons=1)) == 10


def test_cropped_images_lie_where_they_are(source, tmp_path):
    store = FolderStore(source, size=4)
    assert store.places(0)[0] == ('EPSG:32631', TRANSFORM @ Affine.translation(1, 1))
    assert FolderStore(source, size=8).places(0)[0][1] == TRANSFORM @ Affine.translation(0, -1)
    packed = pack(store, tmp_path / 'p', bands=('B04', 'B2'))
    assert packed.bands == ('B4', 'B2')
    verify(store, packed)
    assert packed.places(3) == store.places(3)
    # And a packed store is a source as any other.
    again = pack(packed, tmp_path / 'q')
    verify(packed, again)
    verify(store, again)


def test_refuses_to_overwrite(source, tmp_path):
    store = FolderStore(source)
    pack(store, tmp_path / 'p')
    (tmp_path / 'notes').mkdir()
    (tmp_path / 'notes' / 'a.txt').touch()
    (tmp_path / 'file').touch()
    for name in ('p', 'notes', 'file'):
        with pytest.raises(FileExistsError, match=f'{name} exists and is not empty; nothing was'):
            pack(store, tmp_path / name)
    (tmp_path / 'empty').mkdir()
    pack(store, tmp_path / 'empty')
    assert {path.name for path in tmp_path.iterdir()} == {'p', 'notes', 'file', 'empty'}
    with (
        FileLock(tmp_path / '.q.lock'),
        pytest.raises(BlockingIOError, match=r'another process is packing into .*q'),
    ):
        pack(store, tmp_path / 'q')


def kill_self(*_: object, **__: object) -> None:
    """As a full machine does it."""
    os.kill(os.getpid(), signal.SIGKILL)


def pack_until(source: Path, root: Path, moment: str) -> None:
    """Pack, and be killed at a location, while the index is joined, or at the last moment."""
    if moment.isdigit():
        store = Watched(source, lambda i: i == int(moment) and kill_self())
    else:
        store = FolderStore(source)
        if moment == 'join':
            packing.pq.ParquetWriter = kill_self
        elif moment == 'meta':
            packing.write_meta = kill_self
        else:
            packing.os.rename = kill_self
    pack(store, root, shard_bytes=SHARD)


@pytest.mark.parametrize('moment', ['0', '1', '4', '9', 'join', 'meta', 'rename'])
def test_killed_and_called_again(source, tmp_path, moment):
    root = tmp_path / 'p'
    child = fork.Process(target=pack_until, args=(source, root, moment))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert not root.exists()
    read: list[int] = []
    packed = pack(Watched(source, read.append), root, shard_bytes=SHARD)
    # Only the shards that were not whole are read; each location once.
    begun = {'0': 0, '1': 0, '4': 4, '9': 8}.get(moment, 10)
    assert read == list(range(begun, 10))
    assert_equal(packed, FolderStore(source))
    verify(FolderStore(source), packed)
    assert {path.suffix for path in root.iterdir()} == {'.npy', '.parquet', '.json'}
    assert [path.name for path in tmp_path.iterdir()] == ['p']


def test_killed_with_workers(source, tmp_path):
    """Workers of a killed run end too, and what they left is no harm."""
    root, (ours, theirs) = tmp_path / 'p', os.pipe()
    slow = Watched(source, lambda i: time.sleep(0.2 if i < 6 else 60))
    child = fork.Process(
        target=pack, args=(slow, root), kwargs={'workers': 2, 'shard_bytes': SHARD}
    )
    child.start()
    os.close(theirs)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob('.p.partial/index-*'))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    child.kill()
    child.join()
    # The pipe is at its end when no process holds the other side of it any more.
    assert select.select([ours], [], [], 30)[0]
    assert os.read(ours, 1) == b''
    os.close(ours)
    read: list[int] = []
    packed = pack(Watched(source, read.append), root, shard_bytes=SHARD)
    assert read
    assert 0 not in read
    assert_equal(packed, FolderStore(source))


def test_an_attempt_with_another_source(source, tmp_path):
    root = tmp_path / 'p'
    child = fork.Process(target=pack_until, args=(source, root, '5'))
    child.start()
    child.join()
    with pytest.raises(ValueError, match=r'\.p\.partial was begun with another source or other'):
        pack(FolderStore(source), root, bands=('B2',))


def test_an_unreadable_image_leaves_the_rest(source, tmp_path):
    def tell(location: int) -> None:
        if location == 7:
            raise ValueError('B4.tif is damaged')

    for workers in (0, 2):
        with pytest.raises(ValueError, match=r'B4\.tif is damaged'):
            pack(Watched(source, tell), tmp_path / 'p', workers=workers, shard_bytes=SHARD)
        assert not (tmp_path / 'p').exists()
    assert_equal(pack(FolderStore(source), tmp_path / 'p'), FolderStore(source))


def flip(path: Path, position: int) -> None:
    """Flip one bit of a file."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize('name', ['images-00000.npy', 'images-00003.npy', 'index.parquet'])
def test_a_flipped_bit_is_found(source, tmp_path, name):
    store, root = FolderStore(source), tmp_path / 'p'
    packed = pack(store, root, shard_bytes=SHARD)
    flip(root / name, (root / name).stat().st_size // 2)
    for workers in (0, 2):
        with pytest.raises(ValueError, match=rf'{name} is damaged: its SHA-256 is'):
            verify(store, packed, workers)
    (root / name).unlink()
    with pytest.raises(ValueError, match=f'{name} is missing'):
        verify(store, packed)


def test_another_source_is_found(source, tmp_path):
    store = FolderStore(source)
    arguments: dict[str, Any] = {'bands': store.bands, 'shape': store.shape, 'dtype': store.dtype}

    def write(name: str, change: Callable[[int, Any, Any], Any], **other: Any) -> PackedStore:
        with PackedWriter(tmp_path / name, **{**arguments, 'nodata': 0, **other}) as writer:
            for i, place in enumerate(store.names):
                dates, images = change(i, store.dates(i).copy(), store.read(i, range(6 + i % 3)))
                writer.add(place, dates, images)
        return PackedStore(tmp_path / name)

    def one_pixel(i, dates, images):
        images[2, 1, 3, 4] += i == 5
        return dates, images

    def one_day(i, dates, images):
        return dates + np.timedelta64(int(i == 8), 'D'), images

    verify(store, write('same', lambda i, dates, images: (dates, images)))
    for packed, message in (
        (write('pixel', one_pixel), f'differ in p5 of {store.dates(5)[2]}'),
        (write('day', one_day), 'differ in the dates of p8'),
        (write('nodata', lambda i, d, x: (d, x), nodata=1), 'differ in nodata'),
        (write('scale', lambda i, d, x: (d, x), scale='0-255'), 'differ in scale'),
    ):
        with pytest.raises(ValueError, match=message):
            verify(store, packed)


def test_another_place_is_found(source, tmp_path):
    store, (crs, transform) = FolderStore(source), FolderStore(source).places(0)[0]

    def write(name: str, which: int, **place: Any) -> PackedStore:
        facts = {'bands': store.bands, 'shape': store.shape, 'dtype': store.dtype}
        with PackedWriter(tmp_path / name, **facts) as writer:
            for i, location in enumerate(store.names):
                here = {'crs': crs, 'transform': transform} | (place if i == which else {})
                writer.add(location, store.dates(i), store.read(i, range(store.counts[i])), **here)
        return PackedStore(tmp_path / name)

    # The last one's place is unknown to the source, and one system has two names.
    verify(store, write('same', 4, crs=CRS.from_user_input(crs).to_wkt()))
    for workers, packed in (
        (0, write('crs', 4, crs='EPSG:32632')),
        (2, write('transform', 4, transform=transform @ Affine.translation(0, 1))),
    ):
        with pytest.raises(ValueError, match=f'in where the image of p4 of {store.dates(4)[0]} l'):
            verify(store, packed, workers)


@pytest.mark.parametrize(
    ('crs', 'corner'),
    [
        ('LOCAL_CS["x",UNIT["metre",1]]', (500_000, 5_000_000)),
        ('EPSG:32632', (1e12, 1e12)),
        ('EPSG:4326', (200, 95)),
    ],
)
def test_a_place_that_is_nowhere_on_earth(crs, corner, tmp_path):
    day, image = np.array(['2020-01-01'], 'datetime64[D]'), np.ones((1, 1, 4, 4), 'uint16')
    with FolderWriter(tmp_path / 'f', ('B4',), (4, 4)) as writer:
        transform = Affine(10, 0, corner[0], 0, -10, corner[1])
        writer.add('a', day, image, crs=crs, transform=transform)
        writer.add('b', day, image, crs='EPSG:32631', transform=TRANSFORM)
    store = FolderStore(tmp_path / 'f')
    packed = pack(store, tmp_path / 'p')
    verify(store, packed)
    for each in (store, packed):
        assert each.locations.geometry.isna().tolist() == [True, False]
        # What the file says is kept.
        assert each.places(0)[0][1] == transform


def test_command_line(source, tmp_path, capsys):
    call = ['pack', str(source), str(tmp_path / 'p'), '--bands', 'B4,B3', '--workers', '0']
    assert main([*call, '--verify']) == 0
    assert '69 images of 10 locations packed into' in capsys.readouterr().out
    assert main([*call, '--verify']) == 0
    assert capsys.readouterr().out == f'{tmp_path}/p is whole and equal to {source}\n'
    assert main(call) == 1
    assert 'exists and is not empty; nothing was written' in capsys.readouterr().err
    flip(tmp_path / 'p' / 'images-00000.npy', 200)
    assert main([*call, '--verify']) == 1
    assert 'images-00000.npy is damaged: its SHA-256' in capsys.readouterr().err
    assert main(['pack', str(tmp_path / 'none'), str(tmp_path / 'q')]) == 1
    assert 'none is no folder' in capsys.readouterr().err


def test_scale(source, tmp_path, capsys):
    store = FolderStore(source)
    packed = pack(store, tmp_path / 'p', scale='reflectance')
    assert PackedStore(tmp_path / 'p').scale == 'reflectance'
    assert_equal(packed, store)
    # By default that of the source.
    assert pack(packed, tmp_path / 'q').scale == 'reflectance'
    assert pack(packed, tmp_path / 'r', scale='0-255').scale == '0-255'
    assert pack(store, tmp_path / 's').scale is None
    with pytest.raises(ValueError, match=r"one of 0-255, reflectance or None, not '0-1'\."):
        pack(store, tmp_path / 't', scale='0-1')
    call = ['pack', str(source), str(tmp_path / 't'), '--verify', '--workers', '0', '--scale']
    for _ in range(2):
        assert main([*call, '0-255']) == 0
    assert PackedStore(tmp_path / 't').scale == '0-255'
    capsys.readouterr()
    assert main([*call, 'reflectance']) == 1
    assert 't says scale 0-255; reflectance was expected.' in capsys.readouterr().err
    assert main(call[:-1]) == 1
    assert 'differ in scale' in capsys.readouterr().err


@pytest.mark.parametrize('text', ['', '{}', '[]', '{"source": "x", "firsts": [null]}'])
def test_a_damaged_plan(text, source, tmp_path):
    plan = tmp_path / '.p.partial' / 'plan.json'
    plan.parent.mkdir()
    plan.write_text(text)
    with pytest.raises(ValueError, match=r'plan\.json is damaged; delete .*\.p\.partial to begin'):
        pack(FolderStore(source), tmp_path / 'p')


def test_an_attempt_with_another_scale(source, tmp_path):
    child = fork.Process(target=pack_until, args=(source, tmp_path / 'p', '5'))
    child.start()
    child.join()
    with pytest.raises(ValueError, match=r'\.p\.partial was begun with another source'):
        pack(FolderStore(source), tmp_path / 'p', scale='0-255')


def test_the_lines_in_the_documentation_read_it(source, tmp_path):
    packed = pack(FolderStore(source), tmp_path / 'p', shard_bytes=SHARD)
    page = (Path(__file__).parents[2] / 'docs' / 'packed.md').read_text()
    lines = page.split('```python\n')[1].split('```')[0]
    assert len(list(filter(None, lines.splitlines()))) == 5
    for number, location in enumerate(packed.names):
        names: dict[str, Any] = {'root': tmp_path / 'p', 'location': location}
        exec(lines, names)
        assert np.array_equal(names['image'], packed.read(number, [0])[0])
        assert names['row'].date == packed.dates(number)[0]
