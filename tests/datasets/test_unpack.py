"""Archives that are damaged, hostile or just odd."""

import gzip
import io
import os
import tarfile
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from torchgeo_caco.datasets.unpack import Limits, unpack

TREE = {f'top/l{i}/20200101/B{b}.tif': os.urandom(700 * b) for i in range(3) for b in (2, 3, 4)}


def tar(members, mode: str = 'w:gz') -> bytes:
    """A tar archive of names with their bytes, or of ready headers."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for member in members.items() if isinstance(members, dict) else members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            name, data = member
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def zipped(members, **arguments) -> bytes:
    """A zip archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def files(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file()
    }


def refuse(tmp_path: Path, data: bytes, match: str, limits: Limits | None = None) -> None:
    """Assert that an archive is refused in one sentence and leaves nothing."""
    box = tmp_path / 'box'
    box.mkdir(exist_ok=True)
    path = box / 'a.tar.gz'
    path.write_bytes(data)
    with pytest.raises(ValueError, match=match) as caught:
        unpack([path], box / 'target', limits)
    said = str(caught.value)
    assert said.startswith(str(path))
    assert '\n' not in said
    assert [p.name for p in tmp_path.iterdir()] == ['box']
    assert [p.name for p in box.iterdir()] == ['a.tar.gz']


@pytest.mark.parametrize('kind', ['w', 'w:gz', 'w:bz2', 'w:xz', 'zip'])
def test_unpacks(kind, tmp_path):
    path = tmp_path / 'a'
    path.write_bytes(zipped(TREE) if kind == 'zip' else tar(TREE, kind))
    # What an interrupted run left.
    (tmp_path / '.target.partial').mkdir()
    (tmp_path / '.target.partial' / 'half').touch()
    assert unpack([path], tmp_path / 'target') == tmp_path / 'target'
    assert files(tmp_path / 'target') == {k.removeprefix('top/'): v for k, v in TREE.items()}
    assert {p.name for p in tmp_path.iterdir()} == {'a', 'target'}
    with pytest.raises(FileExistsError, match='target exists'):
        unpack([path], tmp_path / 'target')
    (tmp_path / 'empty').mkdir()
    unpack([path], tmp_path / 'empty')
    assert files(tmp_path / 'empty') == files(tmp_path / 'target')
    assert {p.name for p in tmp_path.iterdir()} == {'a', 'target', 'empty'}


@pytest.mark.parametrize('pack', [tar, zipped])
def test_folders_around_the_locations(pack, tmp_path):
    one = {k: v for k, v in TREE.items() if k.startswith('top/l1/')}
    inner = {k.removeprefix('top/'): v for k, v in TREE.items()}
    first = {k.removeprefix('top/'): v for k, v in one.items()}
    for i, (tree, expected) in enumerate(
        [
            ({f'data/{k}': v for k, v in TREE.items()}, inner),
            ({f'./data/more/{k}': v for k, v in TREE.items()}, inner),
            # A location stays one.
            (first, first),
            (one, first),
            ({f'data/{k}': v for k, v in one.items()}, first),
        ]
    ):
        (tmp_path / f'a{i}').write_bytes(pack(tree))
        assert files(unpack([tmp_path / f'a{i}'], tmp_path / f'b{i}')) == expected
        assert {p.name for p in tmp_path.iterdir()} == {
            f'{kind}{n}' for n in range(i + 1) for kind in 'ab'
        }


@pytest.mark.parametrize('pack', [tar, zipped])
def test_what_macos_adds_is_left_out(pack, tmp_path):
    extra = dict.fromkeys(
        ['._top', 'top/._l0', 'top/l0/20200101/._B2.tif', '__MACOSX/top/._l0', 'top/.DS_Store'],
        b'x',
    )
    (tmp_path / 'a').write_bytes(pack({**extra, **TREE}))
    unpack([tmp_path / 'a'], tmp_path / 'b')
    assert files(tmp_path / 'b') == {k.removeprefix('top/'): v for k, v in TREE.items()}
    # Nor is anything let through by such a name.
    refuse_in = tmp_path / 'refused'
    refuse_in.mkdir()
    refuse(refuse_in, pack({'__MACOSX/../../out': b'x', **TREE}), 'lies outside of the archive')


