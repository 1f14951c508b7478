"""Torch hub's cache of files from the web."""

from pathlib import Path
from urllib.parse import unquote, urlparse

import torch
from filelock import FileLock

from ..fetching import fetch

#: Failures in a row after which a download is given up: who is offline wants to know it soon.
RETRIES = 2


def cached(url: str, folder: str | Path | None = None, name: str | None = None) -> Path:
    """Give the path of a downloaded file; download it if need be.

    A download that broke off goes on at the next call. The file's SHA-256 is written beside it
    when it is first seen, downloaded or put there by hand, and every later call compares.

    Args:
        url: Address.
        folder: Folder for it; torch hub's ``checkpoints`` by default.
        name: Name of the file; the last part of the address by default.

    Returns:
        The path.

    Raises:
        ConnectionError: If it is neither there nor to be had.
        ValueError: If the file is not the one that was recorded.
    """
    root = Path(torch.hub.get_dir()) / 'checkpoints' if folder is None else Path(folder)
    path = root / (name or unquote(Path(urlparse(url).path).name))
    root.mkdir(parents=True, exist_ok=True)
    # Of several processes of one run, one downloads and the others wait.
    with FileLock(f'{path}.lock'):
        try:
            return fetch(url, path, retries=RETRIES)
        except ConnectionError as error:
            reason = str(error).rstrip('.')
            raise ConnectionError(
                f'{reason}; without a connection, get {url} elsewhere and save it as {path}.'
            ) from error
