"""Tasks: pretraining, and the published evaluations."""

from .caco import CACoTask
from .change import ChangeHeadTask
from .probe import ProbeTask
from .step import StepOutput

__all__ = ('CACoTask', 'ChangeHeadTask', 'ProbeTask', 'StepOutput')
