"""Published archives, from a server on this machine."""

import gzip
import hashlib
import io
import json
import shutil
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from torchgeo.datasets import DatasetNotFoundError, SeasonalContrastS2

from torchgeo_caco.datamodules import SeasonalTemporalDataModule
from torchgeo_caco.datasets import SeasonalTemporalDataset, archives
from torchgeo_caco.datasets.archives import CACO, RECORDS, archive, provide
from torchgeo_caco.stores import FolderWriter

from .server import File, Server, serve

NAMES = ('000000', '000001', '000002')


@pytest.fixture(scope='module')
def tree(tmp_path_factory) -> Path:
    """Three places of ten dates in the published layout."""
    root = tmp_path_factory.mktemp('tree')
    rng = np.random.default_rng(0)
    with FolderWriter(root / 'top', ('B2', 'B3', 'B4'), (16, 16), 'uint8') as writer:
        for name in NAMES:
            dates = np.datetime64('2016-01-01') + 180 * np.arange(10)
            writer.add(name, dates, rng.integers(1, 255, (10, 3, 16, 16)).astype('uint8'))
    return root


@pytest.fixture(scope='module')
def packed(tree) -> dict[str, bytes]:
    """That as a tar and as a zip archive."""
    tar, zipped = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=tar, mode='w:gz') as file:
        file.add(tree / 'top', 'some_folder')
    with zipfile.ZipFile(zipped, 'w') as file:
        for path in sorted((tree / 'top').rglob('*')):
            file.write(path, f'top/{path.relative_to(tree / "top")}')
    return {'tar': tar.getvalue(), 'zip': zipped.getvalue()}


