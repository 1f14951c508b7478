"""Downloads that go on where they broke off, and never take half a file for a whole one."""

import hashlib
import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import requests
import urllib3
from tqdm import tqdm

CHUNK = 2**20
#: New bytes after which broken connections are counted from zero again.
PROGRESS = 2**20
#: Answers of a server that may be another one a little later.
_PASSING = (408, 425, 429, 500, 502, 503, 504)


class _AgainError(Exception):
    """This attempt failed; the next one may not."""


def fetch(
    url: str,
    path: str | Path,
    *,
    md5: str | None = None,
    size: int | None = None,
    checksum: bool = True,
    retries: int = 5,
    pause: float = 1.0,
    timeout: tuple[float, float] = (10.0, 60.0),
) -> Path:
    """Download a file, or check the one that is there.

    Until it is whole it is called ``<path>.partial``, and ``<path>.partial.json`` says which
    version of the file it is: a later call asks the server for the missing rest of that version
    (HTTP ``Range`` and ``If-Range``) and starts anew if the server has another or no ranges.

    Args:
        url: Where it is.
        path: Where to put it.
        md5: Its published MD5, if there is one.
        size: Its published number of bytes, if there is one.
        checksum: Whether to check its MD5, and the SHA-256 remembered in ``<path>.sha256``.
        retries: Failures in a row, without :data:`PROGRESS` between them, after which to give up.
        pause: Seconds before the second attempt, doubled for each further one.
        timeout: Seconds to wait for a connection, and for each piece of data.

    Returns:
        *path*.

    Raises:
        ConnectionError: If the server refuses or keeps failing; what has come is kept.
        OSError: If it does not fit on the disk; what has come is kept.
        ValueError: If length or checksum are not as expected.
    """
    path = Path(path)
    if path.is_file():
        if checksum:
            verify(path, md5)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, note = _partial(path)
    failures = best = 0
    with requests.Session() as session:
        while True:
            try:
                _attempt(session, url, path, size, timeout)
                break
            except (
                _AgainError,
                requests.RequestException,
                urllib3.exceptions.HTTPError,
            ) as error:
                reason = ' '.join(str(error).split())
            have = partial.stat().st_size if partial.exists() else 0
            failures = 1 if have >= best + PROGRESS else failures + 1
            best = max(best, have)
            if failures > retries:
                raise ConnectionError(
                    f'{url} could not be downloaded to {path}: {reason} '
                    f'({have} bytes are kept in {partial.name}; the same call goes on from there).'
                )
            time.sleep(min(60.0, pause * 2 ** (failures - 1)))
    if checksum and md5 is not None and (found := _digest(partial, 'md5')) != md5:
        partial.unlink()
        note.unlink()
        raise ValueError(
            f'{path} was not kept: what {url} sent has MD5 {found}, {md5} was expected.'
        )
    os.replace(partial, path)
    note.unlink(missing_ok=True)
    remember(path)
    return path


def remember(path: Path) -> None:
    """Write a file's SHA-256 to ``<path>.sha256``, in the form that ``sha256sum -c`` reads."""
    target = path.with_name(f'{path.name}.sha256')
    partial = target.with_name(f'{target.name}.partial')
    partial.write_text(f'{_digest(path, "sha256")}  {path.name}\n')
    os.replace(partial, target)


def verify(path: Path, md5: str | None = None) -> None:
    """Check a file against its remembered SHA-256, or remember it.

    Args:
        path: The file.
        md5: Its published MD5, looked at if no SHA-256 is remembered.

    Raises:
        ValueError: If it is another file.
    """
    note = path.with_name(f'{path.name}.sha256')
    if note.is_file():
        wanted = (note.read_text().split() or [''])[0]
        if (found := _digest(path, 'sha256')) != wanted:
            raise ValueError(
                f'{path} is not what was downloaded: its SHA-256 is {found}, {note.name} says '
                f'{wanted!r}; delete both to download it again.'
            )
        return
    if md5 is not None and (found := _digest(path, 'md5')) != md5:
        raise ValueError(
            f'{path} has MD5 {found}, {md5} was expected; delete it to download it again.'
        )
    remember(path)


def _digest(path: Path, algorithm: str) -> str:
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _partial(path: Path) -> tuple[Path, Path]:
    """Where an unfinished download lies, and the note about it."""
    return path.with_name(f'{path.name}.partial'), path.with_name(f'{path.name}.partial.json')


def _read_note(path: Path, url: str) -> dict[str, Any]:
    """What is known of an unfinished download from *url*; nothing if it is of no use."""
    partial, note = _partial(path)
    try:
        known = json.loads(note.read_text())
        usable = known['url'] == url and isinstance(known['validator'], str)
        usable = usable and isinstance(known['total'], int | None) and partial.is_file()
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return known if usable else {}


def _attempt(
    session: requests.Session,
    url: str,
    path: Path,
    size: int | None,
    timeout: tuple[float, float],
) -> None:
    """Fetch what is missing, to the last byte."""
    partial, note = _partial(path)
    known = _read_note(path, url)
    have = partial.stat().st_size if known else 0
    if known and have == known['total']:
        return
    # The bytes as they are stored: lengths and ranges are theirs.
    headers = {'Accept-Encoding': 'identity'}
    if have:
        headers |= {'Range': f'bytes={have}-', 'If-Range': known['validator']}
    with session.get(url, headers=headers, stream=True, timeout=timeout) as response:
        start, total = _place(response, url, have)
        if start not in (0, have) or (start and total != known['total']):
            partial.unlink()
            raise _AgainError(f'the server sent another piece than bytes {have} and on')
        if size is not None and total is not None and total != size:
            raise ValueError(f'{url} has {total} bytes; {size} were expected for {path}.')
        left = 0 if total is None else total - start
        if left > (free := shutil.disk_usage(path.parent).free):
            raise OSError(f'{path} needs {left} bytes more on the disk, which has {free} left.')
        note.write_text(
            json.dumps({'url': url, 'validator': _validator(response.headers), 'total': total})
        )
        # Not 'ab': without the truncation the rest of an older version could stay.
        with open(partial, 'r+b' if start else 'wb') as file:
            file.seek(start)
            file.truncate()
            with tqdm(
                desc=path.name, total=total, initial=start, unit='B', unit_scale=True, disable=None
            ) as bar:
                for chunk in response.raw.stream(CHUNK, decode_content=False):
                    file.write(chunk)
                    bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
    have = partial.stat().st_size
    expected = size if total is None else total
    if expected is not None and have != expected:
        raise _AgainError(f'the server ended after {have} of {expected} bytes')


def _place(response: requests.Response, url: str, have: int) -> tuple[int, int | None]:
    """First byte that a response holds, and length of the whole file if it says so."""
    status = response.status_code
    if status == 206:
        match = re.fullmatch(
            r'bytes (\d+)-\d+/(\d+|\*)', response.headers.get('Content-Range', '').strip()
        )
        # -1: no piece that was asked for.
        if match is None:
            return -1, None
        return int(match[1]), None if match[2] == '*' else int(match[2])
    if status == 200:
        length = response.headers.get('Content-Length', '')
        return 0, int(length) if length.isdecimal() else None
    if status == 416 and have:
        return -1, None
    said = f'{url} answered {status} {response.reason or ""}'.rstrip()
    if status in _PASSING:
        raise _AgainError(f'{said}')
    raise ConnectionError(f'{said}; a file was expected.')


def _validator(headers: Any) -> str | None:
    """What identifies this version of the file, byte for byte."""
    tag = headers.get('ETag')
    return tag if tag and not tag.startswith('W/') else headers.get('Last-Modified')
