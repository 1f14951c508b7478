"""The memory that a batch of time series lies in."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info


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
        # NumPy asks for huge pages: small ones take longer to get than an image takes to copy.
        return torch.from_numpy(np.empty(shape, dtype))
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
