"""The memory that a batch of time series lies in."""

import threading
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import get_worker_info


class Kept:
    """Arrays that are used again as soon as nothing holds the tensor that they were last used for.

    To get new memory from the system takes longer than to copy a batch into it.
    """

    def __init__(self, most: int = 2) -> None:
        """Initialize a new Kept instance.

        Args:
            most: Arrays that are kept.
        """
        self.most = most
        self._lock = threading.Lock()
        self._arrays: list[tuple[NDArray[Any], weakref.ref[NDArray[Any]]]] = []

    def take(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Tensor:
        """A tensor with anything in it.

        Args:
            shape: Its shape.
            dtype: Its data type.

        Returns:
            A tensor whose memory is used again when it, its views and their arrays are gone.
        """
        with self._lock:
            fitting = [
                pair for pair in self._arrays if (pair[0].shape, pair[0].dtype) == (shape, dtype)
            ]
            free = [array for array, user in fitting if user() is None]
            array = free[0] if free else np.empty(shape, dtype)
            # The tensor's memory holds this view, whose end says that the array is free.
            view = array.view()
            others = [pair for pair in fitting if pair[0] is not array]
            self._arrays = [*others, (array, weakref.ref(view))][-self.most :]
        return torch.from_numpy(view)


_kept = Kept()


def room(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Tensor:
    """Memory from which a batch need not be copied on its way to the device.

    Args:
        shape: Shape of the batch.
        dtype: Its data type.

    Returns:
        A tensor with anything in it: pinned if this process uses a GPU, shared in a worker.
    """
    kind = torch.from_numpy(np.empty(0, dtype)).dtype
    if get_worker_info() is None and torch.cuda.is_initialized():
        return torch.empty(shape, dtype=kind, pin_memory=True)
    if get_worker_info() is None:
        return _kept.take(shape, dtype)
    # What a worker sends must lie in shared memory; PyTorch's own collate does the same.
    size = int(np.prod(shape)) * dtype.itemsize
    shared: Any = torch.UntypedStorage._new_shared(size)
    return torch.empty(0, dtype=kind).set_(shared).view(shape)


def gathered(tensors: list[Tensor]) -> Tensor | None:
    """All of these as one tensor, if they lie one behind another in the same memory.

    Args:
        tensors: Tensors, at least one.

    Returns:
        A view of all, with one dimension more, or None.
    """
    first = tensors[0]
    step = first.numel() * first.element_size()
    shape, kind, start = first.shape, first.dtype, first.data_ptr()
    memory = first.untyped_storage().data_ptr()
    if step == 0:
        return None
    for tensor in tensors:
        if (
            tensor.data_ptr() != start
            or tensor.dtype != kind
            or tensor.shape != shape
            or not tensor.is_contiguous()
            or tensor.untyped_storage().data_ptr() != memory
        ):
            return None
        start += step
    return first.as_strided((len(tensors), *first.shape), (first.numel(), *first.stride()))


def collate(samples: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Stack samples into a batch, without a copy if they are views of one tensor.

    Args:
        samples: Samples of :class:`SeasonalTemporalDataset`.

    Returns:
        The batch, each entry with one dimension more.
    """
    batch: dict[str, Tensor] = {}
    for key in samples[0]:
        tensors = [sample[key] for sample in samples]
        whole = gathered(tensors)
        batch[key] = torch.stack(tensors) if whole is None else whole
    return batch
