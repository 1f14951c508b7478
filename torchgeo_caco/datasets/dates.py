"""Which dates belong to which period, and which of them a sample shows."""

from collections.abc import Sequence
from datetime import date

import numpy as np
from numpy.typing import NDArray

#: ``'newest'``, ``'gap'``, a date, or two half-open intervals of dates.
Split = str | date | Sequence[Sequence[str | date]]


def parse_split(split: Split) -> str | NDArray[np.datetime64]:
    """Check how dates are split into two periods.

    Args:
        split: ``'newest'``, ``'gap'``, a date ``'YYYY-MM-DD'``, or two intervals
            ``((start, stop), (start, stop))``.

    Returns:
        ``'newest'``, ``'gap'``, or the days (start, stop) of both periods, shape (2, 2).

    Raises:
        ValueError: If it is none of these, or the intervals overlap or are not in order.
    """
    if isinstance(split, str) and split in ('newest', 'gap'):
        return split
    single = isinstance(split, str | date)
    intervals = [['0001-01-01', split], [split, '9999-12-31']] if single else split
    try:
        days = np.array(intervals, 'datetime64[D]')
    except (ValueError, TypeError):
        days = np.empty(0, 'datetime64[D]')
    # Written so that NaT, which '' becomes, is refused too.
    if days.shape != (2, 2) or not (days.ravel()[:-1] <= days.ravel()[1:]).all():
        raise ValueError(
            "split must be 'newest', 'gap', a date 'YYYY-MM-DD' or two intervals "
            f'((start, stop), (start, stop)), the earlier first; not {split!r}.'
        )
    return days


def split_periods(
    dates: Sequence[NDArray[np.datetime64]],
    split: str | NDArray[np.datetime64],
    periods: int,
    seasons_per_period: int,
) -> NDArray[np.int64]:
    """Cut the dates of each location into periods.

    Args:
        dates: Chronological dates of N locations, each of shape (T,), ``datetime64[D]``.
        split: What :func:`parse_split` returns. With ``'gap'`` the cut is the longest time between
            consecutive dates, the first if there are several.
        periods: Number of periods P, 1 (all dates) or 2.
        seasons_per_period: How many dates ``'newest'`` puts into the later period.

    Returns:
        First position and number of dates of each period, shape (N, P, 2).
    """
    counts = np.array([len(days) for days in dates])
    bounds = np.zeros((len(dates), periods, 2), np.int64)  # positions: from, up to
    if periods == 1:
        bounds[:, 0, 1] = counts
    elif isinstance(split, str):
        if split == 'newest':
            cuts = np.maximum(counts - seasons_per_period, 0)
        else:
            cuts = np.array([int(np.diff(d).argmax()) + 1 if len(d) > 1 else 0 for d in dates])
        bounds[:, 0, 1] = bounds[:, 1, 0] = cuts
        bounds[:, 1, 1] = counts
    else:
        for i, days in enumerate(dates):
            bounds[i] = np.searchsorted(days, split)
    return np.stack([bounds[..., 0], bounds[..., 1] - bounds[..., 0]], -1)


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The output function of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def draw_positions(
    counts: NDArray[np.int64],
    number: int,
    keys: Sequence[NDArray[np.int64]],
    replacement: bool = False,
) -> NDArray[np.int64]:
    """Draw numbers below each count, the same for the same keys wherever it is done.

    Args:
        counts: From how many to draw, shape (N, P); at least *number*, or 1 with replacement.
        number: How many to draw, S.
        keys: What the draw depends on, integers that broadcast to (N, P); the order of the keys
            matters.
        replacement: Whether the same number may be drawn twice.

    Returns:
        In the order in which they were drawn, shape (N, P, S).
    """
    state = np.zeros(counts.shape, np.uint64)
    for key in (*keys, np.arange(counts.shape[1])):
        state = _mix(state ^ np.asarray(key, np.int64).astype(np.uint64))
    drawn = np.zeros((*counts.shape, number), np.int64)
    for s in range(number):
        left = counts if replacement else counts - s
        random = _mix(state ^ _mix(np.full(1, s, np.uint64)))
        value = (random % left.astype(np.uint64)).astype(np.int64)
        if not replacement:
            # The value-th of those that are left: step over each one that is taken.
            for taken in np.moveaxis(np.sort(drawn[..., :s], -1), -1, 0):
                value += value >= taken
        drawn[..., s] = value
    return drawn