def test_several_folders_or_a_leading_dot(tmp_path):
    for name, prefix in (('a', './'), ('b', '')):
        tree = {f'{prefix}{k.removeprefix("top/")}': v for k, v in TREE.items()}
        (tmp_path / name).write_bytes(tar(tree))
        unpack([tmp_path / name], tmp_path / f'{name}_')
        assert set(files(tmp_path / f'{name}_')) == {k.removeprefix('top/') for k in TREE}


def test_parts_are_read_as_one_file_without_a_copy(tmp_path):
    whole = tar(TREE)
    cuts = [0, 1, len(whole) // 3, len(whole) // 2, len(whole)]
    parts = []
    for i, (start, stop) in enumerate(pairwise(cuts)):
        parts.append(tmp_path / f'part{i}')
        parts[-1].write_bytes(whole[start:stop])
    unpack(parts, tmp_path / 'target')
    assert files(tmp_path / 'target') == {k.removeprefix('top/'): v for k, v in TREE.items()}
    for wrong in (parts[:-1], parts[::-1], [parts[0], *parts[2:]], [*parts[:-2], parts[-1]]):
        with pytest.raises(ValueError, match=r'cannot be unpacked: .* Nothing of it was kept'):
            unpack(wrong, tmp_path / 'other')
    assert not (tmp_path / 'other').exists()


def test_every_truncation_is_noticed(tmp_path):
    plain, packed, archive = tar(TREE, 'w'), tar(TREE), zipped(TREE)
    # Plain: up to the end mark, at member boundaries too.
    end = len(plain.rstrip(b'\0')) // 512 * 512
    for data, lengths in (
        (plain, [*range(0, end, 512), 100, end - 1]),
        (packed, np.linspace(0, len(packed) - 1, 40).astype(int)),
        (archive, np.linspace(0, len(archive) - 1, 40).astype(int)),
    ):
        for length in lengths:
            refuse(tmp_path, data[:length], 'cannot be unpacked|is empty')


def test_damage_is_noticed(tmp_path):
    # A broken header in the middle ends an archive for the standard library.
    plain = bytearray(tar(TREE, 'w'))
    start = plain.index(b'top/l1/20200101/B3.tif')
    plain[start + 2] ^= 1
    refuse(tmp_path, bytes(plain), 'bad checksum')
    refuse(tmp_path, gzip.compress(bytes(plain)), 'bad checksum')
    packed = bytearray(tar(TREE))
    packed[-6] ^= 1
    refuse(tmp_path, bytes(packed), 'CRC check failed')
    archive = bytearray(zipped(TREE))
    archive[archive.index(b'top/l1/20200101/B3.tif') + 100] ^= 1
    refuse(tmp_path, bytes(archive), 'cannot be unpacked')
    for other in (b'<html>404</html>', os.urandom(5000), b'PK', b'\x1f\x8b'):
        refuse(tmp_path, other, 'a whole tar or zip archive of files and folders was expected')


@pytest.mark.parametrize(
    'name',
    ['../out', 'a/../../out', '/tmp/out', '//out', 'C:/out', 'C:out', '..\\out', '\\out', '..'],
)
def test_no_way_out(name, tmp_path):
    for data in (tar({'a/b': b'1', name: b'2'}), zipped({'a/b': b'1', name: b'2'})):
        refuse(tmp_path, data, 'lies outside of the archive')


@pytest.mark.parametrize(
    'name',
    [
        'a\nb', 'a\x1b[2J', 'x' * 300, 'ü' * 200, 'y/' * 600 + 'z',
        'CON', 'a/nul.tif', 'Aux/b', 'com1 .tar.gz', 'a/LPT³',
    ],
)  # fmt: skip
def test_names(name, tmp_path):
    refuse(tmp_path, tar({name: b'1'}), 'has no usable name')


def test_names_that_only_look_like_devices(tmp_path):
    tree = {'a/console': b'1', 'a/com10.tif': b'2', 'a/x.con': b'3'}
    (tmp_path / 'a').write_bytes(tar(tree))
    assert len(files(unpack([tmp_path / 'a'], tmp_path / 'b'))) == 3


@pytest.mark.parametrize(
    'kind',
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE],
)
def test_links_and_devices(kind, tmp_path):
    info = tarfile.TarInfo('a/link')
    info.type, info.linkname = kind, '/etc/passwd'
    refuse(tmp_path, tar([('a/b', b'1'), info]), "'a/link' is a link or a device")


