"""One epoch of locations, in an order that all ranks agree on."""

from collections.abc import Iterator, Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler


class ChangeAwareSampler(DistributedSampler[int]):
    """Visit every location once an epoch; optionally the changed ones more often.

    Rank *r* of *n* takes every *n*-th location of one common order, from the *r*-th on: the batches
    of all ranks together are the batch that one process would see. Locations are never repeated
    to fill up: what does not divide by the number of ranks is left out of this epoch.

    CACo visits all locations alike (section 3.4), which is the default. With
    ``changed_fraction`` this share of an epoch is drawn from the locations that are estimated to
    have changed, each as often as any other of them; an epoch keeps its length.
    """

    def __init__(
        self,
        dataset: Sized,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        changed_fraction: float | None = None,
    ) -> None:
        """Initialize a new ChangeAwareSampler instance.

        Args:
            dataset: The dataset; only its length is used, and its ``set_epoch`` if it has one.
            num_replicas: Number of processes; found out by default.
            rank: Number of this process; found out by default.
            shuffle: Whether the order is random.
            seed: Seed of the order, the same in all processes.
            changed_fraction: Share of an epoch drawn from changed locations, in [0, 1].

        Raises:
            ValueError: If *changed_fraction* or *rank* is out of range.
        """
        if changed_fraction is not None and not 0 <= changed_fraction <= 1:
            raise ValueError(f'changed_fraction must be in [0, 1], not {changed_fraction}.')
        if num_replicas is None and not _distributed():
            num_replicas, rank = 1, 0
        data: Any = dataset
        super().__init__(data, num_replicas, rank, shuffle, seed, drop_last=True)
        # DistributedSampler rounds up where it must drop; here a tail is always left out.
        self.num_samples = len(dataset) // self.num_replicas
        self.total_size = self.num_samples * self.num_replicas
        self.changed_fraction = changed_fraction
        self._length = len(dataset)
        self._changed = np.zeros(self._length, dtype=bool)
        self._resumed = (-1, 0)

    def resume(self, epoch: int, consumed: int) -> None:
        """Leave out what was visited of one epoch before the run was stopped.

        Args:
            epoch: The epoch that was not finished; all others are visited from their beginning.
            consumed: How many locations of its order all processes together have visited.
        """
        self._resumed = (epoch, consumed)

    @property
    def start(self) -> int:
        """Position in the common order at which this epoch begins."""
        epoch, consumed = self._resumed
        return consumed if epoch == self.epoch else 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, here and in the dataset; call it before iterating.

        Args:
            epoch: Number of the epoch, >= 0.
        """
        super().set_epoch(epoch)
        dataset: Dataset[Any] = self.dataset
        if hasattr(dataset, 'set_epoch'):
            dataset.set_epoch(epoch)

    def set_changed(self, changed: Tensor) -> None:
        """Say which locations changed; it counts from the next epoch on.

        Args:
            changed: Shape (N,), bool.

        Raises:
            ValueError: If it is not one value a location.
        """
        if changed.shape != (self._length,):
            raise ValueError(
                f'changed must have shape ({self._length},), not {tuple(changed.shape)}.'
            )
        self._changed = changed.cpu().numpy().astype(bool)

    def order(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The common order of this epoch.

        Returns:
            Numbers of locations, shape (N,).
        """
        rng = np.random.default_rng((self.seed, self.epoch))
        if self.changed_fraction is None or self._changed.all() or not self._changed.any():
            everything = np.arange(self._length)
            return rng.permutation(everything) if self.shuffle else everything
        wanted = round(self.changed_fraction * self._length)
        parts = [
            np.resize(rng.permutation(np.flatnonzero(which)), count)
            for which, count in (
                (self._changed, wanted),
                (~self._changed, self._length - wanted),
            )
        ]
        order = np.concatenate(parts)
        return rng.permutation(order) if self.shuffle else np.sort(order)

    def __iter__(self) -> Iterator[int]:
        """Yield this rank's locations."""
        rest = self.order()[self.start :]
        # All ranks get equally many, also if their number has changed in the middle of an epoch.
        whole = len(rest) // self.num_replicas * self.num_replicas
        yield from rest[self.rank : whole : self.num_replicas].tolist()


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
