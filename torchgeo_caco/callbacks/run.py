"""The folder in which a run's files lie, and the callbacks that belong to every run."""

import logging
from typing import Any

from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar, TQDMProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import RichProgressBarTheme
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from ..checkpoints import AtomicCheckpointIO
from ..loggers import MetricsLogger
from .change import ChangeTracker
from .collapse import CollapseWarning
from .export import ModelFolderExport
from .resume import ExactResume
from .rows import LogBeforeSaving
from .signals import SaveLast


def run_callbacks(task: LightningModule) -> list[Callback]:
    """Callbacks of a run; where the user chose nothing, all files go to ``default_root_dir``.

    There lie ``checkpoints/`` with ``last.ckpt`` (so that ``--ckpt_path last`` finds it),
    ``metrics.csv``, TensorBoard's files, pictures, and in the end the model folder ``model/``.

    Args:
        task: A task that is attached to its trainer.

    Returns:
        The callbacks.
    """
    trainer: Any = task.trainer
    if trainer.global_rank > 0:
        # Every process would say the same.
        logging.getLogger('torchgeo_caco').setLevel(logging.ERROR)
    settle(trainer)
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = AtomicCheckpointIO()
    callbacks: list[Callback] = [ExactResume()]
    saver = trainer.checkpoint_callback
    if saver is not None:
        callbacks.append(ModelFolderExport())
    bar, every = trainer.progress_bar_callback, max(1, trainer.log_every_n_steps)
    if _on_gpu(trainer):
        # To show a number the host waits for the GPU: not at every step.
        if type(bar) is TQDMProgressBar and bar.refresh_rate == 1:
            callbacks.append(TQDMProgressBar(refresh_rate=every))
        elif type(bar) is RichProgressBar:
            callbacks.append(SparingRichProgressBar(every, bar.theme))
    if getattr(task, 'periods', 1) == 2 and task.hparams['long_term_negatives'] == 'changed':
        callbacks.append(ChangeTracker(task.hparams['histogram_every']))
    callbacks.append(CollapseWarning())
    # After the mixture is fitted.
    callbacks.append(LogBeforeSaving())
    if saver is not None:
        callbacks.append(SaveLast())
    return callbacks


def settle(trainer: Any) -> None:
    """Say where the files of a run lie, unless the user did; a second time changes nothing.

    Args:
        trainer: The trainer.
    """
    root = trainer.default_root_dir
    automatic = len(trainer.loggers) == 1 and (
        isinstance(trainer.logger, TensorBoardLogger | CSVLogger)
        and not isinstance(trainer.logger, MetricsLogger)
        and trainer.logger.name == 'lightning_logs'
    )
    if automatic:
        trainer.loggers = [MetricsLogger()]
    for logger in trainer.loggers:
        if isinstance(logger, MetricsLogger):
            logger.bind(root)
    if len(trainer.loggers) == 1 and isinstance(trainer.logger, MetricsLogger):
        trainer.loggers = [trainer.logger, TensorBoardLogger(root, name='', version='')]
    _keep_last(trainer, f'{root}/checkpoints')


def _keep_last(trainer: Any, folder: str) -> None:
    """Let checkpoints lie in one place, and one of the savers write ``last.ckpt``.

    Callbacks of a task take the places of all of their type: the trainer's own are changed instead.
    """
    savers = [each for each in trainer.checkpoint_callbacks if type(each) is ModelCheckpoint]
    for saver in savers:
        if saver.dirpath is None and saver.save_last is None:
            saver.dirpath = folder
            if saver.filename is None and saver.monitor is None and saver.every_n_epochs:
                saver.filename = '{epoch:04d}'
    if savers and all(each.save_last is None for each in savers):
        savers[0].save_last = True


class SparingRichProgressBar(RichProgressBar):
    """Moves on at some steps only, as :class:`TQDMProgressBar` does by its refresh rate."""

    def __init__(self, every: int, theme: RichProgressBarTheme) -> None:
        """Initialize a new SparingRichProgressBar instance.

        Args:
            every: Steps between two moves.
            theme: Its looks.
        """
        super().__init__(theme=theme)
        self.every = every

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move on, at the last step as well."""
        if (batch_idx + 1) % self.every == 0 or trainer.is_last_batch:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)


def _on_gpu(trainer: Any) -> bool:
    return trainer.strategy.root_device.type == 'cuda'
