"""``metrics.csv`` that a resumed run goes on writing."""

import csv
import os
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter


class _AppendingWriter(ExperimentWriter):
    """Takes up the file that is there, where Lightning's writer deletes it."""

    def _check_log_dir_exists(self) -> None:
        if os.path.isfile(self.metrics_file_path):
            with open(self.metrics_file_path, newline='') as file:
                self.metrics_keys = list(csv.DictReader(file).fieldnames or [])


class MetricsLogger(CSVLogger):
    """Writes ``<folder>/metrics.csv`` and ``hparams.yaml``."""

    def __init__(self, save_dir: str | None = None) -> None:
        """Initialize a new MetricsLogger instance.

        Args:
            save_dir: The folder; by default the trainer's ``default_root_dir``.
        """
        super().__init__(save_dir or '.', name='', version='')
        self._bound = save_dir is not None
        self._resume = False

    def bind(self, root: str, resume: bool) -> None:
        """Say where the files go if that was left open.

        Args:
            root: The folder of the run.
            resume: Whether to go on with the metrics that are there, or to begin anew.
        """
        if not self._bound:
            self._root_dir, self._bound = root, True
        self._resume = resume

    @property
    def save_dir(self) -> Any:
        """The folder; None, which Lightning takes for ``default_root_dir``, if left open."""
        return self._root_dir if self._bound else None

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """What writes the file."""
        if self._experiment is None:
            os.makedirs(self.log_dir, exist_ok=True)
            path = os.path.join(self.log_dir, ExperimentWriter.NAME_METRICS_FILE)
            if not self._resume and os.path.isfile(path):
                os.remove(path)
            self._experiment = _AppendingWriter(log_dir=self.log_dir)
        return self._experiment
