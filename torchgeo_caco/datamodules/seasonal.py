"""Seasonal time series for pretraining, stretched on the device."""

import logging
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from lightning.pytorch.utilities import rank_zero_info
from matplotlib.figure import Figure
from torch import Tensor
from torchgeo.datamodules import BaseDataModule

from ..datasets import SeasonalTemporalDataset, collate
from ..datasets.archives import Size, provide
from ..datasets.dates import Split
from ..samplers import ChangeAwareSampler
from ..stores import SeasonalStore, canonical_band
from ..transforms import PUBLISHED_QUANTILES, Stretch
from .loader import ResumableLoader, make_loader

logger = logging.getLogger(__name__)

Scale = Literal['auto', '0-255', 'reflectance', '0-1']

#: For each scale, what 1 of 0-255 is in it.
UNITS = {'0-255': 1.0, 'reflectance': 10000 / 255, '0-1': 1 / 255}
#: Floats above this are no reflectances from 0 to 1, of which snow and glint exceed 1 a little.
BRIGHTEST = 2
Quantiles = Literal['published', 'auto'] | Sequence[Sequence[float]]


class SeasonalTemporalDataModule(BaseDataModule):
    """LightningDataModule of :class:`~torchgeo_caco.datasets.SeasonalTemporalDataset`.

    Batches have ``image`` (B, P, S, C, H, W), float32 in [0, 1], ``index`` (B,), ``dates``
    (B, P, S) and ``valid`` (B, P, S), the share of pixels with data. With ``flatten`` images are
    (B, P S C, H, W), as TorchGeo's own MoCo, SimCLR and BYOL take them.
    """

    #: What the images are, for the card of the weights.
    imagery = 'satellite time series'

    def __init__(
        self,
        root: str = 'data',
        batch_size: int = 128,
        num_workers: int = 0,
        bands: Sequence[str] = SeasonalTemporalDataset.rgb_bands,
        periods: int = 2,
        seasons: int = 3,
        split: Split = 'newest',
        seasons_per_period: int = 5,
        replacement: bool = False,
        sample: Literal['location', 'image'] = 'location',
        flatten: bool = False,
        quantiles: Quantiles = 'published',
        scale: Scale = 'auto',
        nodata: float | None = 0,
        changed_fraction: float | None = None,
        seed: int = 0,
        on_bad_location: Literal['skip', 'raise'] = 'skip',
        size: Size | None = None,
        download: bool = False,
        checksum: bool = True,
    ) -> None:
        """Initialize a new SeasonalTemporalDataModule instance.

        Args:
            root: Folder of the store; with *size* the folder in which that of the store lies.
            batch_size: Samples (locations) in a batch of each process.
            num_workers: Processes that read.
            bands: Bands to read, in this order.
            periods: 2, or 1 (SeCo).
            seasons: Dates drawn in each period.
            split: How dates fall into periods, as for the dataset.
            seasons_per_period: Dates in the later period for ``split='newest'``.
            replacement: Whether one date may be drawn twice.
            sample: ``'location'`` or ``'image'``.
            flatten: Give ``(T C) H W`` images.
            quantiles: What becomes 0 and 1: ``'published'`` (red, green and blue only), ``'auto'``
                (2 % and 98 % of a seeded sample of the store), or two numbers for each band.
            scale: Units of the store for ``'published'``: ``'0-255'``, ``'reflectance'`` (times
                10000), ``'0-1'`` (reflectance as floats), or found out.
            nodata: Value of pixels without data if the store says none.
            changed_fraction: Share of an epoch drawn from changed locations; None: all alike.
            seed: Seed of order and dates.
            on_bad_location: What to do with locations that have too few dates or images that cannot
                be read, as for the dataset.
            size: A published archive, as for the dataset.
            download: Whether to download that archive if it is missing.
            checksum: Whether to check that archive before it is unpacked.
        """
        super().__init__(SeasonalTemporalDataset, batch_size, num_workers)
        self.kwargs = {
            'root': root,
            'bands': bands,
            'periods': periods,
            'seasons': seasons,
            'split': split,
            'seasons_per_period': seasons_per_period,
            'replacement': replacement,
            'sample': sample,
            'flatten': flatten,
            'seed': seed,
            'on_bad_location': on_bad_location,
            'size': size,
            'nodata': nodata,
        }
        self.size, self.download, self.checksum = size, download, checksum
        self.root, self.bands, self.periods, self.flatten = root, tuple(bands), periods, flatten
        self.quantiles, self.scale, self.nodata = quantiles, scale, nodata
        self.changed_fraction, self.seed = changed_fraction, seed
        self._sampler: ChangeAwareSampler | None = None
        self._loader: ResumableLoader | None = None
        self._changed: Tensor | None = None
        self._stretch: Stretch | None = None
        self._resolved: dict[str, Any] = {}

    def prepare_data(self) -> None:
        """Download and unpack a published archive, once on each node.

        Raises:
            ConnectionError: If it cannot be downloaded.
            FileNotFoundError: If it is not there and not to be downloaded.
        """
        if self.size is not None:
            provide(self.root, self.size, self.download, self.checksum)

    def setup(self, stage: str) -> None:
        """Open the data and decide on the stretch.

        Args:
            stage: Lightning's stage; only ``'fit'`` has data.

        Raises:
            ValueError: If the batch is larger than the data, or the stretch cannot be decided.
        """
        if self.trainer is not None:
            # Pretraining has no validation data, about which Lightning would warn.
            self.trainer.limit_val_batches = 0
        if stage != 'fit' or self.train_dataset is not None:
            return
        dataset = SeasonalTemporalDataset(**self.kwargs)
        ranks = 1 if self.trainer is None else self.trainer.world_size
        if len(dataset) < self.batch_size * ranks:
            each = f' in each of {ranks} processes' if ranks > 1 else ''
            raise ValueError(
                f'batch_size={self.batch_size}{each} is more than the {len(dataset)} samples '
                f'in {dataset.store.root}; at most as many were expected.'
            )
        self.train_dataset = dataset
        store = dataset.store
        scale: str = self.scale
        if scale == 'auto':
            scale = find_scale(store, self.bands, self.seed, self.nodata)
        if isinstance(self.quantiles, str):
            quantiles = find_quantiles(
                store, self.bands, self.quantiles, scale, self.seed, self.nodata
            )
        else:
            quantiles = [[float(v) for v in pair] for pair in self.quantiles]
            if len(quantiles) != len(self.bands):
                raise ValueError(
                    f'quantiles has {len(quantiles)} pairs for {len(self.bands)} bands.'
                )
        nodata = self.nodata if store.nodata is None else store.nodata
        self._set_stretch({'scale': scale, 'quantiles': quantiles, 'nodata': nodata})
        pairs = zip(self.bands, quantiles, strict=True)
        told = ', '.join(f'{band} {low:g} to {high:g}' for band, (low, high) in pairs)
        # By Lightning, whose command line does not show what others log as information.
        rank_zero_info(f'{store.root}: values are {scale}; stretched to [0, 1] from {told}.')

    def _set_stretch(self, resolved: dict[str, Any]) -> None:
        self._resolved = {'bands': list(self.bands), **resolved}
        self._stretch = Stretch(resolved['quantiles'], resolved['nodata'])

    def teardown(self, stage: str) -> None:
        """Say how many locations were left out, at the end of a run.

        Args:
            stage: Lightning's stage.
        """
        dataset: Any = self.train_dataset
        if stage != 'fit' or dataset is None or not (dataset.skipped or dataset.replaced):
            return
        told = []
        if dataset.skipped:
            told.append(f'{len(dataset.skipped)} were skipped for too few dates')
        if dataset.replaced:
            told.append(
                f'{len(dataset.replaced)} were replaced at least once because an image could not '
                f'be read, e.g. {dataset.replaced[0]}'
            )
        logger.warning(
            '%s: of %d locations %s.', dataset.store.root, dataset.found, ', and '.join(told)
        )

    def state_dict(self) -> dict[str, Any]:
        """The stretch and the imagery, so that a checkpoint says what its input was."""
        return self.describe_input()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with a checkpoint's stretch.

        Args:
            state_dict: What :meth:`state_dict` returned.

        Raises:
            ValueError: If its bands are not those of this datamodule.
        """
        saved = [str(band) for band in state_dict.get('bands', ())]
        # B4 and B04 are the same band.
        if [canonical_band(band) for band in saved] != [canonical_band(b) for b in self.bands]:
            path = getattr(self.trainer, 'ckpt_path', None) or 'the checkpoint'
            raise ValueError(
                f'{path} is of a run with bands {", ".join(saved) or "unknown"}, but this one has '
                f'{", ".join(self.bands)}; the same was expected.'
            )
        self._set_stretch({k: v for k, v in state_dict.items() if k not in ('bands', 'imagery')})

    def describe_input(self) -> dict[str, Any]:
        """Bands, scale, quantiles and nodata of the input, and what imagery it is."""
        return {**self._resolved, 'imagery': self.imagery}

    @property
    def location_names(self) -> tuple[str, ...]:
        """Names of the locations; ``index`` is a position here."""
        dataset: Any = self.train_dataset
        return () if dataset is None else tuple(dataset.location_names)

    def set_changed(self, changed: Tensor) -> None:
        """Say which locations are estimated as changed; the sampler may use it.

        Args:
            changed: Shape (N,), bool.
        """
        self._changed = changed
        if self._sampler is not None:
            self._sampler.set_changed(changed)

    @property
    def _on_gpu(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == 'cuda'

    def train_dataloader(self) -> ResumableLoader:
        """The training data."""
        dataset: Any = self._valid_attribute('train_dataset')
        fraction = self.changed_fraction
        self._sampler = ChangeAwareSampler(dataset, seed=self.seed, changed_fraction=fraction)
        if self._changed is not None and fraction is not None:
            self._sampler.set_changed(self._changed)
        self._loader = make_loader(
            dataset, self._sampler, self.batch_size, self.num_workers, collate, self._on_gpu
        )
        return self._loader

    def on_exception(self, exception: BaseException) -> None:
        """Say what a worker that died was reading.

        Args:
            exception: What ends the run.
        """
        if self._loader is None or isinstance(exception, SystemExit | KeyboardInterrupt):
            return
        for sentence in self._loader.describe_dead():
            exception.add_note(sentence)
            logger.error(sentence)

    def val_dataloader(self) -> Any:
        """No validation data."""
        return []

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Stretch the images on the device.

        Args:
            batch: A batch.
            dataloader_idx: Number of the data loader.

        Returns:
            The batch with float images and ``valid``.
        """
        if self._stretch is None or 'valid' in batch:
            return batch
        stretch = self._stretch.to(batch['image'].device)
        image = batch['image']
        if self.flatten:
            image = image.unflatten(1, (-1, len(self.bands)))
        stretched, valid = stretch(image)
        batch['image'] = stretched.flatten(1, 2) if self.flatten else stretched
        batch['valid'] = valid
        return batch

    def plot(self, sample: Any, **kwargs: Any) -> Figure:
        """Plot a sample, as the dataset does."""
        dataset: Any = self._valid_attribute('train_dataset')
        figure: Figure = dataset.plot(sample, **kwargs)
        return figure


