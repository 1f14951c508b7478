"""At the end of an epoch: whether the features still differ from image to image."""

import logging

from lightning.pytorch import Callback, LightningModule, Trainer

logger = logging.getLogger(__name__)

#: Below this share of the spread of random directions features have collapsed.
COLLAPSE = 0.1


class CollapseWarning(Callback):
    """Says so after an epoch in which all images had nearly the same features."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the epoch's mean of the spread."""
        spread = trainer.callback_metrics.get('train_ssl_std_epoch')
        if spread is not None and float(spread) < COLLAPSE:
            logger.warning('the features have collapsed: their spread is %.3f of 1.', float(spread))
