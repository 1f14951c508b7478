"""Datamodules."""

from .bigearthnet import BigEarthNetRGBDataModule
from .eurosat import EuroSATRGBDataModule
from .oscd import OSCDTilesDataModule
from .seasonal import SeasonalTemporalDataModule
from .simulated import SimulatedDataModule

__all__ = (
    'BigEarthNetRGBDataModule',
    'EuroSATRGBDataModule',
    'OSCDTilesDataModule',
    'SeasonalTemporalDataModule',
    'SimulatedDataModule',
)
