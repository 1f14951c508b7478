import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from sklearn.neighbors import KNeighborsClassifier

from torchgeo_caco.evaluation.features import Split
from torchgeo_caco.evaluation.scores import (
    FRACTIONS,
    draw,
    interval,
    linear,
    macro_precision,
    micro_precision,
    neighbour_votes,
    score_features,
)

NAMES = ('a', 'b', 'c')


def blobs(count: int, seed: int, spread: float = 1.0) -> Split:
    rng = np.random.default_rng(seed)
    y = np.arange(count) % 3
    centres = np.eye(3, 8) * 3
    return Split((centres[y] + rng.normal(0, spread, (count, 8))).astype(np.float32), y)


def several(count: int, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    y = (rng.random((count, 3)) < 0.4).astype(np.int64)
    return Split((y @ np.eye(3, 8) * 2 + rng.normal(0, 1, (count, 8))).astype(np.float32), y)


@pytest.mark.parametrize(('metric', 'name'), [('cosine', 'cosine'), ('L2', 'euclidean')])
def test_neighbours_agree_with_scikit_learn(metric, name):
    train, test = blobs(90, 0, 2.0), blobs(30, 1, 2.0)
    votes = neighbour_votes(train, test, 3, (5, 20), metric)
    for count, shares in zip((5, 20), votes, strict=True):
        reference = KNeighborsClassifier(count, metric=name, algorithm='brute')
        reference.fit(train.x, train.y)
        np.testing.assert_allclose(shares, reference.predict_proba(test.x), atol=1e-9)


def test_precisions_are_those_of_scikit_learn():
    test = several(60, 0)
    test.y[:, 2] = 0
    scores = np.random.default_rng(1).random(test.y.shape)
    assert micro_precision(test.y, scores) == pytest.approx(
        average_precision_score(test.y, scores, average='micro')
    )
    each = [average_precision_score(test.y[:, i], scores[:, i]) for i in range(2)]
    assert macro_precision(test.y, scores) == pytest.approx(np.mean(each))


def test_interval_of_a_mean_is_the_normal_one():
    right = np.random.default_rng(0).random(400) < 0.7
    low, high = interval(lambda rows: float(right[rows].mean()), len(right), 0)
    error = 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / len(right))
    assert low == pytest.approx(right.mean() - error, abs=0.01)
    assert high == pytest.approx(right.mean() + error, abs=0.01)


def test_a_draw_has_every_class_and_grows():
    y = np.array([0] * 200 + [1] * 50 + [2] * 3)
    drawn = [draw(y, fraction, 0) for fraction in FRACTIONS]
    assert [np.bincount(y[rows]).tolist() for rows in drawn] == [
        [2, 1, 1], [20, 5, 1], [200, 50, 3],
    ]  # fmt: skip
    assert set(drawn[0]) <= set(drawn[1]) <= set(drawn[2])


def test_all_scores():
    scored = score_features(blobs(300, 0), None, blobs(120, 1), NAMES)
    found = {score.protocol: score for score in scored.scores}
    assert list(found) == [
        'kNN 5 cosine', 'kNN 20 cosine', 'kNN 5 L2', 'kNN 20 L2', 'linear 1 %', 'linear 10 %',
        'linear 100 %', 'P@20', 'P@100',
    ]  # fmt: skip
    assert all(score.low <= score.value <= score.high for score in scored.scores)
    assert found['linear 100 %'].value > 90
    assert [found[f'linear {n} %'].labels for n in (1, 10, 100)] == [3, 30, 300]
    assert (scored.neighbours != np.arange(120)[:, None]).all()
    again = score_features(blobs(300, 0), None, blobs(120, 1), NAMES)
    assert again.scores == scored.scores


def test_several_labels_and_a_validation_split():
    scored = score_features(several(200, 0), several(50, 1), several(80, 2), NAMES)
    found = {(s.protocol, s.measure): s.value for s in scored.scores}
    assert found['linear 100 %', 'AP micro'] > found['linear 1 %', 'AP micro']
    assert ('kNN 5 cosine', 'AP macro') in found
    # 79 others cannot fill a hundred places.
    assert ('P@20', 'precision') in found
    assert ('P@100', 'precision') not in found


def test_linear_without_a_class_gives_it_nothing():
    train = blobs(30, 0)
    some = train.take(np.flatnonzero(train.y != 1))
    probabilities = linear(some, train.x, 3, 1.0)
    assert (probabilities[:, 1] == 0).all()
    np.testing.assert_allclose(probabilities.sum(1), 1)


@pytest.mark.parametrize(
    ('train', 'test', 'message'),
    [
        (blobs(30, 0), blobs(1, 1), '1 image is too few'),
        (blobs(3, 0), blobs(9, 1), r'3 training image\(s\) are too few'),
        (blobs(30, 0).take(np.arange(0, 30, 3)), blobs(9, 1), "class 'b' has no training image"),
    ],
)
def test_too_little(train, test, message):
    with pytest.raises(ValueError, match=message):
        score_features(train, None, test, NAMES)
