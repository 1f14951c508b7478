"""What frozen features are worth: nearest neighbours, linear classifiers, retrieval."""

import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

from .features import Split

logger = logging.getLogger(__name__)

NEIGHBOURS = (5, 20)
RETRIEVED = (20, 100)
FRACTIONS = (0.01, 0.1, 1.0)
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
#: Of the images for an interval; the second for average precisions, each of which takes a sort.
RESAMPLES = 1000
RESAMPLES_SORTED = 200

Measure = Callable[[NDArray[Any], NDArray[Any]], float]


class Score(NamedTuple):
    """A number with its 95 % interval.

    Attributes:
        protocol: How it came about, such as ``kNN 20 cosine``.
        measure: What it is, such as ``accuracy``.
        value: In percent.
        low: Lower end of the bootstrap interval.
        high: Its upper end.
        labels: Labelled images that were learned from.
        strength: Regularisation C that was chosen, or None.
    """

    protocol: str
    measure: str
    value: float
    low: float
    high: float
    labels: int
    strength: float | None = None


class Scored(NamedTuple):
    """All scores of one set of features, and the predictions of the best-trained classifier."""

    scores: list[Score]
    predicted: NDArray[np.float64]
    neighbours: NDArray[np.int64]


def accuracy(y: NDArray[Any], scores: NDArray[Any]) -> float:
    """Share of rows whose highest score is that of their class."""
    return float((scores.argmax(1) == y).mean())


def micro_precision(y: NDArray[Any], scores: NDArray[Any]) -> float:
    """Average precision of all labels together."""
    return float(average_precision_score(y.ravel(), scores.ravel()))


def macro_precision(y: NDArray[Any], scores: NDArray[Any]) -> float:
    """Mean of the average precisions of the labels that occur."""
    there = y.any(0)
    return float(average_precision_score(y[:, there], scores[:, there], average='macro'))


def measures_of(y: NDArray[Any]) -> dict[str, Measure]:
    """Measures for classes, or for several labels an image; the first one decides."""
    if y.ndim == 1:
        return {'accuracy': accuracy}
    return {'AP micro': micro_precision, 'AP macro': macro_precision}


def interval(
    measure: Callable[[NDArray[Any]], float], count: int, seed: int, resamples: int | None = None
) -> tuple[float, float]:
    """The 95 % bootstrap interval of a measure over rows.

    Args:
        measure: From row numbers to a number.
        count: Rows there are.
        seed: Equal seeds draw the same rows, so that intervals are comparable.
        resamples: How often; :data:`RESAMPLES` by default.

    Returns:
        Its two ends.
    """
    result = bootstrap(
        (np.arange(count),), measure, n_resamples=resamples or RESAMPLES, vectorized=False,
        method='percentile', rng=np.random.default_rng(seed),
    )  # fmt: skip
    ends = result.confidence_interval
    return float(ends.low), float(ends.high)


def score_features(
    train: Split, val: Split | None, test: Split, names: Sequence[str], seed: int = 0
) -> Scored:
    """All scores of a set of features.

    Args:
        train: What may be learned from.
        val: What the regularisation is chosen with; None: a fifth of *train*, held out for that
            and given back before the last fit on all labels.
        test: What is scored.
        names: Names of the classes or labels.
        seed: Seed of draws and intervals.

    Returns:
        The scores.

    Raises:
        ValueError: If there is too little to learn from or to score.
    """
    _check(train, test, names)
    classes = len(names)
    found: list[Score] = []
    for metric in ('cosine', 'L2'):
        found += _neighbour_scores(train, test, classes, metric, seed)
    pool, chooser = (train, val) if val is not None else _hold_out(train, seed)
    predicted = np.empty(0)
    for fraction in FRACTIONS:
        rows = draw(pool.y, fraction * len(train.y) / len(pool.y), seed)
        some = pool.take(rows)
        strength = choose_strength(some, chooser, classes)
        fitted = train if fraction == 1 else some
        predicted = linear(fitted, test.x, classes, strength)
        name = f'linear {fraction * 100:g} %'
        found += _scores(name, test, predicted, len(fitted.y), seed, strength)
    retrieved, neighbours = _retrieval(test, seed)
    return Scored(found + retrieved, predicted, neighbours)


def draw(y: NDArray[np.int64], fraction: float, seed: int) -> NDArray[np.int64]:
    """Rows of a part of the labels, equal for all weights.

    Args:
        y: Classes (N,), of each of which the part is drawn, at least one row; or labels (N, L).
        fraction: The part; from 1 on, all rows.
        seed: Seed.

    Returns:
        Row numbers in order.
    """
    rows = np.arange(len(y))
    if fraction >= 1:
        return rows
    rng = np.random.default_rng(seed)
    groups = [rows] if y.ndim == 2 else [rows[y == c] for c in np.unique(y)]
    drawn = [rng.permutation(g)[: max(1, round(fraction * len(g)))] for g in groups]
    return np.sort(np.concatenate(drawn))


