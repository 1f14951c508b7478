"""Tasks: pretraining, and the published evaluations."""

from .caco import CACoTask, StepOutput
from .change import ChangeHeadTask
from .probe import ProbeTask

__all__ = ('CACoTask', 'ChangeHeadTask', 'ProbeTask', 'StepOutput')
