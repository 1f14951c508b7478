"""The ring of keys."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchgeo_caco.memory import MemoryBank


@given(st.integers(1, 9), st.lists(st.integers(1, 14), max_size=6))
def test_the_newest_keys_stay(size, batches):
    bank = MemoryBank(2 * size, 1, subspaces=2)
    untouched = bank.queue[0].clone()
    sent = []
    for count in batches:
        keys = torch.arange(len(sent), len(sent) + count).float() + 1000
        sent += keys.tolist()
        bank.enqueue(1, torch.stack([keys, -keys], 1)[..., None])
    newest = set(sent[-size:])
    assert newest <= set(bank.queue[1, 0, :, 0].tolist())
    assert torch.equal(bank.queue[1, 0], -bank.queue[1, 1]) or len(sent) < size
    assert int(bank.pointer[1]) == len(sent) % size
    assert torch.equal(bank.queue[0], untouched)


def test_no_queue_and_odd_sizes():
    MemoryBank(0, 4).enqueue(0, torch.ones(3, 2, 4))
    with pytest.raises(ValueError, match='memory_bank_size 7 must divide by the 2 periods'):
        MemoryBank(7, 4)
