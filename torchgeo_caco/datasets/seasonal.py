"""Seasonal time series of locations, as samples for contrastive learning."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torchgeo.datasets import DatasetNotFoundError, NonGeoDataset, RGBBandsMissingError

from ..stores import SeasonalStore, canonical_band, open_store
from .archives import Size, provide
from .batches import room
from .dates import Split, draw_positions, parse_split, split_periods
from .replacing import find_empty, read_each

logger = logging.getLogger(__name__)

Sample = dict[str, Any]


class SeasonalTemporalDataset(NonGeoDataset):
    """The same places in several seasons of two periods some years apart.

    A sample is a location: three different dates of an earlier and of a later period. The root is a
    folder of ``<location>/<date>/<band>.tif``, as the published CACo and SeCo archives, or a
    packed store; which one is found out.

    If you use this dataset's form of sampling, please cite:

    * https://openaccess.thecvf.com/content/CVPR2023/html/Mall_Change-Aware_Sampling_and_Contrastive_Learning_for_Satellite_Images_CVPR_2023_paper.html
    """

    rgb_bands = ('B4', 'B3', 'B2')

    def __init__(
        self,
        root: str | Path = 'data',
        bands: Sequence[str] = rgb_bands,
        periods: int = 2,
        seasons: int = 3,
        split: Split = 'newest',
        seasons_per_period: int = 5,
        replacement: bool = False,
        sample: Literal['location', 'image'] = 'location',
        flatten: bool = False,
        transforms: Callable[[Sample], Sample] | None = None,
        seed: int = 0,
        on_bad_location: Literal['skip', 'raise'] = 'skip',
        size: Size | None = None,
        download: bool = False,
        checksum: bool = True,
        nodata: float | None = 0,
    ) -> None:
        """Initialize a new SeasonalTemporalDataset instance.

        Args:
            root: Folder of the store; with *size* the folder in which that of the store lies.
            bands: Bands to read, in this order.
            periods: 2: earlier and later; 1: one period of all dates (SeCo).
            seasons: Dates S drawn in each period.
            split: How the dates fall into two periods. ``'newest'``: the newest
                *seasons_per_period* dates are the later one (the published code). ``'gap'``: at
                the largest gap. A date such as ``'2018-06-01'``: before it, and from it on.
                ``(('2016', '2017'), ('2020', '2021'))``: two half-open intervals.
            seasons_per_period: Number of dates in the later period for ``'newest'``.
            replacement: Whether one date may be drawn twice (published SeCo and TeCo: yes).
            sample: ``'location'``, or ``'image'``: every single image is a sample (MoCo).
            flatten: Give ``(T C) H W`` images, TorchGeo's form, instead of (P, S, C, H, W).
            transforms: Takes and returns a sample.
            seed: Seed of the dates drawn.
            on_bad_location: What to do with a location that has too few dates in a period, or whose
                images cannot be read or are empty. ``'skip'``: the former is left out, the latter
                replaced (see :meth:`__getitems__`), both are counted. ``'raise'``: stop.
            size: A published archive: ``'10k'``, ``'100k'`` or ``'1m'`` of CACo, ``'seco-100k'`` or
                ``'seco-1m'`` (five dates a location: use ``periods=1``).
            download: Whether to download that archive if it is missing.
            checksum: Whether to check that archive before it is unpacked.
            nodata: Value of pixels without data if the store says none; None: no value is. NaN
                always is.

        Raises:
            ConnectionError: If an archive cannot be downloaded.
            DatasetNotFoundError: If there is no store in *root*.
            ValueError: If an argument is out of range, a band is unknown, or no location is left.
        """
        if periods not in (1, 2) or seasons < 1:
            raise ValueError(
                f'periods must be 1 or 2 and seasons at least 1: {periods}, {seasons}.'
            )
        if sample not in ('location', 'image'):
            raise ValueError(f"sample must be 'location' or 'image', not {sample!r}.")
        if on_bad_location not in ('skip', 'raise'):
            raise ValueError(f"on_bad_location must be 'skip' or 'raise', not {on_bad_location!r}.")
        days = parse_split(split)
        self.root, self.bands = root, tuple(bands)
        try:
            folder = root if size is None else provide(root, size, download, checksum)
            self.store: SeasonalStore = open_store(folder)
        except FileNotFoundError as error:
            missing = DatasetNotFoundError(self)
            missing.args = (str(error),)
            raise missing from None
        self.store.band_positions(self.bands)
        self.periods, self.seasons, self.replacement = periods, seasons, replacement
        self.sample, self.flatten, self.transforms, self.seed = sample, flatten, transforms, seed
        # In shared memory, so that workers that live on see a new epoch. -1: never set.
        self._epoch = torch.full((1,), -1, dtype=torch.int64).share_memory_()
        self.on_bad_location = on_bad_location
        self.nodata = nodata if self.store.nodata is None else self.store.nodata
        self._select(days, seasons_per_period, on_bad_location)
        # Workers say here which locations they replaced; shared as the epoch is.
        self._replaced = torch.zeros(len(self._numbers), dtype=torch.bool).share_memory_()

    def _select(self, split: Any, seasons_per_period: int, on_bad_location: str) -> None:
        """Keep the locations with enough dates."""
        dates = [self.store.dates(i) for i in range(len(self.store))]
        ranges = split_periods(dates, split, self.periods, seasons_per_period)
        need = 1 if self.replacement else self.seasons
        good = (ranges[..., 1] >= need).all(axis=1) | (self.sample == 'image')
        few = [self.store.names[i] for i in np.flatnonzero(~good)]
        self.skipped = tuple(sorted([*few, *self.store.undated]))
        if self.skipped:
            count = f'{len(self.skipped)} of {self.found} locations'
            least = f'fewer than {need} dates in a period'
            why = f'{"no date" if self.sample == "image" else least}, e.g. {self.skipped[0]}'
            if on_bad_location == 'raise' or not good.any():
                raise ValueError(f'{self.root}: {count} cannot be used: {why}.')
            logger.warning('%s: %s skipped: %s', self.root, count, why)
        self._numbers = np.flatnonzero(good)
        self._ranges = ranges[good]
        self._images = self.store.counts[self._numbers].cumsum()

    @property
    def found(self) -> int:
        """Number of locations found, those without any date too."""
        return len(self.store) + len(self.store.undated)

    @property
    def location_names(self) -> tuple[str, ...]:
        """Names of the locations kept; ``sample['index']`` is a position here."""
        return tuple(self.store.names[i] for i in self._numbers)

    def names_of(self, indices: Sequence[int]) -> list[str]:
        """Names of the locations that samples show.

        Args:
            indices: Numbers of samples.

        Returns:
            A name for each.
        """
        locations = np.asarray(indices, dtype=np.int64)
        if self.sample == 'image':
            locations = np.searchsorted(self._images, locations, side='right')
        return [self.store.names[i] for i in self._numbers[locations]]

    @property
    def replaced(self) -> tuple[str, ...]:
        """Names of the locations that could not be read so far and were replaced by others."""
        return tuple(self.store.names[i] for i in self._numbers[self._replaced.numpy()])

    def dates_of(self, index: int) -> NDArray[np.datetime64]:
        """Dates of a location.

        Args:
            index: Number of the location among those kept.

        Returns:
            Its dates in chronological order, shape (T,), ``datetime64[D]``.
        """
        return self.store.dates(int(self._numbers[index]))

    def __len__(self) -> int:
        """Number of samples."""
        return int(self._images[-1]) if self.sample == 'image' else len(self._numbers)

    def set_epoch(self, epoch: int) -> None:
        """Fix the dates drawn from now on; they depend on (seed, epoch, location) alone.

        As long as this was never called, dates come from PyTorch's generator, so that a plain
        shuffling data loader sees new dates in every epoch.

        Args:
            epoch: Number of the epoch, >= 0.

        Raises:
            ValueError: If it is negative.
        """
        if epoch < 0:
            raise ValueError(f'epoch must not be negative: {epoch}.')
        self._epoch.fill_(epoch)

    def draw(
        self, locations: NDArray[np.int64], epoch: int | NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Dates that an epoch draws.

        Args:
            locations: Numbers of locations among those kept, shape (B,).
            epoch: Number of the epoch, or one for each location, shape (B,).

        Returns:
            Positions in each location's chronological dates, shape (B, P, S).
        """
        ranges = self._ranges[locations]
        keys = [
            np.array(self.seed, np.int64),
            np.reshape(epoch, (-1, 1)),
            np.reshape(locations, (-1, 1)),
        ]
        drawn = draw_positions(ranges[..., 1], self.seasons, keys, self.replacement)
        return drawn + ranges[..., :1]

    def __getitem__(self, index: int) -> Sample:
        """Return one sample.

        Args:
            index: Number of the sample.

        Returns:
            ``image`` (P, S, C, H, W), or (P S C, H, W) with *flatten*, in the store's data type;
            ``index``, number of the location, int64; ``dates`` (P, S), days since 1970, int64.

        Raises:
            IndexError: If there is no such sample.
            ValueError: If an image cannot be read.
        """
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """Return several samples, views of one tensor that was read at once.

        With ``on_bad_location='skip'`` a sample whose images cannot be read, or hold nothing but
        nodata, is replaced by another one, which depends on (seed, epoch, sample) alone; its
        ``index`` is that of the location it shows. :attr:`replaced` has the names.

        Args:
            indices: Numbers of the samples.

        Returns:
            The samples, in this order.

        Raises:
            IndexError: If there is no such sample.
            ValueError: If images cannot be read and *on_bad_location* is ``'raise'``, or none of
                several samples in their place can be read.
        """
        wanted = np.asarray(indices, dtype=np.int64)
        if len(wanted) and not (-len(self) <= wanted.min() and wanted.max() < len(self)):
            raise IndexError(f'{self.root} has samples 0 to {len(self) - 1}, not {list(indices)}.')
        wanted = wanted % len(self)
        epoch = np.full(len(wanted), int(self._epoch))
        if len(wanted) and epoch[0] == -1:
            epoch = torch.randint(2**62, (len(wanted),)).numpy()
        locations, times = self._look_up(wanted, epoch)
        image = room((*times.shape, len(self.bands), *self.store.shape), self.store.dtype)
        flat = image.flatten(1, 2).numpy()
        try:
            self._read(locations, times, flat)
        except ValueError:
            if self.on_bad_location == 'raise':
                raise

            def read(row: int, sample: int) -> None:
                self._read_one(sample, epoch[row : row + 1], flat[row : row + 1])

            wanted = read_each(wanted, epoch, len(self), self.seed, read)
            locations, times = self._look_up(wanted, epoch)
        numbers = self._numbers[locations]
        days = np.stack([self.store.dates(n)[t] for n, t in zip(numbers, times, strict=True)])
        image = image.flatten(1, 3) if self.flatten else image
        date = torch.from_numpy(days.astype('datetime64[D]').astype(np.int64))
        index = torch.from_numpy(locations)
        samples = [
            {'image': one, 'index': number, 'dates': day}
            for one, number, day in zip(image.unbind(), index.unbind(), date.unbind(), strict=True)
        ]
        return samples if self.transforms is None else [self.transforms(s) for s in samples]

    def _look_up(
        self, samples: NDArray[np.int64], epoch: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Locations of samples, shape (B,), and positions in their dates, shape (B, P, S)."""
        if self.sample == 'location':
            return samples, self.draw(samples, epoch)
        locations = np.searchsorted(self._images, samples, side='right')
        first = self._images[locations] - self.store.counts[self._numbers[locations]]
        return locations, (samples - first)[:, None, None]

    def _read(
        self, locations: NDArray[np.int64], times: NDArray[np.int64], out: NDArray[Any]
    ) -> None:
        """Read images of shape (B, P S, C, H, W), each with data, into an array."""
        times = times.reshape(len(locations), -1)
        images = self.store.read_batch(self._numbers[locations], times, self.bands, out)
        empty = find_empty(images, self.nodata)
        if empty is not None:
            number, time = self._numbers[locations[empty[0]]], times[empty]
            value = images[empty][0, 0, 0]
            raise ValueError(
                f'{self.store.root / self.store.names[number]}: the image of '
                f'{self.store.dates(number)[time]} holds nothing but nodata ({value:g}); '
                'pixels with data were expected.'
            )

    def _read_one(self, sample: int, epoch: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Read a sample; if it cannot be read, remember that, and say so the first time."""
        locations, times = self._look_up(np.array([sample]), epoch)
        try:
            self._read(locations, times, out)
        except ValueError as error:
            if not self._replaced[locations[0]]:
                self._replaced[locations[0]] = True
                logger.warning('%s Another location takes its place.', error)
            raise

    def plot(self, sample: Sample, show_titles: bool = True, suptitle: str | None = None) -> Figure:
        """Plot a sample: a row for each period, a column for each date.

        Args:
            sample: A sample returned by :meth:`__getitem__`.
            show_titles: Whether to write the date above each panel.
            suptitle: Title of the figure.

        Returns:
            The figure.

        Raises:
            RGBBandsMissingError: If the bands read do not include red, green and blue.
        """
        known = [canonical_band(band) for band in self.bands]
        if not set(self.rgb_bands) <= set(known):
            raise RGBBandsMissingError
        rgb = [known.index(band) for band in self.rgb_bands]
        dates = sample['dates']
        rows, columns = dates.shape
        image = sample['image'].reshape(rows, columns, len(known), *sample['image'].shape[-2:])
        pixels = image.float().cpu().numpy()[:, :, rgb]
        low, high = np.quantile(pixels, (0.02, 0.98), axis=(0, 1, 3, 4), keepdims=True)
        pixels = np.clip((pixels - low) / np.maximum(high - low, 1e-6), 0, 1)
        fig, axes = plt.subplots(
            rows, columns, figsize=(2.4 * columns, 2.6 * rows), squeeze=False, layout='constrained'
        )
        names = ('period 0', 'period 1') if rows == 2 else ('',) * rows
        for row in range(rows):
            for column in range(columns):
                axis = axes[row, column]
                axis.imshow(pixels[row, column].transpose(1, 2, 0))
                axis.set(xticks=[], yticks=[])
                if show_titles:
                    axis.set_title(str(np.datetime64(int(dates[row, column]), 'D')), fontsize=9)
            axes[row, 0].set_ylabel(names[row])
        if suptitle is not None:
            fig.suptitle(suptitle)
        return fig
