"""A store of a few large NumPy arrays: quick to open, one gather for a whole batch."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
from affine import Affine
from numpy.typing import DTypeLike, NDArray
from pyarrow.lib import ArrowException
from shapely.geometry.base import BaseGeometry

from .base import DTYPES, SeasonalStore, SeasonalWriter, footprint

FORMAT = 'torchgeo_caco.PackedStore'
VERSION = 1


def _shard_path(root: Path, shard: int) -> Path:
    return root / f'images-{shard:05}.npy'


def _line(error: Exception) -> str:
    """What an exception says, as the end of a sentence."""
    return ' '.join(str(error).split())[:300].rstrip('.') or type(error).__name__


def _read_meta(path: Path) -> dict[str, Any]:
    """Read ``meta.json``, and see that it says what it should."""
    try:
        meta: dict[str, Any] = json.loads(path.read_text())
        found = meta['format'], meta['version']
        if found == (FORMAT, VERSION):
            sound = (
                all(isinstance(band, str) for band in meta['bands'])
                and np.dtype(meta['dtype']).name in DTYPES
                and len(meta['shape']) == 2
                and all(isinstance(n, int) and n > 0 for n in meta['shape'] + meta['shards'])
                and isinstance(meta['nodata'], int | float | None)
                and meta['scale'] in (None, '0-255', 'reflectance')
            )
            if not sound or not meta['bands'] or not meta['shards']:
                raise ValueError('an entry is not as expected')
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{path} is no {FORMAT} description: {_line(error)}.') from None
    if found != (FORMAT, VERSION):
        raise ValueError(
            f'{path} is {found[0]} version {found[1]}; {FORMAT} version {VERSION} was expected.'
        )
    return meta


class PackedStore(SeasonalStore):
    """``images-*.npy`` (image, C, H, W), ``index.parquet`` (a row an image) and ``meta.json``.

    The arrays are memory-mapped. The index is GeoParquet, sorted by location and date, so that
    NumPy and GeoPandas alone can read the store. A pickled store is a path: a worker opens its own.
    """

    def __init__(self, root: str | Path) -> None:
        """Open a packed store.

        Args:
            root: Folder of the store.

        Raises:
            FileNotFoundError: If there is no ``meta.json`` or no index.
            ValueError: If it is of another format or version, or its parts do not agree.
        """
        self.root = Path(root)
        path = self.root / 'meta.json'
        if not path.is_file():
            raise FileNotFoundError(f'{path} is missing: {root} is no (finished) packed store.')
        self._take(_read_meta(path))
        self._maps: dict[int, NDArray[Any]] = {}
        path = self.root / 'index.parquet'
        if not path.is_file():
            raise FileNotFoundError(f'{path} is missing; it says which image is where.')
        self._index(path)

    def _take(self, meta: dict[str, Any]) -> None:
        self.bands, self.dtype = tuple(meta['bands']), np.dtype(meta['dtype'])
        self.shape = (meta['shape'][0], meta['shape'][1])
        self.nodata, self.scale = meta['nodata'], meta['scale']
        self._sizes: list[int] = meta['shards']

    def _index(self, path: Path) -> None:
        """Read the index, and see that it agrees with itself."""
        try:
            table = pq.read_table(path, columns=['location', 'date', 'shard', 'row'])
            encoded = table['location'].combine_chunks().dictionary_encode()
            codes = encoded.indices.to_numpy()
            self.names = tuple(str(name) for name in encoded.dictionary.to_pylist())
            self._dates = table['date'].to_numpy().astype('datetime64[D]')
            self._shard = table['shard'].to_numpy().astype(np.int64, casting='safe')
            self._row = table['row'].to_numpy().astype(np.int64, casting='safe')
        except (ValueError, OSError, TypeError, ArrowException) as error:
            raise ValueError(f'{path} is no readable index: {_line(error)}.') from None
        self._counts = np.bincount(codes, minlength=len(self.names)).astype(np.int64)
        self._starts = np.cumsum(self._counts) - self._counts
        later = (np.diff(codes) == 1) | (self._dates[1:] >= self._dates[:-1])
        if len(codes) != sum(self._sizes) or (np.diff(codes) < 0).any() or not later.all():
            raise ValueError(
                f'{path} must have {sum(self._sizes)} rows (it has {len(codes)}), '
                'sorted by location and date.'
            )
        # Each image once: a wrong position would silently give another place's image.
        first = np.cumsum(self._sizes) - self._sizes
        inside = (self._shard >= 0) & (self._shard < len(first)) & (self._row >= 0)
        places = first[self._shard * inside] + self._row
        if not inside.all() or not np.array_equal(np.sort(places), np.arange(len(places))):
            raise ValueError(f'{path} does not name each of {len(places)} images once.')

    def __reduce__(self) -> tuple[type['PackedStore'], tuple[Path]]:
        """Pickle the path alone."""
        return PackedStore, (self.root,)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Number of dates of each location, shape (N,)."""
        return self._counts

    def dates(self, location: int) -> NDArray[np.datetime64]:
        """Dates of a location in chronological order, shape (T,), ``datetime64[D]``."""
        start = self._starts[location]
        return self._dates[start : start + self._counts[location]]

    def _footprints(self) -> Sequence[BaseGeometry | None]:
        path = self.root / 'index.parquet'
        try:
            rows = gpd.read_parquet(path, columns=['geometry'])
        except Exception as error:
            # What is damaged may be geometries, coordinate systems or the file itself.
            raise ValueError(f'{path} has no readable geometries: {_line(error)}.') from None
        return rows.geometry.iloc[self._starts].tolist()

    def _map(self, shard: int) -> NDArray[Any]:
        """A shard as (image x band, H, W), opened at its first use."""
        if shard not in self._maps:
            path = _shard_path(self.root, shard)
            expected = (self._sizes[shard], len(self.bands), *self.shape)
            try:
                array = np.load(path, mmap_mode='r')
            except Exception as error:
                # The header is Python: damaged ones fail in many ways.
                raise ValueError(f'{path} cannot be read as an array: {_line(error)}.') from None
            if array.shape != expected or array.dtype != self.dtype:
                raise ValueError(
                    f'{path} holds {array.dtype} of shape {array.shape}; '
                    f'{self.dtype} of shape {expected} was expected.'
                )
            self._maps[shard] = np.asarray(array).reshape(-1, *self.shape)
        return self._maps[shard]

    def _gather(
        self,
        locations: NDArray[np.int64],
        times: NDArray[np.int64],
        bands: list[int],
        out: NDArray[Any],
    ) -> None:
        images = (self._starts[locations][:, None] + times).ravel()
        shards = self._shard[images]
        rows = self._row[images, None] * len(self.bands) + np.array(bands)
        flat = out.reshape(len(images), len(bands), *self.shape)
        for shard in np.unique(shards):
            source, here = self._map(int(shard)), shards == shard
            # Any mode but 'raise' lets NumPy write to out without a buffer between.
            if here.all():
                np.take(source, rows, axis=0, out=flat, mode='clip')
            else:
                flat[here] = source[rows[here]]


