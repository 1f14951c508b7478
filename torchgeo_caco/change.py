"""The change estimate: which places changed between the periods (CACo, section 3.4)."""

import logging
import warnings
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

logger = logging.getLogger(__name__)

Estimate = Literal['ema', 'ratio', 'distance']
Assignment = Literal['threshold', 'posterior']
Label = Literal['row', 'location']


class Mixture(NamedTuple):
    """Two Gaussians on the ratio, the one with the smaller mean first.

    Attributes:
        means: The two means, shape (2,).
        variances: The two variances, shape (2,).
        weights: The two weights, shape (2,), summing to 1.
        threshold: Smallest value, not below the lower mean, from which the higher-mean component
            is the more probable; NaN if there is none.
    """

    means: NDArray[np.float64]
    variances: NDArray[np.float64]
    weights: NDArray[np.float64]
    threshold: float

    def log_odds(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log of the odds of the higher-mean against the lower-mean component.

        Args:
            values: Any shape.

        Returns:
            The log odds, same shape.
        """
        return np.subtract(
            *(
                np.log(self.weights[c])
                - 0.5 * np.log(self.variances[c])
                - 0.5 * (values - self.means[c]) ** 2 / self.variances[c]
                for c in (1, 0)
            )
        )

    def posterior(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probability of the higher-mean ("changed") component.

        Args:
            values: Any shape.

        Returns:
            Probabilities in [0, 1], same shape.
        """
        return 1 / (1 + np.exp(-np.clip(self.log_odds(values), -700, 700)))


def fit_mixture(values: NDArray[np.float64], seed: int = 0) -> Mixture | None:
    """Fit two Gaussians to the ratios (scikit-learn, k-means start, one start, fixed seed).

    Source: CACo section 3.4. The published code fits unseeded, so that two fits of the same
    ratios may differ; here they do not.

    Args:
        values: Ratios of the rows seen so far, shape (N,).
        seed: Seed of the k-means start.

    Returns:
        The mixture, or None if there are fewer than two different values.
    """
    if len(values) < 2 or np.ptp(values) == 0:
        return None
    mixture = GaussianMixture(n_components=2, random_state=seed)
    with warnings.catch_warnings():
        # A mixture that has not settled after 100 rounds is refitted at the end of the next epoch.
        warnings.simplefilter('ignore', ConvergenceWarning)
        mixture.fit(values[:, None])
    order = np.argsort(mixture.means_[:, 0], kind='stable')
    means, variances = mixture.means_[order, 0], mixture.covariances_[order, 0, 0]
    weights = mixture.weights_[order]
    fitted = Mixture(means, variances, weights, np.nan)
    return fitted._replace(threshold=_threshold(fitted))


def _threshold(mixture: Mixture) -> float:
    """Where the higher-mean component takes over, from the lower mean upwards (NaN: nowhere)."""
    (m0, m1), (v0, v1), (w0, w1) = mixture.means, mixture.variances, mixture.weights
    if mixture.log_odds(np.array([m0]))[0] > 0:
        return float(m0)
    # The log odds are a parabola a x^2 + b x + c; it turns positive at one of its roots.
    a = 0.5 / v0 - 0.5 / v1
    b = m1 / v1 - m0 / v0
    c = 0.5 * (m0**2 / v0 - m1**2 / v1) + np.log(w1 / w0) + 0.5 * np.log(v0 / v1)
    roots = np.roots([a, b, c] if abs(a) > 1e-12 else [b, c])
    above = [float(r.real) for r in np.atleast_1d(roots) if abs(r.imag) < 1e-9 and r.real > m0]
    return min(above, default=float('nan'))


class ChangeEstimator(nn.Module):
    """Remembers, for each location and period, how much the place seems to have changed.

    Each row (location l, period p) keeps a triple (long-term distance, short-term distance, ratio)
    as an exponential moving average: the first visit stores the value, later ones
    ``old * beta + new * (1 - beta)``. At the end of an epoch :meth:`fit` labels every row.

    Everything is a buffer, so that it travels with checkpoints. Sources: CACo section 3.4,
    equation 3 for the ratio; beta and the small number in the denominator are the published
    code's (0.8, 1e-4).

    Attributes:
        estimates: (N, P, 3) float32, the running triple; 0 where never visited.
        visits: (N, P) int64, how often a row was updated.
        labels: (N, P) int8: 1 changed, 0 unchanged, -1 never visited.
        mixture: (7,) means, variances, weights (low, high) and threshold; NaN before a fit.
        names: Names of the N locations.
    """

    estimates: Tensor
    visits: Tensor
    labels: Tensor
    mixture: Tensor

    def __init__(
        self,
        names: Sequence[str] = (),
        periods: int = 2,
        *,
        estimate: Estimate = 'ema',
        beta: float = 0.8,
        squared: bool = False,
        threshold: float | None = None,
        assignment: Assignment = 'threshold',
        label: Label = 'row',
        seed: int = 0,
    ) -> None:
        """Initialize a new ChangeEstimator instance.

        Args:
            names: Names of the locations.
            periods: Number of periods P.
            estimate: ``'ema'``: moving average of the ratio. ``'ratio'``: the newest ratio, no
                memory. ``'distance'``: moving average of the long-term distance alone.
            beta: Weight of the past in the moving average, in [0, 1).
            squared: Whether the ratio is of squared distances (equation 3) instead of plain ones
                (the published code).
            threshold: Rows above this number are changed; None fits a mixture.
            assignment: ``'threshold'``: changed is what lies above the mixture's threshold.
                ``'posterior'``: the more probable component, as in the published code, which for
                unequal variances also labels some of the lowest ratios changed.
            label: ``'row'``: each (location, period) has its own label. ``'location'``: a
                location is changed if either of its rows is.
            seed: Seed of the mixture's start.

        Raises:
            ValueError: If *beta* is not in [0, 1).
        """
        super().__init__()
        if not 0 <= beta < 1:
            raise ValueError(f'beta must be in [0, 1), not {beta}')
        self.estimate, self.beta, self.squared = estimate, beta, squared
        self.threshold, self.assignment, self.label = threshold, assignment, label
        self.periods, self.seed = periods, seed
        self.allocate(names)

    def allocate(self, names: Sequence[str], device: torch.device | None = None) -> None:
        """Forget everything and make room for these locations.

        Args:
            names: Names of the locations.
            device: Where the buffers lie.
        """
        self.names = tuple(names)
        rows = (len(names), self.periods)
        self.register_buffer('estimates', torch.zeros(*rows, 3, device=device))
        self.register_buffer('visits', torch.zeros(rows, dtype=torch.long, device=device))
        self.register_buffer('labels', torch.full(rows, -1, dtype=torch.int8, device=device))
        self.register_buffer('mixture', torch.full((7,), float('nan')))

    def match(
        self, names: Sequence[str], state: dict[str, Tensor], prefix: str = ''
    ) -> tuple[int, int]:
        """Re-order the rows of a saved state to the locations at hand, in place.

        Args:
            names: Names of the locations in the saved state.
            state: A state dictionary.
            prefix: What its keys start with.

        Returns:
            How many locations are new, and how many are gone.

        Raises:
            ValueError: If the number of periods differs.
        """
        position = {name: i for i, name in enumerate(names)}
        here = [i for i, name in enumerate(self.names) if name in position]
        there = [position[self.names[i]] for i in here]
        for key in ('estimates', 'visits', 'labels'):
            saved, fresh = state[prefix + key], getattr(self, key).detach().clone()
            if saved.shape[1] != self.periods:
                raise ValueError(f'the state has {saved.shape[1]} periods, not {self.periods}.')
            fresh[here] = saved[there].to(fresh)
            state[prefix + key] = fresh
        return len(self.names) - len(here), len(names) - len(here)

    def changed(self, index: Tensor) -> Tensor:
        """Whether rows are labelled changed; never visited, or unknown, counts as unchanged.

        Args:
            index: Location numbers, shape (B,).

        Returns:
            Labels, shape (B, P), bool.
        """
        if not self.names:
            return torch.zeros(len(index), self.periods, dtype=torch.bool, device=index.device)
        labels = self.labels[index] == 1
        if self.label == 'location':
            labels = labels.any(dim=1, keepdim=True).expand_as(labels)
        return labels

    @torch.no_grad()
    def measure(self, query: Tensor, season: Tensor) -> Tensor:
        """Long-term distance, short-term distance and their ratio (equation 3).

        Args:
            query: L2-normalised embeddings of the queries, shape (B, 2, D).
            season: L2-normalised embeddings of the same places in another season, (B, 2, D).

        Returns:
            Triples, shape (B, 2, 3), float32 (float64 for float64). With ``squared`` the first
            two are squared.
        """
        if query.dtype != torch.float64:
            query, season = query.float(), season.float()
        long = (query - query.flip(1)).norm(dim=-1)
        short = (query - season).norm(dim=-1)
        if self.squared:
            long, short = long**2, short**2
        return torch.stack([long, short, long / (short + 1e-4)], dim=-1)

    @torch.no_grad()
    def update(self, index: Tensor, new: Tensor, valid: Tensor | None = None) -> None:
        """Take new triples into the running estimates.

        Args:
            index: Location numbers, shape (B,). If a location comes twice, the first counts.
            new: Triples as :meth:`measure` returns them, shape (B, P, 3).
            valid: Which rows may count, shape (B, P), bool; all of them by default.
        """
        # Copies write the same, so that their order, which a device leaves open, does not matter.
        first = (index[:, None] == index[None]).to(torch.uint8).argmax(1)
        new, valid = new[first], None if valid is None else valid[first]
        old, visits = self.estimates[index], self.visits[index]
        beta = 0.0 if self.estimate == 'ratio' else self.beta
        new = new.to(old)
        mean = torch.where((visits > 0)[..., None], beta * old + (1 - beta) * new, new)
        valid = torch.ones_like(visits, dtype=torch.bool) if valid is None else valid
        valid = valid & new.isfinite().all(-1)
        self.estimates[index] = torch.where(valid[..., None], mean, old)
        self.visits[index] = visits + valid.long()

    @property
    def score(self) -> Tensor:
        """What is compared with the threshold, shape (N, P); NaN where never visited."""
        column = 0 if self.estimate == 'distance' else 2
        return self.estimates[..., column].masked_fill(self.visits == 0, float('nan'))

    @torch.no_grad()
    def fit(self) -> Mixture | None:
        """Label all rows; called at the end of an epoch.

        Returns:
            The fitted mixture; None where the threshold is a number or nothing could be fitted.
        """
        # On the host, because not every device has float64.
        score = self.score.cpu().double().numpy()
        seen = ~np.isnan(score)
        values = score[seen]
        mixture = fit_mixture(values, self.seed) if self.threshold is None else None
        self.mixture.fill_(float('nan'))
        if self.threshold is not None:
            self.mixture[6] = self.threshold
            changed = values > self.threshold
        elif mixture is None:
            changed = np.zeros(len(values), dtype=bool)
        else:
            numbers = np.concatenate([*mixture[:3], [mixture.threshold]])
            self.mixture.copy_(torch.from_numpy(numbers).to(self.mixture.dtype))
            if self.assignment == 'posterior':
                changed = mixture.log_odds(values) > 0
            elif np.isnan(mixture.threshold):
                logger.warning('No ratio is more probably changed than not: nothing is changed.')
                changed = np.zeros(len(values), dtype=bool)
            else:
                changed = values > mixture.threshold
        labels = np.full(score.shape, -1, dtype=np.int8)
        labels[seen] = changed
        self.labels.copy_(torch.from_numpy(labels))
        return mixture

    def posterior(self) -> Tensor:
        """Probability that a row changed under the fitted mixture.

        Returns:
            Shape (N, P), float32 on the CPU; NaN where never visited or nothing was fitted.
        """
        numbers = self.mixture.cpu().double().numpy()
        score = self.score.cpu().double().numpy()
        if np.isnan(numbers[:6]).any():
            return torch.full(score.shape, float('nan'))
        mixture = Mixture(numbers[:2], numbers[2:4], numbers[4:6], float(numbers[6]))
        return torch.from_numpy(mixture.posterior(score)).float()

    def location_score(self) -> Tensor:
        """One number a location: the mean score of its visited rows.

        Returns:
            Shape (N,); NaN where neither row was visited.
        """
        return self.score.nanmean(dim=1)
