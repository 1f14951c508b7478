"""Images that cannot be used, and others in their place."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .dates import draw_positions

#: Samples that are tried in the place of one that cannot be read.
STAND_INS = 8


def read_each(
    samples: NDArray[np.int64],
    epochs: NDArray[np.int64],
    count: int,
    seed: int,
    read: Callable[[int, int], None],
) -> NDArray[np.int64]:
    """Read samples one by one, others for those that cannot be read.

    Which others depends on (seed, epoch, sample) alone.

    Args:
        samples: Numbers of samples, shape (B,).
        epochs: Epoch of each, shape (B,).
        count: Number of samples there are.
        seed: Seed.
        read: Reads a sample, its second argument, to a place in the batch, its first one.

    Returns:
        Numbers of the samples that were read, shape (B,).

    Raises:
        ValueError: If none of several samples in the place of one can be read either.
    """
    used = samples.copy()
    for i, sample in enumerate(samples):
        keys = [np.array(key) for key in (seed, epochs[i], sample)]
        others = draw_positions(np.array([[count]]), min(STAND_INS, count), keys)
        first: ValueError | None = None
        for other in (sample, *others.ravel()):
            try:
                read(i, int(other))
            except ValueError as error:
                first = first or error
            else:
                break
        else:
            raise ValueError(f'{first} None of {others.size} in its place can be read either.')
        used[i] = other
    return used


def find_empty(images: NDArray[Any], nodata: float | None) -> tuple[int, int] | None:
    """Find an image without data.

    Args:
        images: Shape (B, T, C, H, W).
        nodata: The value that marks nodata, or None; NaN always does.

    Returns:
        Its position (b, t) if there is one that is nodata in all bands and pixels.
    """
    floats = images.dtype.kind == 'f'
    if nodata is None and not floats:
        return None

    def without(values: NDArray[Any]) -> Any:
        empty = np.isnan(values) if floats else False
        return empty if nodata is None else empty | (values == nodata)

    # All pixels only where a few are nodata: each look at a fresh batch waits for memory.
    down, across = (max(1, size // 4) for size in images.shape[-2:])
    for b, t in np.argwhere(without(images[:, :, 0, ::down, ::across]).all((2, 3))):
        if without(images[b, t]).all():
            return int(b), int(t)
    return None
