"""What several processes tell each other; with one process nothing happens."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process."""
    return dist.get_rank() if world_size() > 1 else 0


@torch.no_grad()
def gather_rows(x: Tensor) -> Tensor:
    """Rows of all processes, in the order in which one process would have them.

    Row *i* of process *r* of *n* is row *n i + r*, as
    :class:`~torchgeo_caco.samplers.ChangeAwareSampler` deals locations out. No gradient flows back.

    Args:
        x: Shape (B, ...), the same in all processes.

    Returns:
        Shape (n B, ...).
    """
    ranks = world_size()
    if ranks == 1:
        return x
    everyone = x.new_empty(ranks * len(x), *x.shape[1:])
    dist.all_gather_into_tensor(everyone, x.contiguous())
    return everyone.unflatten(0, (ranks, -1)).transpose(0, 1).flatten(0, 1)


@torch.no_grad()
def mean_of_all(x: Tensor) -> Tensor:
    """Mean over the processes; the host does not wait for it.

    Args:
        x: Any shape, the same in all processes.

    Returns:
        The same shape.
    """
    ranks = world_size()
    if ranks > 1:
        x = x.clone()
        dist.all_reduce(x)
        x /= ranks
    return x


def largest(values: Sequence[int], device: torch.device) -> list[int]:
    """The largest of each number among the processes; the host waits for it.

    Args:
        values: Numbers.
        device: Where the processes talk to each other.

    Returns:
        As many numbers.
    """
    if world_size() == 1:
        return [int(value) for value in values]
    together = torch.tensor([int(value) for value in values], device=device)
    dist.all_reduce(together, dist.ReduceOp.MAX)
    return [int(value) for value in together.tolist()]


@torch.no_grad()
def broadcast_buffers(module: nn.Module, device: torch.device) -> None:
    """Give all processes the buffers of the first one.

    Args:
        module: The module.
        device: Where the processes talk to each other; a buffer may lie elsewhere.
    """
    if world_size() == 1:
        return
    for buffer in module.buffers():
        sent = buffer.to(device).contiguous()
        dist.broadcast(sent, 0)
        buffer.copy_(sent)


class RowShuffle:
    """Deals the rows of all processes out anew at random, and back.

    A query and its key must not be normalised by the same batch, or they recognise each other by
    its statistics (MoCo, section 3.3, "shuffling BN"). MoCo gathers all images in every process;
    here each image is sent only to the process that needs it.
    """

    def __init__(self, rows: int, seed: int, device: torch.device) -> None:
        """Initialize a new RowShuffle instance.

        Args:
            rows: Number of rows B in each process, the same in all of them.
            seed: Seed of the order, the same in all processes.
            device: Where the rows lie.
        """
        ranks, mine = world_size(), rank()
        order = np.random.default_rng(seed).permutation(ranks * rows)
        # Place p, the (p % B)-th of process p // B, gets row order[p], counted in the same way.
        receivers, senders = np.arange(ranks * rows) // rows, order // rows
        sent = senders == mine
        self._send = torch.from_numpy(order[sent] % rows).to(device, non_blocking=True)
        self._send_counts = np.bincount(receivers[sent], minlength=ranks).tolist()
        # What arrives is sorted by sender, and then by place.
        here = senders[receivers == mine]
        place = torch.from_numpy(np.argsort(here, kind='stable'))
        self._place = place.to(device, non_blocking=True)
        self._place_counts = np.bincount(here, minlength=ranks).tolist()

    def shuffle(self, x: Tensor) -> Tensor:
        """Rows of all processes, mixed.

        Args:
            x: Shape (B, ...).

        Returns:
            Other rows, same shape.
        """
        return _exchange(x, self._send, self._send_counts, self._place, self._place_counts)

    def restore(self, x: Tensor) -> Tensor:
        """Undo :meth:`shuffle`.

        Args:
            x: Shape (B, ...).

        Returns:
            The rows of this process in their order, same shape.
        """
        return _exchange(x, self._place, self._place_counts, self._send, self._send_counts)


def _exchange(
    x: Tensor, sources: Tensor, sent: list[int], places: Tensor, received: list[int]
) -> Tensor:
    """Send rows ``sources`` of *x*, and put what arrives to ``places``."""
    arrived, out = torch.empty_like(x), torch.empty_like(x)
    dist.all_to_all_single(arrived, x[sources], received, sent)
    out[places] = arrived
    return out


def has_own_batch_norm(module: nn.Module) -> bool:
    """Whether a module normalises over the batch of its own process alone."""
    return any(
        isinstance(m, _BatchNorm) and not isinstance(m, nn.SyncBatchNorm) for m in module.modules()
    )


def count_fused_norms(module: nn.Module) -> int:
    """Number of timm's batch norms that hold an activation, which SyncBatchNorm would drop."""
    return sum(isinstance(m, BatchNormAct2d) for m in module.modules())


def check_strategy(trainer: Any) -> None:
    """Refuse strategies that divide a model, or know nothing of its buffers.

    Args:
        trainer: The trainer.

    Raises:
        ValueError: If there are several processes and the strategy is not DDP.
    """
    strategy = trainer.strategy
    ddp = isinstance(strategy, DDPStrategy) and not isinstance(strategy, DeepSpeedStrategy)
    if trainer.world_size > 1 and not ddp:
        raise ValueError(
            f'CACoTask trains in several processes by trainer.strategy=ddp only, '
            f'not by {type(strategy).__name__}.'
        )
