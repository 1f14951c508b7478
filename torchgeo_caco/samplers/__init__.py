"""Which locations an epoch visits, and where on Earth locations are."""

from .change_aware import ChangeAwareSampler
from .geographic import GeographicSampler, load_cities, plot_places
from .land import LandMask

__all__ = ('ChangeAwareSampler', 'GeographicSampler', 'LandMask', 'load_cities', 'plot_places')
