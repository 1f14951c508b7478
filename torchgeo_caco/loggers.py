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

    def __init__(self, save_dir: str, resume: bool = False) -> None:
        """Initialize a new MetricsLogger instance.

        Args:
            save_dir: The folder.
            resume: Whether to go on with the metrics that are there, or to begin anew.
        """
        super().__init__(save_dir, name='', version='')
        self._resume = resume

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
