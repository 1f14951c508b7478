"""Where pixels lie and how they are read."""

from pathlib import Path

from .base import SeasonalStore, SeasonalWriter, canonical_band
from .folder import FolderStore, FolderWriter
from .packed import PackedStore, PackedWriter
from .packing import pack
from .verifying import verify


def open_store(root: str | Path) -> SeasonalStore:
    """Open whichever store lies in a folder.

    Args:
        root: Folder of a packed store, or of ``<location>/<date>/<band>.tif``.

    Returns:
        The store.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is unfinished or cannot be read.
    """
    if (Path(root) / 'meta.json').is_file():
        return PackedStore(root)
    if (Path(root) / 'images-00000.npy').is_file():
        raise ValueError(f'{root} is an unfinished packed store, without meta.json: write it anew.')
    return FolderStore(root)


__all__ = (
    'FolderStore',
    'FolderWriter',
    'PackedStore',
    'PackedWriter',
    'SeasonalStore',
    'SeasonalWriter',
    'canonical_band',
    'open_store',
    'pack',
    'verify',
)