@pytest.fixture
def server(packed, monkeypatch):
    """All archives where they are published, but on this machine."""
    tar = packed['tar']
    listing = '<a href="?C=N">Name</a> <a href="caco10k.tar.gz">..</a><a href="caco100k.tar.gz">'
    files = {
        '/caco/': File(listing.encode()),
        '/caco/caco10k.tar.gz': File(tar),
        '/caco/caco100k.tar.gz': File(tar),
    }
    cuts = [0, len(tar) // 4, len(tar) // 3, len(tar) // 2, len(tar)]
    for i, record in enumerate(RECORDS):
        name, data = f'clean_1m_geography_parta{"abcd"[i]}', tar[cuts[i] : cuts[i + 1]]
        md5 = hashlib.md5(data).hexdigest()
        facts = [
            {'key': 'README.md', 'size': 1, 'checksum': 'md5:0'},
            {'key': name, 'size': len(data), 'checksum': f'md5:{md5}'},
        ]
        files[f'/api/records/{record}'] = File(json.dumps({'files': facts}).encode())
        files[f'/records/{record}/files/{name}'] = File(data)
    for version in ('100k', '1m'):
        known = SeasonalContrastS2.metadata[version]
        files[f'/seco/{version}'] = File(packed['zip'])
        md5 = hashlib.md5(packed['zip']).hexdigest()
        monkeypatch.setitem(SeasonalContrastS2.metadata, version, {**known, 'md5': md5})
    with serve(files) as running:
        monkeypatch.setattr(archives, 'CACO', f'{running.url}/caco/')
        monkeypatch.setattr(archives, 'ZENODO', running.url)
        for version in ('100k', '1m'):
            known = SeasonalContrastS2.metadata[version]
            url = f'{running.url}/seco/{version}'
            monkeypatch.setitem(SeasonalContrastS2.metadata, version, {**known, 'url': url})
        yield running


FOLDERS = {
    '10k': 'clean_10k_geography',
    '100k': 'clean_100k_geography',
    '1m': 'clean_1m_geography',
    'seco-100k': 'seasonal_contrast_100k',
    'seco-1m': 'seasonal_contrast_1m',
}


@pytest.mark.parametrize('size', list(FOLDERS))
def test_downloads_once(size, server: Server, tmp_path):
    dataset = SeasonalTemporalDataset(tmp_path / 'data', size=size, download=True)
    assert dataset.location_names == NAMES
    folder = tmp_path / 'data' / FOLDERS[size]
    assert dataset.store.root == folder
    kept = {p.name for p in folder.parent.iterdir()} - {folder.name, f'.{folder.name}.lock'}
    files = {name for name in kept if not name.endswith('.sha256')}
    assert kept == files | {f'{name}.sha256' for name in files}
    assert len(files) == (4 if size == '1m' else 1)
    asked = len(server.asked)
    again = SeasonalTemporalDataset(tmp_path / 'data', size=size)
    assert again.location_names == NAMES
    assert len(server.asked) == asked


def test_addresses():
    """What is published, and where; nothing is asked for."""
    (remote,) = archive('10k').remotes('')
    assert remote.url == 'https://research.cs.cornell.edu/caco/data/caco/caco10k.tar.gz'
    for version in ('100k', '1m'):
        (remote,) = archive(f'seco-{version}').remotes('')
        known = SeasonalContrastS2.metadata[version]
        assert (remote.url, remote.md5) == (known['url'], known['md5'])
    assert CACO.startswith('https://')
    with pytest.raises(ValueError, match=r"size must be one of 10k, 100k, 1m, .*, not '5k'"):
        archive('5k')


def test_a_download_that_is_cut_goes_on(server, tmp_path, monkeypatch):
    monkeypatch.setattr('time.sleep', lambda _: None)
    for path in list(server.files):
        if '/files/' in path:
            server.files[path].cuts = [100, 200]
    provide(tmp_path, '1m', download=True)
    assert sum(asked is not None for _, asked in server.asked) == 2 * len(RECORDS)


def test_archives_by_hand(packed, tmp_path):
    for i in range(2):
        half = len(packed['tar']) // 2
        data = packed['tar'][:half] if i == 0 else packed['tar'][half:]
        (tmp_path / f'clean_1m_geography_part{i}').write_bytes(data)
    (tmp_path / 'caco10k.tar.gz').write_bytes(packed['tar'])
    assert SeasonalTemporalDataset(tmp_path, size='1m').location_names == NAMES
    provide(tmp_path, '10k', keep_archives=False)
    left = {p.name for p in tmp_path.iterdir() if not p.name.startswith('.')}
    assert 'caco10k.tar.gz' not in left
    assert {'clean_10k_geography', 'clean_1m_geography', 'clean_1m_geography_part0'} <= left


@pytest.mark.parametrize(
    'names',
    [
        ['.tar.gz'],
        [f'_part{i}' for i in 'abcd'],
        [f'.tar.gz.parta{i}' for i in 'abcd'],
        [f'_part{i}.tar.gz' for i in (1, 2, 9, 10)],
        [f'.tar.gz.0{i}' for i in range(4)],
        [f'.tar.gz.a{i}' for i in 'abcd'],
    ],
    ids=lambda names: names[-1],
)
def test_what_lies_there_whole_is_not_asked_for(names, server, packed, tmp_path):
    tar, cuts = packed['tar'], [len(packed['tar']) * i // len(names) for i in range(len(names))]
    for name, start, stop in zip(names, cuts, [*cuts[1:], len(tar)], strict=True):
        (tmp_path / f'clean_1m_geography{name}').write_bytes(tar[start:stop])
    # Half of a download is no part.
    (tmp_path / 'clean_1m_geography.tar.gz.partial').write_bytes(tar[:9])
    assert (provide(tmp_path, '1m', download=True) / NAMES[0]).is_dir()
    assert server.asked == []


def test_an_empty_folder_beside_an_archive(packed, tmp_path):
    folder = tmp_path / 'clean_10k_geography'
    folder.mkdir()
    with pytest.raises(DatasetNotFoundError, match='clean_10k_geography has no location'):
        SeasonalTemporalDataset(tmp_path, size='10k')
    (tmp_path / 'caco10k.tar.gz').write_bytes(packed['tar'])
    assert SeasonalTemporalDataset(tmp_path, size='10k').location_names == NAMES
    # What is not empty is left alone.
    shutil.rmtree(folder / NAMES[0])
    assert SeasonalTemporalDataset(tmp_path, size='10k').location_names == NAMES[1:]


def test_parts_that_are_not_all_there_are_asked_for(server, packed, tmp_path):
    part = server.files[f'/records/{RECORDS[0]}/files/clean_1m_geography_partaa'].data
    (tmp_path / 'clean_1m_geography_partaa').write_bytes(part)
    assert (provide(tmp_path, '1m', download=True) / NAMES[0]).is_dir()
    assert sum('/files/' in path for path, _ in server.asked) == len(RECORDS) - 1


@pytest.mark.parametrize('download', [True, False])
def test_a_known_checksum_of_an_archive_by_hand(download, server, packed, tmp_path):
    (tmp_path / 'seco_100k.zip').write_bytes(packed['zip'] + b'!')
    with pytest.raises(ValueError, match=r'seco_100k\.zip has MD5 \w+, \w+ was expected'):
        provide(tmp_path, 'seco-100k', download)
    assert server.asked == []


def test_a_missing_part_is_not_a_data_set(packed, tmp_path):
    half = packed['tar'][: len(packed['tar']) // 2]
    (tmp_path / 'clean_1m_geography_part0').write_bytes(half)
    with pytest.raises(ValueError, match=r'part0 cannot be unpacked: .*end-of-stream'):
        provide(tmp_path, '1m')
    assert not (tmp_path / 'clean_1m_geography').exists()


def test_neither_folder_nor_archive(tmp_path):
    with pytest.raises(DatasetNotFoundError, match='clean_10k_geography is missing, and so is its'):
        SeasonalTemporalDataset(tmp_path, size='10k')
    with pytest.raises(DatasetNotFoundError, match='use download=True'):
        SeasonalTemporalDataset(tmp_path / 'nowhere', size='1m')
    assert list(tmp_path.iterdir()) == []


def test_half_a_download_is_no_archive(packed, tmp_path):
    for name in ('caco10k.tar.gz.partial', 'caco10k.tar.gz.partial.json'):
        (tmp_path / name).write_bytes(packed['tar'][:100])
    (tmp_path / '.clean_10k_geography.partial').mkdir()
    with pytest.raises(DatasetNotFoundError):
        SeasonalTemporalDataset(tmp_path, size='10k')


def test_a_changed_archive_is_noticed(server, packed, tmp_path):
    provide(tmp_path, '10k', download=True)
    for path in sorted((tmp_path / 'clean_10k_geography').rglob('*'), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (tmp_path / 'clean_10k_geography').rmdir()
    other = gzip.compress(gzip.decompress(packed['tar']), mtime=1)
    (tmp_path / 'caco10k.tar.gz').write_bytes(other)
    for download in (True, False):
        with pytest.raises(ValueError, match=r'caco10k\.tar\.gz is not what was downloaded'):
            provide(tmp_path, '10k', download)
    assert provide(tmp_path, '10k', checksum=False).is_dir()


def test_a_wrong_published_checksum(server, tmp_path):
    server.files['/seco/1m'].data += b'!'
    with pytest.raises(ValueError, match=r'seco_1m\.zip was not kept'):
        provide(tmp_path, 'seco-1m', download=True)
    assert not list(tmp_path.glob('seco*'))


@pytest.mark.parametrize(
    ('size', 'path', 'data', 'message'),
    [
        ('100k', '/caco/', b'<a href="caco10k.tar.gz">', 'lists 0 files like caco100k'),
        ('100k', '/caco/', b'<a href="../100k.tar.gz">', 'lists 0 files like caco100k'),
        ('1m', f'/api/records/{RECORDS[2]}', b'[]', 'is not as expected, a record with a list'),
        ('1m', f'/api/records/{RECORDS[2]}', b'<html>', 'is not as expected'),
        ('1m', f'/api/records/{RECORDS[2]}', b'{"files": []}', 'these parts .*: .*; 4 were exp'),
        ('1m', f'/api/records/{RECORDS[2]}', None, 'could not be read: 404'),
        ('10k', '/caco/caco10k.tar.gz', None, r'caco10k\.tar\.gz answered 404'),
    ],
)
def test_a_publisher_that_moved(size, path, data, message, server, tmp_path):
    if data is None:
        del server.files[path]
    else:
        server.files[path].data = data
    with pytest.raises(ConnectionError, match=message) as caught:
        SeasonalTemporalDataset(tmp_path, size=size, download=True)
    assert '\n' not in str(caught.value)
    assert not (tmp_path / FOLDERS[size]).exists()


def test_two_at_once_download_once(server, tmp_path):
    threads = [threading.Thread(target=provide, args=(tmp_path, '10k', True)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.asked) == 1
    assert (tmp_path / 'clean_10k_geography' / NAMES[0]).is_dir()


def test_datamodule(server, tmp_path):
    data = SeasonalTemporalDataModule(str(tmp_path), 2, size='10k', download=True)
    data.prepare_data()
    asked = len(server.asked)
    data.setup('fit')
    assert data.location_names == NAMES
    assert len(server.asked) == asked
    with pytest.raises(FileNotFoundError, match='use download=True'):
        SeasonalTemporalDataModule(str(tmp_path), 2, size='seco-1m').prepare_data()
