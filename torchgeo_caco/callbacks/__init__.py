"""What a run does beside training."""

from .change import ChangeTracker, plot_change_histogram
from .export import ModelFolderExport
from .probe import OnlineProbe
from .run import run_callbacks

__all__ = (
    'ChangeTracker',
    'ModelFolderExport',
    'OnlineProbe',
    'plot_change_histogram',
    'run_callbacks',
)
