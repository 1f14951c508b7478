"""Download through random faults and kills, and see that nothing is lost or wrong.

    python tests/soak.py --schedules 200 --seed 0

Each schedule draws kinds of faults, their share, and when the client is killed with SIGKILL. After
the faults end the same call is made again. A place's files must then be those of a download without
faults, or the report must name the place; anything else is an error.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from datetime import date
from pathlib import Path

import geopandas as gpd
import rasterio

sys.path.insert(0, str(Path(__file__).parent / 'support'))
from faults import Schedule
from stac_archive import Archive
from stac_server import Server

from torchgeo_caco.acquisition import PROVIDERS, Dates, Plan, download
from torchgeo_caco.acquisition.plan import Network

DATES = Dates(date(2023, 6, 1), seasons=3, shift_days=0)
PLACES = {'west': (11.968, 45.103), 'seam': (11.9815, 45.103)}
FILES = 6


def contents(root: Path) -> dict[str, dict[str, bytes]]:
    """Pixels of each place; whatever has no dot in front must be whole."""
    found: dict[str, dict[str, bytes]] = {}
    for place in sorted(root.glob('[!.]*/')):
        found[place.name] = {}
        for path in sorted(place.glob('*/*.tif')):
            with rasterio.open(path) as file:
                found[place.name][path.parent.name] = file.read().tobytes()
    return found


def client(places: gpd.GeoDataFrame, root: Path, plan: Plan, life: float | None) -> str:
    """Run a client in a process of its own, and maybe kill it."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 3 if download(places, root, plan, workers=2, progress=False).failed else 0
        finally:
            os._exit(code)
    if life is not None:
        time.sleep(life)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return 'killed' if os.WIFSIGNALED(status) else ('done', 'crashed', '', 'failed')[status >> 8]


def one(seed: int, server: Server, plan: Plan, places: gpd.GeoDataFrame, root: Path) -> list[str]:
    """Go through one schedule."""
    chance = random.Random(seed)
    server.faults = Schedule(seed)
    ends = []
    for _ in range(chance.choice((0, 0, 1, 2, 3))):
        ends.append(client(places, root, plan, chance.uniform(0, 4)))
        contents(root)
    ends.append(client(places, root, plan, None))
    server.faults = None
    for _ in range(2):
        if ends[-1] != 'done':
            ends.append(client(places, root, plan, None))
    return ends


def main(arguments: list[str] | None = None) -> int:
    """Run all schedules; the number of those that went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--schedules', type=int, default=200)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args(arguments)
    os.environ['NO_PROXY'] = os.environ['no_proxy'] = '127.0.0.1'
    work = Path(tempfile.mkdtemp(prefix='soak'))
    middles = [a + (b - a) / 2 for period in DATES.windows('') for a, b in period]
    archive = Archive(work / 'archive', middles)
    points = gpd.points_from_xy(*zip(*PLACES.values(), strict=True))
    places = gpd.GeoDataFrame({'location': list(PLACES)}, geometry=points, crs=4326)
    verdicts: Counter[str] = Counter()
    met: Counter[str] = Counter()
    started = time.monotonic()
    with Server(archive.root, archive.items) as server:
        server.stalled = 1.5
        provider = replace(PROVIDERS['earth-search'], url=f'{server.url}/v1')
        network = Network(timeout=1, attempts=4, backoff=0.02, longest=0.2)
        plan = Plan(provider, DATES, bands=('B4',), size=32, network=network)
        assert client(places, work / 'whole', plan, None) == 'done'
        whole = contents(work / 'whole')
        assert all(len(files) == FILES for files in whole.values())
        for number in range(args.schedules):
            root = work / f'{number}'
            ends = one(args.seed + number, server, plan, places, root)
            found = contents(root)
            report = (root / 'report.txt').read_text()
            differ = [name for name in PLACES if found.get(name) != whole[name]]
            told = all(f'{name}: ' in report for name in differ)
            verdict = 'same' if not differ else 'told' if told else 'WRONG'
            if 'crashed' in ends or list(root.glob('.*.partial')):
                verdict = 'WRONG'
            verdicts[verdict] += 1
            verdicts['kills'] += ends.count('killed')
            if verdict != 'same':
                print(number, verdict, ends, report.splitlines()[:2], flush=True)
            if verdict != 'WRONG':
                shutil.rmtree(root)
        met.update(server.met)
    print(f'{args.schedules} schedules in {time.monotonic() - started:.0f} s: {dict(verdicts)}')
    print(f'faults met: {dict(met)}')
    if not verdicts['WRONG']:
        shutil.rmtree(work)
    return verdicts['WRONG']


if __name__ == '__main__':
    sys.exit(main())
