"""The stretch and the views, batched and on the device."""

from .downstream import InputNormalization
from .published import PublishedInput
from .stretch import PUBLISHED_QUANTILES, Stretch
from .views import SeasonalViews, artificial_augmentation, moco_view, normalised_crop

__all__ = (
    'PUBLISHED_QUANTILES',
    'InputNormalization',
    'PublishedInput',
    'SeasonalViews',
    'Stretch',
    'artificial_augmentation',
    'moco_view',
    'normalised_crop',
)
