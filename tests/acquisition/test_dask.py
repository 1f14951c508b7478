"""The same work on a Dask cluster."""

import threading

import pytest

from torchgeo_caco.acquisition import download

distributed = pytest.importorskip('distributed')


@pytest.fixture
def cluster():
    # Processes of their own, so that one can die.
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, host='127.0.0.1'
    ) as cluster:
        yield cluster


@pytest.mark.filterwarnings('ignore::ResourceWarning')
def test_a_worker_dies(cluster, server, plan, places, root):
    killed = threading.Event()

    def kill(path: str) -> None:
        if path.endswith('red.tif') and not killed.is_set():
            killed.set()
            next(iter(cluster.workers.values())).process.process.kill()

    server.faults = kill
    summary = download(places, root, plan, dask=cluster.scheduler_address, progress=False)
    assert killed.is_set()
    assert (summary.done, summary.report) == (3, ())
