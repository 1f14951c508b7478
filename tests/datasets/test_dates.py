"""Which dates are in a period, and which of them are drawn."""

from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchgeo_caco.datasets.dates import draw_positions, parse_split, split_periods

DATES = np.array(
    ['2016-01-05', '2016-04-01', '2016-09-09', '2019-07-01', '2020-01-01', '2020-02-01'],
    'datetime64[D]',
)


@pytest.mark.parametrize(
    ('split', 'expected'),
    [
        ('newest', [[0, 4], [4, 2]]),
        ('gap', [[0, 3], [3, 3]]),
        ('2020-01-01', [[0, 4], [4, 2]]),
        (date(2019, 7, 2), [[0, 4], [4, 2]]),
        ('2010-01-01', [[0, 0], [0, 6]]),
        (['2016-02-01', '2016-12-31'], None),
        ([['2016-02-01', '2017-01-01'], ['2019-07-01', '2020-02-01']], [[1, 2], [3, 2]]),
        ((('2016-01-05', '2016-01-06'), (date(2021, 1, 1), '2022-01-01')), [[0, 1], [6, 0]]),
        ((('2019-01-01', '2020-01-01'), ('2016-01-01', '2017-01-01')), None),
        ('2020-02-30', None),
        ('random', None),
        ('', None),
        ('NaT', None),
        (3, None),
    ],
)
def test_split(split, expected):
    if expected is None:
        with pytest.raises(ValueError, match=r"split must be 'newest', 'gap'.*; not "):
            parse_split(split)
    else:
        assert split_periods([DATES], parse_split(split), 2, 2).tolist() == [expected]


def test_one_period_has_all_dates():
    assert split_periods([DATES, DATES[:1]], 'newest', 1, 2).tolist() == [[[0, 6]], [[0, 1]]]


def test_few_dates():
    few = [DATES[:1], DATES[:0], DATES[:2]]
    for split in ('newest', 'gap'):
        ranges = split_periods(few, split, 2, 5)
        assert ranges[..., 1].sum(1).tolist() == [1, 0, 2]


def test_gap_takes_the_first_of_equal_gaps():
    days = np.datetime64('2020-01-01') + np.array([0, 10, 20, 30])
    assert split_periods([days], 'gap', 2, 5).tolist() == [[[0, 1], [1, 3]]]


@given(
    counts=st.lists(st.lists(st.integers(3, 40), min_size=2, max_size=2), min_size=1, max_size=8),
    number=st.integers(1, 3),
    key=st.integers(-(2**63), 2**63 - 1),
    replacement=st.booleans(),
)
def test_draws_are_in_range_and_differ(counts, number, key, replacement):
    many = np.array(counts)
    drawn = draw_positions(many, number, [np.array(key)], replacement)
    assert drawn.shape == (*many.shape, number)
    assert (drawn >= 0).all()
    assert (drawn < many[..., None]).all()
    if not replacement:
        assert (np.diff(np.sort(drawn, -1), axis=-1) > 0).all()


@pytest.mark.parametrize('replacement', [False, True])
def test_every_order_is_equally_likely(replacement):
    trials = 60_000
    drawn = draw_positions(np.full((trials, 1), 4), 2, [np.arange(trials)[:, None]], replacement)
    seen = np.bincount(drawn[:, 0] @ (4, 1), minlength=16).reshape(4, 4)
    possible = np.ones((4, 4), bool) if replacement else ~np.eye(4, dtype=bool)
    expected = trials / possible.sum()
    assert not seen[~possible].any()
    # Chi-square with 15 or 11 degrees of freedom: 40 has a probability below 0.001.
    assert ((seen[possible] - expected) ** 2 / expected).sum() < 40


def test_all_keys_and_their_order_matter():
    counts = np.full((200, 2), 1000)
    base = draw_positions(counts, 1, [np.array(1), np.array(2)])
    for keys in ([np.array(2), np.array(1)], [np.array(1), np.array(3)], [np.array(1)]):
        assert (base != draw_positions(counts, 1, keys)).mean() > 0.9
    assert (base[:, 0] != base[:, 1]).mean() > 0.9
