"""The published archives of CACo and SeCo: where they are, and how they become a folder."""

import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import quote, unquote

import requests
from filelock import FileLock
from requests.adapters import HTTPAdapter
from torchgeo.datasets import SeasonalContrastS2
from urllib3.util import Retry

from ..fetching import fetch, verify
from .unpack import is_empty, unpack

logger = logging.getLogger(__name__)

Size = Literal['10k', '100k', '1m', 'seco-100k', 'seco-1m']

#: Folder named in the README of the published code (https://github.com/utkarshmall13/CACo).
CACO = 'https://research.cs.cornell.edu/caco/data/caco/'
ZENODO = 'https://zenodo.org'
#: Parts 1 to 4 according to https://zenodo.org/records/10913174.
RECORDS = (10913216, 10914902, 10915715, 10916979)


@dataclass(frozen=True)
class Remote:
    """A file to download.

    Attributes:
        url: Where it is.
        name: What it is called on disk.
        md5: Published MD5.
        size: Published number of bytes.
    """

    url: str
    name: str
    md5: str | None = None
    size: int | None = None


@dataclass(frozen=True)
class Archive:
    """A published archive.

    Attributes:
        directory: The folder that it becomes.
        pattern: What its files are called, a regular expression; several are parts of one archive,
            in the order of their names.
        remotes: Finds out where the files are.
        parts: Number of files.
        md5: MD5 of its only file, if that is known without asking.
    """

    directory: str
    pattern: str
    remotes: Callable[[str], list[Remote]]
    parts: int = 1
    md5: str | None = None


def _caco_10k(pattern: str) -> list[Remote]:
    """Its name is in the published code's ``sample_training.sh``."""
    return [Remote(f'{CACO}caco10k.tar.gz', 'caco10k.tar.gz')]


def _caco_100k(pattern: str) -> list[Remote]:
    """Its name is published nowhere but in the list of the folder itself."""
    names = [unquote(unescape(link)) for link in re.findall(r'href="([^"]+)"', _get(CACO))]
    found = sorted({name for name in names if re.fullmatch(pattern, name)})
    if len(found) != 1:
        raise ConnectionError(
            f'{CACO} lists {len(found)} files like caco100k.tar.gz, one was expected; download it '
            'by hand into the root.'
        )
    return [Remote(f'{CACO}{quote(found[0])}', found[0])]


def _caco_1m(pattern: str) -> list[Remote]:
    """Each part is a Zenodo record of its own, with length and MD5."""
    found: list[Remote] = []
    for record in RECORDS:
        address = f'{ZENODO}/api/records/{record}'
        try:
            for file in json.loads(_get(address))['files']:
                name, url = str(file['key']), f'{ZENODO}/records/{record}/files/'
                md5 = str(file['checksum']).removeprefix('md5:')
                if re.fullmatch(pattern, name):
                    url = f'{url}{quote(name)}?download=1'
                    found.append(Remote(url, name, md5, int(file['size'])))
        except (ValueError, KeyError, TypeError) as error:
            raise ConnectionError(
                f'{address} is not as expected, a record with a list of files: {error!r}.'
            ) from None
    if len({remote.name for remote in found}) != len(RECORDS):
        names = ', '.join(remote.name for remote in found) or 'none'
        raise ConnectionError(
            f'{ZENODO} offers these parts of clean_1m_geography.tar.gz: {names}; '
            f'{len(RECORDS)} were expected; download them by hand into the root.'
        )
    return sorted(found, key=lambda remote: _rank(remote.name))


def _seco(version: str) -> Archive:
    """TorchGeo's own addresses and checksums."""
    facts = SeasonalContrastS2.metadata[version]
    remote = Remote(facts['url'], facts['filename'], facts['md5'])
    pattern = re.escape(facts['filename'])
    return Archive(facts['directory'], pattern, lambda _: [remote], md5=facts['md5'])


