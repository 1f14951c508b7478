"""A resumed run goes on as if nothing had happened: random states and open gradients."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

#: Entries of a checkpoint.
RANDOM, GRADIENTS = 'caco_random', 'caco_gradients'


def random_state(device: torch.device) -> dict[str, Any]:
    """States of all common random generators.

    Args:
        device: The device of the training.

    Returns:
        ``python``, ``numpy``, ``torch`` and, unless it is the CPU, ``device``; of types that
        ``torch.load(weights_only=True)`` takes.
    """
    # Nothing here draws from NumPy's common generator, but what users plug in may.
    numpy: Any = np.random.get_state(legacy=False)  # noqa: NPY002
    inner = numpy['state']
    keys = torch.from_numpy(inner['key'].astype(np.int64))
    state = {
        'python': random.getstate(),
        'numpy': (keys, int(inner['pos']), int(numpy['has_gauss']), float(numpy['gauss'])),
        'torch': torch.get_rng_state(),
    }
    if device.type != 'cpu':
        state['device'] = torch.get_device_module(device).get_rng_state()
    return state


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Set all common random generators.

    Args:
        state: What :func:`random_state` returned.
        device: The device of the training.
    """
    version, words, gauss = state['python']
    random.setstate((version, tuple(words), gauss))
    keys, *rest = state['numpy']
    np.random.set_state(('MT19937', keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state['torch'].cpu())
    if device.type != 'cpu' and 'device' in state:
        torch.get_device_module(device).set_rng_state(state['device'].cpu())


class ExactResume(Callback):
    """Keeps in checkpoints what Lightning leaves out.

    These are the random states of all processes and, with gradient accumulation, the gradients of a
    step that is not complete. They are restored right before training goes on: setting up the
    loaders and other callbacks draws random numbers.
    """

    def __init__(self) -> None:
        """Initialize a new ExactResume instance."""
        self._pending: dict[str, Any] = {}

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add to a checkpoint."""
        states: list[Any] = [random_state(pl_module.device)]
        if trainer.world_size > 1:
            everyone: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(everyone, states[0])
            states = everyone
        checkpoint[RANDOM] = states
        if trainer.accumulate_grad_batches > 1:
            checkpoint[GRADIENTS] = {
                name: parameter.grad
                for name, parameter in pl_module.named_parameters()
                if parameter.grad is not None
            }

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Remember what to restore."""
        self._pending = {key: checkpoint[key] for key in (RANDOM, GRADIENTS) if key in checkpoint}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore, if the run resumes with a new epoch."""
        self._restore(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Restore, if the run resumes in the middle of an epoch."""
        self._restore(trainer, pl_module)

    def _restore(self, trainer: Trainer, task: LightningModule) -> None:
        pending, self._pending = self._pending, {}
        for name, parameter in task.named_parameters():
            if name in pending.get(GRADIENTS, {}):
                parameter.grad = pending[GRADIENTS][name].to(parameter)
        states = pending.get(RANDOM)
        if not states:
            return
        rank = trainer.global_rank
        set_random_state(states[rank % len(states)], task.device)
        if rank >= len(states):
            # A process that was not there before: it must not draw what another one draws.
            torch.manual_seed(int(torch.randint(2**62, ())) + rank)
