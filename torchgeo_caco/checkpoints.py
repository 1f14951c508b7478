"""Checkpoint files that are whole or not there."""

import contextlib
import io
import logging
import os
from pathlib import Path
from typing import Any

import torch

from .reading import SafeCheckpointIO

logger = logging.getLogger(__name__)


class AtomicCheckpointIO(SafeCheckpointIO):
    """Writes a checkpoint beside its place and renames it when all of it is on the disk.

    Lightning's own writes to the folder for temporary files and moves from there, which between
    two file systems is a copy that a power cut leaves half done.

    If a file cannot be written, the checkpoint that was there before stays, a warning says so and
    the training goes on: raising would hang the other processes of a distributed run, and by the
    next checkpoint somebody may have made room. Until then no older checkpoint is removed.

    Attributes:
        written: Step and number of ended epochs of what this process has written last to each file,
            by the file's path without links.
    """

    def __init__(self) -> None:
        """Initialize a new AtomicCheckpointIO instance."""
        self._failed = False
        self.written: dict[str, tuple[int, int]] = {}

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: The checkpoint.
            path: The file; other than local ones are left to Lightning.
            storage_options: For other than local files.
        """
        if '://' in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            self._note(checkpoint, path)
            return
        # torch.save on a file reports a full disk as an internal error of its zip writer.
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        try:
            write_atomically(Path(path), buffer.getbuffer())
        except OSError as error:
            self._failed = True
            logger.warning(
                '%s: the checkpoint of step %s could not be written (%s); the training goes on, '
                'and the last checkpoint that was written stays.',
                path,
                checkpoint.get('global_step'),
                error.strerror or error,
            )
        else:
            self._failed = False
            self._note(checkpoint, path)

    def _note(self, checkpoint: dict[str, Any], path: str | Path) -> None:
        if 'loops' in checkpoint:
            epochs = checkpoint['loops']['fit_loop']['epoch_progress']['current']
            moment = checkpoint['global_step'], epochs['processed']
            self.written[os.path.realpath(path)] = moment

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint, unless the one that was to take its place could not be written.

        Args:
            path: The file.
        """
        if not self._failed:
            super().remove_checkpoint(path)


def write_atomically(path: Path, content: memoryview | bytes) -> None:
    """Write a file so that, whatever happens, the old one or the new one is there.

    Args:
        path: The file; its folder is made if there is none.
        content: What it holds.

    Raises:
        OSError: If it cannot be written; the old file, if any, is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'.{path.name}.part')
    try:
        with open(part, 'wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    # The new name is on the disk once its folder is; not every file system can be asked to.
    with contextlib.suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
