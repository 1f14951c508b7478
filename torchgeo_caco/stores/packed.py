"""A store of a few large NumPy arrays: quick to open, one gather for a whole batch."""

import hashlib
import json
import os
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from affine import Affine
from numpy.typing import DTypeLike, NDArray
from pyarrow.lib import ArrowException
from shapely.geometry.base import BaseGeometry

from .base import DTYPES, SCALES, Place, SeasonalStore, SeasonalWriter
from .index import IndexRows, outlines

FORMAT = 'torchgeo_caco.PackedStore'
VERSION = 1
#: Size of a shard: small enough to be done again after an interruption.
SHARD_BYTES = 2**28


def shard_path(root: Path, shard: int) -> Path:
    """Path of a shard."""
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
                and meta['scale'] in (None, *SCALES)
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


def write_header(file: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Write an array's header; NumPy leaves room in it for the first axis to grow.

    Args:
        file: Where to.
        dtype: Data type of the array.
        shape: Its shape.
    """
    file.seek(0)
    descr = np.lib.format.dtype_to_descr(dtype)
    header = {'descr': descr, 'fortran_order': False, 'shape': shape}
    np.lib.format.write_array_header_1_0(file, header)


def checksum(path: Path) -> str:
    """SHA-256 of a file, as ``sha256sum`` prints it."""
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def write_meta(root: Path, store: Any, sizes: list[int], checksums: dict[str, str]) -> None:
    """Write ``meta.json``, which makes the store whole.

    Args:
        root: Folder of the packed store.
        store: What has ``bands``, ``dtype``, ``shape``, ``nodata`` and ``scale``.
        sizes: Number of images in each shard.
        checksums: SHA-256 of each file by its name.
    """
    meta = {
        'format': FORMAT,
        'version': VERSION,
        'bands': list(store.bands),
        'dtype': store.dtype.name,
        'shape': list(store.shape),
        'nodata': store.nodata,
        'scale': store.scale,
        'shards': sizes,
        'checksums': checksums,
    }
    partial = root / 'meta.json.partial'
    partial.write_text(json.dumps(meta, indent=1) + '\n')
    os.replace(partial, root / 'meta.json')


class PackedStore(SeasonalStore):
    """``images-*.npy`` (image, C, H, W), ``index.parquet`` (a row an image) and ``meta.json``.

    The arrays are memory-mapped. The index is GeoParquet, sorted by location and date, so that
    NumPy and GeoPandas alone can read the store. A pickled store is a path: a worker opens its own.

    Attributes:
        sizes: Number of images in each shard.
        checksums: SHA-256 of each file by its name; empty if they were not written.
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
        self.sizes: list[int] = meta['shards']
        self.checksums: dict[str, str] = meta.get('checksums', {})

    def _index(self, path: Path) -> None:
        """Read the index, and see that it agrees with itself."""
        try:
            with pq.ParquetFile(path, read_dictionary=['location']) as file:
                # One after another, so that no more than one is there twice.
                encoded = file.read(['location'])['location'].unify_dictionaries().combine_chunks()
                if not isinstance(encoded, pa.DictionaryArray):
                    raise TypeError('locations must be text')
                codes = encoded.indices.to_numpy()
                self.names = tuple(str(name) for name in encoded.dictionary.to_pylist())
                self._dates = file.read(['date'])['date'].to_numpy().astype('datetime64[D]')
                self._shard = file.read(['shard'])['shard'].to_numpy()
                self._row = file.read(['row'])['row'].to_numpy()
            if self._shard.dtype.kind != 'i' or self._row.dtype.kind != 'i':
                raise TypeError('shard and row must be integers')
            # Of a damaged file some columns may end early, or name what is not there.
            if len({len(c) for c in (codes, self._dates, self._shard, self._row)}) > 1:
                raise ValueError('its columns differ in length')
            if len(codes) and not (codes.min() >= 0 and codes.max() < len(self.names)):
                raise ValueError('its locations are damaged')
        except (ValueError, OSError, TypeError, KeyError, ArrowException) as error:
            raise ValueError(f'{path} is no readable index: {_line(error)}.') from None
        self._counts = np.bincount(codes, minlength=len(self.names)).astype(np.int64)
        self._starts = np.cumsum(self._counts) - self._counts
        later = (codes[1:] != codes[:-1]) | (self._dates[1:] >= self._dates[:-1])
        named = all(a < b for a, b in pairwise(self.names)) and (self._counts > 0).all()
        ordered = named and (codes[1:] >= codes[:-1]).all() and later.all()
        if len(codes) != sum(self.sizes) or not ordered:
            raise ValueError(
                f'{path} must have {sum(self.sizes)} rows (it has {len(codes)}), '
                'sorted by location and date.'
            )
        # Each image once: a wrong position would silently give another place's image.
        first = np.cumsum(self.sizes) - self.sizes
        inside = (self._shard >= 0) & (self._shard < len(first)) & (self._row >= 0)
        seen = np.zeros(len(codes), bool)
        if inside.all() and (self._row < np.array(self.sizes, np.int64)[self._shard]).all():
            seen[first[self._shard] + self._row] = True
        if not seen.all():
            raise ValueError(f'{path} does not name each of {len(codes)} images once.')

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
            rows = pq.read_table(path, columns=['geometry'])
            return outlines(rows['geometry'].take(self._starts))
        except Exception as error:
            # What is damaged may be geometries or the file itself.
            raise ValueError(f'{path} has no readable geometries: {_line(error)}.') from None

    @cached_property
    def _places(self) -> pa.Table:
        return pq.read_table(self.root / 'index.parquet', columns=['crs', 'transform'])

    def places(self, location: int) -> list[Place | None]:
        """Where each image of a location lies, None where it is unknown."""
        rows = self._places.slice(self._starts[location], self._counts[location]).to_pylist()
        return [
            None if row['crs'] is None else (row['crs'], Affine(*row['transform'])) for row in rows
        ]

    def _map(self, shard: int) -> NDArray[Any]:
        """A shard as (image x band, H, W), opened at its first use."""
        if shard not in self._maps:
            path = shard_path(self.root, shard)
            expected = (self.sizes[shard], len(self.bands), *self.shape)
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
        flat = out.reshape(len(images), len(bands), *self.shape)
        every, chosen = len(self.bands), _neighbours(bands)
        places = zip(self._shard[images].tolist(), self._row[images].tolist(), strict=True)
        for image, (shard, row) in zip(flat, places, strict=True):
            pixels = self._map(shard)[row * every : (row + 1) * every]
            if chosen is not None:
                image[...] = pixels[chosen]
            else:
                for out_band, band in zip(image, bands, strict=True):
                    out_band[...] = pixels[band]


def _neighbours(bands: list[int]) -> slice | None:
    """Bands as a slice, if they follow each other forward or backward: copied at once."""
    for step in (1, -1):
        last = bands[0] + step * (len(bands) - 1) if bands else 0
        if bands and bands == list(range(bands[0], last + step, step)):
            return slice(bands[0], last + step if last + step >= 0 else None, step)
    return None


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
            shard_images: Images in an array, as many as fit into 256 MiB by default; a
                location is never divided.

        Raises:
            FileExistsError: If *root* exists and is not empty.
            ValueError: If *dtype* is not a store's, or a band is named twice.
        """
        super().__init__(root, bands, shape, dtype, nodata, scale)
        image_bytes = len(self.bands) * self.shape[0] * self.shape[1] * self.dtype.itemsize
        self._shard_images = shard_images or max(1, SHARD_BYTES // image_bytes)
        self._sizes: list[int] = []
        self._file: IO[bytes] | None = None
        self._rows = IndexRows(self.shape)

    def _write(
        self,
        location: str,
        dates: NDArray[np.datetime64],
        images: NDArray[Any],
        place: Place | None,
    ) -> None:
        count = len(images)
        if self._file is None or self._sizes[-1] + count > self._shard_images:
            self._finish_shard()
            self._sizes.append(0)
            self._file = shard_path(self.root, len(self._sizes) - 1).open('wb')
            write_header(self._file, self.dtype, self._shard_shape())
        self._file.write(np.ascontiguousarray(images).data)
        self._rows.add(location, dates, len(self._sizes) - 1, self._sizes[-1], [place] * count)
        self._sizes[-1] += count

    def _shard_shape(self) -> tuple[int, ...]:
        return (self._sizes[-1], len(self.bands), *self.shape)

    def _finish_shard(self) -> None:
        if self._file is not None:
            write_header(self._file, self.dtype, self._shard_shape())
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
        pq.write_table(self._rows.table(), self.root / 'index.parquet')
        shards = [shard_path(self.root, shard) for shard in range(len(self._sizes))]
        sums = {path.name: checksum(path) for path in (self.root / 'index.parquet', *shards)}
        write_meta(self.root, self, self._sizes, sums)
