"""Pretraining tasks."""

from .caco import CACoTask, StepOutput

__all__ = ('CACoTask', 'StepOutput')
