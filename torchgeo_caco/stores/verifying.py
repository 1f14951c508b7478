"""Compare a packed store with its source and its own checksums."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from rasterio.crs import CRS
from tqdm import tqdm

from .base import Place, SeasonalStore
from .packed import PackedStore, checksum, shard_path
from .parallel import run_all

_Stores = tuple[SeasonalStore, PackedStore]


def verify(
    source: SeasonalStore,
    packed: PackedStore,
    workers: int = 0,
    progress: bool = False,
    scale: str | None = None,
) -> None:
    """Compare a packed store with its own checksums, and every image with the source's.

    Where both know it, also the system and the transform of each image.

    Args:
        source: The store that was packed.
        packed: The packed store; it may have fewer bands.
        workers: Processes that compare; 0: this one.
        progress: Whether to show a progress bar.
        scale: Units that the packed store should say; the source's by default.

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
        _compare_facts(source, packed, scale)
        run(_check_images, spans)


def _compare_facts(source: SeasonalStore, packed: PackedStore, scale: str | None) -> None:
    """Compare all but pixels."""
    if scale is not None and packed.scale != scale:
        raise ValueError(f'{packed.root} says scale {packed.scale}; {scale} was expected.')
    source.band_positions(packed.bands)
    for fact in ('names', 'dtype', 'shape', 'nodata', *(['scale'] if scale is None else [])):
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
        for time, place, ours in zip(times, source.places(i), packed.places(i), strict=True):
            # Some stores are written without places, which are no others.
            if place is not None and ours is not None and not _same_place(place, ours):
                return (
                    f'{packed.root} and {source.root} differ in where the image of '
                    f'{source.names[i]} of {source.dates(i)[time]} lies.'
                )
    return None


def _same_place(one: Place, other: Place) -> bool:
    """Whether system and transform are the same."""
    if list(one[1])[:6] != list(other[1])[:6]:
        return False
    # One system may be written in several ways.
    return one[0] == other[0] or bool(CRS.from_user_input(one[0]) == CRS.from_user_input(other[0]))
