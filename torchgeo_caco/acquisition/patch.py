"""All images of one place."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Never

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from pystac import Item
from rasterio.errors import RasterioError
from requests import RequestException

from ..stores.base import footprint
from .catalog import Acquisition, Catalog, open_catalog
from .network import (
    LaterError,
    NeverError,
    ask_why,
    explain,
    gdal_options,
    hosts,
    is_network,
    persist,
    redact,
)
from .plan import Plan, Window
from .providers import baseline, find_offset
from .read import read_window

#: Classes of Sentinel-2's scene classification.
NODATA, SNOW = 0, 11
CLOUDY = (1, 3, 8, 9, 10)  # saturated, shadow, cloud of medium and high probability, cirrus

#: All grids of Sentinel-2 start at multiples of this many metres.
SNAP = 60.0


class Place(NamedTuple):
    """Where to look: a name and a point in degrees."""

    name: str
    lon: float
    lat: float


@dataclass
class Outcome:
    """What came of a place.

    Attributes:
        place: The place.
        status: ``'done'``, ``'unfillable'`` (there are no such images) or ``'failed'`` (servers did
            not answer as they should; later they may).
        record: What the ledger says of it, for JSON.
        dates: Shape (T,).
        images: Shape (T, C, H, W).
        crs: Coordinate reference system of the images.
        transform: From pixels to that system.
    """

    place: Place
    status: Literal['done', 'unfillable', 'failed']
    record: dict[str, Any] = field(default_factory=dict)
    dates: NDArray[np.datetime64] | None = None
    images: NDArray[Any] | None = None
    crs: str | None = None
    transform: Affine | None = None


def utm(lon: float, lat: float) -> int:
    """EPSG code of the UTM zone that Sentinel-2's tiles at a point mostly use."""
    zone = int((lon + 180) // 6) % 60 + 1
    if 56 <= lat < 64 and 3 <= lon < 12:
        zone = 32  # Norway
    elif 72 <= lat <= 84 and 0 <= lon < 42:
        zone = 31 + 2 * int((lon + 3) // 12)  # Svalbard
    return (32600 if lat >= 0 else 32700) + zone


def patch_grid(lon: float, lat: float, size: int, resolution: float) -> GeoBox:
    """The pixels of a patch: in UTM, on Sentinel-2's own grid.

    Args:
        lon: Longitude of its centre.
        lat: Latitude of its centre.
        size: Height and width in pixels.
        resolution: Metres in a pixel.

    Returns:
        The grid; its centre is within half of 60 m, or of a pixel, of the point.
    """
    code = utm(lon, lat)
    x, y = Transformer.from_crs(4326, code, always_xy=True).transform(lon, lat)
    step = SNAP if SNAP % resolution == 0 else resolution
    half = size * resolution / 2
    left, top = round((x - half) / step) * step, round((y + half) / step) * step
    return GeoBox((size, size), Affine(resolution, 0, left, 0, -resolution, top), f'EPSG:{code}')


def fetch(place: Place, plan: Plan) -> Outcome:
    """Fetch all images of a place; whatever happens is told by the outcome.

    Args:
        place: The place.
        plan: What to fetch.

    Returns:
        The outcome.
    """
    counter = hosts(plan.network.per_host)
    counter.reset()
    try:
        with rasterio.Env(**gdal_options(plan.provider, plan.network)):
            outcome = _Fetch(place, plan, open_catalog(plan)).run()
    except LaterError as error:
        outcome = Outcome(place, 'failed', {'reason': redact(error)})
    outcome.record['requests'] = sum(counter.counted.values())
    return outcome


class _Fetch:
    """The work on one place."""

    def __init__(self, place: Place, plan: Plan, catalog: Catalog) -> None:
        self.place, self.plan, self.catalog = place, plan, catalog
        self.grid = patch_grid(place.lon, place.lat, plan.size, plan.resolution)
        self.outline = footprint(str(self.grid.crs), self.grid.transform, (plan.size, plan.size))
        self.images: list[NDArray[Any]] = []
        self.record: dict[str, Any] = {'images': [], 'skipped': [], 'missing': []}

    def run(self) -> Outcome:
        """Go through all dates, and give up as soon as too many are missing."""
        for period, windows in enumerate(self.plan.dates.windows(self.place.name)):
            missing = 0
            for window in windows:
                reasons = self._fill(period, window)
                if reasons is None:
                    continue
                missing += 1
                when = f'{window[0]:%Y-%m-%d}/{window[1]:%Y-%m-%d}'
                self.record['missing'].append(f'{when}: {reasons}')
                if missing > self.plan.quality.missing:
                    self.record['reason'] = f'no image in {when}: {reasons}'
                    return Outcome(self.place, 'unfillable', self.record)
        days = np.array([image['date'] for image in self.record['images']], 'datetime64[D]')
        assert self.grid.crs is not None
        return Outcome(
            self.place, 'done', self.record, days, np.stack(self.images), str(self.grid.crs),
            self.grid.transform,
        )  # fmt: skip

    def _fill(self, period: int, window: Window) -> str | None:
        """Find an image for a date; the reason if there is none."""
        found = self.catalog.find(self.outline, *window)
        if not found:
            return 'no scene'
        reasons: list[str] = []
        for acquisition in found[: self.plan.quality.tries]:
            try:
                image, about = self._read(acquisition)
            except NeverError as error:
                reasons.append(f'{acquisition.time:%Y-%m-%d} {error}')
                continue
            self.images.append(image)
            self.record['images'].append({'period': period, **about})
            return None
        return '; '.join(reasons)

    def _read(self, acquisition: Acquisition) -> tuple[NDArray[Any], dict[str, Any]]:
        """Read a patch, shape (C, H, W), if it is clear."""
        shares = self._judge(acquisition.scenes)
        offsets = []
        image: NDArray[Any] | None = None
        used = []
        for item in acquisition.scenes:
            offset, pixels = self._read_scene(item)
            # Tiles of one pass differ in nothing but their edges.
            image = pixels if image is None else np.where(image == 0, pixels, image)
            used.append(item)
            offsets.append(offset)
            empty = 1 - float(image.all(0).mean())
            if empty <= self.plan.quality.nodata:
                break
        else:
            raise NeverError(f'{empty:.1%} without data')
        assert image is not None
        about = {
            'date': f'{acquisition.time:%Y-%m-%d}',
            'scenes': [item.id for item in used],
            'baselines': [baseline(item) for item in used],
            'offsets': offsets,
            **{name: round(share, 4) for name, share in shares.items()},
        }
        return self._scale(image), about

    def _judge(self, scenes: Sequence[Item]) -> dict[str, float]:
        """Shares of cloud and snow on the patch, if they are small enough."""
        asset, quality = self.plan.provider.classes, self.plan.quality
        if asset is None:
            return {}
        classes = np.zeros(self.grid.shape, np.uint8)
        for item in scenes:
            found = self._load(item, asset, 'nearest')
            classes = np.where(classes == NODATA, found, classes)
            if (classes == NODATA).mean() <= quality.nodata:
                break
        shares = {
            'nodata': float((classes == NODATA).mean()),
            'cloud': float(np.isin(classes, CLOUDY).mean()),
            'snow': float((classes == SNOW).mean()),
        }
        for name, share in shares.items():
            if share > getattr(quality, name):
                raise NeverError(f'{share:.1%} {name}')
        return shares

    def _read_scene(self, item: Item) -> tuple[int, NDArray[Any]]:
        """Read the bands of a scene as reflectance times 10000, 0 without data."""
        plan = self.plan
        assets = [plan.provider.assets[band] for band in plan.bands]
        try:
            offsets = [find_offset(item, asset, plan.provider.offset) for asset in assets]
        except (ValueError, KeyError) as error:
            self._skip(item, f'its offset is unknown: {error}')
        pixels = np.stack([self._load(item, asset, plan.resampling) for asset in assets])
        shifted = pixels.astype(np.int32) + np.array(offsets, np.int32)[:, None, None]
        # Darker than black is black, not nodata.
        shifted = np.where(pixels == 0, 0, shifted.clip(1, 65535)).astype(np.uint16)
        return offsets[0], shifted

    def _scale(self, image: NDArray[Any]) -> NDArray[Any]:
        """Reflectance times 10000, or 0-255."""
        if self.plan.scale == 'reflectance':
            return image
        scaled = (image.astype(np.float32) / 10000).clip(0, 1) * 255
        return np.where(image == 0, 0, scaled.clip(1, 255)).astype(np.uint8)

    def _skip(self, item: Item, why: str) -> Never:
        """Give a scene up, and remember why."""
        self.record['skipped'].append(f'{item.id}: {why}')
        raise NeverError(why)

    def _load(self, item: Item, asset: str, resampling: str) -> NDArray[Any]:
        """Read an asset of a scene on the patch's grid, shape (H, W), however often it takes."""
        if asset not in item.assets:
            self._skip(item, f'it has no {asset}')
        url, network = item.assets[asset].href, self.plan.network
        damaged = []

        def attempt() -> NDArray[Any]:
            status, wait = None, 0.0
            try:
                with hosts(network.per_host).request(url, 'reads'):
                    signed = self._sign(url)
                    try:
                        return read_window(signed, self.grid, resampling)
                    except RasterioError as error:
                        message = explain(error)
                status, wait = ask_why(signed, network)
            except RequestException as error:
                # The token service: it, too, may answer later.
                message = explain(error)
            if status in (404, 410):
                raise NeverError(f'{asset}: answered with {status}')
            damaged.append(status in (200, 206) and not is_network(message))
            later = LaterError(f'{item.id}: {asset}: {message} (status {status})')
            later.wait = wait
            raise later

        try:
            return persist(network, attempt)
        except NeverError as error:
            self._skip(item, str(error))
        except LaterError as error:
            # The server answered well each time, and yet the file cannot be read.
            if all(damaged):
                self._skip(item, f'unreadable: {error}')
            raise

    def _sign(self, url: str) -> str:
        """Address with a token, where one is needed; its key comes from the environment."""
        if self.plan.provider.sign is None:
            return url
        import planetary_computer

        signed: str = planetary_computer.sign(url)
        return signed
