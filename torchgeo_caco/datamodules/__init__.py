"""Datamodules."""

from .seasonal import SeasonalTemporalDataModule
from .simulated import SimulatedDataModule

__all__ = ('SeasonalTemporalDataModule', 'SimulatedDataModule')
