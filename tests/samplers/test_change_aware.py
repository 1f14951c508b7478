"""Which locations an epoch visits."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler

from torchgeo_caco.samplers import ChangeAwareSampler


class Data:
    """A dataset of which only the length and the epoch matter."""

    epoch = -1

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def set_epoch(self, epoch):
        self.epoch = epoch


@given(st.integers(1, 60), st.integers(1, 7), st.integers(0, 3), st.integers(0, 5))
def test_ranks_share_an_epoch_without_repeats(length, ranks, seed, epoch):
    shards = []
    for rank in range(ranks):
        sampler = ChangeAwareSampler(Data(length), ranks, rank, seed=seed)
        sampler.set_epoch(epoch)
        shards.append(list(sampler))
        assert len(shards[-1]) == len(sampler) == length // ranks
    together = [i for shard in shards for i in shard]
    assert len(set(together)) == len(together)
    single = ChangeAwareSampler(Data(length), 1, 0, seed=seed)
    single.set_epoch(epoch)
    order = list(single)
    assert sorted(order) == list(range(length))
    # All ranks' n-th locations are the n-th of one process.
    assert [shards[i % ranks][i // ranks] for i in range(len(together))] == order[: len(together)]


@given(st.integers(1, 60), st.integers(1, 7), st.integers(1, 6), st.integers(0, 3))
def test_batches_of_all_ranks_are_those_of_one_process(length, ranks, batch, epoch):
    def batches(number, rank, size):
        sampler = ChangeAwareSampler(Data(length), number, rank)
        sampler.set_epoch(epoch)
        return list(BatchSampler(sampler, size, drop_last=True))

    shards = [batches(ranks, rank, batch) for rank in range(ranks)]
    together = [
        [i for row in zip(*parts, strict=True) for i in row] for parts in zip(*shards, strict=True)
    ]
    assert together == batches(1, 0, ranks * batch)


def test_orders_differ_between_epochs_and_seeds():
    data = Data(50)
    sampler = ChangeAwareSampler(data)
    orders = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
        assert data.epoch == epoch
    assert orders[0] == orders[2] != orders[1]
    assert orders[0] != list(ChangeAwareSampler(Data(50), seed=1))
    assert list(ChangeAwareSampler(Data(5), shuffle=False)) == [0, 1, 2, 3, 4]


def test_changed_locations_come_more_often():
    sampler = ChangeAwareSampler(Data(100), changed_fraction=0.5)
    assert sorted(sampler) == list(range(100))
    changed = torch.arange(100) < 10
    sampler.set_changed(changed)
    counts = np.bincount(list(sampler), minlength=100)
    assert counts.sum() == 100
    assert (counts[:10] == 5).all()
    assert counts[10:].max() == 1
    for nobody in (changed | True, changed & False):
        sampler.set_changed(nobody)
        assert sorted(sampler) == list(range(100))


def test_the_paper_visits_all_alike():
    sampler = ChangeAwareSampler(Data(20))
    sampler.set_changed(torch.arange(20) < 3)
    assert sorted(sampler) == list(range(20))


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r'changed_fraction must be in \[0, 1\], not 2'):
        ChangeAwareSampler(Data(3), changed_fraction=2)
    with pytest.raises(ValueError, match=r'must have shape \(3,\), not \(4,\)'):
        ChangeAwareSampler(Data(3)).set_changed(torch.zeros(4))


@given(st.integers(1, 60), st.integers(0, 60), st.integers(1, 7))
def test_other_ranks_share_the_rest_of_an_epoch(length, consumed, ranks):
    order = list(ChangeAwareSampler(Data(length), 1, 0))
    shards = []
    for rank in range(ranks):
        sampler = ChangeAwareSampler(Data(length), ranks, rank)
        sampler.resume(0, consumed)
        shards.append(list(sampler))
    rest = order[consumed:]
    together = [i for row in zip(*shards, strict=True) for i in row]
    assert together == rest[: len(rest) // ranks * ranks]
