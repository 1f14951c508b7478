"""Change detection with |f1 - f2| of a frozen encoder, by the published protocol."""

from collections.abc import Sequence
from typing import Any, Literal, cast

import timm
from torch import Tensor
from torchgeo.tasks import ChangeDetection
from torchvision.models._api import WeightsEnum

from ..models import load_encoder
from ..models.change_head import DifferenceUNet
from .frozen import FrozenBatchNorm, adam_with_decay, check_batch_norm, freeze, hold_batch_norm


class ChangeHeadTask(ChangeDetection):
    """TorchGeo's change detection with the network and protocol of the published evaluations.

    SeCo's and CACo's published code (``main_oscd.py``): the encoder is frozen, its BatchNorm in
    train mode; binary cross-entropy without class weights; Adam, lr 1e-3, weight decay 1e-4, the
    learning rate times 0.95 after each of 100 epochs; batches of 32 tiles of 96 pixels.

    ``OverallPrecision``, ``OverallRecall`` and ``OverallF1Score`` are pooled over all pixels, so
    that F1 is 2 P R / (P + R) of the other two. The published code averages them over batches; the
    paper's table, whose F1 equals that formula, does not average F1.
    """

    def __init__(
        self,
        model: Literal['fcsiamabsdiff'] = 'fcsiamabsdiff',
        backbone: str = 'resnet18',
        weights: WeightsEnum | str | bool | None = None,
        in_channels: int = 3,
        task: Literal['binary', 'multiclass', 'multilabel'] = 'binary',
        num_classes: int | None = None,
        num_labels: int | None = None,
        labels: list[str] | None = None,
        pos_weight: Tensor | None = None,
        loss: Literal['ce', 'bce', 'jaccard', 'focal', 'dice'] = 'bce',
        class_weights: Tensor | Sequence[float] | None = None,
        ignore_index: int | None = None,
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
        gamma: float = 0.95,
        freeze_backbone: bool = True,
        batch_norm: FrozenBatchNorm = 'train',
        dropout: float = 0.3,
    ) -> None:
        """Initialize a new ChangeHeadTask instance.

        Args:
            model: Only :class:`~torchgeo_caco.models.change_head.DifferenceUNet`.
            backbone: Name of a ResNet of timm, also ``local-dir:PATH``.
            weights: As for :class:`~torchgeo_caco.tasks.CACoTask`.
            in_channels: Number of channels of an image.
            task: Kind of labels.
            num_classes: Number of classes, unless binary.
            num_labels: Number of labels, if several a pixel.
            labels: Names of the classes.
            pos_weight: Weight of changed pixels for ``'bce'``.
            loss: The loss.
            class_weights: Weight of each class for ``'ce'``.
            ignore_index: A class that does not count.
            lr: Learning rate.
            weight_decay: Weight decay.
            gamma: Factor of the learning rate after each epoch.
            freeze_backbone: Whether only the decoder is trained.
            batch_norm: Mode of the encoder's BatchNorm layers while training.
            dropout: Dropout of channels in the decoder.

        Raises:
            ValueError: If *batch_norm* is neither, or the weights do not fit the model.
        """
        check_batch_norm(batch_norm)
        super().__init__(
            cast(Any, model), backbone, weights, in_channels, task, num_classes, num_labels, labels,
            pos_weight=pos_weight, loss=loss, class_weights=class_weights,
            ignore_index=ignore_index, lr=lr, freeze_backbone=freeze_backbone,
        )  # fmt: skip

    def configure_models(self) -> None:
        """Make the encoder and the decoder."""
        hparams = self.hparams
        encoder: Any = timm.create_model(
            hparams['backbone'],
            num_classes=0,
            in_chans=hparams['in_channels'],
            pretrained=self.weights is True,
        )
        if self.weights and self.weights is not True:
            load_encoder(encoder, self.weights)
        if hparams['freeze_backbone']:
            freeze(encoder)
        classes = hparams['num_classes'] or hparams['num_labels'] or 1
        self.model = DifferenceUNet(encoder, classes, hparams['dropout'])

    def configure_optimizers(self) -> Any:
        """Adam with an exponential schedule."""
        hparams = self.hparams
        return adam_with_decay(
            self.parameters(), hparams['lr'], hparams['weight_decay'], hparams['gamma']
        )

    def on_train_epoch_start(self) -> None:
        """Put the encoder's BatchNorm into the mode wanted."""
        if self.hparams['batch_norm'] == 'eval':
            hold_batch_norm(self.model.encoder)
