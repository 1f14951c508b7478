"""What a run does beside training."""

from .change import ChangeTracker, plot_change_histogram
from .export import ModelFolderExport
from .probe import OnlineProbe
from .resume import ExactResume
from .rows import LogBeforeSaving
from .run import run_callbacks
from .signals import SaveLast

__all__ = (
    'ChangeTracker',
    'ExactResume',
    'LogBeforeSaving',
    'ModelFolderExport',
    'OnlineProbe',
    'SaveLast',
    'plot_change_histogram',
    'run_callbacks',
)
