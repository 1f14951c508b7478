"""The folder in which a run's files lie, and the callbacks that belong to every run."""

from typing import Any

from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from ..loggers import MetricsLogger
from ..reading import SafeCheckpointIO
from .change import ChangeTracker
from .export import ModelFolderExport


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
        trainer.strategy.checkpoint_io = SafeCheckpointIO()
    callbacks: list[Callback] = []
    saver = trainer.checkpoint_callback
    if saver is not None:
        if type(saver) is ModelCheckpoint and saver.dirpath is None and saver.save_last is None:
            callbacks.append(ModelCheckpoint(f'{root}/checkpoints', '{epoch:04d}', save_last=True))
        callbacks.append(ModelFolderExport())
    if getattr(task, 'periods', 1) == 2 and task.hparams['long_term_negatives'] == 'changed':
        callbacks.append(ChangeTracker(task.hparams['histogram_every']))
    return callbacks
