"""Change-aware contrastive learning on satellite image time series, for TorchGeo."""

import warnings

with warnings.catch_warnings():
    # Kornia compiles some of its functions with TorchScript at import.
    warnings.filterwarnings('ignore', '`torch.jit.script` is deprecated', FutureWarning)
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
