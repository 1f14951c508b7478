"""The folder in which a run's files lie, and the callbacks that belong to every run."""

import logging
from typing import Any

from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from ..checkpoints import AtomicCheckpointIO
from ..loggers import MetricsLogger
from .change import ChangeTracker
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
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = AtomicCheckpointIO()
    callbacks: list[Callback] = [ExactResume()]
    saver = trainer.checkpoint_callback
    if saver is not None:
        if type(saver) is ModelCheckpoint and saver.dirpath is None and saver.save_last is None:
            callbacks.append(ModelCheckpoint(f'{root}/checkpoints', '{epoch:04d}', save_last=True))
        callbacks.append(ModelFolderExport())
    bar = trainer.progress_bar_callback
    if type(bar) is TQDMProgressBar and bar.refresh_rate == 1 and _on_gpu(trainer):
        # To show a number the host waits for the GPU: not at every step.
        callbacks.append(TQDMProgressBar(refresh_rate=max(1, trainer.log_every_n_steps)))
    if getattr(task, 'periods', 1) == 2 and task.hparams['long_term_negatives'] == 'changed':
        callbacks.append(ChangeTracker(task.hparams['histogram_every']))
    if saver is not None:
        # After the mixture is fitted.
        callbacks += [LogBeforeSaving(), SaveLast()]
    return callbacks


def _on_gpu(trainer: Any) -> bool:
    return trainer.strategy.root_device.type == 'cuda'
