"""Where there is land: the GLOBE elevation model's coast, about 1 km fine."""

from functools import cache
from importlib.resources import files
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Cells of the mask in a degree.
CELLS = 120
ROWS, COLUMNS = 180 * CELLS, 360 * CELLS
#: Metres in a degree of latitude at its shortest, so that a box never comes out too small.
DEGREE = 110_500.0


class LandMask:
    """Tells land from sea; lakes and the Caspian Sea count as land.

    A row of the mask is kept as the columns at which it changes between sea and land, 6 MB instead
    of 933.
    """

    def __init__(self, counts: NDArray[np.integer], columns: NDArray[np.integer]) -> None:
        """Initialize a new LandMask instance.

        Args:
            counts: Number of changes in each row, shape (21600,), north first.
            columns: Columns of the changes, row by row; every row starts as sea.
        """
        self._starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        rows = np.repeat(np.arange(ROWS, dtype=np.int64), counts)
        self._keys = rows * COLUMNS + columns

    @classmethod
    @cache
    def load(cls) -> Self:
        """Read the mask that lies in this package; it is read once."""
        with (files(__package__) / 'data' / 'land.npz').open('rb') as file, np.load(file) as data:
            return cls(data['counts'], data['columns'])

    def _changes(self, row: NDArray[np.int64], column: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of changes in a row up to and with a column."""
        return np.searchsorted(self._keys, row * COLUMNS + column, 'right') - self._starts[row]

    def contains(self, lon: Floats, lat: Floats) -> NDArray[np.bool_]:
        """Tell whether points lie on land.

        Args:
            lon: Degrees east, shape (N,).
            lat: Degrees north, shape (N,).

        Returns:
            Whether they do, shape (N,).
        """
        return self._changes(_row(lat), _column(lon) % COLUMNS) % 2 == 1

    def touches(self, lon: Floats, lat: Floats, half: float) -> NDArray[np.bool_]:
        """Tell whether there is any land in squares.

        Args:
            lon: Degrees east of the centres, shape (N,).
            lat: Degrees north of the centres, shape (N,).
            half: Half of a side in metres.

        Returns:
            Whether there is, shape (N,).
        """
        tall = half / DEGREE
        wide = np.minimum(tall / np.maximum(np.cos(np.deg2rad(lat)), 1e-3), 180)
        top, bottom = _row(lat + tall), _row(lat - tall)
        left, right = _column(lon - wide), _column(lon + wide)
        found = np.zeros(len(lon), bool)
        for step in range(int((bottom - top).max(initial=0)) + 1):
            row = np.minimum(top + step, bottom)
            # A square across the date line is two.
            for first, last in (
                (np.maximum(left, 0), np.minimum(right, COLUMNS - 1)),
                (left + COLUMNS, np.minimum(right + COLUMNS, COLUMNS - 1)),
                (np.maximum(left - COLUMNS, 0), right - COLUMNS),
            ):
                inside = (first <= last) & (first < COLUMNS) & (last >= 0)
                first, last = first.clip(0, COLUMNS - 1), last.clip(0, COLUMNS - 1)
                before = self._changes(row, first)
                found |= inside & ((before % 2 == 1) | (self._changes(row, last) > before))
        return found

    def grid(self, step: int = CELLS // 4) -> NDArray[np.bool_]:
        """The mask on a coarse grid, for a map.

        Args:
            step: Cells in a step.

        Returns:
            Whether the middle of each coarse cell is land, north first.
        """
        rows, columns = np.meshgrid(
            np.arange(step // 2, ROWS, step), np.arange(step // 2, COLUMNS, step), indexing='ij'
        )
        return (self._changes(rows.ravel(), columns.ravel()) % 2 == 1).reshape(rows.shape)


def _row(lat: Floats) -> NDArray[np.int64]:
    return np.floor((90 - lat) * CELLS).astype(np.int64).clip(0, ROWS - 1)


def _column(lon: Floats) -> NDArray[np.int64]:
    return np.floor((lon + 180) * CELLS).astype(np.int64)
