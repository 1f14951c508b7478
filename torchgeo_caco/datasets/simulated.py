"""Procedural Sentinel-2-like places with seasons and, at some of them, lasting change."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import batched
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import shift
from tqdm import tqdm

from ..stores import FolderWriter, PackedWriter, canonical_band
from .scenery import (
    BANDS,
    BARE,
    BROADLEAF,
    BUILT,
    CLASSES,
    CONIFER,
    GRASS,
    SUMMER,
    WATER,
    WINTER,
    Field,
    green_share,
    material,
    parcels,
    smooth,
    textures,
)

CHANGES = ('building', 'clearing', 'flooding', 'mining', 'fields')
#: What a place becomes, by kind of change; and what it can have been.
_BECOMES = {'building': BUILT, 'clearing': GRASS, 'flooding': WATER, 'mining': BARE}
_FOREST, _CROPS = (BROADLEAF, CONIFER), (WINTER, SUMMER)


@dataclass(frozen=True)
class Landscape:
    """One place with its truth.

    Attributes:
        name: Its name.
        dates: Dates in chronological order, shape (T,), ``datetime64[D]``.
        images: Reflectance x 10000, shape (T, C, H, W), uint16; never 0.
        class_maps: Class of each pixel in each period, shape (2, H, W), uint8.
        labels: Most frequent class of each period, shape (2,), uint8.
        changed: Whether something changed for good between the periods.
        kind: Kind of change, one of :data:`CHANGES`, or ''.
        mask: Where it changed, shape (H, W), bool.
        crs: Coordinate reference system (UTM).
        transform: Affine transform, six numbers.
    """

    name: str
    dates: NDArray[np.datetime64]
    images: NDArray[np.uint16]
    class_maps: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    changed: bool
    kind: str
    mask: NDArray[np.bool_]
    crs: str
    transform: tuple[float, ...]


@dataclass(frozen=True)
class Truth:
    """The truth of a simulated store, a row for each location in the order of its names.

    Attributes:
        names: Names, shape (N,).
        changed: Shape (N,), bool.
        kinds: Kinds of change, '' for none, shape (N,).
        labels: Most frequent class of each period, shape (N, 2).
        class_maps: Shape (N, 2, H, W), uint8.
        masks: Shape (N, H, W), bool.
    """

    names: NDArray[np.str_]
    changed: NDArray[np.bool_]
    kinds: NDArray[np.str_]
    labels: NDArray[np.uint8]
    class_maps: NDArray[np.uint8]
    masks: NDArray[np.bool_]


class SimulatedLandscapes(Sequence[Landscape]):
    """Simulated places; place *i* is a function of the seed and of *i* alone.

    Land-cover classes follow the seasons, whose strength differs strongly between places; haze,
    light, noise and small shifts come on top. At a share of the places something changes for good.
    """

    def __init__(
        self,
        num_locations: int = 512,
        size: int = 64,
        bands: Sequence[str] = ('B4', 'B3', 'B2'),
        dates_per_period: int = 5,
        changed_fraction: float = 0.25,
        seed: int = 0,
        years: tuple[int, int] = (2016, 2020),
    ) -> None:
        """Initialize a new SimulatedLandscapes instance.

        Args:
            num_locations: Number of places N.
            size: Height and width in pixels of 10 m.
            bands: Sentinel-2 bands, in this order.
            dates_per_period: Dates in each of the two periods.
            changed_fraction: Probability that a place changes.
            seed: The seed.
            years: Years in which the periods begin.

        Raises:
            ValueError: If a band is unknown or a number out of range.
        """
        unknown = [band for band in bands if canonical_band(band) not in BANDS]
        if unknown:
            raise ValueError(f'unknown bands {", ".join(unknown)}; there are {", ".join(BANDS)}.')
        if num_locations < 1 or size < 16 or dates_per_period < 1:
            raise ValueError('num_locations and dates_per_period must be >= 1, size >= 16.')
        if not 0 <= changed_fraction <= 1 or years[1] <= years[0]:
            raise ValueError('changed_fraction must be in [0, 1] and years in order.')
        self.num_locations, self.size, self.bands = num_locations, size, tuple(bands)
        self.dates_per_period, self.changed_fraction = dates_per_period, changed_fraction
        self.seed, self.years = seed, years

    def __len__(self) -> int:
        """Number of places."""
        return self.num_locations

    def __iter__(self) -> Iterator[Landscape]:
        """All places in order."""
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        """Make one place.

        Args:
            index: Its number.

        Returns:
            The :class:`Landscape`.

        Raises:
            IndexError: If there is no such place.
        """
        if not 0 <= index < self.num_locations:
            raise IndexError(f'there are places 0 to {self.num_locations - 1}, not {index}.')
        rng = np.random.default_rng((self.seed, index))
        before = _class_map(rng, self.size)
        changed = bool(rng.random() < self.changed_fraction)
        kind, after, mask = _change(rng, before) if changed else ('', before, before < 0)
        texture = textures(rng, self.size)
        # Drawn in any case, so that a place's weather does not depend on its change.
        new = np.where(mask, textures(rng, self.size), texture)
        dates = self._dates(rng)
        climate = _Climate(rng, tuple(canonical_band(b) for b in self.bands))
        images = np.empty((len(dates), len(self.bands), self.size, self.size), np.uint16)
        for t, date in enumerate(dates):
            later = t >= self.dates_per_period
            layout, pattern = (after, new) if later else (before, texture)
            images[t] = _render(rng, climate, layout, pattern, date, later)
        maps = np.stack([before, after]).astype(np.uint8)
        counts = [np.bincount(m.ravel(), minlength=len(CLASSES)).argmax() for m in maps]
        east, north = rng.integers(300_000, 700_000), rng.integers(1_000_000, 6_500_000)
        return Landscape(
            name=f'place_{index:06d}',
            dates=dates,
            images=images,
            class_maps=maps,
            labels=np.array(counts, np.uint8),
            changed=changed,
            kind=kind,
            mask=mask,
            crs=f'EPSG:{32600 + int(rng.integers(1, 61))}',
            transform=(10.0, 0.0, float(east // 10 * 10), 0.0, -10.0, float(north // 10 * 10)),
        )

    def _dates(self, rng: Generator) -> NDArray[np.datetime64]:
        """Different days, spread over the year that each period spans."""
        parts = []
        for year in self.years:
            slots = np.linspace(0, 360, self.dates_per_period + 1)
            days = (slots[:-1] + rng.uniform(0, 1, self.dates_per_period) * np.diff(slots)).astype(
                int
            )
            days = np.unique(np.minimum(days, 359))
            while len(days) < self.dates_per_period:
                days = np.unique(np.append(days, rng.integers(0, 360)))
            parts.append(np.datetime64(f'{year}-01-01', 'D') + days)
        return np.concatenate(parts)

    def _all(self) -> Iterator[Landscape]:
        """All places in order, drawn in threads: SciPy often lets go of Python's lock."""
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for numbers in batched(range(len(self)), 64):
                yield from pool.map(self.__getitem__, numbers)

    def write(
        self,
        root: str | Path,
        layout: Literal['packed', 'folder'] = 'packed',
        progress: bool = False,
    ) -> Path:
        """Write a store, and the truth beside its images.

        Args:
            root: Folder to make.
            layout: ``'packed'``, or ``'folder'`` of ``<location>/<date>/<band>.tif``.
            progress: Whether to show a progress bar.

        Returns:
            The folder.

        Raises:
            FileExistsError: If *root* exists and is not empty.
        """
        kind = {'packed': PackedWriter, 'folder': FolderWriter}[layout]
        rows = []
        shape = (self.size, self.size)
        with kind(
            root, bands=self.bands, shape=shape, dtype='uint16', nodata=0, scale='reflectance'
        ) as writer:
            bar = tqdm(self._all(), 'simulating places', len(self), disable=not progress)
            for place in bar:
                writer.add(
                    place.name, place.dates, place.images, crs=place.crs, transform=place.transform
                )
                # The images are written; of many places they would not fit into memory.
                rows.append(replace(place, images=place.images[:0].copy()))
            np.savez_compressed(
                Path(root) / 'truth.npz',
                names=np.array([p.name for p in rows]),
                changed=np.array([p.changed for p in rows]),
                kinds=np.array([p.kind for p in rows]),
                labels=np.stack([p.labels for p in rows]),
                class_maps=np.stack([p.class_maps for p in rows]),
                masks=np.stack([p.mask for p in rows]),
            )
        return Path(root)


