"""Where on Earth to look: around cities, never wholly at sea."""

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import geopandas as gpd
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import shapely
from matplotlib.figure import Figure
from numpy.random import Generator
from numpy.typing import NDArray
from pyproj import CRS, Geod, Transformer
from scipy.spatial import cKDTree
from shapely.geometry.base import BaseGeometry
from torchgeo.datasets import GeoDataset
from torchgeo.samplers import SpatialSampler

from .land import LandMask

Law = Literal['caco', 'seco', 'uniform']
Floats = NDArray[np.float64]

GEOD = Geod(ellps='WGS84')
#: Mean radius of the Earth in metres, for distances between places.
RADIUS = 6_371_008.8
#: Standard deviation of the distance in km along each axis, and whether sea is rejected.
LAWS: dict[str, tuple[float, bool]] = {'caco': (5, True), 'seco': (50, False), 'uniform': (0, True)}
#: Places drawn from one generator: the first of a longer list are those of a shorter one.
CHUNK = 1024
#: Draws of one place in all, and around one city, which may be an island that the mask lacks.
TRIES, TRIES_OF_CITY = 1000, 100
#: Latitudes that Sentinel-2 covers, for ``'uniform'``.
COVERED = (-56.0, 84.0)


@cache
def load_cities() -> pd.DataFrame:
    """The 10,000 most populated cities of GeoNames (CC BY 4.0), most populated first.

    Returns:
        Columns ``geonameid``, ``city``, ``country``, ``population``, ``lon``, ``lat``.
    """
    with (files(__package__) / 'data' / 'cities.parquet').open('rb') as file:
        return pd.read_parquet(file)


