"""While pretraining: what the features are worth on labelled data."""

import logging
import time
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from ..datamodules.downstream import DownstreamDataModule
from ..evaluation.features import Split
from ..evaluation.scores import linear, measures_of, neighbour_votes
from ..models.describe import describe_run

logger = logging.getLogger(__name__)


class OnlineProbe(Callback):
    """Nearest-neighbour and linear accuracy of the encoder on a labelled data set.

    ``probe_knn`` and ``probe_linear`` (micro average precision if images have several labels) go
    to the logger and may be a checkpoint's monitor::

        ModelCheckpoint(monitor='probe_knn', mode='max', every_n_epochs=n, save_last=True)

    Features are taken in evaluation mode without gradients from a fixed part of the training and
    validation images; nothing of the training is touched, its random numbers neither. In a run of
    several processes the first one does it, because the checkpoint has its BatchNorm statistics,
    and tells the others the figures. ``probe_share`` is the share of the epoch's time that it took.
    """

    def __init__(
        self,
        datamodule: LightningDataModule,
        every_n_epochs: int = 1,
        neighbours: int = 20,
        train_images: int = 2000,
        val_images: int = 1000,
        batch_size: int = 128,
        strength: float = 0.01,
    ) -> None:
        """Initialize a new OnlineProbe instance.

        Args:
            datamodule: Any of TorchGeo's or ours for classification. Ours are normalised as the
                pretraining images are, TorchGeo's by themselves.
            every_n_epochs: Epochs between two probes.
            neighbours: Neighbours that vote.
            train_images: Images at most to learn from, spread evenly over the training split.
            val_images: Images at most to score.
            batch_size: Images at a time.
            strength: Inverse regularisation C of the linear classifier.
        """
        if every_n_epochs < 1:
            raise ValueError(f'every_n_epochs must be at least 1, not {every_n_epochs}.')
        self.datamodule, self.every = datamodule, every_n_epochs
        self.neighbours, self.strength, self.batch_size = neighbours, strength, batch_size
        self.limits = {'train': train_images, 'val': val_images}
        self._started = 0.0
        self._loaders: dict[str, DataLoader[Any]] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the labelled data; a mistake should show now and not after an epoch."""
        if not trainer.is_global_zero:
            return
        self.datamodule.prepare_data()
        self.datamodule.setup('fit')
        if isinstance(self.datamodule, DownstreamDataModule):
            self._match_input(trainer, pl_module)
        self._loaders = {name: self._loader(name) for name in self.limits}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the time: a run that resumes within an epoch does not start one."""
        self._started = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the time."""
        self._started = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score and log."""
        if (trainer.current_epoch + 1) % self.every:
            return
        figures = None
        if trainer.is_global_zero:
            begun = time.monotonic()
            figures = self.score(pl_module)
            ended = time.monotonic()
            figures['probe_share'] = (ended - begun) / max(ended - self._started, 1e-9)
            logger.info(
                'probe: kNN %.3f, linear %.3f; took %.1f s, %.0f %% of the epoch',
                figures['probe_knn'], figures['probe_linear'], ended - begun,
                100 * figures['probe_share'],
            )  # fmt: skip
        if trainer.world_size > 1:
            figures = trainer.strategy.broadcast(figures)
        # The mean of equal figures: otherwise Lightning warns of unequal ones.
        pl_module.log_dict(dict(figures or {}), sync_dist=trainer.world_size > 1)

    def score(self, task: LightningModule) -> dict[str, float]:
        """Probe a task's encoder as it is.

        Args:
            task: A task with ``backbone`` or ``model``.

        Returns:
            ``probe_knn`` and ``probe_linear``, in [0, 1].
        """
        model: Any = task.backbone if hasattr(task, 'backbone') else task.model
        train, val = (self._extract(model, self._loaders[name], task) for name in ('train', 'val'))
        several = train.y.ndim == 2
        classes = train.y.shape[1] if several else int(max(train.y.max(), val.y.max())) + 1
        measure = next(iter(measures_of(val.y).values()))
        count = min(self.neighbours, len(train.y))
        votes = neighbour_votes(train, val, classes, [count], 'cosine')[0]
        return {
            'probe_knn': measure(val.y, votes),
            'probe_linear': measure(val.y, linear(train, val.x, classes, self.strength)),
        }

    @torch.no_grad()
    def _extract(self, model: nn.Module, loader: DataLoader[Any], task: LightningModule) -> Split:
        """Features in evaluation mode; the mode of every layer is put back."""
        modes = {module: module.training for module in model.modules()}
        model.eval()
        features, labels = [], []
        for batch in loader:
            image = self._normalise({'image': batch['image'].to(task.device)})
            found = model(image)
            features.append(found.flatten(2).mean(2) if found.ndim > 2 else found)
            labels.append(batch['label'])
        for module, mode in modes.items():
            module.training = mode
        x = torch.cat(features).float().cpu().numpy()
        return Split(x, torch.cat(labels).numpy().astype(np.int64))

    def _normalise(self, batch: dict[str, Tensor]) -> Tensor:
        data: Any = self.datamodule
        if isinstance(data, DownstreamDataModule):
            return data.normalise.to(batch['image'].device)(batch['image'])
        batch['image'] = batch['image'].float()
        normalised: Tensor = data._valid_attribute('val_aug', 'aug')(batch)['image']
        return normalised

    def _match_input(self, trainer: Trainer, task: LightningModule) -> None:
        """Normalise the labelled images as the pretraining ones are."""
        pretraining: Any = getattr(trainer, 'datamodule', None)
        if not hasattr(pretraining, 'describe_input'):
            return
        hparams: Any = task.hparams
        described, _ = describe_run(hparams, pretraining.describe_input(), 0, 0)
        data: Any = self.datamodule
        data.describe(described)

    def _loader(self, split: str) -> DataLoader[Any]:
        """A fixed, evenly spread part of a split, in order."""
        data: Any = self.datamodule
        dataset: Dataset[Any] | None = getattr(data, f'{split}_dataset') or data.dataset
        if dataset is None:
            raise ValueError(f'{type(data).__name__} has no {split} images for a probe.')
        length = len(dataset)  # type: ignore[arg-type]
        if 'label' not in dataset[0]:
            raise ValueError(
                f'{type(data).__name__} is not for classification: its samples have no label.'
            )
        rows = np.linspace(0, length - 1, min(length, self.limits[split])).round().astype(int)
        # A generator of its own: the loader draws a seed even without shuffling.
        return DataLoader(
            Subset(dataset, rows.tolist()), self.batch_size, generator=torch.Generator()
        )