class PackedWriter(SeasonalWriter):
    """Writes a :class:`PackedStore`, in any order of locations; ``meta.json`` comes last.

    An exception inside the ``with`` block leaves the store without ``meta.json``: it does not open.
    """

    def __init__(
        self,
        root: str | Path,
        bands: Sequence[str],
        shape: tuple[int, int],
        dtype: DTypeLike = 'uint16',
        nodata: float | None = 0,
        scale: str | None = None,
        shard_images: int | None = None,
    ) -> None:
        """Initialize a new PackedWriter instance.

        Args:
            root: Folder to make; it must not exist, or be empty.
            bands: Names of the bands.
            shape: Height and width of all images.
            dtype: Data type of all images.
            nodata: Value that marks nodata, or None.
            scale: ``'0-255'``, ``'reflectance'`` (times 10000) or None (unknown).
            shard_images: Images in an array, as many as fit into 1 GiB by default; a location
                is never divided.

        Raises:
            FileExistsError: If *root* exists and is not empty.
            ValueError: If *dtype* is not a store's, or a band is named twice.
        """
        super().__init__(root, bands, shape, dtype, nodata, scale)
        image_bytes = len(self.bands) * self.shape[0] * self.shape[1] * self.dtype.itemsize
        self._shard_images = shard_images or max(1, 2**30 // image_bytes)
        self._sizes: list[int] = []
        self._file: IO[bytes] | None = None
        self._columns: dict[str, list[Any]] = {
            name: []
            for name in ('location', 'date', 'shard', 'row', 'crs', 'transform', 'geometry')
        }

    def _write(
        self,
        location: str,
        dates: NDArray[np.datetime64],
        images: NDArray[Any],
        place: tuple[str, Affine] | None,
    ) -> None:
        count = len(images)
        if self._file is None or self._sizes[-1] + count > self._shard_images:
            self._finish_shard()
            self._sizes.append(0)
            self._file = _shard_path(self.root, len(self._sizes) - 1).open('wb')
            self._write_header()
        self._file.write(np.ascontiguousarray(images).data)
        first = self._sizes[-1]
        self._sizes[-1] += count
        geometry = None if place is None else footprint(*place, self.shape)
        for name, values in (
            ('location', [location] * count),
            ('date', dates),
            ('shard', [len(self._sizes) - 1] * count),
            ('row', range(first, first + count)),
            ('crs', [None if place is None else str(place[0])] * count),
            ('transform', [None if place is None else list(place[1])[:6]] * count),
            ('geometry', [geometry] * count),
        ):
            self._columns[name].extend(values)

    def _write_header(self) -> None:
        """Write the array's header; NumPy leaves room in it for the first axis to grow."""
        assert self._file is not None
        self._file.seek(0)
        header = {
            'descr': np.lib.format.dtype_to_descr(self.dtype),
            'fortran_order': False,
            'shape': (self._sizes[-1], len(self.bands), *self.shape),
        }
        np.lib.format.write_array_header_1_0(self._file, header)

    def _finish_shard(self) -> None:
        if self._file is not None:
            self._write_header()
            self._file.close()
            self._file = None

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Finish the store, unless something went wrong."""
        try:
            super().__exit__(kind, *rest)
        finally:
            self._finish_shard()

    def close(self) -> None:
        """Write the index, and last ``meta.json``.

        Raises:
            ValueError: If no location was added.
        """
        super().close()
        self._finish_shard()
        columns = {**self._columns, 'date': np.array(self._columns['date'], 'datetime64[s]')}
        index = gpd.GeoDataFrame(columns, geometry='geometry', crs='EPSG:4326')
        # Stable: images of one location keep the order of their dates.
        index = index.sort_values('location', kind='stable', ignore_index=True)
        index.to_parquet(self.root / 'index.parquet')
        meta = {
            'format': FORMAT,
            'version': VERSION,
            'bands': list(self.bands),
            'dtype': self.dtype.name,
            'shape': list(self.shape),
            'nodata': self.nodata,
            'scale': self.scale,
            'shards': self._sizes,
        }
        partial = self.root / 'meta.json.partial'
        partial.write_text(json.dumps(meta, indent=1) + '\n')
        os.replace(partial, self.root / 'meta.json')
