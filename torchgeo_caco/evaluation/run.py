"""One pair of weights and data."""

import time
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..models import Encoder
from ..models.convert import first_convolution
from ..transforms.downstream import COLOURS, InputNormalization, Normalization
from .data import EvaluationData
from .features import BatchNorm, Split, adapt_batch_norm, extract
from .scores import Score, score_features
from .weights import is_generic


class Pair(NamedTuple):
    """What came out for one pair.

    Attributes:
        data: The data set.
        weights: Name of the weights.
        architecture: Of the encoder.
        normalization: Which one was used.
        batch_norm: Whether BatchNorm's statistics are the weights' own (``'eval'``) or the training
            images' (``'adapt'``).
        scores: The numbers.
        test: Features and labels of the scored images.
        predicted: Probabilities of the linear classifier with all labels, (N, classes).
        neighbours: For each scored image the others by similarity, (N, at most 100).
        about: What is needed to repeat it: normalisation, sizes, times.
    """

    data: EvaluationData
    weights: str
    architecture: str
    normalization: Normalization
    batch_norm: BatchNorm
    scores: list[Score]
    test: Split
    predicted: NDArray[np.float64]
    neighbours: NDArray[np.int64]
    about: dict[str, Any]


def evaluate_pair(
    name: str,
    encoder: Encoder,
    data: EvaluationData,
    normalization: Normalization = 'weights',
    batch_norm: BatchNorm = 'eval',
    seed: int = 0,
    batch_size: int = 128,
    workers: int = 0,
    device: str = 'cpu',
) -> Pair:
    """Extract features once and score them.

    Args:
        name: Name of the weights in tables.
        encoder: The encoder.
        data: The data set.
        normalization: ``'weights'`` or ``'plain'``.
        batch_norm: ``'eval'`` or ``'adapt'``.
        seed: Seed of draws and intervals.
        batch_size: Images at a time.
        workers: Processes that read.
        device: Where the encoder runs.

    Returns:
        The result.

    Raises:
        ValueError: If weights and data do not fit each other, or a score is impossible.
    """
    start = time.monotonic()
    own = first_convolution(encoder.architecture, encoder.state)[1]
    described = encoder.described
    if own == 3 < len(data.bands) and is_generic(encoder):
        # ImageNet's are of pictures; to random ones the order is all the same.
        described = described | {'bands': list(COLOURS)}
    normalise = InputNormalization(
        normalization, data.bands, data.quantiles, data.units, described,
        data.eight_bits, data.size,
    )  # fmt: skip
    model = encoder.build()
    channels = len(normalise.bands)
    if own != channels:
        raise ValueError(
            f'{name} has {own} input channels, but {data.title} gives {channels} '
            f'({", ".join(normalise.bands)}) and nothing is known of the bands of the weights.'
        )
    if batch_norm == 'adapt':
        adapt_batch_norm(model, data.train, normalise, batch_size, workers, device)
    splits = [
        None
        if part is None
        else extract(
            model, part, normalise, batch_size, workers, device, f'{name}: {data.title}, {split}'
        )
        for split, part in (('train', data.train), ('val', data.val), (data.tested, data.test))
    ]
    train, val, test = splits
    assert train is not None
    assert test is not None
    extracted = time.monotonic()
    scored = score_features(train, val, test, data.classes, seed)
    about = {
        'input': normalise.describe(),
        'images': {'train': len(train.y)}
        | ({} if val is None else {'val': len(val.y)})
        | {data.tested: len(test.y)},
        'scored split': data.tested,
        'features': train.x.shape[1],
        'seconds': {
            'features': round(extracted - start, 1),
            'scores': round(time.monotonic() - extracted, 1),
        },
    }
    return Pair(
        data, name, encoder.architecture, normalization, batch_norm, scored.scores, test,
        scored.predicted, scored.neighbours, about,
    )  # fmt: skip
