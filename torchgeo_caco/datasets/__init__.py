"""Datasets of seasonal time series."""

from .seasonal import SeasonalTemporalDataset, collate

__all__ = ('SeasonalTemporalDataset', 'collate')
