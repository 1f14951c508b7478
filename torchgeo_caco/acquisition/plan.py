"""What to fetch for each place: dates, bands, and what is good enough."""

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal
from zlib import crc32

import numpy as np

from .providers import Provider

Window = tuple[datetime, datetime]


@dataclass(frozen=True)
class Dates:
    """Two periods of seasonal dates, by default SeCo's five in a year, twice, four years apart.

    Attributes:
        reference: The newest date that any place may have.
        years_between: Years between the periods.
        periods: 2, or 1 for the later one alone (SeCo).
        seasons: Dates in a period.
        spacing_weeks: Weeks between dates.
        window_days: Days around a date in which an image is looked for.
        shift_days: Each place's dates are earlier by up to so many days, so that all seasons and
            years are there.
        seed: Seed of the shifts.
    """

    reference: date
    years_between: float = 4
    periods: int = 2
    seasons: int = 5
    spacing_weeks: float = 12
    window_days: float = 15
    shift_days: int = 364
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values."""
        if self.periods not in (1, 2) or self.seasons < 1 or self.shift_days < 0:
            raise ValueError('periods must be 1 or 2, seasons at least 1, shift-days not negative.')
        if not 0 < self.window_days <= 7 * self.spacing_weeks:
            raise ValueError(
                f'a window of {self.window_days} days does not fit a spacing of '
                f'{self.spacing_weeks} weeks: windows must not overlap.'
            )

    def windows(self, place: str) -> list[list[Window]]:
        """When to look for images of a place.

        Args:
            place: Its name; its shift depends on name and seed alone.

        Returns:
            For each period, the earlier first, the windows of its dates, the earliest first.
        """
        random = np.random.default_rng([self.seed, crc32(place.encode())])
        newest = datetime.combine(self.reference, datetime.min.time(), UTC)
        newest -= timedelta(days=int(random.integers(self.shift_days + 1)))
        half = timedelta(days=self.window_days / 2)
        periods = []
        for period in range(self.periods):
            back = timedelta(days=365.25 * self.years_between * (self.periods - 1 - period))
            middles = [
                newest - back - timedelta(weeks=self.spacing_weeks * season)
                for season in reversed(range(self.seasons))
            ]
            periods.append([(middle - half, middle + half) for middle in middles])
        return periods


@dataclass(frozen=True)
class Quality:
    """What is good enough; shares of a patch's pixels by the scene classification.

    Attributes:
        scene_cloud: Largest cloud cover in percent that a scene may claim.
        cloud: Largest share of cloud, cirrus, cloud shadow and saturated pixels.
        snow: Largest share of snow and ice.
        nodata: Largest share without data.
        tries: Scenes judged for one date, the clearest first.
        missing: How many dates of a period may remain without an image.
    """

    scene_cloud: float = 60
    cloud: float = 0.1
    snow: float = 0.5
    nodata: float = 0.0
    tries: int = 4
    missing: int = 0


@dataclass(frozen=True)
class Network:
    """How to deal with servers.

    Attributes:
        timeout: Seconds without progress after which a request counts as dead.
        attempts: Attempts for one search or one reading.
        backoff: Seconds of the first wait, which doubles from attempt to attempt, with jitter.
        longest: Seconds of the longest wait.
        per_host: Requests to one host at a time, in each process.
    """

    timeout: float = 30
    attempts: int = 6
    backoff: float = 1
    longest: float = 60
    per_host: int = 8


@dataclass(frozen=True)
class Plan:
    """All that decides what a store will hold.

    Attributes:
        provider: Where images come from.
        dates: When.
        bands: Bands, by short names such as ``'B4'``.
        size: Height and width of a patch in pixels.
        resolution: Metres in a pixel.
        scale: ``'reflectance'`` (times 10000, uint16) or ``'0-255'`` (uint8, reflectance 0 to 1).
        resampling: For bands of another grid: ``'nearest'``, ``'bilinear'``, ``'cubic'``...
        quality: What is good enough.
        network: How to deal with servers; it decides nothing about the pixels.
    """

    provider: Provider
    dates: Dates
    bands: tuple[str, ...] = ('B4', 'B3', 'B2')
    size: int = 264
    resolution: float = 10
    scale: Literal['reflectance', '0-255'] = 'reflectance'
    resampling: str = 'nearest'
    quality: Quality = field(default_factory=Quality)
    network: Network = field(default_factory=Network, compare=False)

    def __post_init__(self) -> None:
        """Check the values."""
        unknown = [band for band in self.bands if band not in self.provider.assets]
        if unknown or not self.bands:
            raise ValueError(
                f'{self.provider.collection} has no band {", ".join(unknown) or "at all"}; '
                f'it has {", ".join(self.provider.assets)}.'
            )
        if self.size < 1 or self.resolution <= 0:
            raise ValueError(
                f'size and resolution must be positive: {self.size}, {self.resolution}.'
            )

    @property
    def dtype(self) -> str:
        """Data type of the images."""
        return 'uint8' if self.scale == '0-255' else 'uint16'

    def __hash__(self) -> int:
        """So that a plan can be the key of a cache."""
        return crc32(self.to_json().encode())

    def to_json(self) -> str:
        """The plan as JSON, without what decides nothing about the pixels."""
        settings: dict[str, Any] = asdict(self)
        del settings['network']
        return json.dumps(settings, default=str, indent=1)