def archive(size: Size) -> Archive:
    """Look an archive up.

    Args:
        size: ``'10k'``, ``'100k'`` or ``'1m'`` of CACo; ``'seco-100k'`` or ``'seco-1m'``.

    Returns:
        What is known of it.

    Raises:
        ValueError: If there is none of this name.
    """
    if size not in get_args(Size):
        raise ValueError(f'size must be one of {", ".join(get_args(Size))}, not {size!r}.')
    if size.startswith('seco-'):
        return _seco(size.removeprefix('seco-'))
    return {
        '10k': Archive('clean_10k_geography', r'caco10k\.tar\.gz', _caco_10k),
        '100k': Archive('clean_100k_geography', r'[\w.-]*100k[\w-]*\.tar\.gz', _caco_100k),
        '1m': Archive(
            'clean_1m_geography',
            # As published, and as others call what they split; .partial is half a download.
            r'clean_1m_geography('
            r'\.tar\.gz|_part[\w-]+(\.tar\.gz)?|\.tar\.gz\.(part(?!ial$)[\w-]+|\d+|[a-z]{2}))',
            _caco_1m,
            len(RECORDS),
        ),
    }[size]


def provide(
    root: str | Path,
    size: Size,
    download: bool = False,
    checksum: bool = True,
    keep_archives: bool = True,
) -> Path:
    """Make sure that a published data set lies below a folder.

    Its folder appears only when it is whole. Archives that lie in *root* already, as of a download
    by hand, are unpacked without a download if all are there. Several processes may call it at
    once: one works, the others wait.

    Args:
        root: Folder with the archives and the data sets' own folders.
        size: Which one.
        download: Whether to download what is missing.
        checksum: Whether to check the archives before they are unpacked.
        keep_archives: Whether archives stay after they are unpacked.

    Returns:
        The data set's folder, ``root/clean_10k_geography`` or the like.

    Raises:
        FileNotFoundError: If it is not there and *download* is false.
        ConnectionError: If it cannot be downloaded.
        ValueError: If a file is not what was expected.
    """
    root, known = Path(root), archive(size)
    folder = root / known.directory
    if folder.is_dir() and not is_empty(folder):
        return folder
    if not download and not _local(root, known):
        if folder.is_dir():
            return folder
        raise FileNotFoundError(
            f'{folder} is missing, and so is its archive; use download=True, or put '
            f'{known.directory} or its archive into {root}.'
        )
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f'.{known.directory}.lock'):
        if folder.is_dir() and not is_empty(folder):
            return folder
        files = _local(root, known)
        if download and not _complete(files, known):
            files = [
                fetch(r.url, root / r.name, md5=r.md5, size=r.size, checksum=checksum)
                for r in known.remotes(known.pattern)
            ]
        else:
            for file in files if checksum else ():
                verify(file, known.md5)
        logger.info('unpacking %s to %s', ', '.join(file.name for file in files), folder)
        unpack(files, folder)
        for file in () if keep_archives else files:
            file.unlink()
    return folder


def _local(root: Path, known: Archive) -> list[Path]:
    """Archives that are there: one, or all parts of one."""
    files = [
        path
        for path in (root.iterdir() if root.is_dir() else ())
        if re.fullmatch(known.pattern, path.name) and path.is_file()
    ]
    files.sort(key=lambda path: _rank(path.name))
    return [path for path in files if _is_whole(path, known)][:1] or files


def _is_whole(path: Path, known: Archive) -> bool:
    """Whether a file is no part of an archive."""
    return known.parts == 1 or path.name == f'{known.directory}.tar.gz'


def _complete(files: list[Path], known: Archive) -> bool:
    """Whether that is one whole archive, or as many parts as were published."""
    return len(files) == known.parts or (len(files) == 1 and _is_whole(files[0], known))


def _rank(name: str) -> list[str | int]:
    """Sorts part 10 after part 9."""
    pieces: list[str | int] = list(re.split(r'([0-9]+)', name))
    pieces[1::2] = [int(digits) for digits in pieces[1::2]]
    return pieces


def _get(url: str) -> str:
    """A small text."""
    retry = Retry(total=4, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504))
    with requests.Session() as session:
        for scheme in ('https://', 'http://'):
            session.mount(scheme, HTTPAdapter(max_retries=retry))
        try:
            response = session.get(url, timeout=(10, 60))
            response.raise_for_status()
        except requests.RequestException as error:
            reason = ' '.join(str(error).split())
            raise ConnectionError(f'{url} could not be read: {reason}') from None
        return response.text
