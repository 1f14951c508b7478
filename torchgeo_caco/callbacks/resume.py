"""A resumed run goes on as if nothing had happened: random states, open means and gradients."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from .position import align

#: Entries of a checkpoint.
RANDOM, MEANS, GRADIENTS = 'caco_random', 'caco_means', 'caco_gradients'


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


def open_means(trainer: Trainer) -> dict[str, Any]:
    """What Lightning has summed so far for the means over an epoch.

    Args:
        trainer: The trainer.

    Returns:
        For each key the name in the logs, the sum, and the number of samples.
    """
    return {
        key: (f'{each.meta.name}_epoch' if each.meta.on_step else each.meta.name,
              each.value.cpu(), each.cumulated_batch_size.cpu())
        for key, each in (trainer._results or {}).items()
        if each.is_tensor and each.meta.on_epoch and each.meta.is_mean_reduction
        and each.cumulated_batch_size > 0
    }  # fmt: skip


class ExactResume(Callback):
    """Keeps in checkpoints what Lightning leaves out.

    These are the random states of all processes, the sums for means over an epoch and, with
    gradient accumulation, the gradients of a step that is not complete. Random states are restored
    right before training goes on: setting up the loaders and other callbacks draws random numbers.
    """

    def __init__(self) -> None:
        """Initialize a new ExactResume instance."""
        self._pending: dict[str, Any] = {}
        self._means: list[dict[str, Any]] = []

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add to a checkpoint."""
        epoch: Any = trainer.fit_loop.epoch_progress.current
        means = {} if epoch.processed == epoch.ready else open_means(trainer)
        mine = {RANDOM: random_state(pl_module.device), MEANS: means}
        everyone: list[Any] = [mine]
        if trainer.world_size > 1:
            everyone = [None] * trainer.world_size
            torch.distributed.all_gather_object(everyone, mine)
        for key in mine:
            checkpoint[key] = [each[key] for each in everyone]
        if trainer.fit_loop._should_accumulate():
            # After a step they are used up. Those of one process alone would lose what the others
            # have summed.
            checkpoint[GRADIENTS] = {
                name: trainer.strategy.reduce(parameter.grad.clone(), reduce_op='mean')
                for name, parameter in pl_module.named_parameters()
                if parameter.grad is not None
            }

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Find the place to go on from, and remember what to restore there."""
        self._pending = {key: checkpoint[key] for key in (RANDOM, GRADIENTS) if key in checkpoint}
        data: Any = getattr(trainer, 'datamodule', None)
        if not getattr(data, 'location_names', ()):
            # Another datamodule, or one without training data, to validate for instance.
            return
        names = checkpoint.get('caco_locations')
        afresh = names is not None and tuple(names) != tuple(data.location_names)
        batch = data.batch_size * trainer.world_size
        loops = checkpoint['loops']['fit_loop']
        batches = loops['epoch_loop.batch_progress']
        before = batches['current']['ready']
        unfinished = align(loops, len(data.train_dataset), batch, afresh=afresh)
        if (batches['current']['ready'] - before) % trainer.accumulate_grad_batches:
            # Steps are made at other batches now: what is open would go into a wrong one.
            self._pending.pop(GRADIENTS, None)
        if unfinished and not afresh:
            states = checkpoint.get(MEANS, [])
            self._means = states[trainer.global_rank :: trainer.world_size]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore, if the run resumes with a new epoch."""
        self._restore(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Restore, if the run resumes in the middle of an epoch."""
        self._restore(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the sums of before to those of the first batch, now that there are some."""
        means, self._means = self._means, []
        results: Any = trainer._results
        for key, (_, value, count) in (item for each in means for item in each.items()):
            if key in results:
                results[key].value = results[key].value + value.to(results[key].value)
                results[key].cumulated_batch_size = results[key].cumulated_batch_size + count.to(
                    results[key].cumulated_batch_size
                )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore, if the run resumes with the end of an epoch."""
        self._restore(trainer, pl_module)
        means, self._means = self._means, []
        for key in means[0] if means else ():
            name = means[0][key][0]
            value, count = (sum(each[key][i] for each in means) for i in (1, 2))
            pl_module.log(name, (value / count).to(pl_module.device), batch_size=1)

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
