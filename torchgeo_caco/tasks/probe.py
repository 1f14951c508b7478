"""Linear probe of a frozen encoder, and its fine-tuning, by the published protocols."""

from collections.abc import Sequence
from typing import Any, Literal

import timm
from torch import Tensor
from torchgeo.tasks import Classification
from torchmetrics import MetricCollection
from torchmetrics.classification import MultilabelAveragePrecision
from torchvision.models._api import WeightsEnum

from ..models import load_encoder
from .frozen import FrozenBatchNorm, adam_with_steps, check_batch_norm, freeze, hold_batch_norm


class PooledAveragePrecision(MultilabelAveragePrecision):
    """Average precision of a whole epoch, without the values of its batches.

    Those would cost a sort each, and batches that lack a label have none.
    """

    def forward(self, *args: Any, **kwargs: Any) -> None:
        """Only remember."""
        self.update(*args, **kwargs)


class ProbeTask(Classification):
    """TorchGeo's classification with the protocols of the published evaluations.

    The differences: BatchNorm of the encoder is in train or in evaluation mode as one wants
    (TorchGeo's stays in train mode), Adam with two steps in the place of AdamW and a plateau,
    dropout before the classifier, average precisions for several labels an image, and weights from
    wherever they come, with the first layer adapted where channels differ.

    SeCo's and CACo's published code (``main_eurosat.py``, ``main_bigearthnet.py``):

    * EuroSAT: ``batch_norm='train'``, batch 32, cross-entropy.
    * BigEarthNet: ``batch_norm='eval'``, ``dropout=0.2``, batch 1024, ``loss='bce'`` (which equals
      their multi-label soft margin loss).
    * Both: Adam, lr 1e-3 frozen and 1e-5 fine-tuned, 100 epochs, a tenth from epochs 60 and 80 on.
    """

    def __init__(
        self,
        model: str = 'resnet18',
        weights: WeightsEnum | str | bool | None = None,
        in_channels: int = 3,
        task: Literal['binary', 'multiclass', 'multilabel'] = 'multiclass',
        num_classes: int | None = None,
        num_labels: int | None = None,
        labels: list[str] | None = None,
        pos_weight: Tensor | None = None,
        loss: Literal['ce', 'bce', 'jaccard', 'focal', 'dice'] = 'ce',
        class_weights: Tensor | Sequence[float] | None = None,
        ignore_index: int | None = None,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        schedule: Sequence[int | float] = (0.6, 0.8),
        freeze_backbone: bool = True,
        batch_norm: FrozenBatchNorm = 'train',
        dropout: float = 0.0,
    ) -> None:
        """Initialize a new ProbeTask instance.

        Args:
            model: Name of the timm model, also ``local-dir:PATH``.
            weights: As for :class:`~torchgeo_caco.tasks.CACoTask`.
            in_channels: Number of channels.
            task: ``'multiclass'`` or ``'multilabel'`` (or ``'binary'``).
            num_classes: Number of classes.
            num_labels: Number of labels.
            labels: Names of the classes.
            pos_weight: Weight of positive examples for ``'bce'``.
            loss: ``'ce'``, or ``'bce'`` for several labels; or another of TorchGeo's.
            class_weights: Weight of each class for ``'ce'``.
            ignore_index: A class that does not count.
            lr: Learning rate.
            weight_decay: Weight decay.
            schedule: Epochs at which the learning rate drops to a tenth; numbers below 1 are
                shares of the trainer's ``max_epochs``.
            freeze_backbone: Whether only the classifier is trained.
            batch_norm: Mode of the encoder's BatchNorm layers while training: ``'train'`` sees and
                follows the batches' statistics, ``'eval'`` keeps the weights' own.
            dropout: Dropout before the classifier.

        Raises:
            ValueError: If *batch_norm* is neither, or the weights do not fit the model.
        """
        check_batch_norm(batch_norm)
        super().__init__(
            model, weights, in_channels, task, num_classes, num_labels, labels, pos_weight, loss,
            class_weights, ignore_index, lr, freeze_backbone=freeze_backbone,
        )  # fmt: skip

    def configure_models(self) -> None:
        """Make the encoder with its classifier."""
        model: Any = timm.create_model(
            self.hparams['model'],
            num_classes=self.hparams['num_classes'] or self.hparams['num_labels'] or 1,
            in_chans=self.hparams['in_channels'],
            pretrained=self.weights is True,
            drop_rate=self.hparams['dropout'],
        )
        if self.weights and self.weights is not True:
            load_encoder(model, self.weights)
        if self.hparams['freeze_backbone']:
            freeze(model)
            for parameter in model.get_classifier().parameters():
                parameter.requires_grad = True
        self.model = model

    def configure_metrics(self) -> None:
        """TorchGeo's, and for several labels an image average precision, micro and macro."""
        super().configure_metrics()
        if self.hparams['task'] != 'multilabel':
            return
        labels = self.hparams['num_labels']
        added = MetricCollection(
            {
                'OverallAveragePrecision': PooledAveragePrecision(labels, average='micro'),
                'AverageAveragePrecision': PooledAveragePrecision(labels, average='macro'),
            }
        )
        self.val_metrics.add_metrics(added)
        self.test_metrics.add_metrics(added.clone())

    def configure_optimizers(self) -> Any:
        """Adam with two steps."""
        hparams = self.hparams
        return adam_with_steps(
            self.parameters(), hparams['lr'], hparams['weight_decay'], hparams['schedule'],
            self.trainer.max_epochs,
        )  # fmt: skip

    def on_train_epoch_start(self) -> None:
        """Put BatchNorm into the mode wanted; validation may have come between."""
        if self.hparams['batch_norm'] == 'eval':
            hold_batch_norm(self.model)
