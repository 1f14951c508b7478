"""The layout of the published CACo and SeCo archives: a folder a date, a file a band."""

import os
import re
import shutil
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from shapely.geometry.base import BaseGeometry

from .base import DTYPES, Place, SeasonalStore, SeasonalWriter, canonical_band, known_footprint

LAYOUT = '<location>/<date>/<band>.tif'

_DATE = re.compile(r'(\d{4})([-_.]?)(\d{2})\2(\d{2})')
_ORDER = [*(f'B{i}' for i in range(1, 9)), 'B8A', *(f'B{i}' for i in range(9, 13))]
#: Without it GDAL lists the folder of each file that it opens.
_GDAL = {'GDAL_DISABLE_READDIR_ON_OPEN': 'EMPTY_DIR'}
#: Height and width of the largest image: a Sentinel-2 tile has 10980. More is a damaged header.
_LARGEST = 16384
#: Locations, evenly spread, whose first dates vote on what the images are like.
_VOTERS = 25
#: Locations that are tried one after another if none of those can be read.
_REFERENCES = 100
#: Pixels by which the sizes of images may differ.
_TOLERANCE = 2
#: Half of the time of an opening goes into a georeference, which pixels do not need.
_PIXELS_ONLY = {'GEOREF_SOURCES': 'NONE'}
_THREADS = 8
#: Between the 10 m, 20 m and 60 m grids of Sentinel-2.
_RATIOS = (1, 2, 3, 6)


def folder_date(name: str) -> np.datetime64 | None:
    """The date that a folder's name starts with.

    Args:
        name: ``20200113``, ``20200113T105031_20200113T105028_T31UDQ``, ``2020-01-13``,
            ``2020_01_13_x`` and the like.

    Returns:
        The date, or None if the name does not start with a real one.
    """
    match = _DATE.match(name)
    try:
        return np.datetime64(f'{match[1]}-{match[3]}-{match[4]}', 'D') if match else None
    except ValueError:
        return None


def _may_be_location(name: str, entries: list[os.DirEntry[str]]) -> bool:
    """Whether a folder without dates looks like a location: it is empty, or holds folders."""
    if name.endswith('.partial') or name == '__MACOSX':
        return False
    shown = [entry for entry in entries if not entry.name.startswith('.')]
    return not shown or any(entry.is_dir() for entry in shown)


def _bands(folder: Path) -> dict[str, str]:
    """Files of the bands in a folder by their canonical names, in Sentinel-2's order."""
    names = os.listdir(folder) if folder.is_dir() else []
    files = [name for name in names if name.lower().endswith(('.tif', '.tiff'))]
    bands = {canonical_band(Path(file).stem): file for file in sorted(files)}
    rank = {band: i for i, band in enumerate(_ORDER)}
    return dict(sorted(bands.items(), key=lambda item: rank.get(item[0], len(rank))))


@dataclass(frozen=True)
class _Look:
    """What the images of a date are like.

    Attributes:
        folder: Folder of the date.
        files: Files of the bands by their canonical names.
        grid: Height and width of the finest band.
        finest: Its position.
        dtype: Data type of the first band.
        nodata: Its nodata value.
    """

    folder: Path
    files: dict[str, str]
    grid: tuple[int, int]
    finest: int
    dtype: np.dtype[Any]
    nodata: float | None

    def is_like(self, other: '_Look') -> bool:
        """Whether both have the same bands, data type and, but for a pixel or two, size."""
        off = max(abs(a - b) for a, b in zip(self.grid, other.grid, strict=True))
        same = self.files.keys() == other.files.keys() and self.dtype == other.dtype
        return same and off <= _TOLERANCE


@lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    """Threads that read; a forked worker must make its own."""
    return ThreadPoolExecutor(_THREADS, f'read-{process}', initializer=_enter_gdal)


def _enter_gdal() -> None:
    """Give a thread its environment for good: one for each file costs a tenth of its reading."""
    rasterio.Env(**_GDAL).__enter__()


