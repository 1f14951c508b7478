"""Which locations an epoch visits."""

from .change_aware import ChangeAwareSampler

__all__ = ('ChangeAwareSampler',)