def load_truth(root: str | Path) -> Truth:
    """Read the truth of a simulated store.

    Args:
        root: Folder that :meth:`SimulatedLandscapes.write` made.

    Returns:
        The truth.

    Raises:
        FileNotFoundError: If there is none.
    """
    path = Path(root) / 'truth.npz'
    if not path.is_file():
        raise FileNotFoundError(f'{path} not found; only simulated stores have a truth.')
    with np.load(path) as file:
        return Truth(**{key: file[key] for key in Truth.__dataclass_fields__})


def _class_map(rng: Generator, size: int) -> NDArray[Any]:
    """A dominant class on 80 to 100 % of the ground, and up to two others."""
    cells = parcels(rng, size, int(rng.integers(8, 20)), size / 16, rng.uniform(0.5, 1))
    dominant, *others = rng.permutation(len(CLASSES))[: int(rng.integers(1, 4))]
    layout = np.full((size, size), dominant)
    room = rng.uniform(0, 0.2) * size**2
    for cell in rng.permutation(cells.max() + 1):
        here = cells == cell
        if others and here.sum() <= room:
            layout[here] = rng.choice(others)
            room -= here.sum()
    return layout


def _change(rng: Generator, before: NDArray[Any]) -> tuple[str, NDArray[Any], NDArray[np.bool_]]:
    """Something that lasts, in one or a few compact places on 25 to 75 % of the ground."""
    size = len(before)
    field = smooth(rng, size, size / 6)
    mask = field > np.quantile(field, 1 - rng.uniform(0.25, 0.75))
    dominant = np.bincount(before[mask]).argmax()
    kinds = [kind for kind, new in _BECOMES.items() if new != dominant]
    if dominant not in _FOREST:
        kinds = [kind for kind in kinds if kind != 'clearing']
    if dominant == WATER:
        kinds = ['building', 'mining']
    if dominant in _CROPS:
        kinds.append('fields')
    kind = str(rng.choice(kinds))
    after = before.copy()
    if kind == 'fields':
        # Another pattern of other crops.
        after[mask] = SUMMER if dominant == WINTER else WINTER
    else:
        after[mask] = _BECOMES[kind]
    return kind, after, (after != before)


