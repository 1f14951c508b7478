"""Archives from elsewhere: unpacked whole or not at all, and nowhere but where they should be."""

import bz2
import errno
import gzip
import io
import lzma
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any

from tqdm import tqdm

from ..stores.folder import folder_date

#: Characters of somebody else's message that are passed on.
LONGEST = 300


#: What macOS puts into archives, beside a file ``._NAME`` for each file.
_MACOS = ('__MACOSX', '.DS_Store')


@dataclass(frozen=True)
class Limits:
    """What an archive may become; beyond it is a bomb, or not the archive that was meant.

    Attributes:
        members: Number of files and folders.
        member_bytes: Size of one file.
        ratio: Size of all files over the size of the archive.
        free_bytes: Size of all files up to which the ratio does not matter.
    """

    members: int = 50_000_000
    member_bytes: int = 2**28
    ratio: float = 200.0
    free_bytes: int = 2**28


@dataclass(frozen=True)
class _Member:
    """A file or folder in an archive; a folder has no content."""

    name: str
    content: IO[bytes] | None


def unpack(
    archives: Sequence[str | Path], target: str | Path, limits: Limits | None = None
) -> Path:
    """Unpack a tar (also compressed) or zip archive into a new folder.

    Everything is written to a hidden folder beside *target*, which gets its name once it is whole.
    Of an archive that holds a single folder the content of that folder is taken, and again of that,
    unless it is a location (a folder with dates). What macOS adds to archives is left out. Files
    are written by their bytes alone: no owners, no modes, and nothing but files and folders.

    Args:
        archives: The archive; a tar may come in several parts, which are read one after another as
            if they were one file.
        target: The folder to make; it must not exist, or be empty.
        limits: What the archive may become.

    Returns:
        *target*.

    Raises:
        FileExistsError: If *target* exists and is not empty.
        ValueError: If the archive is damaged or unsafe; nothing is left of it.
        OSError: If it cannot be written, as when the disk is full; nothing is left of it.
    """
    paths, target = [Path(archive) for archive in archives], Path(target)
    limits = Limits() if limits is None else limits
    if target.exists() and not is_empty(target):
        raise FileExistsError(f'{target} exists; {paths[0]} was not unpacked.')
    partial = target.with_name(f'.{target.name}.partial')
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    try:
        _write_all(paths, partial, limits)
        if not any(path.is_file() for path in partial.rglob('*')):
            raise ValueError(f'{paths[0]} is empty; locations were expected in it.')
        top = _without_wrapping(partial)
        if hasattr(os, 'sync'):
            # Else a power failure could leave the new name and empty files.
            os.sync()
        if target.exists():
            target.rmdir()
        os.replace(top, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def is_empty(folder: Path) -> bool:
    """Whether there is a folder, and nothing in it."""
    return folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir())


def _without_wrapping(folder: Path) -> Path:
    """The folder of the locations: below those that hold nothing but one other folder."""
    while True:
        # Not all at once: there may be a million locations.
        with os.scandir(folder) as entries:
            first, *more = islice(entries, 2)
        if more or not first.is_dir():
            return folder
        with os.scandir(first.path) as entries:
            if any(folder_date(entry.name) is not None for entry in entries):
                return folder
        folder = Path(first.path)


def _write_all(paths: list[Path], folder: Path, limits: Limits) -> None:
    """Write all members below a folder."""
    source = _Joined(paths)
    allowed = max(limits.ratio * source.total, limits.free_bytes)
    written, depth = 0, len(folder.parts)
    is_zip = len(paths) == 1 and source.peek().startswith(b'PK')
    members = _zip_members(paths[0]) if is_zip else _tar_members(source, allowed)
    try:
        with (
            closing(source),
            closing(members),
            tqdm(desc=folder.name.strip('.'), unit=' files', unit_scale=True, disable=None) as bar,
        ):
            for count, member in enumerate(members, 1):
                if count > limits.members:
                    raise ValueError(f'it has more than {limits.members} members')
                path = _safe_path(folder, member.name)
                if any(part in _MACOS or part.startswith('._') for part in path.parts[depth:]):
                    continue
                if member.content is None:
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                most = min(limits.member_bytes, int(allowed) - written)
                written += _copy(member, path, most)
                bar.update()
    except (*_BROKEN, OSError) as error:
        # Some name a member as the file has it, which may be without end.
        reason = ' '.join(str(error).split())[:LONGEST] or type(error).__name__
        # Those of bz2 have no number; a zip may lead to a place before its beginning.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL, *_CLASHES):
            raise OSError(
                f'{folder} could not be written: {reason}; nothing of {paths[0]} was kept.'
            ) from None
        raise ValueError(
            f'{paths[0]} cannot be unpacked: {reason.rstrip(".")}. Nothing of it was kept; a whole '
            'tar or zip archive of files and folders was expected.'
        ) from None


#: What damaged archives make the standard library raise. A full disk is none of these.
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    OverflowError,
    IndexError,
)

