"""The memory of batches: used again, but never while somebody holds it."""

import gc

import numpy as np
import pytest
import torch

from torchgeo_caco.datasets.batches import Kept

SHAPE, KIND = (4, 3, 8, 8), np.dtype('uint8')

#: What may be left of a batch; all of it keeps the memory.
USERS = {
    'the batch': lambda batch: batch,
    'a sample': lambda batch: batch[1],
    'a band of a sample': lambda batch: batch[2, 0],
    'another shape': lambda batch: batch.flatten(1),
    'an array': lambda batch: batch.numpy(),
    'a part of an array': lambda batch: batch.numpy()[1:, ::2],
    'an array of a part': lambda batch: batch[1:].numpy(),
    'a sample of a list': lambda batch: list(batch.unbind())[3],
    'the memory': lambda batch: batch.untyped_storage(),
}


@pytest.mark.parametrize('name', USERS)
def test_what_is_held_is_not_used_again(name):
    kept = Kept()
    batch = kept.take(SHAPE, KIND)
    batch.fill_(7)
    address = batch.data_ptr()
    user = USERS[name](batch)
    del batch
    others = [kept.take(SHAPE, KIND).fill_(9) for _ in range(5)]
    assert address not in [other.data_ptr() for other in others]
    assert (np.asarray(list(user) if name == 'the memory' else user) == 7).all()


@pytest.mark.parametrize('name', USERS)
def test_what_is_free_is_used_again(name):
    kept = Kept()
    batch = kept.take(SHAPE, KIND)
    address = batch.data_ptr()
    user = USERS[name](batch)
    del batch, user
    gc.collect()
    again = kept.take(SHAPE, KIND)
    assert again.data_ptr() == address
    assert (again.shape, again.dtype) == (SHAPE, torch.uint8)


def test_other_shapes_and_types_have_memory_of_their_own():
    kept = Kept()
    kept.take(SHAPE, KIND)
    other = kept.take((3, *SHAPE[1:]), KIND)
    assert other.shape == (3, *SHAPE[1:])
    assert kept.take(SHAPE, np.dtype('int16')).dtype == torch.int16
    # Nothing is kept of shapes that are no longer asked for.
    assert len(kept._arrays) == 1


def test_few_are_kept():
    kept = Kept(2)
    held = [kept.take(SHAPE, KIND) for _ in range(5)]
    assert len({tensor.data_ptr() for tensor in held}) == 5
    assert len(kept._arrays) == 2