def sample_pixels(store: SeasonalStore, bands: Sequence[str], seed: int, images: int) -> Any:
    """Pixels of a seeded sample of the store, shape (C, pixels)."""
    rng = np.random.default_rng(seed)
    numbers = rng.choice(len(store), min(images, len(store)), replace=False)
    times = (rng.random(len(numbers)) * store.counts[numbers]).astype(np.int64)
    try:
        read = store.read_batch(numbers, times[:, None], bands)
    except ValueError as error:
        # Whether images that cannot be read are a reason to stop is the dataset's to decide.
        one_by_one = (_try_read(store, n, t, bands) for n, t in zip(numbers, times, strict=True))
        readable = [image for image in one_by_one if image is not None]
        if not readable:
            raise error from None
        read = np.stack(readable)
    pixels: Any = np.moveaxis(read[:, 0], 1, 0).reshape(len(bands), -1)
    return pixels


def _try_read(store: SeasonalStore, location: int, time: int, bands: Sequence[str]) -> Any:
    try:
        return store.read(location, [time], bands)
    except ValueError:
        return None


def sample_data(
    store: SeasonalStore, bands: Sequence[str], seed: int, images: int, nodata: float | None
) -> Any:
    """Those of the sampled pixels that have data, shape (C, pixels).

    Raises:
        ValueError: If there are none.
    """
    pixels = sample_pixels(store, bands, seed, images)
    empty = nodata if store.nodata is None else store.nodata
    data = np.ones(pixels.shape[1], bool) if empty is None else (pixels != empty).any(0)
    if pixels.dtype.kind == 'f':
        data &= ~np.isnan(pixels).any(0)
    if not data.any():
        raise ValueError(f'the images sampled from {store.root} hold nothing but nodata.')
    return pixels[:, data]


