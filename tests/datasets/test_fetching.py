"""Downloads from a server that cuts, stalls and lies."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from torchgeo_caco import fetching
from torchgeo_caco.fetching import fetch, verify

from .server import File, serve

DATA = np.random.default_rng(0).integers(0, 256, 300_000).astype('uint8').tobytes()
MD5 = hashlib.md5(DATA).hexdigest()
SHA256 = hashlib.sha256(DATA).hexdigest()
QUICK = {'pause': 0.001, 'timeout': (5.0, 5.0)}


def whole(path: Path) -> None:
    """Assert that a download is whole and nothing else lies about."""
    assert path.read_bytes() == DATA
    assert Path(f'{path}.sha256').read_text() == f'{SHA256}  {path.name}\n'
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name, f'{path.name}.sha256']


def test_a_good_server(tmp_path):
    with serve({'/a': File(DATA)}) as server:
        path = fetch(f'{server.url}/a', tmp_path / 'new' / 'a', md5=MD5, size=len(DATA), **QUICK)
        whole(path)
        fetch(f'{server.url}/a', path, md5=MD5, **QUICK)
        assert server.asked == [('/a', None)]


@pytest.mark.parametrize('tag', [{'ETag': '"1"'}, {'Last-Modified': 'Fri, 05 Apr 2024'}])
def test_goes_on_where_the_server_cut(tag, tmp_path):
    with serve({'/a': File(DATA, cuts=[100_000, 50_000, 1], headers=tag)}) as server:
        whole(fetch(f'{server.url}/a', tmp_path / 'a', **QUICK))
    assert [r for _, r in server.asked] == [
        None, 'bytes=100000-', 'bytes=150000-', 'bytes=150001-',
    ]  # fmt: skip


def test_another_call_goes_on(tmp_path):
    with serve({'/a': File(DATA, cuts=[100_000, 0])}) as server:
        expected = r'a could not be downloaded to .*a: .* \(100000 bytes are kept in a\.partial'
        with pytest.raises(ConnectionError, match=expected) as caught:
            fetch(f'{server.url}/a', tmp_path / 'a', retries=1, **QUICK)
        assert '\n' not in str(caught.value)
        assert not (tmp_path / 'a').exists()
        whole(fetch(f'{server.url}/a', tmp_path / 'a', **QUICK))
    assert server.asked[-1] == ('/a', 'bytes=100000-')


def test_stalls(tmp_path):
    with serve({'/a': File(DATA, cuts=[-1])}) as server:
        whole(fetch(f'{server.url}/a', tmp_path / 'a', pause=0.001, timeout=(5.0, 0.2)))
    assert len(server.asked) == 2


def test_a_server_without_ranges_starts_anew(tmp_path):
    with serve({'/a': File(DATA, cuts=[100_000, 200_000], ranges=False)}) as server:
        whole(fetch(f'{server.url}/a', tmp_path / 'a', **QUICK))
    assert len(server.asked) == 3


@pytest.mark.parametrize('headers', [{}, {'ETag': 'W/"1"'}])
def test_without_a_strong_validator_nothing_is_put_together(headers, tmp_path):
    with serve({'/a': File(DATA, cuts=[100_000], headers=headers)}) as server:
        whole(fetch(f'{server.url}/a', tmp_path / 'a', **QUICK))
    assert [r for _, r in server.asked] == [None, None]


def test_another_version_starts_anew(tmp_path):
    old = DATA[::-1] + b'more'

    def change(file: File) -> None:
        file.data, file.headers = (old, {'ETag': '"1"'}) if file.cuts else (DATA, {'ETag': '"2"'})

    with serve({'/a': File(old, cuts=[100_000], meddle=change)}) as server:
        whole(fetch(f'{server.url}/a', tmp_path / 'a', **QUICK))


@pytest.mark.parametrize('lie', [1, 5000])
def test_a_length_that_is_too_long(lie, tmp_path):
    with (
        serve({'/a': File(DATA, lie=lie)}) as server,
        pytest.raises(ConnectionError, match='could not be downloaded'),
    ):
        fetch(f'{server.url}/a', tmp_path / 'a', retries=2, **QUICK)
    assert not (tmp_path / 'a').exists()


def test_a_length_that_is_too_short(tmp_path):
    with serve({'/a': File(DATA, lie=-10)}) as server:
        with pytest.raises(ValueError, match=r'a has 299990 bytes; 300000 were expected for .*a\.'):
            fetch(f'{server.url}/a', tmp_path / 'a', size=len(DATA), **QUICK)
        with pytest.raises(ValueError, match=rf'was not kept: .* has MD5 \w+, {MD5} was expected'):
            fetch(f'{server.url}/a', tmp_path / 'a', md5=MD5, **QUICK)
    assert not (tmp_path / 'a').exists()


def test_errors_that_pass_and_errors_that_do_not(tmp_path):
    with serve({'/a': File(DATA, statuses=[503, 500, 429]), '/b': File(DATA)}) as server:
        whole(fetch(f'{server.url}/a', tmp_path / 'a', **QUICK))
        server.asked.clear()
        server.files['/b'].statuses = [403]
        for path, status in (('/none', 404), ('/b', 403)):
            expected = f'{path} answered {status} .*; a file was expected'
            with pytest.raises(ConnectionError, match=expected):
                fetch(f'{server.url}{path}', tmp_path / 'b', **QUICK)
        assert len(server.asked) == 2
        server.files['/b'].statuses = [500] * 9
        with pytest.raises(ConnectionError, match='b answered 500 Internal Server Error'):
            fetch(f'{server.url}/b', tmp_path / 'b', retries=2, **QUICK)
    assert not (tmp_path / 'b').exists()


def test_nobody_there(tmp_path):
    with serve({}) as server:
        pass
    with pytest.raises(ConnectionError, match=r'a could not be downloaded.*\(0 bytes are kept'):
        fetch(f'{server.url}/a', tmp_path / 'a', retries=1, **QUICK)


@pytest.mark.parametrize('left', [DATA, DATA + b'x', DATA[:5], b''])
@pytest.mark.parametrize('total', [len(DATA), None, 7])
def test_what_an_interrupted_call_left(left, total, tmp_path):
    with serve({'/a': File(DATA)}) as server:
        url = f'{server.url}/a'
        note = {'url': url, 'validator': '"1"', 'total': total}
        (tmp_path / 'a.partial').write_bytes(left)
        (tmp_path / 'a.partial.json').write_text(json.dumps(note))
        whole(fetch(url, tmp_path / 'a', **QUICK))


@pytest.mark.parametrize('note', ['', '[]', '{}', '{"url": 1, "validator": 2, "total": "x"}'])
def test_a_note_of_no_use(note, tmp_path):
    (tmp_path / 'a.partial').write_bytes(b'something else')
    (tmp_path / 'a.partial.json').write_text(note)
    with serve({'/a': File(DATA)}) as server:
        whole(fetch(f'{server.url}/a', tmp_path / 'a', **QUICK))


def test_a_full_disk(tmp_path, monkeypatch):
    usage = fetching.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(fetching.shutil, 'disk_usage', lambda _: usage)
    with (
        serve({'/a': File(DATA)}) as server,
        pytest.raises(OSError, match=r'a needs 300000 bytes more on the disk, which has 1000 left'),
    ):
        fetch(f'{server.url}/a', tmp_path / 'a', **QUICK)


def test_checksums(tmp_path):
    path = tmp_path / 'a'
    path.write_bytes(DATA)
    with pytest.raises(ValueError, match=f'a has MD5 {MD5}, 0 was expected'):
        verify(path, '0')
    verify(path, MD5)
    verify(path, 'no longer looked at')
    path.write_bytes(DATA[:-1])
    with pytest.raises(ValueError, match=rf"a is not what was downloaded: .* says '{SHA256}'"):
        verify(path)
    with pytest.raises(ValueError, match='is not what was downloaded'):
        fetch('http://127.0.0.1:9/a', path)
    assert fetch('http://127.0.0.1:9/a', path, checksum=False) == path
    (tmp_path / 'a.sha256').write_text('')
    with pytest.raises(ValueError, match=r"a\.sha256 says ''"):
        verify(path)
