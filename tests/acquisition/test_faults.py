"""Servers fail, clients are killed: the store is the same, or the report says what is missing."""

import itertools
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import rasterio
import requests
from faults import KINDS, LYING, Schedule

from torchgeo_caco.acquisition import Quality, download
from torchgeo_caco.acquisition.ledger import Ledger
from torchgeo_caco.acquisition.network import PATIENCE, ask_why, retries
from torchgeo_caco.acquisition.plan import Network

#: Patience is short, so that the tests are.
HASTY = Network(timeout=1, attempts=8, backoff=0.02, longest=0.1)


def contents(root: Path) -> dict[str, bytes]:
    """All pixels of a store, by file; each file can be read."""
    found = {}
    for path in sorted(root.glob('[!.]*/*/*.tif')):
        with rasterio.open(path) as file:
            found[str(path.relative_to(root))] = file.read().tobytes()
    return found


@pytest.fixture
def hasty(plan):
    return replace(plan, network=HASTY)


@pytest.fixture
def whole(plan, places, tmp_path):
    """The store without faults."""
    summary = download(places[:2], tmp_path / 'whole', plan, progress=False)
    assert summary.done == 2, summary
    return contents(tmp_path / 'whole')


@pytest.mark.parametrize('kind', KINDS)
def test_one_kind_of_fault(kind, server, hasty, places, root, whole):
    server.stalled = 1.5
    every, count = 60 if kind == 'stall' else 11, itertools.count(5)

    def faults(path: str) -> str | None:
        if kind == 'empty' and not path.endswith('search'):
            return None
        return kind if next(count) % every == 0 else None

    server.faults = faults
    summary = download(places[:2], root, hasty, progress=False)
    assert server.met[kind]
    if summary.failed:
        server.faults = None
        summary = download(places[:2], root, hasty, progress=False)
    if contents(root) != whole:
        assert kind in LYING
        assert summary.report
    else:
        assert summary.done == 2


def test_retry_after_is_obeyed(server, plan, places, root, whole):
    asked: list[float] = []
    refused: list[float] = []

    def faults(path: str) -> str | None:
        if not path.endswith('red.tif'):
            return None
        asked.append(time.monotonic())
        # Whoever comes too early is told to wait once more.
        if refused and asked[-1] - refused[-1] >= 1:
            return None
        refused.append(asked[-1])
        return '429'

    server.faults = faults
    # The back-off alone is too short, and there is no third attempt.
    network = replace(HASTY, attempts=2, timeout=10)
    summary = download(places[:1], root, replace(plan, network=network), workers=1, progress=False)
    assert summary.done == 1
    # The reading, as GDAL does it, and the question why it failed; then nobody came in between.
    assert asked[: len(refused)] == refused
    assert len(refused) <= 3
    assert contents(root).items() <= whole.items()


@pytest.mark.parametrize(
    ('told', 'seconds'),
    [
        ('1', 1), (' 2 ', 2), ('0.5', 0.5), ('-1', 0), ('', 0), ('soon', 0), ('1, 1', 0),
        ('nan', 0), ('7200', PATIENCE), ('Wed, 21 Oct 2015 07:28:00 GMT', 0),
        ('Wed, 21 Oct 2399 07:28:00 GMT', PATIENCE), ('Wed, 21 Oct 99999 07:28:00 GMT', 0),
    ],
)  # fmt: skip
def test_what_retry_after_may_say(told, seconds, server):
    server.faults = lambda path: '429'
    server.retry_after = told
    assert ask_why(f'{server.url}/files/a.tif', HASTY) == (429, seconds)
    # Searches are repeated by urllib3.
    assert retries(HASTY).parse_retry_after(told) == seconds


def test_junk_in_retry_after_is_no_failure(server, hasty, places, root):
    count = itertools.count()
    server.faults = lambda path: (
        '429' if path.endswith(('red.tif', 'search')) and next(count) % 12 < 5 else None
    )
    server.retry_after = 'soon'
    assert download(places[:1], root, hasty, progress=False).done == 1


def test_a_token_service_that_fails(plan, places, root, monkeypatch):
    chance = itertools.cycle((requests.ConnectionError('hung up'), requests.Timeout('late'), None))

    def sign(self: object, url: str) -> str:
        error = next(chance)
        if error:
            raise error
        return url

    monkeypatch.setattr('torchgeo_caco.acquisition.patch._Fetch._sign', sign)
    network = replace(HASTY, attempts=3, timeout=10)
    plan = replace(plan, network=network)
    assert download(places[:1], root, plan, workers=1, progress=False).done == 1