def find_scale(
    store: SeasonalStore, bands: Sequence[str], seed: int = 0, nodata: float | None = 0
) -> str:
    """Tell units apart: by what the store says, its type, or its values.

    Args:
        store: The store.
        bands: Bands to look at.
        seed: Seed of the images looked at.
        nodata: Value to leave out if the store says none.

    Returns:
        ``'0-255'``, ``'reflectance'`` (times 10000) or, of floats only, ``'0-1'``.

    Raises:
        ValueError: If there is nothing but nodata.
    """
    if store.scale is not None:
        return store.scale
    if store.dtype == np.uint8:
        return '0-255'
    top = sample_data(store, bands, seed, 32, nodata).max()
    if store.dtype.kind == 'f' and top <= BRIGHTEST:
        return '0-1'
    return '0-255' if top <= 255 else 'reflectance'


def find_quantiles(
    store: SeasonalStore,
    bands: Sequence[str],
    which: str,
    scale: str,
    seed: int = 0,
    nodata: float | None = 0,
) -> list[list[float]]:
    """What becomes 0 and 1 in each band.

    Args:
        store: The store.
        bands: The bands.
        which: ``'published'`` or ``'auto'``.
        scale: ``'0-255'``, ``'reflectance'`` or ``'0-1'``.
        seed: Seed of the images looked at.
        nodata: Value to leave out if the store says none.

    Returns:
        A lower and an upper value for each band, in the store's units.

    Raises:
        ValueError: If none are published for a band, or a band is constant.
    """
    if which == 'published':
        known = {canonical_band(b) for b in bands} <= set(PUBLISHED_QUANTILES)
        if not known:
            raise ValueError(
                f'quantiles are published for {", ".join(PUBLISHED_QUANTILES)} only, not for '
                f"all of {', '.join(bands)}; use quantiles='auto'."
            )
        return [[v * UNITS[scale] for v in PUBLISHED_QUANTILES[canonical_band(b)]] for b in bands]
    if which != 'auto':
        raise ValueError(f"quantiles must be 'published', 'auto' or numbers, not {which!r}.")
    pixels = sample_data(store, bands, seed, 256, nodata)
    found: list[list[float]] = np.quantile(pixels, (0.02, 0.98), axis=1).T.tolist()
    constant = [b for b, (low, high) in zip(bands, found, strict=True) if high <= low]
    if constant:
        raise ValueError(f'{store.root}: band {", ".join(constant)} is constant; give quantiles.')
    return found
