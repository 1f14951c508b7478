"""What every store of seasonal time series offers."""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import geopandas as gpd
import numpy as np
from affine import Affine
from numpy.typing import DTypeLike, NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform_geom
from shapely.errors import ShapelyError
from shapely.geometry import mapping, shape
from shapely.geometry.base import BaseGeometry
from shapely.geometry.polygon import Polygon

#: Data types that a store may have; PyTorch knows all of them.
DTYPES = ('uint8', 'uint16', 'int16', 'float32')
#: Units that a store may say; whatever it does not say is found out from its values.
SCALES = ('0-255', 'reflectance')
#: Coordinate reference system of an image, and the transform from its pixels to that system.
Place = tuple[str, Affine]


def canonical_band(name: str) -> str:
    """Shortest form of a band's name: ``B04`` and ``b4`` are ``B4``, ``B08A`` is ``B8A``.

    Args:
        name: Name of a band.

    Returns:
        Its short form; unchanged if it is no Sentinel-2 band.
    """
    match = re.fullmatch(r'[Bb]0*([1-9]\d?[Aa]?)', name)
    return f'B{match[1].upper()}' if match else name


def footprint(crs: Any, transform: Affine, size: tuple[int, int]) -> BaseGeometry:
    """The ground that an image covers.

    Args:
        crs: Coordinate reference system, anything rasterio understands.
        transform: From pixels to that system.
        size: Height and width in pixels.

    Returns:
        Its outline in EPSG:4326.
    """
    height, width = size
    a, b, c, d, e, f = transform[:6]
    pixels = ((0, 0), (width, 0), (width, height), (0, height))
    corners = Polygon([(a * x + b * y + c, d * x + e * y + f) for x, y in pixels])
    return shape(transform_geom(crs, 'EPSG:4326', mapping(corners)))


def known_footprint(crs: Any, transform: Affine, size: tuple[int, int]) -> BaseGeometry | None:
    """The ground that an image covers, if that can be told.

    Args:
        crs: Coordinate reference system, anything rasterio understands.
        transform: From pixels to that system.
        size: Height and width in pixels.

    Returns:
        Its outline in EPSG:4326; None if the system is a local one, or the image lies where the
        system knows no place.

    Raises:
        CRSError: If the system cannot be understood.
    """
    system = CRS.from_user_input(crs)
    if not (system.is_geographic or system.is_projected):
        return None
    try:
        ground = footprint(system, transform, size)
    except (CPLE_BaseError, RasterioError, ShapelyError):
        # GDAL's own errors come through rasterio as they are.
        return None
    # What a projection does not know may also become infinite, or lie beyond a pole.
    west, south, east, north = ground.bounds
    return ground if np.isfinite([west, east]).all() and -90 <= south <= north <= 90 else None