class GeographicSampler(SpatialSampler):
    """Draw patches around cities, as CACo and SeCo did.

    A city is drawn from the most populated ones, all alike; a patch's centre is an isotropic
    Gaussian around it, in metres on the ground. A patch wholly in the sea is drawn again around the
    same city. Without a dataset it draws from the whole Earth, see :meth:`places`; with one it is a
    spatial sampler like TorchGeo's: ``GeographicSampler(dataset) @ SomeTemporalSampler(dataset)``.

    If you use this sampler, please cite:

    * https://openaccess.thecvf.com/content/CVPR2023/html/Mall_Change-Aware_Sampling_and_Contrastive_Learning_for_Satellite_Images_CVPR_2023_paper.html
    """

    def __init__(
        self,
        dataset: GeoDataset | None = None,
        *,
        size: int = 264,
        length: int = 10_000,
        law: Law = 'caco',
        sigma_km: float | None = None,
        cities: int | pd.DataFrame = 10_000,
        roi: BaseGeometry | None = None,
        min_distance_km: float = 0,
        reject_ocean: bool | None = None,
        seed: int = 0,
    ) -> None:
        """Initialize a new GeographicSampler instance.

        Args:
            dataset: Dataset to sample from; the Earth in 10 m pixels by default.
            size: Height and width of a patch in pixels of the dataset.
            length: Number of patches in an epoch.
            law: ``'caco'`` (sigma 5 km, no ocean), ``'seco'`` (50 km, nothing rejected) or
                ``'uniform'`` (on all land between 56 degrees south and 84 degrees north).
            sigma_km: Standard deviation of the offset along each axis; the law's by default.
            cities: How many of the most populated cities, or a table with the columns ``city``,
                ``country``, ``lon`` and ``lat``.
            roi: Region that patches must lie in: in the dataset's coordinate system (or EPSG:4326),
                the centre for the Earth, the whole patch for a dataset. Only cities inside count.
            min_distance_km: Least distance between the centres of any two patches.
            reject_ocean: Whether patches wholly in the sea are drawn again; the law's by default.
            seed: Seed of the places; every epoch has others.

        Raises:
            ValueError: If an argument is out of range, or no city is left.
        """
        if law not in LAWS:
            raise ValueError(f'law must be one of {", ".join(LAWS)}, not {law!r}.')
        if size < 1 or length < 1 or min_distance_km < 0 or (sigma_km is not None and sigma_km < 0):
            raise ValueError('size and length must be at least 1, distances not negative.')
        sigma, reject = LAWS[law]
        self.law, self.seed, self.min_distance = law, seed, 1000 * min_distance_km
        self.sigma = 1000 * (sigma if sigma_km is None else sigma_km)
        self.reject_ocean = reject if reject_ocean is None else reject_ocean
        self._length, self._epoch = length, 0
        if dataset is None:
            self.crs, self._side, self._half = CRS.from_epsg(4326), (0.0, 0.0), size * 10 / 2
            self.geometry = shapely.box(-180, -90, 180, 90) if roi is None else roi
        else:
            super().__init__(dataset, roi=roi)
            self.crs = CRS.from_user_input(dataset.crs)
            self._side = (size * self.res[0], size * self.res[1])
            # Erosion by half a side keeps the whole patch inside, up to a pixel of snapping.
            half = max(self._side) / 2 + max(self.res)
            self.geometry = self.geometry.buffer(-half, join_style='mitre')
            # A degree's conversion factor is to radians.
            unit = self.crs.axis_info[0].unit_conversion_factor
            self._half = half * unit * (RADIUS if self.crs.is_geographic else 1)
        if self.geometry.is_empty:
            raise ValueError(f'the region has no room for a patch of {size} pixels.')
        shapely.prepare(self.geometry)
        self._to_crs = Transformer.from_crs(4326, self.crs, always_xy=True)
        self._cities = self._choose(cities)

    # A property, since it is one in TorchGeo.
    @property
    def strategy(self) -> Literal['random', 'sequential']:
        """Sampling strategy."""
        return 'random'

    def _choose(self, cities: int | pd.DataFrame) -> pd.DataFrame:
        """The cities in the region."""
        table = load_cities().head(cities) if isinstance(cities, int) else cities
        missing = {'city', 'country', 'lon', 'lat'} - set(table.columns)
        if missing:
            raise ValueError(f'cities must have the columns {", ".join(sorted(missing))}.')
        inside = self._inside(table['lon'].to_numpy(float), table['lat'].to_numpy(float))
        if not inside.any() and self.law != 'uniform':
            raise ValueError(
                f'none of the {len(table)} cities lies in the region; '
                "use law='uniform' or cities of your own."
            )
        return table[inside].reset_index(drop=True)

    def _inside(self, lon: Floats, lat: Floats) -> NDArray[np.bool_]:
        """Whether points lie in the region."""
        return shapely.contains_xy(self.geometry, *self._to_crs.transform(lon, lat))

    def _offset(self, random: Generator, city: NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
        """Draw a place for each city: longitude, latitude and distance from it in metres."""
        number = len(city)
        if self.law == 'uniform':
            west, south, east, north = self._bounds()
            low, high = (float(np.sin(np.deg2rad(edge))) for edge in (south, north))
            sine = random.uniform(low, high, number)
            return (
                random.uniform(west, east, number),
                np.rad2deg(np.arcsin(sine)),
                np.full(number, np.nan),
            )
        # The length of an isotropic Gaussian is Rayleigh's, its direction any: on the ellipsoid
        # this is the Gaussian in metres at every latitude.
        distance = random.rayleigh(self.sigma, number)
        azimuth = random.uniform(0, 360, number)
        lon, lat = (self._cities[column].to_numpy(float)[city] for column in ('lon', 'lat'))
        lon, lat, _ = GEOD.fwd(lon, lat, azimuth, distance)
        return np.asarray(lon), np.asarray(lat), distance

    def _bounds(self) -> tuple[float, float, float, float]:
        """West, south, east and north of the region in degrees."""
        back = Transformer.from_crs(self.crs, 4326, always_xy=True)
        west, south, east, north = back.transform_bounds(*self.geometry.bounds)
        return west, max(south, COVERED[0]), east, min(north, COVERED[1])

    def _accept(self, lon: Floats, lat: Floats) -> NDArray[np.bool_]:
        """Whether patches may be taken, as far as land and region go."""
        good = self._inside(lon, lat)
        if self.law == 'uniform' and self.reject_ocean:
            good &= LandMask.load().contains(lon, lat)
        elif self.reject_ocean:
            good &= LandMask.load().touches(lon, lat, self._half)
        return good

    def _apart(self, points: Floats, taken: list[cKDTree]) -> NDArray[np.bool_]:
        """Which of some places, the first ones first, keep their distance."""
        chord = 2 * np.sin(min(self.min_distance / RADIUS, np.pi) / 2)
        good = np.ones(len(points), bool)
        if not chord or not len(points):
            return good
        for others in taken:
            good &= others.query(points)[0] >= chord
        rest = np.flatnonzero(good)
        for first, second in sorted(cKDTree(points[rest]).query_pairs(np.nextafter(chord, 0))):
            good[rest[second]] &= not good[rest[first]]
        return good

    def _chunk(self, number: int, taken: cKDTree) -> pd.DataFrame:
        """Draw a chunk of places that keep their distance from others."""
        random = np.random.default_rng([self.seed, self._epoch, number])
        city = random.integers(max(len(self._cities), 1), size=CHUNK)
        lon, lat, distance = np.full((3, CHUNK), np.nan)
        todo = np.arange(CHUNK)
        for attempt in range(TRIES):
            if attempt and attempt % TRIES_OF_CITY == 0:
                city[todo] = random.integers(max(len(self._cities), 1), size=len(todo))
            drawn = self._offset(random, city[todo])
            good = self._accept(*drawn[:2])
            keep = np.flatnonzero(good)
            points = _on_sphere(drawn[0][keep], drawn[1][keep])
            done = ~np.isnan(lon)
            own = cKDTree(_on_sphere(lon[done], lat[done]))
            keep = keep[self._apart(points, [taken, own])]
            for values, new in zip((lon, lat, distance), drawn, strict=True):
                values[todo[keep]] = new[keep]
            todo = np.delete(todo, keep)
            if not len(todo):
                break
        # A chunk that is not full is told of only if what is missing is asked for.
        return pd.DataFrame({'city': city, 'lon': lon, 'lat': lat, 'distance_km': distance / 1000})

    def _draw(self, number: int) -> pd.DataFrame:
        """Draw places: number of the city, longitude, latitude, distance."""
        chunks: list[pd.DataFrame] = []
        taken = np.empty((0, 3))
        for i in range(-(-number // CHUNK)):
            chunks.append(self._chunk(i, cKDTree(taken)))
            if self.min_distance:
                found = chunks[-1].dropna(subset='lon')
                points = _on_sphere(found['lon'].to_numpy(), found['lat'].to_numpy())
                taken = np.concatenate([taken, points])
        drawn = pd.concat(chunks, ignore_index=True).head(number)
        missing = int(drawn['lon'].isna().sum())
        if missing:
            raise ValueError(
                f'{missing} of {number} places could not be found in {TRIES} tries each: the '
                'region is too small, too far out at sea, or min_distance_km too large.'
            )
        return drawn

    def places(self, number: int | None = None) -> gpd.GeoDataFrame:
        """Draw places, always the same for the same arguments; fewer are the first of more.

        Args:
            number: How many; the length by default.

        Returns:
            Columns ``location`` (a name), ``city``, ``country``, ``distance_km`` from the city, and
            ``geometry``, the centre in EPSG:4326.

        Raises:
            ValueError: If there is no room for so many.
        """
        epoch, self._epoch = self._epoch, 0
        try:
            drawn = self._draw(self._length if number is None else number)
        finally:
            self._epoch = epoch
        columns: dict[str, Any] = {'location': [f'{i:07}' for i in range(len(drawn))]}
        if self.law != 'uniform':
            for name in ('city', 'country'):
                columns[name] = self._cities[name].to_numpy()[drawn['city']]
            columns['distance_km'] = drawn['distance_km']
        points = gpd.points_from_xy(drawn['lon'], drawn['lat'])
        places = gpd.GeoDataFrame(columns, geometry=points, crs='EPSG:4326')
        places.attrs['sampler'] = {
            'law': self.law,
            'sigma_km': self.sigma / 1000,
            'min_distance_km': self.min_distance / 1000,
            'cities': len(self._cities),
            'seed': self.seed,
        }
        return places

    def __iter__(self) -> Iterator[tuple[slice, slice]]:
        """Iterate over the patches of an epoch.

        Yields:
            [xmin:xmax, ymin:ymax] in the dataset's coordinate system; without a dataset, in
            degrees.
        """
        drawn = self._draw(self._length)
        self._epoch += 1
        x, y = self._to_crs.transform(drawn['lon'].to_numpy(), drawn['lat'].to_numpy())
        if not any(self._side):
            tall = np.full(len(drawn), 2 * self._half / 111_195)
            wide = tall / np.cos(np.deg2rad(y))
            left, bottom = x - wide / 2, y - tall / 2
        else:
            # On the dataset's own pixels.
            wide, tall = (np.full(len(drawn), side) for side in self._side)
            west, south = self.bounds[:2]
            left = west + np.round((x - wide / 2 - west) / self.res[0]) * self.res[0]
            bottom = south + np.round((y - tall / 2 - south) / self.res[1]) * self.res[1]
        for a, b, w, h in zip(left, bottom, wide, tall, strict=True):
            yield slice(float(a), float(a + w)), slice(float(b), float(b + h))


def _on_sphere(lon: Floats, lat: Floats) -> Floats:
    """Points on the unit sphere, shape (N, 3)."""
    a, b = np.deg2rad(lon), np.deg2rad(lat)
    return np.stack([np.cos(b) * np.cos(a), np.cos(b) * np.sin(a), np.sin(b)], -1)


def plot_places(places: gpd.GeoDataFrame) -> Figure:
    """Plot places on a map of the world.

    Args:
        places: What :meth:`GeographicSampler.places` returns.

    Returns:
        The figure.
    """
    figure, axes = plt.subplots(figsize=(16, 8), layout='constrained')
    axes.imshow(
        np.where(LandMask.load().grid(), 0.85, 1.0),
        extent=(-180, 180, -90, 90), cmap='gray', vmin=0, vmax=1, interpolation='nearest',
    )  # fmt: skip
    points = places.geometry.to_crs(4326)
    axes.plot(points.x, points.y, ',' if len(points) > 20_000 else '.', ms=2, color='tab:red')
    axes.set(xlim=(-180, 180), ylim=(-60, 85), xlabel='longitude', ylabel='latitude')
    axes.set_title(f'{len(places):,} places')
    return figure
