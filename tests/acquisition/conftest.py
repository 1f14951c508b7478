"""A Sentinel-2 archive behind HTTP, and places in it."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import geopandas as gpd
import pytest
from stac_archive import Archive
from stac_server import Server

from torchgeo_caco.acquisition import PROVIDERS, Dates, Plan
from torchgeo_caco.acquisition.plan import Network

#: The same windows at each place.
DATES = Dates(date(2023, 6, 1), seasons=3, shift_days=0)
#: In the western tile, where it ends and the eastern one goes on, and in the eastern one alone.
PLACES = {'west': (11.968, 45.103), 'seam': (11.9815, 45.103), 'east': (12.001, 45.103)}


@pytest.fixture(scope='session')
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    middles = [a + (b - a) / 2 for period in DATES.windows('') for a, b in period]
    return Archive(tmp_path_factory.mktemp('archive'), middles)


@pytest.fixture
def server(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ('http_proxy', 'https_proxy', 'all_proxy'):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with Server(archive.root, archive.items) as server:
        yield server


@pytest.fixture
def plan(server: Server) -> Plan:
    provider = replace(PROVIDERS['earth-search'], url=f'{server.url}/v1')
    # Patient enough for a busy machine.
    network = Network(timeout=10, attempts=5, backoff=0.05, longest=0.5)
    return Plan(provider, DATES, size=64, network=network)


@pytest.fixture
def places() -> gpd.GeoDataFrame:
    points = gpd.points_from_xy(*zip(*PLACES.values(), strict=True))
    return gpd.GeoDataFrame({'location': list(PLACES)}, geometry=points, crs=4326)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / 'store'
