"""``metrics.csv`` that a resumed run goes on writing."""

import csv
import io
import itertools
import logging
import os
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from .checkpoints import write_atomically

logger = logging.getLogger(__name__)


class _AppendingWriter(ExperimentWriter):
    """Takes up the file that is there, where Lightning's writer deletes it."""

    begun = False
    _newest: tuple[int, frozenset[str]] | None = None
    _failed = False

    def _check_log_dir_exists(self) -> None:
        """Nothing is deleted."""

    def log_metrics(self, metrics_dict: dict[str, float], step: int | None = None) -> None:
        """Record metrics; the first ones cut off what an earlier run wrote from there on."""
        step = step or 0
        newest = (step, frozenset(metrics_dict))
        if newest == self._newest:
            # Written already, before the checkpoint of this step.
            return
        if not self.begun:
            self.begun = True
            self._take_up(*newest)
        self._newest = newest
        super().log_metrics(metrics_dict, step)

    def _take_up(self, step: int, names: frozenset[str]) -> None:
        """Drop the first row to come, if it is there, and all after it."""
        path = Path(self.metrics_file_path)
        if not path.is_file():
            return
        self.metrics_keys, rows = _read(path)
        kept = list(itertools.takewhile(lambda row: _is_before(row, step, names), rows))
        if kept:
            _write(path, self.metrics_keys, kept)
        else:
            path.unlink()
            self.metrics_keys = []

    def save(self) -> None:
        """Write what is recorded; if that fails, keep it for the next time."""
        if not self.metrics:
            return
        path = Path(self.metrics_file_path)
        keys = sorted({*self.metrics_keys, *itertools.chain.from_iterable(self.metrics)})
        try:
            if path.is_file() and keys == self.metrics_keys:
                _append(path, keys, self.metrics)
            else:
                _write(path, keys, [*(_read(path)[1] if path.is_file() else []), *self.metrics])
        except OSError as error:
            if not self._failed:
                logger.warning(
                    '%s: could not be written (%s); the training goes on, and the rows are kept '
                    'until they can be.',
                    path,
                    error.strerror or error,
                )
            self._failed = True
        else:
            self.metrics_keys, self.metrics, self._failed = keys, [], False


def _read(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and whole rows: a run that was killed may have left half a line."""
    with open(path, newline='') as file:
        reader = csv.DictReader(line for line in file if line.endswith('\n'))
        rows = list(reader)
    return list(reader.fieldnames or []), rows


def _write(path: Path, keys: list[str], rows: list[dict[str, Any]]) -> None:
    """Write a file that takes the place of the old one."""
    text = io.StringIO()
    writer = csv.DictWriter(text, keys)
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def _append(path: Path, keys: list[str], rows: list[dict[str, Any]]) -> None:
    """Add rows to a file, all or none of them."""
    size = path.stat().st_size
    try:
        with open(path, 'a', newline='') as file:
            csv.DictWriter(file, keys).writerows(rows)
    except OSError:
        os.truncate(path, size)
        raise


def _is_before(row: dict[str, Any], step: int, names: frozenset[str]) -> bool:
    """Whether a row comes before the one of this step with these names.

    The last step of an epoch has two rows of different names, its own and the epoch's.
    """
    if not (row.get('step') or '').isdigit():
        return False
    filled = {name for name, value in row.items() if value not in ('', None)} - {'step'}
    number = int(row['step'])
    return number < step or (number == step and filled != names - {'step'})


class NoFolderError(ValueError, AttributeError):
    """There is no folder yet.

    Lightning looks whether a logger has an ``experiment`` before callbacks can say the folder; what
    is not known yet must look to it like an attribute that is not there.
    """


class MetricsLogger(CSVLogger):
    """Writes ``<folder>/metrics.csv`` and ``hparams.yaml``; a resumed run goes on with them."""

    def __init__(self, save_dir: str | None = None) -> None:
        """Initialize a new MetricsLogger instance.

        Args:
            save_dir: The folder; with :class:`~torchgeo_caco.tasks.CACoTask`, or the callback
                :class:`~torchgeo_caco.callbacks.LogBeforeSaving`, it may be left open, and is then
                the trainer's ``default_root_dir``.
        """
        # Every row at once: what is not on the disk is lost with a run that is killed.
        super().__init__(save_dir or '.', name='', version='', flush_logs_every_n_steps=1)
        self._bound, self._asked = save_dir is not None, False

    def start_anew(self) -> None:
        """Put away the ``metrics.csv`` of another run, which this one does not go on with."""
        path = Path(self.log_dir) / 'metrics.csv'
        begun = self._experiment is not None and self.experiment.begun
        if begun or not path.is_file():
            return
        version = 0
        while (kept := path.with_name(f'metrics-v{version}.csv')).exists():
            version += 1
        path.rename(kept)
        logger.warning('%s is of another run; it is %s now.', path, kept.name)

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
    def root_dir(self) -> str:
        """The folder.

        Raises:
            NoFolderError: If it was left open, and nothing has said it yet.
        """
        if not self._bound:
            raise NoFolderError(
                'MetricsLogger needs save_dir, the folder, or, with a task of others, the callback '
                'torchgeo_caco.callbacks.LogBeforeSaving.'
            )
        return str(self._root_dir)

    @property
    def log_dir(self) -> Any:
        """The folder; None when Lightning asks for it before a callback could say it."""
        if not self._bound and not self._asked:
            self._asked = True
            return None
        return self.root_dir

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """What writes the file."""
        if self._experiment is None:
            os.makedirs(self.root_dir, exist_ok=True)
            self._experiment = _AppendingWriter(log_dir=self.root_dir)
        return self._experiment
