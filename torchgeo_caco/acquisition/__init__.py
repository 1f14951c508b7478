"""From places on a map to a store of seasonal time series."""

from .patch import Outcome, Place, fetch
from .plan import Dates, Plan, Quality
from .providers import PROVIDERS, Provider
from .runner import Summary, download

__all__ = (
    'PROVIDERS',
    'Dates',
    'Outcome',
    'Place',
    'Plan',
    'Provider',
    'Quality',
    'Summary',
    'download',
    'fetch',
)
