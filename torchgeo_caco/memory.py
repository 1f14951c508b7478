"""The queues of negatives: keys of earlier batches, kept in checkpoints."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MemoryBank(nn.Module):
    """One ring of keys for each subspace and period (MoCo, section 3.1; CACo, section 3.4).

    It starts as random points on the unit sphere. Its buffers are persistent, so that a resumed
    run goes on with the same negatives.

    Attributes:
        queue: (H, P, Q, D) float32, L2-normalised keys.
        pointer: (H,) int64, where the next key of each period goes.
    """

    queue: Tensor
    pointer: Tensor

    def __init__(self, size: int, dim: int, subspaces: int = 3, periods: int = 2) -> None:
        """Initialize a new MemoryBank instance.

        Args:
            size: Keys of a subspace, all periods together.
            dim: Dimension D of a key.
            subspaces: Number of subspaces H.
            periods: Number of periods P.

        Raises:
            ValueError: If *size* is negative or does not divide by *periods*.
        """
        super().__init__()
        if size < 0 or size % periods:
            raise ValueError(f'memory_bank_size {size} must divide by the {periods} periods.')
        queue = F.normalize(torch.randn(subspaces, periods, size // periods, dim), dim=-1)
        self.register_buffer('queue', queue)
        self.register_buffer('pointer', torch.zeros(subspaces, dtype=torch.long))

    @torch.no_grad()
    def enqueue(self, subspace: int, keys: Tensor) -> None:
        """Put the keys of the global batch in the place of the oldest ones.

        Args:
            subspace: The subspace.
            keys: L2-normalised keys, shape (L, P, D), in the order of one process.
        """
        size = self.queue.shape[2]
        if size == 0:
            return
        count = len(keys)
        # Of a batch longer than the ring only the newest keys stay.
        keys = keys[-size:].to(self.queue)
        offset = torch.arange(count - len(keys), count, device=keys.device)
        places = (self.pointer[subspace] + offset) % size
        self.queue[subspace].index_copy_(1, places, keys.transpose(0, 1))
        self.pointer[subspace] = (self.pointer[subspace] + count) % size
