"""Reading one batch of the same pictures from every layout, in one process."""

import gc
import logging
import os
import tempfile
from argparse import ArgumentParser
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from affine import Affine
from torchgeo.datasets import SeasonalContrastS2

from torchgeo_caco.datasets import SeasonalTemporalDataset, collate
from torchgeo_caco.stores import FolderStore, FolderWriter, PackedStore, SeasonalStore, pack

from .common import interleave, machine, ratio, report, table

BANDS = ('B4', 'B3', 'B2')
DATES = SEASONS = 4
PLAIN, COPY = 'folder, an open for each file', 'NumPy copy of the same bytes'
PACKED, FOLDER = 'SeasonalTemporalDataset of a PackedStore', 'FolderStore'


def write_pictures(root: Path, locations: int, size: int) -> FolderStore:
    """Places of four dates, three bands of 8 bits, in the layout of the published archives."""
    rng = np.random.default_rng(0)
    folder = root / SeasonalContrastS2.metadata['100k']['directory']
    days = np.arange('2020-01', '2021-01', 3, 'datetime64[M]').astype('datetime64[D]')
    with FolderWriter(folder, BANDS, (size, size), 'uint8') as writer:
        for n in range(locations):
            coarse = rng.integers(1, 200, (DATES, 3, size // 8 + 1, size // 8 + 1))
            images = coarse.repeat(8, -1).repeat(8, -2)[..., :size, :size]
            images = images + rng.integers(0, 16, images.shape)
            place = Affine(10, 0, 500_000 + 5000 * n, 0, -10, 5_000_000)
            writer.add(f'{n:06}', days, images.astype('uint8'), crs='EPSG:32631', transform=place)
    return FolderStore(folder)


def read_plainly(folder: FolderStore) -> torch.Tensor:
    """One rasterio open for each band of each date."""
    size = folder.shape[0]
    out = np.empty((len(folder), SEASONS, 3, size, size), folder.dtype)
    for n, name in enumerate(folder.names):
        dates = sorted(os.listdir(folder.root / name))
        for t in range(SEASONS):
            for c, band in enumerate(BANDS):
                with rasterio.open(folder.root / name / dates[t] / f'{band}.tif') as file:
                    out[n, t, c] = file.read(1)
    return torch.from_numpy(out)


def read_torchgeo(dataset: SeasonalContrastS2, count: int) -> torch.Tensor:
    """TorchGeo's own data set."""
    return torch.stack([dataset[n]['image'] for n in range(count)])


def read_batch(store: SeasonalStore, order: list[int]) -> torch.Tensor:
    """The pictures alone, all of the batch at once."""
    times = np.tile(np.arange(SEASONS), (len(order), 1))
    return torch.from_numpy(store.read_batch(np.array(order), times, BANDS))


def read_packed(dataset: SeasonalTemporalDataset, order: list[int]) -> torch.Tensor:
    """As a data loader does it: dates drawn, samples made, collated."""
    image: torch.Tensor = collate(dataset.__getitems__(order))['image']
    return image


def others(root: Path, packed: PackedStore, order: list[int]) -> dict[str, Callable[[], Any]]:
    """The same pictures in the formats of other libraries that are installed."""
    pictures = np.concatenate([packed.read(n, range(DATES), BANDS) for n in range(len(packed))])
    rows = np.array(order)[:, None] * DATES + np.arange(SEASONS)
    ways: dict[str, Callable[[], Any]] = {}
    if find_spec('zarr'):
        import zarr

        array = zarr.create_array(
            str(root / 'zarr'), shape=pictures.shape, chunks=(1, *pictures.shape[1:]),
            dtype=pictures.dtype, compressors=None,
        )  # fmt: skip
        array[:] = pictures
        stored = zarr.open_array(str(root / 'zarr'), mode='r')
        ways['Zarr 3, a chunk for each image, not compressed'] = lambda: torch.from_numpy(
            np.asarray(stored.oindex[rows.ravel()])
        )
    if find_spec('lmdb'):
        import lmdb

        base = lmdb.open(str(root / 'lmdb'), map_size=4 * pictures.nbytes + 2**26)
        with base.begin(write=True) as entry:
            for i, picture in enumerate(pictures):
                entry.put(b'%08d' % i, picture.tobytes())
        ways['LMDB, an entry for each image'] = partial(read_lmdb, base, rows, pictures)
    if find_spec('litdata'):
        from litdata import StreamingDataset, optimize

        logging.getLogger('litdata').setLevel(logging.ERROR)
        places = pictures.reshape(-1, DATES, *pictures.shape[1:])
        np.save(root / 'places.npy', places)
        optimize(
            partial(one_place, str(root / 'places.npy')), list(range(len(places))),
            str(root / 'litdata'), num_workers=1, chunk_bytes='64MB', verbose=False,
        )  # fmt: skip
        stream = StreamingDataset(str(root / 'litdata'))
        ways['LitData, an item for each location'] = lambda: torch.stack(
            [stream[n]['image'][:SEASONS] for n in order]
        )
    return ways


def one_place(path: str, n: int) -> dict[str, torch.Tensor]:
    """An item for LitData."""
    return {'image': torch.from_numpy(np.load(path, mmap_mode='r')[n].copy())}


def read_lmdb(base: Any, rows: np.ndarray, pictures: np.ndarray) -> torch.Tensor:
    """Each entry into its place."""
    out = np.empty((rows.size, *pictures.shape[1:]), pictures.dtype)
    with base.begin(buffers=True) as entry:
        for i, row in enumerate(rows.ravel()):
            buffer = entry.get(b'%08d' % row)
            out[i] = np.frombuffer(buffer, pictures.dtype).reshape(pictures.shape[1:])
    return torch.from_numpy(out)


def main(arguments: list[str] | None = None) -> None:
    """Write the pictures in every layout, read them in turn."""
    parser = ArgumentParser('python -m benchmarks.loading', description=__doc__)
    parser.add_argument('--locations', type=int, default=64)
    parser.add_argument('--size', type=int, default=264)
    parser.add_argument('--repeats', type=int, default=15)
    parser.add_argument('--write', metavar='FILE.md', help='e.g. docs/performance.md')
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        folder = write_pictures(root, args.locations, args.size)
        packed = pack(folder, root / 'packed', bands=BANDS, shard_bytes=2**24)
        dataset = SeasonalTemporalDataset(
            packed.root, bands=BANDS, periods=1, seasons=SEASONS, seed=1
        )
        order = np.random.default_rng(0).permutation(args.locations).tolist()
        torchgeo = SeasonalContrastS2(name, seasons=SEASONS, bands=BANDS)
        batch = read_packed(dataset, order).numpy()
        ways: dict[str, Callable[[], Any]] = {
            PLAIN: lambda: read_plainly(folder),
            'TorchGeo SeasonalContrastS2': lambda: read_torchgeo(torchgeo, args.locations),
            FOLDER: lambda: read_batch(folder, list(range(args.locations))),
            'PackedStore, nothing but the pictures': lambda: read_batch(packed, order),
            PACKED: lambda: read_packed(dataset, order),
            COPY: batch.copy,
            'NumPy copy into memory that is there': partial(np.copyto, batch.copy(), batch),
            **others(root, packed, order),
        }
        # Or whichever way makes many objects pays for a walk through those of all libraries here.
        gc.collect()
        gc.freeze()
        times = interleave(ways, args.repeats)
        gc.unfreeze()
    plain, copy = times[PLAIN], times[COPY]
    lines = [
        [
            way, f'{ratio(plain.wall, t.wall):.1f}', f'{ratio(plain.cpu, t.cpu):.1f}',
            f'{ratio(copy.wall, t.wall):.2f}', f'{args.locations / np.median(t.wall):.0f}',
        ]
        for way, t in sorted(times.items(), key=lambda item: ratio(plain.wall, item[1].wall))
    ]  # fmt: skip
    text = (
        f'{args.locations} locations of {SEASONS} dates, {len(BANDS)} bands, {args.size} px, '
        f'8 bits, files in the cache of the system, one process, load {os.getloadavg()[0]:.0f}. '
        f'{machine()}. Medians of {args.repeats} rounds.\n\n'
    )
    header = [
        'read from', 'times the plain way', 'by CPU time', 'speed of a copy', 'locations/s here'
    ]  # fmt: skip
    report('loading', text + table(header, lines), args.write)


if __name__ == '__main__':
    main()
