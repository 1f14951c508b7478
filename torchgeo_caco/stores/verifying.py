"""Compare a packed store with its source and its own checksums."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from .base import SeasonalStore
from .packed import PackedStore, checksum, shard_path
from .parallel import run_all

_Stores = tuple[SeasonalStore, PackedStore]


def verify(
    source: SeasonalStore, packed: PackedStore, workers: int = 0, progress: bool = False
) -> None:
    """Compare a packed store with its own checksums, and every image with the source's.

    Args:
        source: The store that was packed.
        packed: The packed store; it may have fewer bands.
        workers: Processes that compare; 0: this one.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: If anything differs; says what and where.
    """
    files = ['index.parquet', *(shard_path(packed.root, i).name for i in range(len(packed.sizes)))]
    missing = [name for name in files if name not in packed.checksums]
    if missing:
        raise ValueError(f'{packed.root / "meta.json"} has no checksum of {missing[0]}.')
    stores = source, packed
    step = max(1, len(source) // 1000)
    spans = [(i, min(i + step, len(source))) for i in range(0, len(source), step)]
    with tqdm(
        desc='verifying', unit='part', total=len(files) + len(spans), disable=not progress
    ) as bar:

        def run(task: Callable[..., str | None], calls: Sequence[tuple[Any, ...]]) -> None:
            for error in run_all(task, stores, calls, workers):
                if error:
                    raise ValueError(error)
                bar.update()

        run(_check_file, [(name, packed.checksums[name]) for name in files])
        _compare_facts(source, packed)
        run(_check_images, spans)


def _compare_facts(source: SeasonalStore, packed: PackedStore) -> None:
    """Compare all but pixels."""
    source.band_positions(packed.bands)
    for fact in ('names', 'dtype', 'shape', 'nodata', 'scale'):
        ours, theirs = getattr(packed, fact), getattr(source, fact)
        # As text too, since NaN is not equal to itself.
        if ours != theirs and repr(ours) != repr(theirs):
            raise ValueError(f'{packed.root} and {source.root} differ in {fact}.')
    for i, name in enumerate(source.names):
        if not np.array_equal(packed.dates(i), source.dates(i)):
            raise ValueError(f'{packed.root} and {source.root} differ in the dates of {name}.')


def _check_file(stores: _Stores, name: str, expected: str) -> str | None:
    """What is wrong with a file of a packed store."""
    path = stores[1].root / name
    if not path.is_file():
        return f'{path} is missing.'
    found = checksum(path)
    if found == expected:
        return None
    return f'{path} is damaged: its SHA-256 is {found}, {expected} was expected.'


def _check_images(stores: _Stores, first: int, last: int) -> str | None:
    """Where the images of some locations differ."""
    source, packed = stores
    for i in range(first, last):
        times = range(int(source.counts[i]))
        pair = (store.read(i, times, packed.bands) for store in (packed, source))
        # Bytes, since NaN is not equal to itself.
        a, b = (images.view(np.uint8).reshape(len(times), -1) for images in pair)
        wrong = np.flatnonzero((a != b).any(axis=1))
        if len(wrong):
            return (
                f'{packed.root} and {source.root} differ in {source.names[i]} of '
                f'{source.dates(i)[wrong[0]]}.'
            )
    return None
