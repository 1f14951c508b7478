"""From any store to a packed one: in parallel, resumable, and nothing or all of it."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from tqdm import tqdm

from ..locking import alone
from .base import SCALES, SeasonalStore
from .index import SCHEMA, IndexRows
from .packed import SHARD_BYTES, PackedStore, checksum, shard_path, write_header, write_meta
from .parallel import run_all


def pack(
    source: SeasonalStore,
    root: str | Path,
    *,
    bands: Sequence[str] | None = None,
    workers: int = 0,
    shard_bytes: int = SHARD_BYTES,
    progress: bool = False,
    scale: str | None = None,
) -> PackedStore:
    """Write a packed store of what another store holds.

    All is written into a hidden folder beside *root*, shard by shard, which gets its name when it
    is whole. If that is interrupted, the next call goes on after the last whole shards.

    Args:
        source: The store.
        root: Folder to make; it must not exist, or be empty.
        bands: Bands to take, in this order; all of them by default.
        workers: Processes that read and write; 0: this one.
        shard_bytes: Size of a shard; a location is never divided.
        progress: Whether to show a progress bar.
        scale: Units to write down, ``'0-255'`` or ``'reflectance'`` (times 10000); those of the
            source by default. Values stay as they are.

    Returns:
        The packed store.

    Raises:
        FileExistsError: If *root* exists and is not empty.
        BlockingIOError: If another process is packing into *root*.
        ValueError: If a band or *scale* is unknown, an image cannot be read, or the interrupted
            attempt was of another source.
    """
    if scale not in (None, *SCALES):
        raise ValueError(f'scale must be one of {", ".join(SCALES)} or None, not {scale!r}.')
    root = Path(root)
    root.parent.mkdir(parents=True, exist_ok=True)
    partial = root.parent / f'.{root.name}.partial'
    lock, message = partial.with_suffix('.lock'), f'another process is packing into {root}.'
    with alone(lock, message, remove=True):
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise FileExistsError(f'{root} exists and is not empty; nothing was written.')
        partial.mkdir(exist_ok=True)
        taken = [source.bands[b] for b in source.band_positions(bands)]
        job = _Job(source, partial, taken, source.scale if scale is None else scale)
        firsts = _plan(job, shard_bytes)
        if not (partial / 'meta.json').exists():
            _write_shards(job, firsts, workers, progress)
        _clean(partial)
        if root.exists():
            root.rmdir()
        os.rename(partial, root)
    return PackedStore(root)


class _Job:
    """What all workers need to know."""

    def __init__(
        self, source: SeasonalStore, folder: Path, bands: list[str], scale: str | None
    ) -> None:
        self.source, self.folder, self.bands = source, folder, bands
        self.dtype, self.shape = source.dtype, source.shape
        self.nodata, self.scale = source.nodata, scale


def _part_path(folder: Path, shard: int) -> Path:
    """Rows of the index of one shard; it exists when the shard is whole."""
    return folder / f'index-{shard:05}.parquet'


def _plan(job: _Job, shard_bytes: int) -> list[int]:
    """First location of each shard: as it was begun, or a new plan."""
    source, path = job.source, job.folder / 'plan.json'
    digest = hashlib.sha256(
        repr([job.bands, source.dtype.name, source.shape, source.nodata, job.scale]).encode()
    )
    for i, name in enumerate(source.names):
        digest.update(name.encode() + b'\0' + source.dates(i).astype(np.int64).tobytes())
    if path.exists():
        try:
            plan = json.loads(path.read_text())
            begun_with, begun = plan['source'], [int(first) for first in plan['firsts']]
        except (ValueError, KeyError, TypeError):
            raise ValueError(f'{path} is damaged; delete {job.folder} to begin anew.') from None
        if begun_with != digest.hexdigest():
            raise ValueError(
                f'{job.folder} was begun with another source or other bands or another scale; '
                'delete it to begin anew.'
            )
        return begun
    image = len(job.bands) * int(np.prod(source.shape)) * source.dtype.itemsize
    firsts, size = [0], 0
    for i, count in enumerate(source.counts.tolist()):
        if size and size + count * image > shard_bytes:
            firsts.append(i)
            size = 0
        size += count * image
    text = json.dumps({'source': digest.hexdigest(), 'firsts': firsts})
    _replace(path, lambda new: new.write_text(text))
    return firsts


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Let a file appear only when it is whole, also after a power cut."""
    # Of this process alone: a worker of a killed run may still be at the same shard.
    new = path.with_name(f'{path.name}.{os.getpid()}')
    write(new)
    with new.open('rb') as file:
        os.fsync(file.fileno())
    os.replace(new, path)


def _write_shards(job: _Job, firsts: list[int], workers: int, progress: bool) -> None:
    """Write the shards that are missing, then what makes a store of them."""
    spans = list(zip(firsts, [*firsts[1:], len(job.source)], strict=True))
    sizes = [int(job.source.counts[slice(*span)].sum()) for span in spans]
    todo = [i for i in range(len(spans)) if not _part_path(job.folder, i).exists()]
    with tqdm(
        desc='packing', unit='image', total=sum(sizes), disable=not progress,
        initial=sum(sizes) - sum(sizes[i] for i in todo),
    ) as bar:  # fmt: skip
        for i in run_all(_write_shard, job, [(i, *spans[i]) for i in todo], workers):
            bar.update(sizes[i])
    _finish(job, sizes)


def _write_shard(job: _Job, shard: int, first: int, last: int) -> int:
    """Write the images of some locations, then their rows of the index."""
    source, rows = job.source, IndexRows(job.shape)
    counts = source.counts[first:last]

    def write(path: Path) -> None:
        with path.open('wb') as file:
            write_header(file, job.dtype, (int(counts.sum()), len(job.bands), *job.shape))
            row = 0
            for location, count in enumerate(counts.tolist(), first):
                images = source.read(location, range(count), job.bands)
                file.write(images.data)
                rows.add(
                    source.names[location], source.dates(location), shard, row,
                    source.places(location),
                )  # fmt: skip
                row += count

    path = shard_path(job.folder, shard)
    _replace(path, write)
    table = rows.table().replace_schema_metadata({'sha256': checksum(path)})
    _replace(_part_path(job.folder, shard), lambda new: pq.write_table(table, new))
    return shard


def _finish(job: _Job, sizes: list[int]) -> None:
    """Join the parts of the index, and last write ``meta.json``."""
    sums, path = {}, job.folder / 'index.parquet'
    parts = [_part_path(job.folder, i) for i in range(len(sizes))]

    def join(new: Path) -> None:
        with pq.ParquetWriter(new, SCHEMA) as writer:
            for i, part in enumerate(parts):
                table = pq.read_table(part)
                sums[shard_path(job.folder, i).name] = table.schema.metadata[b'sha256'].decode()
                writer.write_table(table.replace_schema_metadata(SCHEMA.metadata))

    _replace(path, join)
    write_meta(job.folder, job, sizes, {path.name: checksum(path), **sums})


def _clean(folder: Path) -> None:
    """Leave nothing but the store; the plan goes last, so that this can be done again."""
    keep = {'meta.json', 'index.parquet', *PackedStore(folder).checksums}
    for entry in list(folder.iterdir()):
        if entry.name not in keep and entry.name != 'plan.json':
            entry.unlink()
    (folder / 'plan.json').unlink(missing_ok=True)
