"""The negatives, counted and gated."""

import pytest
import torch
import torch.nn.functional as F

from torchgeo_caco.losses import change_aware_logits


def unit(*shape):
    torch.manual_seed(0)
    return F.normalize(torch.randn(*shape), dim=-1)


def logits(subspace=1, changed=None, **arguments):
    changed = torch.zeros(4, 2, dtype=torch.bool) if changed is None else changed
    query, keys, queue = unit(4, 2, 8), unit(3, 4, 2, 8), unit(2, 5, 8)
    return change_aware_logits(query, keys, queue, subspace, changed=changed, **arguments)


@pytest.mark.parametrize(
    ('subspace', 'arguments', 'columns'),
    [
        (0, {}, 5 + 4),
        (1, {}, 5 + 16 + 4),
        (2, {'queue_negatives': 'all'}, 10 + 16 + 4),
        (1, {'long_term_negatives': 'never'}, 5 + 16),
    ],
)
def test_number_of_negatives(subspace, arguments, columns):
    assert logits(subspace, **arguments).shape == (4, 2, 1 + columns)


def test_a_changed_row_alone_sees_its_own_other_period():
    changed = torch.zeros(4, 2, dtype=torch.bool)
    changed[2, 1] = True
    hidden = logits(1, changed).isneginf()
    assert hidden.sum() == 7
    own = hidden[..., -4:]
    for place in range(4):
        for period in range(2):
            expected = [place == k and not (place == 2 and period == 1) for k in range(4)]
            assert own[place, period].tolist() == expected


def test_the_papers_mask_hides_all_views():
    hidden = logits(1, mask_own='all').isneginf()
    # Of the own other period: two other views and the long-term key.
    assert (hidden.sum(-1) == 3).all()
    assert not logits(1, torch.ones(4, 2, dtype=torch.bool), mask_own='all').isinf().any()


def test_a_location_twice_in_a_batch_is_gated_twice():
    index = torch.tensor([7, 3, 7, 1])
    own = index[:, None] == index
    hidden = logits(0, own=own).isneginf()[..., -4:]
    assert hidden[0, 0].tolist() == [True, False, True, False]


def test_wrong_shapes():
    query, keys = unit(4, 2, 8), unit(3, 4, 2, 8)
    with pytest.raises(ValueError, match='agree in the number of periods'):
        change_aware_logits(query, keys, unit(1, 5, 8), 0)
    with pytest.raises(ValueError, match='changed is needed'):
        change_aware_logits(query, keys, unit(2, 5, 8), 0)
    with pytest.raises(ValueError, match='own is needed'):
        change_aware_logits(query[:2], keys, unit(2, 5, 8), 0, long_term_negatives='always')
