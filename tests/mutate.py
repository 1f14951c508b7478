"""Files as they should be, and what random damage makes of them."""

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

from torchgeo_caco.stores import PackedWriter

Rng = np.random.Generator

#: Numbers that are wrong in most places.
NUMBERS = (0, 1, 7, 255, 256, 32767, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)
PROFILES = (
    {'dtype': 'uint8'},
    {'dtype': 'uint8', 'compress': 'deflate', 'crs': 'EPSG:32631'},
    {'dtype': 'uint16', 'compress': 'lzw', 'predictor': 2, 'nodata': 0},
    {'dtype': 'uint16', 'compress': 'deflate', 'tiled': True, 'blockxsize': 16, 'blockysize': 16},
    {'dtype': 'int16', 'compress': 'packbits', 'blockysize': 4},
    {'dtype': 'float32', 'compress': 'zstd', 'BIGTIFF': 'YES', 'crs': 'EPSG:4326'},
)
PRESS: tuple[Callable[[bytes], bytes], ...] = (
    bytes, gzip.compress, bz2.compress, lambda data: lzma.compress(data, preset=0),
)  # fmt: skip
SIZE = 40


@cache
def tiff(profile: int, bands: int = 1) -> bytes:
    """A GeoTIFF."""
    settings = PROFILES[profile]
    pixels = np.random.default_rng(0).integers(1, 200, (bands, SIZE, SIZE))
    size = {'width': SIZE, 'height': SIZE, 'count': bands}
    place = rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000)
    quiet = warnings.catch_warnings(action='ignore', category=NotGeoreferencedWarning)
    with quiet, MemoryFile() as memory:
        with memory.open(driver='GTiff', transform=place, **size, **settings) as file:
            file.write(pixels.astype(settings['dtype']))
        return bytes(memory.read())


@cache
def packed() -> dict[str, bytes]:
    """Files of a packed store."""
    with tempfile.TemporaryDirectory() as folder:
        with PackedWriter(Path(folder) / 's', ('B4', 'B3'), (8, 8), shard_images=6) as writer:
            for i, name in enumerate('abc'):
                dates = np.datetime64('2016-01-01') + 100 * np.arange(3 + i)
                place = ('EPSG:32631', rasterio.Affine(10, 0, 5e5, 0, -10, 5e6))
                images = np.full((len(dates), 2, 8, 8), i, 'uint16')
                writer.add(name, dates, images, crs=place[0], transform=place[1])
        return {path.name: path.read_bytes() for path in (Path(folder) / 's').iterdir()}


@cache
def checkpoint(zipped: bool) -> bytes:
    """A small checkpoint."""
    buffer = io.BytesIO()
    content = {'state_dict': {'a.weight': torch.ones(4, 3)}, 'epoch': 3, 'names': ['a', 'b']}
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def prepare() -> None:
    """Make all of these now, so that processes forked later have them."""
    for profile in range(len(PROFILES)):
        tiff(profile)
    packed()
    checkpoint(True)
    checkpoint(False)