class FolderStore(SeasonalStore):
    """``<root>/<location>/<date...>/<band>.tif``, one band a file.

    Sizes that differ by a pixel or two are cropped or padded about the centre. Bands of a coarser
    grid (Sentinel-2's 20 m and 60 m bands at a half and a sixth of the size) are resampled to the
    finest one, bilinearly. Whatever does not start with a date is ignored.

    Attributes:
        undated: Names of folders that look like locations, but hold no date; none of *names*.
    """

    def __init__(self, root: str | Path, size: int | None = None) -> None:
        """Find all locations and dates, and see what the images are like.

        The first dates of at most 25 locations are opened for that. What most of them agree on
        counts, so that one odd image spoils nothing but its own location.

        Args:
            root: Folder with a folder for each location.
            size: Height and width of the images in pixels, cropped or padded about the centre;
                by default those of the largest band.

        Raises:
            FileNotFoundError: If *root* is missing or has no location.
            ValueError: If no location's first date can be read.
        """
        self.root = Path(root)
        if not self.root.is_dir():
            raise FileNotFoundError(f'{root} is no folder; one with {LAYOUT} was expected.')
        found: dict[str, list[tuple[np.datetime64, str]]] = {}
        undated = []
        for place in os.scandir(self.root):
            if place.name.startswith('.') or not place.is_dir():
                continue
            entries = list(os.scandir(place.path))
            dated = [
                (date, entry.name)
                for entry in entries
                if (date := folder_date(entry.name)) is not None and entry.is_dir()
            ]
            if dated:
                found[place.name] = sorted(dated)
            elif _may_be_location(place.name, entries):
                undated.append(place.name)
        if not found:
            raise FileNotFoundError(f'{root} has no location; {LAYOUT} was expected.')
        self.names, self.undated = tuple(sorted(found)), tuple(sorted(undated))
        self._dates = [np.array([date for date, _ in found[name]]) for name in self.names]
        self._folders = [[folder for _, folder in found[name]] for name in self.names]
        self._counts = np.array([len(dates) for dates in self._dates])

        look = self._find_reference()
        self._reference, self._files = look.folder, list(look.files.values())
        self.bands = tuple(Path(file).stem for file in self._files)
        self._grid, self._finest = look.grid, look.finest
        self.dtype, self.nodata = look.dtype, look.nodata
        self.shape = self._grid if size is None else (size, size)

    def _find_reference(self) -> _Look:
        """The first of the images that are like most others."""
        count = len(self.names)
        voters = sorted({i * count // _VOTERS for i in range(_VOTERS)})
        looks: list[_Look] = []
        first: ValueError | None = None
        for turn, i in enumerate([*voters, *range(min(count, _REFERENCES))]):
            if looks and turn >= len(voters):
                break
            try:
                looks.append(_look(self.root / self.names[i] / self._folders[i][0]))
            except ValueError as error:
                first = first or error
        if first is not None and not looks:
            raise first
        # Of several with as many votes, max takes the first.
        return max(looks, key=lambda look: sum(look.is_like(other) for other in looks))

    @property
    def counts(self) -> NDArray[np.int64]:
        """Number of dates of each location, shape (N,)."""
        return self._counts

    def dates(self, location: int) -> NDArray[np.datetime64]:
        """Dates of a location in chronological order, shape (T,), ``datetime64[D]``."""
        return self._dates[location]

    def _path(self, location: int, time: int, band: int) -> Path:
        folder = self.root / self.names[location] / self._folders[location][time]
        path = folder / self._files[band]
        if not path.is_file():
            # Archives of different years may write B4 here and B04 there.
            other = _bands(folder).get(canonical_band(self.bands[band]))
            if other is None:
                raise ValueError(
                    f'{path} is missing; each date needs {", ".join(self.bands)}, '
                    f'as {self._reference} has.'
                )
            return folder / other
        return path

    def places(self, location: int) -> list[Place | None]:
        """Where each image of a location lies, None where it is unknown."""
        paths = [self._path(location, t, self._finest) for t in range(self._counts[location])]
        with _quiet():
            return [self._place(header) for header in _pool(os.getpid()).map(_header, paths)]

    def _place(self, header: dict[str, Any]) -> Place | None:
        """Where an image lies after cropping or padding."""
        if header['crs'] is None:
            return None
        down, right = (
            max(0, have - want) // 2 - max(0, want - have) // 2
            for have, want in zip(header['shape'], self.shape, strict=True)
        )
        return header['crs'].to_string(), header['transform'] @ Affine.translation(right, down)

    def _footprints(self) -> Sequence[BaseGeometry | None]:
        with _quiet():
            paths = [self._path(i, 0, 0) for i in range(len(self))]
            headers = list(_pool(os.getpid()).map(_header, paths))
        return [
            known_footprint(header['crs'], header['transform'], header['shape'])
            if header['crs'] is not None
            else None
            for header in headers
        ]

    def _gather(
        self,
        locations: NDArray[np.int64],
        times: NDArray[np.int64],
        bands: list[int],
        out: NDArray[Any],
    ) -> None:
        def read(positions: NDArray[np.int64]) -> None:
            for n, t, c in positions:
                path = self._path(int(locations[n]), int(times[n, t]), bands[c])
                self._read_file(path, out[n, t, c])

        files = np.argwhere(np.ones(out.shape[:3], bool))
        # Few files at a time, so that no thread waits for another's long rest.
        parts = np.array_split(files, min(len(files), 8 * _THREADS))
        pool = _pool(os.getpid())
        with _quiet():
            futures = [pool.submit(read, part) for part in parts]
            # Also after an error: a thread that still writes would overwrite what is read next
            # into the same memory.
            wait(futures)
        for future in futures:
            future.result()

    def _read_file(self, path: Path, out: NDArray[Any]) -> None:
        """Read one band into its place, shape (H, W)."""
        with _open(path, **_PIXELS_ONLY) as file:
            if file.count != 1 or np.dtype(file.dtypes[0]) != self.dtype:
                raise ValueError(
                    f'{path} has {file.count} band(s) of {file.dtypes[0]}; '
                    f'one of {self.dtype} was expected.'
                )
            ratio = max(1, round(self._grid[0] / file.height))
            off = np.abs(np.array(self._grid) - ratio * np.array(file.shape)).max()
            if ratio not in _RATIOS or off > _TOLERANCE * ratio:
                raise ValueError(
                    f'{path} has {file.height} x {file.width} pixels; {self._grid[0]} x '
                    f'{self._grid[1]}, or a half, a third or a sixth of it, was expected.'
                )
            size = file.shape if ratio == 1 else self._grid
            try:
                image = file.read(1, out_shape=size, resampling=Resampling.bilinear)
            except RasterioError as error:
                raise ValueError(f'{path} is damaged: {_reason(error)}.') from None
        out[...] = _centre(image, self.shape)


def _look(folder: Path) -> _Look:
    """See what the images of a date are like, by what their files say."""
    files = _bands(folder)
    if not files:
        raise ValueError(f'{folder} has no band; files like B4.tif were expected.')
    paths = [folder / file for file in files.values()]
    with _quiet():
        headers = [_header(path) for path in paths]
    finest = max(range(len(headers)), key=lambda i: headers[i]['shape'])
    dtype, nodata = np.dtype(headers[0]['dtype']), headers[0]['nodata']
    if dtype.name not in DTYPES:
        raise ValueError(f'{paths[0]} is {dtype}, not one of {", ".join(DTYPES)}.')
    return _Look(folder, files, headers[finest]['shape'], finest, dtype, nodata)


def _quiet() -> AbstractContextManager[object]:
    """Images without a georeference are nothing to warn about."""
    return warnings.catch_warnings(action='ignore', category=NotGeoreferencedWarning)


def _open(path: Path, **options: str) -> Any:
    """Open a GeoTIFF, or say in one sentence what is wrong with it."""
    try:
        # Not rasterio.open, which enters an environment for each file. Not shared: each thread
        # reads through a handle of its own.
        return DatasetReader(str(path), driver='GTiff', sharing=False, **options)
    except RasterioError as error:
        raise ValueError(f'{path} is no readable GeoTIFF: {_reason(error)}.') from None


def _reason(error: BaseException) -> str:
    """What went wrong, in one line; GDAL says it below what rasterio says."""
    while error.__cause__ is not None:
        error = error.__cause__
    return ' '.join(str(error).split()).rstrip('.')


def _header(path: Path) -> dict[str, Any]:
    """What a file says of itself."""
    with rasterio.Env(**_GDAL), _open(path) as file:
        if max(file.shape) > _LARGEST:
            raise ValueError(
                f'{path} has {file.height} x {file.width} pixels; '
                f'at most {_LARGEST} x {_LARGEST} were expected.'
            )
        return {**file.profile, 'shape': file.shape}


def _centre(image: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """Crop and pad an image about its centre, repeating its edge."""
    if image.shape == shape:
        return image
    excess = [have - want for have, want in zip(image.shape, shape, strict=True)]
    crop = tuple(
        slice(max(0, e) // 2, max(0, e) // 2 + want) for e, want in zip(excess, shape, strict=True)
    )
    missing = [max(0, -e) for e in excess]
    return np.pad(image[crop], [(m // 2, m - m // 2) for m in missing], mode='edge')


class FolderWriter(SeasonalWriter):
    """Writes the layout that :class:`FolderStore` reads; a location appears when it is whole.

    With ``resume=True`` it goes on with a folder that an earlier writer began, even one that was
    killed.
    """

    def _write(
        self,
        location: str,
        dates: NDArray[np.datetime64],
        images: NDArray[Any],
        place: Place | None,
    ) -> None:
        profile = {
            'driver': 'GTiff',
            'height': self.shape[0],
            'width': self.shape[1],
            'count': 1,
            'dtype': self.dtype.name,
            'nodata': self.nodata,
            'compress': 'deflate',
        }
        if place is not None:
            profile |= {'crs': place[0], 'transform': place[1]}
        if (self.root / location).exists():
            raise ValueError(f'{self.root}: location {location!r} is there already.')
        # Hidden, so that a store opened meanwhile does not see it.
        partial = self.root / f'.{location}.partial'
        if partial.exists():
            shutil.rmtree(partial)
        with rasterio.Env(**_GDAL), _quiet():
            for i, (date, image) in enumerate(zip(dates, images, strict=True)):
                again = int(np.sum(dates[:i] == date))
                name = str(date).replace('-', '') + (f'_{again:02}' if again else '')
                (partial / name).mkdir(parents=True)
                for band, pixels in zip(self.bands, image, strict=True):
                    with rasterio.open(partial / name / f'{band}.tif', 'w', **profile) as file:
                        file.write(pixels, 1)
        os.replace(partial, self.root / location)
