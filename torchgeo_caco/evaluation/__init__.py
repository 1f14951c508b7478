"""Frozen features on labelled data: scores with intervals, tables and pictures."""

from .data import DATASETS, EvaluationData, open_data
from .features import Split, extract
from .run import Pair, evaluate_pair
from .scores import Score, score_features
from .weights import resolve_weights

__all__ = (
    'DATASETS',
    'EvaluationData',
    'Pair',
    'Score',
    'Split',
    'evaluate_pair',
    'extract',
    'open_data',
    'resolve_weights',
    'score_features',
)
