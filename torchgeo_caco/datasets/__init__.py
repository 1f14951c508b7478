"""Datasets of seasonal time series, and those of the published evaluations."""

from .batches import collate
from .bigearthnet import BigEarthNetRGB
from .dynamicearthnet import DynamicEarthNet
from .eurosat import EuroSATRGB
from .oscd import OSCDTiles
from .scenery import CLASSES
from .seasonal import SeasonalTemporalDataset
from .simulated import CHANGES, Landscape, SimulatedLandscapes, Truth, load_truth

__all__ = (
    'CHANGES',
    'CLASSES',
    'BigEarthNetRGB',
    'DynamicEarthNet',
    'EuroSATRGB',
    'Landscape',
    'OSCDTiles',
    'SeasonalTemporalDataset',
    'SimulatedLandscapes',
    'Truth',
    'collate',
    'load_truth',
)