def test_links_in_zip(tmp_path):
    info = zipfile.ZipInfo('a/link')
    info.external_attr = 0o120777 << 16
    refuse(tmp_path, zipped({'a/b': b'1', info: b'/etc/passwd'}), "'a/link' is a link")


def test_sparse_files(tmp_path):
    info = tarfile.TarInfo('a/b')
    info.pax_headers = {
        'GNU.sparse.major': '0',
        'GNU.sparse.map': '0,1',
        'GNU.sparse.size': '99',
    }
    refuse(tmp_path, tar([info]), 'a/b')


def test_bombs(tmp_path):
    small = Limits(members=5, member_bytes=10_000, ratio=10, free_bytes=20_000)
    many = {f'f{i}': b'' for i in range(6)}
    zeros = {f'f{i}': bytes(9000) for i in range(4)}
    for pack in (tar, zipped):
        refuse(tmp_path, pack(many), 'more than 5 members', small)
        refuse(tmp_path, pack({'a': bytes(10_001)}), "'a' is larger than|grows beyond", small)
        refuse(tmp_path, pack(zeros), 'larger than|grows beyond', small)
    header = tarfile.TarInfo('a')
    header.pax_headers = {'comment': 'x' * 100_000}
    refuse(tmp_path, tar([header]), 'grows beyond', small)
    # A lying directory: one byte is said, many come.
    archive = bytearray(zipped({'a': bytes(100_000)}))
    for mark, offset in ((b'PK\x01\x02', 24), (b'PK\x03\x04', 22)):
        at = archive.index(mark) + offset
        archive[at : at + 4] = (1).to_bytes(4, 'little')
    refuse(tmp_path, bytes(archive), 'cannot be unpacked', small)


@pytest.mark.parametrize(
    'names', [('a', 'a'), ('a', 'a/b'), ('a/b', 'a')], ids=['twice', 'file as folder', 'reverse']
)
def test_members_in_each_others_way(names, tmp_path):
    refuse(tmp_path, tar([(name, b'1') for name in names]), 'cannot be unpacked')


def test_a_name_without_end_is_not_told(tmp_path):
    archive = bytearray(zipped(TREE))
    # The length of the first name, in the member's own header.
    archive[26:28] = (1500).to_bytes(2, 'little')
    refuse(tmp_path, bytes(archive), r'cannot be unpacked: .{300}\. Nothing of it was kept')


def test_nothing_in_it(tmp_path):
    folder = tarfile.TarInfo('a')
    folder.type = tarfile.DIRTYPE
    for data in (tar({}), zipped({}), tar([folder])):
        refuse(tmp_path, data, 'is empty; locations were expected in it|cannot be unpacked')


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / 'a').write_bytes(tar(TREE))

    def full(*_: object) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('torchgeo_caco.datasets.unpack._copy', full)
    with pytest.raises(OSError, match='No space left'):
        unpack([tmp_path / 'a'], tmp_path / 'target')
    assert [p.name for p in tmp_path.iterdir()] == ['a']


def test_memory_does_not_grow_with_members(tmp_path):
    import tracemalloc

    peaks = []
    for count in (4000, 12000):
        path = tmp_path / f'{count}'
        path.write_bytes(tar({f'l/{i:06}': b'' for i in range(count)}))
        tracemalloc.start()
        unpack([path], tmp_path / f'{count}_')
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 500_000
