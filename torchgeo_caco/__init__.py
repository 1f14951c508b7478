"""Change-aware contrastive learning on satellite image time series, for TorchGeo."""

from .change import ChangeEstimator
from .datamodules import SeasonalTemporalDataModule
from .datasets import SeasonalTemporalDataset
from .registry import register
from .samplers import ChangeAwareSampler
from .tasks import CACoTask

__version__ = '0.1.0'

__all__ = (
    'CACoTask',
    'ChangeAwareSampler',
    'ChangeEstimator',
    'SeasonalTemporalDataModule',
    'SeasonalTemporalDataset',
    'register',
)

register()