def test_one_host_gets_so_many_requests_at_a_time(server, plan, places, root):
    # The landing page, searches, files, and questions why a file could not be read.
    count, asked = itertools.count(1), []

    def faults(path: str) -> str | None:
        asked.append(path)
        return '500' if path.endswith('.tif') and next(count) % 12 < 4 else None

    server.faults, server.hold = faults, 0.005
    network = replace(plan.network, per_host=1, attempts=9, backoff=0.01, longest=0.05)
    # The patch takes several ranges of a file.
    plan = replace(plan, network=network, dates=replace(plan.dates, seasons=1), size=200)
    plan = replace(plan, quality=Quality(nodata=1))
    summary = download(places, root, plan, workers=3, progress=False)
    assert summary.done == 3
    assert server.met['500']
    assert server.most == 1
    assert asked.count('/v1') == 1


def test_network_settings_of_a_later_call_count(server, plan, places, tmp_path):
    server.faults = lambda path: '500' if path.endswith('search') else None
    asked = []
    for attempts in (3, 1):
        network = replace(plan.network, attempts=attempts, backoff=0.01, longest=0.02)
        now = replace(plan, network=network)
        download(places[:1], tmp_path / str(attempts), now, progress=False)
        asked.append(server.requests['/v1/search'])
    assert asked == [9, 10]


def test_a_server_that_is_down(server, hasty, places, root):
    server.faults = lambda path: '500'
    network = replace(HASTY, attempts=2, longest=0.02)
    summary = download(places, root, replace(hasty, network=network), progress=False)
    assert (summary.done, summary.failed) == (0, 3)
    assert 'landing page failed' in summary.report[0]
    server.faults = None
    assert download(places, root, hasty, progress=False).done == 3


def test_a_damaged_file_is_given_up_and_told(archive, server, plan, places, root):
    path = archive.root / 'S2A_32TQR_20181218_good' / 'red.tif'
    whole = path.read_bytes()
    path.write_bytes(whole[:200] + b'x' * (len(whole) - 200))
    try:
        patient = replace(plan, network=replace(HASTY, attempts=2), quality=Quality(tries=5))
        summary = download(places[:1], root, patient, progress=False)
    finally:
        path.write_bytes(whole)
    assert summary.done == 1
    assert (root / 'west' / '20181211' / 'B4.tif').is_file()  # the spare pass
    assert 'S2A_32TQR_20181218_good: unreadable' in summary.report[0]


def test_tokens_are_not_told(server, plan, places, root, monkeypatch, caplog):
    monkeypatch.setattr(
        'torchgeo_caco.acquisition.patch._Fetch._sign', lambda self, url: f'{url}?sig=SECRET'
    )
    server.token = 'SECRET'
    server.faults = Schedule(0, ('500',))
    server.faults.share = 0.3
    network = replace(HASTY, attempts=3)
    summary = download(places, root, replace(plan, network=network), progress=False)
    assert summary.failed
    told = [path.read_text() for path in root.iterdir() if path.is_file()]
    assert 'SECRET' not in ''.join([*told, caplog.text, str(summary)])


def test_budget(server, plan, places, root):
    summary = download(places, root, plan, budget=30, workers=1, progress=False)
    assert summary.done == 1
    assert summary.stopped == 'the budget of 30 requests is used up'
    assert download(places, root, plan, progress=False).done == 3


def test_half_a_line_in_the_ledger(plan, places, root, whole):
    download(places[:1], root, plan, progress=False)
    with (root / 'ledger.jsonl').open('ab') as file:
        file.write(b'{"place": "seam", "sta')
    summary = download(places[:2], root, plan, progress=False)
    assert summary.done == 2
    assert contents(root) == whole
    assert set(Ledger(root).entries) == {'west', 'seam'}


def test_kill_at_any_time(server, plan, places, root, whole):
    # Each client gets a little further; the store is never seen with half a place.
    for number in range(40):
        pid = os.fork()
        if pid == 0:
            try:
                download(places[:2], root, plan, workers=1, progress=False)
            finally:
                os._exit(0)
        time.sleep(0.1 + 0.35 * number)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        for place in root.glob('[!.]*/'):
            assert len(list(place.glob('*/*.tif'))) == 6 * 3
        if not os.WIFSIGNALED(status):
            break
    server.requests.clear()
    assert download(places[:2], root, plan, progress=False).done == 2
    assert contents(root) == whole
    assert not list(root.glob('.*.partial'))
