"""Datamodules."""

from .bigearthnet import BigEarthNetRGBDataModule
from .dynamicearthnet import DynamicEarthNetDataModule
from .eurosat import EuroSATRGBDataModule
from .oscd import OSCDTilesDataModule
from .seasonal import SeasonalTemporalDataModule
from .simulated import SimulatedDataModule

__all__ = (
    'BigEarthNetRGBDataModule',
    'DynamicEarthNetDataModule',
    'EuroSATRGBDataModule',
    'OSCDTilesDataModule',
    'SeasonalTemporalDataModule',
    'SimulatedDataModule',
)
