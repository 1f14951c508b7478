"""Datamodules."""

from .seasonal import SeasonalTemporalDataModule

__all__ = ('SeasonalTemporalDataModule',)
