"""The row of a step is written before the checkpoint of that step."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ..loggers import MetricsLogger


class LogBeforeSaving(Callback):
    """Writes to ``metrics.csv`` what Lightning would log a moment later, after saving.

    A run that is killed between the two would lose a row: it resumes with the next step. The
    logger takes no notice when Lightning comes with the same row. A
    :class:`~torchgeo_caco.loggers.MetricsLogger` without a folder gets that of the run.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Say to the logger where the file goes, if that was left open."""
        for logger in trainer.loggers:
            if isinstance(logger, MetricsLogger):
                logger.bind(trainer.default_root_dir)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put away the rows of another run, unless this one resumes."""
        if trainer.global_step == 0 and trainer.is_global_zero:
            for logger in trainer.loggers:
                if isinstance(logger, MetricsLogger):
                    logger.start_anew()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the row of a step, if it gets one."""
        loop = trainer.fit_loop
        if trainer._logger_connector.should_update_logs and not loop._should_accumulate():
            self._write(trainer, loop.epoch_loop._batches_that_stepped)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the row of an epoch, which has the number of its last step."""
        self._write(trainer, trainer.fit_loop.epoch_loop._batches_that_stepped - 1)

    def _write(self, trainer: Trainer, step: int) -> None:
        # In all processes: means over them are taken here.
        metrics: dict[str, Any] = dict(trainer._logger_connector.metrics['log'])
        if not metrics or 'step' in metrics:
            return
        row: dict[str, Any] = {key: float(value) for key, value in metrics.items()}
        row.setdefault('epoch', trainer.current_epoch)
        for logger in trainer.loggers:
            if isinstance(logger, MetricsLogger):
                logger.log_metrics(row, step)
                logger.save()
