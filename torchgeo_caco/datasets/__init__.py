"""Datasets of seasonal time series."""

from .scenery import CLASSES
from .seasonal import SeasonalTemporalDataset, collate
from .simulated import CHANGES, Landscape, SimulatedLandscapes, Truth, load_truth

__all__ = (
    'CHANGES',
    'CLASSES',
    'Landscape',
    'SeasonalTemporalDataset',
    'SimulatedLandscapes',
    'Truth',
    'collate',
    'load_truth',
)
