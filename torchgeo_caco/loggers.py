"""``metrics.csv`` that a resumed run goes on writing."""

import csv
import os
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter


class _AppendingWriter(ExperimentWriter):
    """Takes up the file that is there, where Lightning's writer deletes it."""

    _begun = False

    def _check_log_dir_exists(self) -> None:
        """Nothing is deleted."""

    def log_metrics(self, metrics_dict: dict[str, float], step: int | None = None) -> None:
        """Record metrics; the first ones cut off what an earlier run wrote from that step on."""
        if not self._begun:
            self._begun = True
            self._take_up(step or 0)
        super().log_metrics(metrics_dict, step)

    def _take_up(self, step: int) -> None:
        path = self.metrics_file_path
        if not os.path.isfile(path):
            return
        with open(path, newline='') as file:
            # A run that was killed may have left half a line.
            lines = [line for line in file if line.endswith('\n')]
        reader = csv.DictReader(lines)
        kept = [row for row in reader if row.get('step') and int(row['step']) < step]
        if not kept:
            os.remove(path)
            return
        self.metrics_keys = list(reader.fieldnames or [])
        with open(f'{path}.part', 'w', newline='') as file:
            writer = csv.DictWriter(file, self.metrics_keys)
            writer.writeheader()
            writer.writerows(kept)
        os.replace(f'{path}.part', path)


class MetricsLogger(CSVLogger):
    """Writes ``<folder>/metrics.csv`` and ``hparams.yaml``; a resumed run goes on with them."""

    def __init__(self, save_dir: str | None = None) -> None:
        """Initialize a new MetricsLogger instance.

        Args:
            save_dir: The folder; by default the trainer's ``default_root_dir``.
        """
        # Every row at once: what is not on the disk is lost with a run that is killed.
        super().__init__(save_dir or '.', name='', version='', flush_logs_every_n_steps=1)
        self._bound = save_dir is not None

    def bind(self, root: str) -> None:
        """Say where the files go if that was left open.

        Args:
            root: The folder of the run.
        """
        if not self._bound:
            self._root_dir, self._bound = root, True

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
            self._experiment = _AppendingWriter(log_dir=self.log_dir)
        return self._experiment
