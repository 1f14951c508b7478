"""The index of a packed store: GeoParquet, a row for each image."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from .base import Place, known_footprint

_GEO = {
    'version': '1.0.0',
    'primary_column': 'geometry',
    'columns': {
        'geometry': {
            'encoding': 'WKB',
            'geometry_types': [],
            'crs': CRS.from_epsg(4326).to_json_dict(),
        }
    },
}
#: Columns of ``index.parquet``; ``crs`` and ``transform`` are each image's own.
SCHEMA = pa.schema(
    {
        'location': pa.string(),
        'date': pa.timestamp('ms'),
        'shard': pa.int64(),
        'row': pa.int64(),
        'crs': pa.string(),
        'transform': pa.list_(pa.float64()),
        'geometry': pa.binary(),
    },
    metadata={'geo': json.dumps(_GEO)},
)


class IndexRows:
    """Collects the rows of an index, location by location."""

    def __init__(self, shape: tuple[int, int]) -> None:
        """Initialize a new IndexRows instance.

        Args:
            shape: Height and width of all images.
        """
        self.shape = shape
        self._columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}

    def add(
        self,
        location: str,
        dates: NDArray[np.datetime64],
        shard: int,
        first: int,
        places: Sequence[Place | None],
    ) -> None:
        """Add the images of one location, which follow each other in one shard.

        Args:
            location: Its name.
            dates: Dates in chronological order, shape (T,).
            shard: Number of the shard.
            first: Row of the first image in it.
            places: Where each image lies, length T.
        """
        count = len(dates)
        # Mostly all images of a location cover the same ground.
        known = {p: known_footprint(*p, self.shape) for p in places if p is not None}
        ground = {p: None if area is None else area.wkb for p, area in known.items()}
        for name, values in (
            ('location', [location] * count),
            ('date', dates.astype('datetime64[ms]')),
            ('shard', [shard] * count),
            ('row', range(first, first + count)),
            ('crs', [None if p is None else str(p[0]) for p in places]),
            ('transform', [None if p is None else list(p[1])[:6] for p in places]),
            ('geometry', [None if p is None else ground[p] for p in places]),
        ):
            self._columns[name].extend(values)

    def table(self) -> pa.Table:
        """All rows, sorted by location; those of one location keep their order."""
        order = np.argsort(np.array(self._columns['location']), kind='stable')
        return pa.table(self._columns, schema=SCHEMA).take(order)


def outlines(column: pa.ChunkedArray) -> list[Any]:
    """Geometries of a column of WKB, None where there is none."""
    geometries: list[Any] = shapely.from_wkb(column.to_numpy()).tolist()
    return geometries