def damage(data: bytes, rng: Rng, most: int = 6) -> bytes:
    """Change some of the bytes."""
    new = bytearray(data)
    for _ in range(rng.integers(1, most + 1)):
        # What says how the rest is to be read stands at the ends.
        span = len(new) if rng.random() < 0.5 else min(len(new), 300)
        at = int(rng.integers(max(span, 1)))
        at = len(new) - 1 - at if rng.random() < 0.3 else at
        length = int(rng.integers(1, 64))
        kind = rng.integers(7)
        if kind == 0 and new:
            new[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            new[at : at + 1] = rng.bytes(1)
        elif kind == 2:
            width = int(rng.choice((2, 4, 8)))
            number = int(rng.choice(np.array(NUMBERS, object))) % 256**width
            new[at : at + width] = number.to_bytes(width, str(rng.choice(('little', 'big'))))
        elif kind == 3:
            del new[at : at + length]
        elif kind == 4:
            new[at:at] = new[-at : -at + length] if rng.random() < 0.5 else rng.bytes(length)
        elif kind == 5:
            new[at : at + length] = bytes(len(new[at : at + length]))
        elif rng.random() < 0.3:
            del new[at:]
    return bytes(new)


def mutated(target: str, rng: Rng, folder: Path) -> None:
    """Write a damaged thing of some kind into a new folder."""
    folder.mkdir(parents=True)
    MAKERS[target](rng, folder)


def _tiff(rng: Rng, folder: Path) -> None:
    profile = int(rng.integers(len(PROFILES)))
    paths = [
        f'{p}/{d}/{b}.tif' for p in 'pq' for d in ('20160101', '20200101') for b in ('B3', 'B4')
    ]
    broken = rng.choice(len(paths), rng.integers(1, 4), replace=False)
    for i, path in enumerate(paths):
        data = tiff(profile)
        if i in broken:
            other = rng.random()
            if other < 0.05:
                data = tiff(int(rng.integers(len(PROFILES))), bands=int(rng.integers(1, 3)))
            elif other < 0.1:
                data = (b'', b'<html>', b'II*\0', rng.bytes(100))[rng.integers(4)]
            else:
                data = damage(data, rng)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


def _packed(rng: Rng, folder: Path) -> None:
    broken = rng.choice(sorted(packed()))
    for name, data in packed().items():
        (folder / name).write_bytes(damage(data, rng) if name == broken else data)


def _checkpoint(rng: Rng, folder: Path) -> None:
    (folder / 'last.ckpt').write_bytes(damage(checkpoint(bool(rng.integers(2))), rng))


def _archive(rng: Rng, folder: Path) -> None:
    """Harmless content; bytes damaged before or after compression."""
    names = [f'top/p/2016010{i}/B4.tif' for i in range(4)]
    if rng.random() < 0.3:
        data = damage(_zip([(n, tiff(1), 0) for n in names], bool(rng.integers(2))), rng)
    else:
        data = _tar([(n, tiff(1), tarfile.REGTYPE, '') for n in names], int(rng.integers(3)))
        inside = rng.random() < 0.6
        data = _mend(damage(data, rng), rng) if inside else data
        data = PRESS[rng.integers(len(PRESS))](data)
        data = data if inside and rng.random() < 0.9 else damage(data, rng, 2)
    _write_parts(data, rng, folder)


def _hostile(rng: Rng, folder: Path) -> None:
    """Content that wants to be elsewhere, something else, or far too much."""
    outside = folder.parent / 'outside'
    names = (
        'a/b.tif', 'a', '../x', '../../x', 'a/../../x', '/x', str(outside), f'../{outside.name}',
        '.', '..', '', 'a/./b', './c', 'a//d', 'C:\\x', '..\\x', '\\\\host\\x', 'a\0b', 'a\nb',
        'n' * 300,
        'd/' * 600, 'link', 'link/x', '\u202e.tif', '\udc80', 'target', '../archive0', '../canary',
    )  # fmt: skip
    kinds = (tarfile.REGTYPE,) * 6 + (
        tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE,
        tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE,
    )  # fmt: skip
    links = ('/etc', str(outside), '..', 'a/b.tif', '../canary')
    bodies = (b'', b'x', tiff(0), bytes(2**21) if rng.random() < 0.05 else b'y')
    count = int(rng.integers(1, 6))
    if rng.random() < 0.3:
        modes = (0, stat.S_IFREG, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFDIR)
        data = _zip(
            [
                (
                    names[rng.integers(len(names))],
                    bodies[rng.integers(len(bodies))],
                    modes[rng.integers(len(modes))] << 16 if rng.random() < 0.4 else 0,
                )
                for _ in range(count)
            ],
            True,
        )
    else:
        data = _tar(
            [
                (
                    names[rng.integers(len(names))],
                    bodies[rng.integers(len(bodies))],
                    kinds[rng.integers(len(kinds))],
                    links[rng.integers(len(links))],
                )
                for _ in range(count)
            ],
            int(rng.integers(3)),
        )
        if rng.random() < 0.05:
            data = bytes(2**26) if rng.random() < 0.5 else data * min(3000, 2**28 // len(data))
        data = PRESS[rng.integers(2)](data)
    _write_parts(data, rng, folder)


def _write_parts(data: bytes, rng: Rng, folder: Path) -> None:
    parts = 1 if rng.random() < 0.6 else int(rng.integers(2, 5))
    cuts = [0, *sorted(rng.integers(0, len(data) + 1, parts - 1).tolist()), len(data)]
    for i, (start, end) in enumerate(pairwise(cuts)):
        (folder / f'archive{i}').write_bytes(data[start:end])


def _tar(members: list[tuple[str, bytes, bytes, str]], form: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w', format=form, errors='surrogateescape') as file:
        for name, body, kind, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, link, len(body)
            try:
                file.addfile(info, io.BytesIO(body))
            except ValueError:
                # Not every form takes every name.
                continue
    return buffer.getvalue()


def _zip(members: list[tuple[str, bytes, int]], deflated: bool) -> bytes:
    buffer = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED
    with warnings.catch_warnings(action='ignore'), zipfile.ZipFile(buffer, 'w', method) as file:
        for name, body, mode in members:
            info = zipfile.ZipInfo(name or 'empty')
            info.external_attr, info.compress_type = mode, method
            try:
                file.writestr(info, body)
            except UnicodeEncodeError:
                continue
    return buffer.getvalue()


def _mend(data: bytes, rng: Rng) -> bytes:
    """Correct the checksums of a tar's headers, so that what they say is believed."""
    new = bytearray(data)
    if rng.random() < 0.3:
        return data
    for at in range(0, len(new) - 511, 512):
        if new[at + 257 : at + 262] == b'ustar':
            new[at + 148 : at + 156] = b' ' * 8
            new[at + 148 : at + 156] = b'%06o\0 ' % sum(new[at : at + 512])
    return bytes(new)


MAKERS: dict[str, Callable[[Rng, Path], None]] = {
    'tiff': _tiff,
    'packed': _packed,
    'archive': _archive,
    'hostile': _hostile,
    'checkpoint': _checkpoint,
}
