"""One process at a time in a folder."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def alone(path: Path, message: str, remove: bool = False) -> Iterator[None]:
    """Keep other processes away; a killed one does not.

    Args:
        path: The lock's file; its folder must exist.
        message: What to say if another process is there.
        remove: Whether to delete the file in the end.

    Raises:
        BlockingIOError: If another process is there.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BlockingIOError(message) from None
    try:
        yield
    finally:
        if remove:
            # Windows keeps open files.
            with suppress(OSError):
                path.unlink()
        lock.release()
