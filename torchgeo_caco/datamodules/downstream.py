"""What the datamodules of the published evaluations have in common."""

import logging
from collections.abc import Mapping, Sequence, Sized
from typing import Any, cast

import numpy as np
from lightning.pytorch import LightningModule
from torch.utils.data import DataLoader, Dataset
from torchgeo.datamodules import NonGeoDataModule
from torchvision.models._api import WeightsEnum

from ..models import find_encoder
from ..transforms.downstream import InputNormalization, Normalization, Units

logger = logging.getLogger(__name__)


class DownstreamDataModule(NonGeoDataModule):
    """Normalises batches on the device, plainly or as the weights want it, and says which it was.

    The choice and its numbers are in the log, in ``hparams.yaml`` and in the checkpoint.
    """

    #: Names of the channels of a sample's ``image``.
    channels: Sequence[str] = ('B4', 'B3', 'B2')
    #: For each of them the values that the data set's own stretch makes 0 and 1.
    quantiles: Sequence[Sequence[float]] = ((0, 255),) * 3
    units: Units = 'picture'
    #: Whether that stretch truncates to 256 values.
    eight_bits: bool = False
    #: Pixels a side to which images are resized, if at all.
    size: int | None = None
    #: What a sample is, in a sentence about their number.
    samples: str = 'images'

    def __init__(
        self,
        dataset_class: Any,
        batch_size: int,
        num_workers: int,
        normalization: Normalization,
        weights: WeightsEnum | str | bool | None,
        **kwargs: Any,
    ) -> None:
        """Initialize a new DownstreamDataModule instance.

        Args:
            dataset_class: Class of the data sets.
            batch_size: Size of a batch.
            num_workers: Processes that read.
            normalization: ``'plain'`` or ``'weights'``, see
                :class:`~torchgeo_caco.transforms.InputNormalization`.
            weights: Whose input ``'weights'`` means; by default the task's weights.
            **kwargs: Further arguments of the data sets.
        """
        super().__init__(dataset_class, batch_size, num_workers, **kwargs)
        self.normalization, self.weights = normalization, weights
        self.save_hyperparameters({'normalization': normalization})
        self._normalise: InputNormalization | None = None
        self._described: Mapping[str, Any] | None = None

    def train_dataloader(self) -> DataLoader[Any]:
        """The training images, in batches that are full.

        Raises:
            ValueError: If there are fewer than a batch; training would be over without a step.
        """
        self.check_batch(self.train_dataset)
        return super().train_dataloader()

    def check_batch(self, dataset: Dataset[Any] | None) -> None:
        """Refuse training images that do not fill a batch.

        Args:
            dataset: The training images.

        Raises:
            ValueError: If there are fewer than a batch.
        """
        count = self.batch_size if dataset is None else len(cast(Sized, dataset))
        if count < self.batch_size:
            raise ValueError(
                f'batch_size={self.batch_size} is more than the {count} training {self.samples} of '
                f'{self.kwargs["root"]}; at most as many were expected.'
            )

    def describe(self, described: Mapping[str, Any]) -> None:
        """Say what input the weights want, and normalise so, in the place of looking it up.

        Args:
            described: Bands, scale, quantiles, mean and so on.
        """
        self._described, self._normalise, self.normalization = described, None, 'weights'

    @property
    def normalise(self) -> InputNormalization:
        """From a batch's images to the network's input."""
        if self._normalise is None:
            described = self._described
            if described is None:
                described = describe_weights(self.weights, self._task())
            self._normalise = InputNormalization(
                self.normalization, self.channels, self.quantiles, self.units, described,
                self.eight_bits, self.size,
            )  # fmt: skip
            self.mean, self.std = self._normalise.mean.flatten(), self._normalise.std.flatten()
            logger.info('input: %s', self._normalise.describe())
        return self._normalise

    def _task(self) -> LightningModule | None:
        return None if self.trainer is None else self.trainer.lightning_module

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Normalise the images on the device.

        Args:
            batch: A batch with ``image`` (..., C, H, W) as the data set gives it.
            dataloader_idx: Number of the data loader.

        Returns:
            The batch with the network's input.
        """
        batch['image'] = self.normalise.to(batch['image'].device)(batch['image'])
        return batch

    def state_dict(self) -> dict[str, Any]:
        """The normalisation, so that a checkpoint says which its scores belong to."""
        return {} if self._normalise is None else self._normalise.describe()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with a checkpoint's normalisation: a test is not told the weights again.

        Args:
            state_dict: What :meth:`state_dict` returned.

        Raises:
            ValueError: If it is not the one that is asked for.
        """
        if not state_dict:
            return
        trained = state_dict['normalization']
        if trained != self.normalization:
            raise ValueError(
                f'the checkpoint was trained with normalization={trained!r}, but '
                f'normalization={self.normalization!r} is asked for.'
            )
        described = {key: state_dict[key] for key in ('bands', 'mean', 'std', 'statistics')}
        if state_dict['own_quantiles']:
            # They are in units of the data by now.
            described |= {'quantiles': state_dict['quantiles'], 'scale': 'reflectance'}
        self._described, self._normalise = described, None

    def plot(self, *args: Any, **kwargs: Any) -> Any:
        """Plot a sample, as the data set does."""
        datasets: list[Dataset[Any] | None] = [
            self.val_dataset, self.train_dataset, self.test_dataset, self.dataset,
        ]  # fmt: skip
        dataset: Any = next(each for each in datasets if each is not None)
        return dataset.plot(*args, **kwargs)


def describe_weights(
    weights: WeightsEnum | str | bool | None, task: LightningModule | None = None
) -> Mapping[str, Any]:
    """What is known of the input of weights.

    Args:
        weights: The weights, or None for those of the task.
        task: A task of TorchGeo or ours.

    Returns:
        Bands, scale, quantiles and so on; empty for random and ImageNet's weights.
    """
    if weights is None and task is not None:
        weights = getattr(task, 'weights', None)
    if weights is True and task is not None:
        # A model folder is given as the name of the model.
        names = (str(task.hparams.get(key, '')) for key in ('model', 'backbone'))
        folders = (name.removeprefix('tu-') for name in names)
        weights = next((name for name in folders if name.startswith('local-dir:')), None)
    if weights is None or isinstance(weights, bool):
        return {}
    return find_encoder(weights).described


def subset_rows(count: int, fraction: float, replacement: bool, seed: int = 42) -> Sequence[int]:
    """Rows of a part of the labels.

    Args:
        count: Rows there are.
        fraction: The part.
        replacement: Whether rows may come twice, as in the published evaluation on BigEarthNet.
        seed: Seed; 42 is the published one.

    Returns:
        Row numbers.

    Raises:
        ValueError: If the fraction is not in (0, 1] or leaves nothing.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f'fraction must lie above 0 and not above 1, not {fraction}.')
    if fraction == 1:
        return range(count)
    drawn = int(fraction * count)
    if drawn == 0:
        raise ValueError(f'fraction={fraction} of {count} images is none.')
    rows: list[int] = np.random.default_rng(seed).choice(count, drawn, replacement).tolist()
    return rows
