"""What simulated landscapes are made of: classes, spectra, seasons, textures."""

from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

Field = NDArray[np.float64]

CLASSES = (
    'water',
    'broadleaf forest',
    'conifer forest',
    'grassland',
    'winter crops',
    'summer crops',
    'built-up',
    'bare ground',
)
WATER, BROADLEAF, CONIFER, GRASS, WINTER, SUMMER, BUILT, BARE = range(8)

BANDS = ('B1', 'B2', 'B3', 'B4', 'B5', 'B6', 'B7', 'B8', 'B8A', 'B9', 'B10', 'B11', 'B12')
#: Plausible reflectances of pure materials in these bands.
_MATERIALS = {
    'leaf': (0.02, 0.03, 0.06, 0.04, 0.10, 0.30, 0.38, 0.40, 0.42, 0.42, 0.01, 0.20, 0.10),
    'litter': (0.06, 0.07, 0.10, 0.12, 0.17, 0.21, 0.24, 0.26, 0.28, 0.28, 0.01, 0.32, 0.25),
    'soil': (0.07, 0.09, 0.12, 0.16, 0.20, 0.22, 0.24, 0.26, 0.27, 0.27, 0.01, 0.33, 0.30),
    'water': (0.06, 0.06, 0.055, 0.035, 0.03, 0.02, 0.02, 0.015, 0.01, 0.01, 0.01, 0.01, 0.005),
    'mud': (0.08, 0.10, 0.14, 0.13, 0.13, 0.09, 0.09, 0.08, 0.07, 0.05, 0.01, 0.03, 0.02),
    'roof': (0.12, 0.14, 0.16, 0.17, 0.19, 0.20, 0.21, 0.22, 0.22, 0.22, 0.02, 0.24, 0.22),
    'snow': (0.55, 0.56, 0.56, 0.55, 0.55, 0.54, 0.53, 0.52, 0.50, 0.48, 0.02, 0.08, 0.07),
}

#: Least and greatest green share, day of the peak, half width in days.
_SEASONS = np.array(
    [
        (0.00, 0.00, 200, 60),
        (0.15, 0.95, 200, 75),
        (0.60, 0.80, 190, 90),
        (0.25, 0.75, 140, 60),
        (0.05, 0.90, 125, 40),
        (0.05, 0.90, 215, 38),
        (0.08, 0.30, 190, 80),
        (0.02, 0.20, 130, 50),
    ]
)


def material(name: str, bands: tuple[str, ...]) -> Field:
    """Reflectance of a material in some bands, shape (C,)."""
    return np.array([_MATERIALS[name][BANDS.index(band)] for band in bands])


def green_share(day: float, phase: float, strength: float) -> Field:
    """Share of green leaves of each class on a day of the year.

    Args:
        day: Day of the year.
        phase: Days by which all seasons are late.
        strength: Strength of the seasons, 0: none.

    Returns:
        Shares in [0, 1], shape (8,).
    """
    low, high, peak, width = _SEASONS.T
    away = (day - phase - peak + 182.5) % 365 - 182.5
    wave = np.exp(-0.5 * (away / width) ** 2)
    middle = (low + high) / 2
    return np.clip(middle + strength * (low + (high - low) * wave - middle), 0, 1)


def smooth(rng: Generator, size: int, sigma: float) -> Field:
    """A smooth random field with mean 0 and variance 1, shape (size, size)."""
    field = gaussian_filter(rng.standard_normal((size, size)), sigma, mode='wrap')
    return (field - field.mean()) / max(float(field.std()), 1e-9)


def parcels(rng: Generator, size: int, count: int, warp: float, stretch: float) -> NDArray[Any]:
    """Number of the parcel of each pixel: a warped, stretched Voronoi pattern."""
    y, x = np.mgrid[:size, :size] + 0.0
    x += warp * smooth(rng, size, size / 10)
    y += warp * smooth(rng, size, size / 10)
    angle = rng.uniform(0, np.pi)
    u = x * np.cos(angle) + y * np.sin(angle)
    v = (y * np.cos(angle) - x * np.sin(angle)) * stretch
    points = np.stack([u, v], -1).reshape(-1, 2)
    seeds = points[rng.integers(len(points), size=count)]
    return cKDTree(seeds).query(points)[1].reshape(size, size)


def textures(rng: Generator, size: int) -> Field:
    """Relative brightness of each class at each pixel, shape (8, size, size)."""
    y, x = np.mgrid[:size, :size] + 0.0
    angle = rng.uniform(0, np.pi)
    u = x * np.cos(angle) + y * np.sin(angle)
    v = y * np.cos(angle) - x * np.sin(angle)
    out = np.zeros((len(CLASSES), size, size))
    out[WATER] = 0.03 * smooth(rng, size, 3)
    crowns = smooth(rng, size, 1.5)
    out[BROADLEAF] = 0.28 * np.tanh(1.5 * crowns)
    out[CONIFER] = 0.3 * np.clip(smooth(rng, size, 0.6), -1.5, 1.5)
    out[GRASS] = 0.1 * smooth(rng, size, 4)
    strips = parcels(rng, size, max(6, size // 3), 0.5, 0.25)
    rows = np.sin(2 * np.pi * v / rng.uniform(3.5, 5))
    out[WINTER] = 0.25 * rng.uniform(-1, 1, strips.max() + 1)[strips] + 0.12 * rows
    step = rng.uniform(10, 14)
    away = np.hypot((u + 999 * step) % step - step / 2, (v + 999 * step) % step - step / 2)
    disc = away < 0.44 * step
    numbers = (np.floor(u / step) * 31 + np.floor(v / step) * 17).astype(int) % 97
    out[SUMMER] = np.where(disc, 0.35 * rng.uniform(-1, 1, 97)[numbers], 0.35)
    block = rng.uniform(5, 7)
    street = ((u + 999 * block) % block < 1.2) | ((v + 999 * block) % block < 1.2)
    half = (np.floor(2 * u / block) * 37 + np.floor(2 * v / block) * 11).astype(int) % 211
    out[BUILT] = np.where(street, -0.35, 0.5 * rng.uniform(-0.8, 1, 211)[half])
    ridges = sum(
        (1 - 2 * np.abs(np.tanh(smooth(rng, size, sigma)))) * sigma**0.5 for sigma in (1.5, 3, 6)
    )
    out[BARE] = 0.09 * np.asarray(ridges)
    # Hills under all land, of another size at each place.
    hills = smooth(rng, size, float(np.exp(rng.uniform(np.log(0.8), np.log(6)))))
    out[WATER + 1 :] += rng.uniform(0, 0.2) * hills
    return out