class SeasonalStore(ABC):
    """Images of many locations, at several dates each.

    A store knows where pixels lie and how they are read. It has no randomness, and neither
    periods nor seasons: those are the dataset's.

    Attributes:
        root: Folder of the store.
        names: Names of the locations, sorted; a location's number is its position here.
        bands: Names of the bands, in the order in which they are read.
        dtype: Data type of the images, one of :data:`DTYPES`.
        shape: Height and width in pixels of every image.
        nodata: The value that marks nodata, if the store says one.
        scale: ``'0-255'`` or ``'reflectance'`` (times 10000), if the store says it.
        undated: Names of places that were meant as locations, but have no date.
    """

    root: Path
    names: tuple[str, ...]
    bands: tuple[str, ...]
    dtype: np.dtype[Any]
    shape: tuple[int, int]
    nodata: float | None = None
    scale: str | None = None
    undated: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Number of locations."""
        return len(self.names)

    @property
    @abstractmethod
    def counts(self) -> NDArray[np.int64]:
        """Number of dates of each location, shape (N,)."""

    @abstractmethod
    def dates(self, location: int) -> NDArray[np.datetime64]:
        """Dates of a location.

        Args:
            location: Number of the location.

        Returns:
            Its dates in chronological order, shape (T,), ``datetime64[D]``.
        """

    def places(self, location: int) -> list[Place | None]:
        """Where each image of a location lies.

        Args:
            location: Number of the location.

        Returns:
            A place for each of its chronological dates, None where it is unknown.
        """
        return [None] * int(self.counts[location])

    @cached_property
    def locations(self) -> gpd.GeoDataFrame:
        """Columns ``location``, ``dates`` (how many) and ``geometry`` (EPSG:4326, or None)."""
        columns = {'location': list(self.names), 'dates': self.counts}
        return gpd.GeoDataFrame(columns, geometry=self._footprints(), crs='EPSG:4326')

    @abstractmethod
    def _footprints(self) -> Sequence[BaseGeometry | None]:
        """Footprint of each location's first image in EPSG:4326, None if unknown."""

    @abstractmethod
    def _gather(
        self,
        locations: NDArray[np.int64],
        times: NDArray[np.int64],
        bands: list[int],
        out: NDArray[Any],
    ) -> None:
        """Read into *out*, shape (N, T, C, H, W); positions are known to be valid."""

    def read(
        self, location: int, times: Sequence[int], bands: Sequence[str] | None = None
    ) -> NDArray[Any]:
        """Read several dates of one location.

        Args:
            location: Number of the location.
            times: Positions in its chronological dates, length T.
            bands: Bands to read, in this order; all of them by default.

        Returns:
            Images, shape (T, C, H, W), in the store's data type.

        Raises:
            IndexError: If there is no such location or date.
            ValueError: If a band is unknown, or an image is not as expected.
        """
        return self.read_batch(np.array([location]), np.array(times, np.int64)[None], bands)[0]

    def read_batch(
        self,
        locations: NDArray[np.int64],
        times: NDArray[np.int64],
        bands: Sequence[str] | None = None,
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """Read several dates of several locations.

        Args:
            locations: Numbers of the locations, shape (N,).
            times: Positions in each location's chronological dates, shape (N, T).
            bands: Bands to read, in this order; all of them by default.
            out: Where to put the images, C-contiguous; a new array by default.

        Returns:
            Images, shape (N, T, C, H, W), in the store's data type.

        Raises:
            IndexError: If there is no such location or date.
            ValueError: If a band is unknown, an image is not as expected, or *out* does not fit.
        """
        positions = self.band_positions(bands)
        wrong = locations[(locations < 0) | (locations >= len(self))]
        if len(wrong):
            raise IndexError(f'{self.root} has locations 0 to {len(self) - 1}, not {wrong[0]}.')
        # A position past the end would read the next location's image.
        counts = self.counts[locations]
        outside = np.argwhere((times < 0) | (times >= counts[:, None]))
        if len(outside):
            n, t = outside[0]
            raise IndexError(
                f'{self.root}: {self.names[locations[n]]} has dates 0 to {counts[n] - 1}, '
                f'not {times[n, t]}.'
            )
        expected = (*times.shape, len(positions), *self.shape)
        if out is None:
            out = np.empty(expected, self.dtype)
        elif out.shape != expected or out.dtype != self.dtype or not out.flags.c_contiguous:
            raise ValueError(f'out must be a contiguous {self.dtype} array of shape {expected}.')
        self._gather(locations, times, positions, out)
        return out

    def band_positions(self, bands: Sequence[str] | None) -> list[int]:
        """Positions of bands in the store; ``B4`` and ``B04`` are the same band.

        Args:
            bands: Names of bands; all of them by default.

        Returns:
            Their positions.

        Raises:
            ValueError: If a band is unknown.
        """
        if bands is None:
            return list(range(len(self.bands)))
        known = {canonical_band(band): i for i, band in enumerate(self.bands)}
        unknown = [band for band in bands if canonical_band(band) not in known]
        if unknown:
            raise ValueError(
                f'{self.root} has no band {", ".join(unknown)}; it has {", ".join(self.bands)}.'
            )
        return [known[canonical_band(band)] for band in bands]


class SeasonalWriter(ABC):
    """Writes a store, location by location; a context manager."""

    def __init__(
        self,
        root: str | Path,
        bands: Sequence[str],
        shape: tuple[int, int],
        dtype: DTypeLike = 'uint16',
        nodata: float | None = 0,
        scale: str | None = None,
        resume: bool = False,
    ) -> None:
        """Initialize a new SeasonalWriter instance.

        Args:
            root: Folder to make; it must not exist, or be empty.
            bands: Names of the bands.
            shape: Height and width of all images.
            dtype: Data type of all images, one of :data:`DTYPES`.
            nodata: Value that marks nodata, or None.
            scale: ``'0-255'``, ``'reflectance'`` (times 10000) or None (unknown).
            resume: Whether *root* may hold locations already, where the layout allows that.

        Raises:
            FileExistsError: If *root* exists and is not empty, without *resume*.
            ValueError: If *dtype* is another, or a band is named twice.
        """
        self.root, self.dtype = Path(root), np.dtype(dtype)
        if self.dtype.name not in DTYPES:
            raise ValueError(f'{root}: dtype must be one of {", ".join(DTYPES)}, not {self.dtype}.')
        if len({canonical_band(band) for band in bands}) != len(bands):
            raise ValueError(f'{root}: a band is named twice in {", ".join(bands)}.')
        if not resume and self.root.exists() and any(self.root.iterdir()):
            raise FileExistsError(f'{root} exists and is not empty; nothing was written.')
        self.root.mkdir(parents=True, exist_ok=True)
        self.bands, self.shape = tuple(bands), (int(shape[0]), int(shape[1]))
        self.nodata, self.scale = nodata, scale
        self._seen: set[str] = set()

    def add(
        self,
        location: str,
        dates: NDArray[np.datetime64],
        images: NDArray[Any],
        *,
        crs: str | None = None,
        transform: Affine | None = None,
    ) -> None:
        """Add one location with all its images.

        Args:
            location: Its name.
            dates: Shape (T,), in any order; a day may come twice.
            images: Shape (T, C, H, W).
            crs: Coordinate reference system, anything rasterio understands.
            transform: From pixels to that system.

        Raises:
            ValueError: If shape or data type differ from the store's, or the name cannot be
                used or came before.
        """
        if not location or location in self._seen or '/' in location or location[0] == '.':
            raise ValueError(f'{self.root}: location {location!r} is there already or no name.')
        expected = (len(dates), len(self.bands), *self.shape)
        if not len(dates) or images.shape != expected or images.dtype != self.dtype:
            raise ValueError(
                f'{self.root}: images of {location} must be {self.dtype} of shape {expected}, '
                f'at least one, not {images.dtype} of shape {images.shape}.'
            )
        days = np.asarray(dates, 'datetime64[D]')
        order = np.argsort(days, kind='stable')
        # Half a georeference says nothing.
        place = (crs, transform) if crs is not None and transform is not None else None
        self._write(location, days[order], images[order], place)
        self._seen.add(location)

    @abstractmethod
    def _write(
        self,
        location: str,
        dates: NDArray[np.datetime64],
        images: NDArray[Any],
        place: Place | None,
    ) -> None:
        """Write one location, in chronological order."""

    def close(self) -> None:
        """Finish the store.

        Raises:
            ValueError: If no location was added.
        """
        if not self._seen:
            raise ValueError(f'{self.root}: no location was added.')

    def __enter__(self) -> Self:
        """Start writing."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Finish the store, unless something went wrong."""
        if kind is None:
            self.close()
