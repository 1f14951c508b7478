"""A data loader that goes on where it was stopped, and knows what its workers read."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

from ..samplers import ChangeAwareSampler

#: How many locations of a batch a message names.
NAMED = 8


class ResumableLoader(DataLoader[Any]):
    """A data loader whose position travels with Lightning's checkpoints.

    The position is an epoch and the number of locations that all processes together took from its
    common order. What workers read ahead is not counted, only what was handed out. The order and
    the dates are functions of the epoch, so nothing more is needed, and a run may resume with
    another number of processes or workers.
    """

    #: Batches handed out since the beginning of this iteration.
    _taken = 0
    #: A row for each worker: its process, 0 while idle; then the samples it reads, -1 for none.
    reading: Tensor | None = None

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Batches from the sampler's position on."""
        self._taken = 0
        return self._batches()

    def _batches(self) -> Iterator[Any]:
        # Lightning asks for an iterator before it says which epoch it is. Reading begins only
        # here, with the first batch, when both are known.
        for batch in super().__iter__():
            self._taken += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The position.

        Returns:
            ``epoch``, and ``consumed``, the number of locations taken by all processes.
        """
        sampler: Any = self.sampler
        if not isinstance(sampler, ChangeAwareSampler):
            # Lightning's overfit_batches takes another one.
            return {}
        taken = self._taken * int(self.batch_size or 1) * sampler.num_replicas
        return {'epoch': sampler.epoch, 'consumed': sampler.start + taken}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on at a position.

        Args:
            state_dict: What :meth:`state_dict` returned.
        """
        if state_dict and isinstance(self.sampler, ChangeAwareSampler):
            self.sampler.resume(**state_dict)

    def describe_dead(self) -> list[str]:
        """One sentence for each worker that died while it was reading.

        Returns:
            The sentences, with the names of the locations.
        """
        if self.reading is None:
            return []
        alive = {0, *(child.pid for child in multiprocessing.active_children())}
        dead = [row for row in self.reading.tolist() if row[0] not in alive]
        return [
            f'The data loader worker with process id {pid} died while it was reading '
            f'{_enumerate(self.dataset, [i for i in indices if i >= 0])}.'
            for pid, *indices in dead
        ]


def make_loader(
    dataset: Any,
    sampler: ChangeAwareSampler,
    batch_size: int,
    num_workers: int,
    collate: Callable[[Any], Any],
    pin_memory: bool = False,
) -> ResumableLoader:
    """A loader of whole batches.

    Args:
        dataset: The dataset.
        sampler: The order of its samples.
        batch_size: Samples in a batch.
        num_workers: Processes that read.
        collate: Makes a batch of samples.
        pin_memory: Whether batches are put where a GPU can fetch them by itself.

    Returns:
        The loader.
    """
    reading = torch.full((num_workers, 1 + batch_size), -1, dtype=torch.int64).share_memory_()
    reading[:, 0] = 0
    # A generator of its own: how often a run was stopped must not show in PyTorch's common one.
    generator = torch.Generator().manual_seed(sampler.seed + 10007 * sampler.rank)
    loader = ResumableLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=num_workers,
        collate_fn=collate,
        drop_last=True,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory,
        generator=generator,
        worker_init_fn=partial(_begin_worker, reading) if num_workers else None,
    )
    loader.reading = reading if num_workers else None
    return loader


def _begin_worker(reading: Tensor, worker: int) -> None:
    """Make a worker outlive a signal to the whole group, and note what it reads."""
    # Ctrl-C and SLURM reach every process; the training needs its workers up to the end of the
    # batch, and the handlers it has inherited are the training's.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _ignore_once)
    info: Any = get_worker_info()
    info.dataset.__getitems__ = partial(_read, reading[worker], info.dataset.__getitems__)


def _ignore_once(number: int, frame: Any) -> None:
    signal.signal(number, signal.SIG_DFL)


def _read(row: Tensor, read: Callable[[Any], Any], indices: list[int]) -> Any:
    row[1 : 1 + len(indices)] = torch.tensor(indices)
    row[1 + len(indices) :] = -1
    row[0] = os.getpid()
    samples = read(indices)
    row[0] = 0
    return samples


def _enumerate(dataset: Any, indices: list[int]) -> str:
    names = dataset.names_of(indices[:NAMED])
    more = f' and {len(indices) - NAMED} more' if len(indices) > NAMED else ''
    return ('locations ' if len(indices) > 1 else 'location ') + ', '.join(names) + more
