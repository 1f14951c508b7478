"""A run that is told to stop finishes its batch and saves before it ends."""

import logging
import os
import signal
import threading
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ..distributed import largest

logger = logging.getLogger(__name__)


#: Batches after which processes on GPUs agree on whether to stop.
ASK_EVERY = 10


class SaveLast(Callback):
    """Writes ``last.ckpt`` when the run is told to stop, and when it is done.

    SIGTERM and Ctrl-C end the run with the batch at hand, because in the middle of one the queues
    have moved and the weights have not. A second Ctrl-C ends it at once, without saving. A signal
    upon which Lightning requeues a SLURM job waits for the end of the batch, too.

    Of several processes all stop after the same batch (on GPUs one in :data:`ASK_EVERY`), whichever
    were told. Lightning's own handler talks to the others from within a signal, in the middle of
    whatever they are telling each other.
    """

    def __init__(self) -> None:
        """Initialize a new SaveLast instance."""
        self._exit_code = 128 + signal.SIGTERM
        self._requeue: Any = None
        self._requested = 0
        self._told = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over signals; Lightning gives them back in the end."""
        if threading.current_thread() is not threading.main_thread():
            return
        if trainer.world_size > 1:
            signal.signal(signal.SIGTERM, self._stop)
        self._default = signal.signal(signal.SIGINT, self._interrupt)
        # Windows has neither.
        for number in (getattr(signal, n) for n in ('SIGUSR1', 'SIGUSR2') if hasattr(signal, n)):
            handler = signal.getsignal(number)
            if type(handler).__module__.startswith('lightning.'):
                self._requeue = handler
                signal.signal(number, self._request)

    def _interrupt(self, number: int, frame: Any) -> None:
        """Do what SIGTERM does, which is to set a flag; the next time, what was done before."""
        signal.signal(number, self._default)
        self._exit_code = 128 + number
        handler: Any = signal.getsignal(signal.SIGTERM)
        if callable(handler):
            handler(number, frame)
        else:
            # Lightning handles no SIGTERM on Windows.
            self._told = True

    def _stop(self, number: int, frame: Any) -> None:
        self._told = True

    def _request(self, number: int, frame: Any) -> None:
        self._requested = number

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Agree on whether to stop, or to let a SLURM job be requeued."""
        device = trainer.strategy.root_device
        due = (batch_idx + 1) % ASK_EVERY == 0 or trainer.is_last_batch
        if trainer.world_size > 1 and device.type == 'cuda' and not due:
            # To ask, the host waits for the GPU.
            return
        if trainer.world_size > 1 or self._requeue is not None or self._told:
            told, number = largest([self._told, self._requested], device)
            if told:
                # With this Lightning ends the run after the batch.
                trainer._signal_connector.received_sigterm = True
            if number and self._requeue is not None:
                self._requested = 0
                self.save(trainer)
                self._requeue(number, None)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Save, if the run was told to stop; Lightning raises this after a batch only."""
        if isinstance(exception, SIGTERMException):
            # So that a shell does not take the run for finished.
            exception.code = self._exit_code
            path = self.save(trainer)
            if path and _is_written(trainer, path):
                logger.warning('%s: told to stop; --ckpt_path last goes on from here.', path)
            elif path:
                logger.warning('told to stop, but %s could not be written.', path)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the end, unless it just was: checkpoints every n minutes or steps miss it."""
        saver = _saver(trainer)
        if saver is None or not saver.save_last:
            return
        if not _is_written(trainer, saver.last_model_path):
            self.save(trainer)

    def save(self, trainer: Trainer) -> str | None:
        """Write ``last.ckpt`` where ``--ckpt_path last`` looks for it.

        Args:
            trainer: The trainer.

        Returns:
            Its path, or None if the run writes no checkpoints.
        """
        saver = _saver(trainer)
        if saver is None or getattr(trainer, 'fast_dev_run', False):
            return None
        if not saver.last_model_path:
            folder = Path(str(saver.dirpath))
            path, version = folder / 'last.ckpt', 0
            while saver.file_exists(str(path), trainer):
                # That of another run.
                version += 1
                path = folder / f'last-v{version}.ckpt'
            saver.last_model_path = str(path)
        trainer.save_checkpoint(saver.last_model_path)
        return saver.last_model_path


def _saver(trainer: Trainer) -> ModelCheckpoint | None:
    """The one whose ``last.ckpt`` it is: the first with ``save_last``, else the first."""
    savers = [each for each in trainer.checkpoint_callbacks if isinstance(each, ModelCheckpoint)]
    return next((each for each in savers if each.save_last), savers[0] if savers else None)


def _is_written(trainer: Trainer, path: str) -> bool:
    """Whether a file is a checkpoint of this very moment; all processes have to ask."""
    written = getattr(trainer.strategy.checkpoint_io, 'written', {})
    # The first process alone writes.
    moment: Any = trainer.strategy.broadcast(written.get(os.path.realpath(path)))
    return bool(moment == _moment(trainer))


def _moment(trainer: Trainer) -> tuple[int, int]:
    """Steps made and epochs ended: the last step of an epoch comes before its end."""
    progress: Any = trainer.fit_loop.epoch_progress.current
    return trainer.global_step, progress.processed