class _Climate:
    """What all images of a place share: strength of the seasons, soils, light."""

    def __init__(self, rng: Generator, bands: tuple[str, ...]) -> None:
        self.bands = bands
        self.strength = float(np.exp(rng.uniform(np.log(0.1), np.log(1.6))))
        # Some places are hazy, steep or often wet: all that varies there varies more.
        self.unrest = float(np.exp(rng.uniform(np.log(0.3), np.log(2.5))))
        # How strongly textures show.
        self.contrast = float(np.exp(rng.uniform(np.log(0.8), np.log(1.25))))
        self.grain = float(np.exp(rng.uniform(np.log(0.002), np.log(0.01))))
        self.phase = float(rng.choice([0, 182]) + rng.normal(0, 15))
        self.year_phase = rng.normal(0, 12, 2)
        self.year_strength = rng.uniform(0.75, 1.25, 2)
        self.snow = max(0.0, self.strength - 0.5) * float(rng.random() < 0.5)
        self.leaf = material('leaf', bands) * rng.uniform(0.85, 1.2)
        self.snowy = material('snow', bands)
        soil = material('soil', bands) * rng.uniform(0.75, 1.25)
        litter = material('litter', bands) * rng.uniform(0.8, 1.2)
        water = material('water', bands) + rng.uniform(0, 1.2) * material('mud', bands)
        ground = {
            WATER: water,
            BROADLEAF: 0.6 * litter,
            CONIFER: 0.5 * litter,
            GRASS: litter,
            WINTER: soil,
            SUMMER: soil,
            BUILT: material('roof', bands) * rng.uniform(0.5, 1.1),
            BARE: 0.5 * soil + 0.5 * material('roof', bands) * rng.uniform(0.4, 1.2),
        }
        self.ground: Field = np.stack([ground[c] for c in range(len(CLASSES))])


def _render(
    rng: Generator,
    climate: _Climate,
    layout: NDArray[Any],
    pattern: Field,
    date: np.datetime64,
    later: bool,
) -> NDArray[np.uint16]:
    """One image: ground and leaves, texture, snow, shift, haze, light, noise."""
    size, channels = len(layout), len(climate.bands)
    day = int((date - date.astype('datetime64[Y]')).astype(int))
    phase = climate.phase + climate.year_phase[int(later)]
    strength = climate.strength * climate.year_strength[int(later)]
    green = green_share(day, phase, strength)
    colours = green[:, None] * climate.leaf + (1 - green[:, None]) * climate.ground
    rows, columns = np.indices(layout.shape)
    # Low sun and moist air change how strongly textures show, from date to date.
    shade = np.exp(-0.05 + climate.unrest * np.clip(rng.normal(0, 0.2), -0.4, 0.4))
    relief = shade * climate.contrast * pattern[layout, rows, columns]
    image = colours[layout] * np.clip(np.exp(2 * relief), 0.2, 3)[..., None]
    winter = (1 + np.cos(2 * np.pi * (day - climate.phase - 15) / 365)) / 2
    cover = climate.snow * max(0.0, winter - 0.7) / 0.3 * rng.uniform(0, 1)
    white = np.clip(cover * (layout != WATER) * (0.6 + 0.4 * smooth(rng, size, 3)), 0, 0.8)
    image = image * (1 - white[..., None]) + climate.snowy * white[..., None]
    off = rng.normal(0, 0.5, 2).clip(-1, 1)
    image = shift(image, (*off, 0), order=1, mode='nearest')
    wavelength = np.array([BANDS.index(band) for band in climate.bands])
    blue = np.exp(-wavelength / 3)
    veil = rng.exponential(0.02 * climate.unrest) * (1 + 0.3 * smooth(rng, size, size / 5))
    image = image + np.clip(veil, 0, None)[..., None] * blue
    if rng.random() < 0.05:
        cloud = np.clip(smooth(rng, size, size / 8) - 1.3, 0, 1)[..., None]
        image = image * (1 - 0.5 * np.roll(cloud, (6, 6), (0, 1))) * (1 - cloud) + 0.5 * cloud
    slope = np.linspace(-1, 1, size) * rng.normal(0, 0.05 * climate.unrest)
    # Sun, air and sensor: a factor for all bands, and one for each.
    light = rng.normal(0, 0.2) + rng.normal(0, 0.12, channels)
    image = image * np.exp(climate.unrest * light) * (1 + slope[:, None, None])
    image = image + rng.normal(0, climate.grain, (size, size, channels))
    return np.clip(image * 10000, 1, 12000).astype(np.uint16).transpose(2, 0, 1)