def neighbour_votes(
    train: Split, test: Split, classes: int, counts: Sequence[int], metric: str
) -> list[NDArray[np.float64]]:
    """Shares of the votes of the nearest training images.

    Args:
        train: The images that vote.
        test: The images that are voted on.
        classes: Number of classes or labels.
        counts: Numbers of neighbours, none above the number of training images.
        metric: ``'cosine'`` or ``'L2'``.

    Returns:
        For each number of neighbours shares of shape (N, classes).
    """
    a, b = (train.x, test.x) if metric == 'L2' else (normalize(train.x), normalize(test.x))
    nearest = NearestNeighbors(n_neighbors=max(counts), algorithm='brute').fit(a)
    index = nearest.kneighbors(b, return_distance=False)
    targets = train.y if train.y.ndim == 2 else np.eye(classes)[train.y]
    return [targets[index[:, :count]].mean(1) for count in counts]


def linear(
    train: Split, x: NDArray[np.float32], classes: int, strength: float
) -> NDArray[np.float64]:
    """Probabilities by logistic regression on standardised features.

    Args:
        train: What is learned from.
        x: Features to predict for, shape (N, F).
        classes: Number of classes or labels.
        strength: Inverse regularisation C.

    Returns:
        Shape (N, classes); 0 for classes that *train* lacks.
    """
    logistic = LogisticRegression(C=strength, max_iter=500, tol=1e-3)
    several = train.y.ndim == 2
    model = make_pipeline(StandardScaler(), OneVsRestClassifier(logistic) if several else logistic)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', ConvergenceWarning)
        # A label that all images of a few-shot draw have, or none.
        warnings.filterwarnings('ignore', 'Label .* is present in all training examples')
        model.fit(train.x, train.y)
        probabilities = model.predict_proba(x)
    if several:
        return np.asarray(probabilities, np.float64)
    full = np.zeros((len(x), classes))
    full[:, model.classes_] = probabilities
    return full


def choose_strength(train: Split, val: Split, classes: int) -> float:
    """The regularisation that is best on the validation images; the stronger one if equal."""
    measure = next(iter(measures_of(train.y).values()))
    found = [measure(val.y, linear(train, val.x, classes, c)) for c in STRENGTHS]
    return STRENGTHS[int(np.argmax(found))]


def _mean(values: NDArray[Any]) -> Callable[[NDArray[Any]], float]:
    return lambda rows: float(values[rows].mean())


def _by_rows(
    measure: Measure, y: NDArray[Any], predicted: NDArray[Any]
) -> Callable[[NDArray[Any]], float]:
    return lambda rows: measure(y[rows], predicted[rows])


def _hold_out(train: Split, seed: int) -> tuple[Split, Split]:
    """Four fifths to learn from, of each class at least one image, and a fifth to choose with."""
    keep = draw(train.y, 0.8, seed + 1)
    rest = np.setdiff1d(np.arange(len(train.y)), keep)
    return train.take(keep), train.take(rest if len(rest) else keep)


def _neighbour_scores(
    train: Split, test: Split, classes: int, metric: str, seed: int
) -> list[Score]:
    counts = [k for k in NEIGHBOURS if k <= len(train.y)]
    votes = neighbour_votes(train, test, classes, counts, metric)
    found = []
    for count, shares in zip(counts, votes, strict=True):
        found += _scores(f'kNN {count} {metric}', test, shares, len(train.y), seed)
    return found


def _scores(
    protocol: str,
    test: Split,
    predicted: NDArray[np.float64],
    labels: int,
    seed: int,
    strength: float | None = None,
) -> list[Score]:
    found = []
    for name, measure in measures_of(test.y).items():
        value = measure(test.y, predicted)
        if name == 'accuracy':
            # The mean of what is right: the same, and quicker.
            low, high = interval(_mean(predicted.argmax(1) == test.y), len(test.y), seed)
        else:
            again = _by_rows(measure, test.y, predicted)
            low, high = interval(again, len(test.y), seed, RESAMPLES_SORTED)
        found.append(Score(protocol, name, 100 * value, 100 * low, 100 * high, labels, strength))
    return found


def _retrieval(test: Split, seed: int) -> tuple[list[Score], NDArray[np.int64]]:
    """Precision among the nearest other test images by cosine.

    Relevant is an image of the same class, or one that shares a label.
    """
    x = normalize(test.x)
    most = min(max(RETRIEVED), len(x) - 1)
    nearest = NearestNeighbors(n_neighbors=most, algorithm='brute').fit(x)
    index = nearest.kneighbors(return_distance=False)
    if test.y.ndim == 1:
        relevant = test.y[index] == test.y[:, None]
    else:
        relevant = (test.y[index] & test.y[:, None]).any(-1)
    found = []
    for count in RETRIEVED:
        if count > most:
            logger.info('precision at %d needs more than the %d test images.', count, len(x))
            continue
        share = relevant[:, :count].mean(1)
        low, high = interval(_mean(share), len(share), seed)
        found.append(
            Score(f'P@{count}', 'precision', 100 * float(share.mean()), 100 * low, 100 * high, 0)
        )
    return found, index


def _check(train: Split, test: Split, names: Sequence[str]) -> None:
    """Say in a sentence what makes scoring impossible."""
    if len(test.y) < 2:
        raise ValueError(f'{len(test.y)} image is too few to be scored; expected at least 2.')
    if len(train.y) < min(NEIGHBOURS):
        raise ValueError(
            f'{len(train.y)} training image(s) are too few; expected at least {min(NEIGHBOURS)}.'
        )
    if train.y.ndim == 1:
        counts = np.bincount(train.y, minlength=len(names))
        if (counts == 0).any():
            raise ValueError(f'class {names[int(counts.argmin())]!r} has no training image.')
