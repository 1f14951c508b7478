"""The change estimate beyond the published numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchgeo_caco.change import ChangeEstimator, Mixture, fit_mixture


def triples(*ratios):
    return torch.tensor([[[r, 1.0, r]] * 2 for r in ratios])


def test_first_visit_stores_and_later_ones_average():
    estimator = ChangeEstimator(['a', 'b', 'c'])
    estimator.update(torch.tensor([2]), triples(4.0))
    assert estimator.score[2].tolist() == [4, 4]
    assert estimator.score[:2].isnan().all()
    estimator.update(torch.tensor([2]), triples(9.0))
    assert estimator.score[2].tolist() == pytest.approx([5, 5])
    newest = ChangeEstimator(['a'], estimate='ratio')
    for value in (4.0, 9.0):
        newest.update(torch.tensor([0]), triples(value))
    assert newest.score.tolist() == [[9, 9]]


def test_invalid_and_infinite_rows_do_not_count():
    estimator = ChangeEstimator(['a', 'b'])
    new = triples(3.0, float('inf'))
    estimator.update(torch.tensor([0, 1]), new, torch.tensor([[True, False], [True, True]]))
    assert estimator.visits.tolist() == [[1, 0], [0, 0]]


def test_the_first_of_two_visits_in_one_batch_counts():
    estimator = ChangeEstimator(['a', 'b'])
    estimator.update(torch.tensor([1, 0, 1]), triples(3.0, 5.0, 7.0))
    assert estimator.score.tolist() == [[5, 5], [3, 3]]
    assert estimator.visits.tolist() == [[1, 1], [1, 1]]


def test_nothing_is_changed_before_the_first_fit():
    estimator = ChangeEstimator(['a', 'b'])
    estimator.update(torch.tensor([0]), triples(100.0))
    assert not estimator.changed(torch.tensor([0, 1])).any()
    assert estimator.fit() is None
    assert estimator.labels.tolist() == [[0, 0], [-1, -1]]


def test_label_of_the_location():
    estimator = ChangeEstimator(['a', 'b'], label='location', threshold=2.0)
    new = triples(1.0, 1.0)
    new[0, 1, 2] = 3
    estimator.update(torch.tensor([0, 1]), new)
    estimator.fit()
    assert estimator.labels.tolist() == [[0, 1], [0, 0]]
    assert estimator.changed(torch.tensor([1, 0])).tolist() == [[False] * 2, [True] * 2]


def test_squared_ratio_is_the_papers():
    query, season = torch.eye(4)[None, :2], torch.eye(4)[None, 2:]
    plain = ChangeEstimator(['a']).measure(query, 0.6 * season)
    squared = ChangeEstimator(['a'], squared=True).measure(query, 0.6 * season)
    assert torch.allclose(squared[..., :2], plain[..., :2] ** 2)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.floats(0.05, 0.9), st.floats(0.1, 4), st.floats(0.05, 3))
def test_threshold_is_where_the_odds_turn(seed, share, gap, spread):
    rng = np.random.default_rng(seed)
    high = rng.random(200) < share
    values = np.where(high, rng.normal(1 + gap, spread, 200), rng.normal(1, 0.2, 200))
    mixture = fit_mixture(values)
    assert mixture is not None
    if np.isnan(mixture.threshold):
        return
    t, low = mixture.threshold, mixture.means[0]
    assert t >= low
    between = np.linspace(low, t, 50)[:-1] if t > low else np.empty(0)
    assert (mixture.log_odds(between) <= 1e-6).all()
    assert mixture.log_odds(np.array([t + 1e-6]))[0] > -1e-6


def test_match_by_name():
    old = ChangeEstimator(['a', 'b', 'c'])
    old.update(torch.tensor([0, 1, 2]), triples(1.0, 2.0, 3.0))
    new = ChangeEstimator(['b', 'd', 'c'])
    state = dict(old.state_dict())
    assert new.match(old.names, state) == (1, 1)
    new.load_state_dict(state)
    assert new.score[:, 0].nan_to_num(-1).tolist() == [2, -1, 3]


def test_beta_out_of_range():
    with pytest.raises(ValueError, match='beta must be in'):
        ChangeEstimator(beta=1)


def test_a_mixture_without_threshold_is_told(monkeypatch, caplog):
    # A narrow bell of few rows within a wide one of many never is the more probable.
    mixture = Mixture(np.array([1.0, 1.2]), np.array([1.0, 0.5]), np.array([0.95, 0.05]), np.nan)
    monkeypatch.setattr('torchgeo_caco.change.fit_mixture', lambda values, seed: mixture)
    estimator = ChangeEstimator(['a', 'b'])
    estimator.update(torch.tensor([0, 1]), triples(1.0, 5.0))
    estimator.fit()
    assert not (estimator.labels == 1).any()
    assert [r.levelname for r in caplog.records] == ['WARNING']
    assert 'nothing is changed' in caplog.text