#: One name for two members.
_CLASHES = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR)


#: What Windows takes for a device, whatever suffix follows.
_DEVICES = frozenset(
    ['CON', 'PRN', 'AUX', 'NUL', 'CONIN$', 'CONOUT$']
    + [f'{port}{digit}' for port in ('COM', 'LPT') for digit in '123456789¹²³']
)


def _safe_path(folder: Path, name: str) -> Path:
    """Where a member goes, if that is inside the folder."""
    pure = PurePosixPath(name)
    # Windows would also take other separators, drives and its own devices.
    windows = PureWindowsPath(name)
    if pure.is_absolute() or windows.drive or windows.root or '..' in windows.parts:
        raise ValueError(f'member {name[:80]!r} lies outside of the archive')
    too_long = len(name) > 1000 or any(len(part.encode()) > 255 for part in pure.parts)
    # Of a device's name it ignores spaces and whatever follows a point.
    device = any(part.partition('.')[0].rstrip().upper() in _DEVICES for part in windows.parts)
    if not name.isprintable() or too_long or device:
        raise ValueError(f'member {name[:80]!r} has no usable name')
    return folder / pure


def _copy(member: _Member, path: Path, most: int) -> int:
    """Write a member to a new file, at most so many bytes; returns how many."""
    assert member.content is not None
    size = 0
    with open(path, 'xb') as file:
        while chunk := member.content.read(2**20):
            size += len(chunk)
            if size > most:
                raise ValueError(f'member {member.name[:80]!r} is larger than it may be')
            file.write(chunk)
    return size


class _StrictInfo(tarfile.TarInfo):
    """A header that is damaged or missing is an error, not the archive's end as by default."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Any:
        """Read the next header."""
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None


def _tar_members(source: '_Joined', allowed: float) -> Generator[_Member]:
    """Members of a tar archive, in one pass."""
    with _decompressed(source) as plain:
        counted: Any = _Counted(plain, allowed)
        tar = tarfile.open(fileobj=counted, mode='r|', tarinfo=_StrictInfo, bufsize=2**20)  # noqa: SIM115
        while (info := tar.next()) is not None:
            # tarfile keeps all it has seen; archives have millions of files.
            tar.members = []  # type: ignore[attr-defined]
            if info.isdir():
                yield _Member(info.name, None)
            elif info.isreg() and not info.issparse():
                yield _Member(info.name, tar.extractfile(info))
            else:
                raise ValueError(f'member {info.name[:80]!r} is a link or a device')
        # The compressed stream's checksum comes at its very end.
        while counted.read(2**20):
            pass


def _decompressed(source: '_Joined') -> Any:
    """The plain bytes of a stream, by what it starts with."""
    head = source.peek()
    for magic, opened in ((b'\x1f\x8b', gzip.open), (b'BZh', bz2.open), (b'\xfd7zXZ', lzma.open)):
        if head.startswith(magic):
            return opened(io.BufferedReader(source, 2**20), 'rb')
    return io.BufferedReader(source, 2**20)


def _zip_members(path: Path) -> Generator[_Member]:
    """Members of a zip archive."""
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            # The upper half is the Unix mode, if there is one.
            kind = info.external_attr >> 16 & 0o170000
            if info.is_dir():
                yield _Member(info.filename, None)
            elif kind in (0, 0o100000):
                with archive.open(info) as content:
                    yield _Member(info.filename, content)
            else:
                raise ValueError(f'member {info.filename[:80]!r} is a link or a device')


class _Joined(io.RawIOBase):
    """Files read one after another as one, without a copy of them."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Look at the files; each is opened when its turn comes."""
        self._paths = list(paths)
        self._file: IO[bytes] | None = None
        self._next = 0
        self.total = sum(path.stat().st_size for path in paths)

    def peek(self) -> bytes:
        """The first bytes."""
        head = b''
        for path in self._paths:
            with open(path, 'rb') as file:
                head += file.read(8 - len(head))
        return head

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer; returns how many bytes."""
        while True:
            if self._file is None:
                if self._next == len(self._paths):
                    return 0
                self._file = open(self._paths[self._next], 'rb', buffering=0)  # noqa: SIM115
                self._next += 1
            if count := self._file.readinto(buffer):  # type: ignore[attr-defined]
                return int(count)
            self._file.close()
            self._file = None

    def close(self) -> None:
        """Close the file whose turn it is."""
        if self._file is not None:
            self._file.close()
        super().close()


class _Counted:
    """A stream that ends in an error beyond a number of bytes: headers can be bombs, too."""

    def __init__(self, stream: Any, most: float) -> None:
        """Count what is read from a stream."""
        self._stream, self._left = stream, most

    def read(self, size: int) -> bytes:
        """Read at most so many bytes."""
        data: bytes = self._stream.read(size)
        self._left -= len(data)
        # Headers and padding: a kilobyte and a half a file, and more for long names.
        if self._left < 0:
            raise ValueError('it grows beyond what an archive of its size holds')
        return data
