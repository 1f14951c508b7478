"""Files from the web: resumed, never half, and the same ever after."""

import hashlib
import logging
import os
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.parse import unquote, urlparse

import torch
from filelock import FileLock
from tqdm import tqdm

logger = logging.getLogger(__name__)

#: Bytes read at once.
CHUNK = 1 << 20
#: Connections in a row that may bring nothing before we give up.
ATTEMPTS = 3
#: Seconds without a byte after which a connection counts as dead.
TIMEOUT = 30.0


def fetch(
    url: str, folder: str | Path | None = None, name: str | None = None, progress: bool = True
) -> Path:
    """Give the path of a downloaded file; download it if need be.

    While it is under way the file is called ``<name>.part``, and the next attempt goes on where it
    stopped. Its SHA-256 is written to ``<name>.sha256`` before it gets its name, and every later
    call compares with that. A file that somebody put there by hand is recorded when first seen.

    Args:
        url: Address.
        folder: Folder for it; torch hub's ``checkpoints`` by default.
        name: Name of the file; the last part of the address by default.
        progress: Whether to show a progress bar.

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
        if path.exists():
            _verify(path)
        else:
            part = Path(f'{path}.part')
            _download(url, part, path, progress)
            _sums(path).write_text(f'{sha256(part)}  {path.name}\n')
            os.replace(part, path)
            Path(f'{part}.etag').unlink(missing_ok=True)
    return path


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def _sums(path: Path) -> Path:
    return Path(f'{path}.sha256')


def _verify(path: Path) -> None:
    """Compare with the recorded SHA-256, or record it."""
    found, sums = sha256(path), _sums(path)
    if not sums.exists():
        sums.write_text(f'{found}  {path.name}\n')
        return
    recorded = sums.read_text().split()[:1]
    if recorded != [found]:
        raise ValueError(
            f'{path} has SHA-256 {found}, but {sums.name} beside it recorded '
            f'{"".join(recorded) or "nothing"} at the first download; '
            f'delete both files to download it again.'
        )


def _download(url: str, part: Path, path: Path, progress: bool) -> None:
    """Fill the partial file, in as many connections as it takes while each brings something."""
    failures = 0
    while True:
        before = _size(part)
        try:
            if _receive(url, part, progress):
                return
            reason = 'the connection closed early'
        except (OSError, HTTPException) as error:
            reason = str(getattr(error, 'reason', error)) or type(error).__name__
            permanent = isinstance(error, urllib.error.HTTPError) and error.code < 500
            failures = ATTEMPTS if permanent else failures
        failures = 0 if _size(part) > before else failures + 1
        if failures >= ATTEMPTS:
            kept = f' ({_size(part)} bytes are kept and the next try goes on there)'
            raise ConnectionError(
                f'{url} could not be downloaded: {reason}{kept if _size(part) else ""}; '
                f'without a connection, get it elsewhere and save it as {path}.'
            )
        logger.info('%s: %s; going on at byte %d', url, reason, _size(part))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _receive(url: str, part: Path, progress: bool) -> bool:
    """Append what one connection brings; say whether the file is whole."""
    etag, start = Path(f'{part}.etag'), _size(part)
    request = urllib.request.Request(url)
    if start:
        request.add_header('Range', f'bytes={start}-')
        if etag.exists():
            # Should the file have changed meanwhile, the server sends it from its beginning.
            request.add_header('If-Range', etag.read_text())
    try:
        response: HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        # The range begins at or beyond the end: whole, or not a part of this file at all.
        whole = error.headers.get('Content-Range', '').rpartition('/')[2] == str(start)
        if not whole:
            part.unlink()
        return whole
    with response:
        if response.status != 206:
            start = 0
        if tag := response.headers.get('ETag', ''):
            etag.write_text(tag)
        length = response.headers.get('Content-Length')
        total = None if length is None else start + int(length)
        bar = tqdm(
            total=total, initial=start, unit='B', unit_scale=True, desc=part.stem,
            disable=not progress,
        )  # fmt: skip
        with part.open('ab' if start else 'wb') as file, bar:
            while block := response.read(CHUNK):
                file.write(block)
                bar.update(len(block))
    return total is None or _size(part) == total
