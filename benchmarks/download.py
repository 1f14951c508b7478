"""What a patch costs, and what 10k, 100k and 1M images would: ``python benchmarks/download.py``.

Makes one scene as large as Sentinel-2's (10980 x 10980 pixels, tiles of 512, deflate; noise that
compresses as badly as reflectance), serves it on 127.0.0.1 under the names of many scenes, and
downloads places from it. Requests, bytes and CPU are measured; time over a network is computed from
them.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from datetime import date
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
from pyproj import Transformer

sys.path.insert(0, str(Path(__file__).parents[1] / 'tests' / 'support'))
from stac_server import Server

from torchgeo_caco.acquisition import PROVIDERS, Dates, Plan, download

SIDE, LEFT, TOP = 10_980, 600_000, 5_000_040
DATES = Dates(date(2023, 6, 1), shift_days=0)


def scene(folder: Path) -> list[dict]:
    """Write the files and tell the items: in each window one scene, as one that is cloudless."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for name, step in (('band', 1), ('scl', 2)):
        n = SIDE // step
        pixels = np.full((n, n), 4, np.uint8)
        if name == 'band':
            field = np.repeat(np.repeat(random.integers(500, 3000, (183, 183)), 60, 0), 60, 1)
            pixels = (field + random.normal(0, 60, (n, n))).clip(1, 10_000).astype(np.uint16)
        with rasterio.open(
            folder / f'{name}.tif', 'w', driver='COG', height=n, width=n, count=1,
            dtype=pixels.dtype, crs='EPSG:32632', nodata=0, blocksize=512, compress='deflate',
            predictor='yes', transform=rasterio.Affine(10 * step, 0, LEFT, 0, -10 * step, TOP),
        ) as file:  # fmt: skip
            file.write(pixels, 1)
    back = Transformer.from_crs(32632, 4326, always_xy=True)
    box = back.transform_bounds(LEFT, TOP - SIDE * 10, LEFT + SIDE * 10, TOP)
    west, south, east, north = box
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    assets = {name: {'href': 'files/band.tif'} for name in ('red', 'green', 'blue')}
    return [
        {
            'type': 'Feature', 'stac_version': '1.0.0', 'id': f'{start:%Y%m%d}',
            'collection': 'sentinel-2-c1-l2a', 'bbox': box, 'links': [],
            'geometry': {'type': 'Polygon', 'coordinates': [ring]},
            'properties': {
                'datetime': f'{start:%Y-%m-%d}T12:00:00Z', 'eo:cloud_cover': 1,
                's2:processing_baseline': '02.14', 'platform': 'a',
            },
            'assets': {**assets, 'scl': {'href': 'files/scl.tif'}},
        }
        for period in DATES.windows('') for start, _ in period
    ]  # fmt: skip


def main() -> None:
    """Measure and estimate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('-n', '--places', type=int, default=10)
    parser.add_argument('--workers', type=int, default=32, help='of the estimate')
    parser.add_argument('--latency', type=float, default=0.15, help='seconds for a request')
    parser.add_argument('--rate', type=float, default=100, help='Mbit/s')
    parser.add_argument(
        '--tried', type=float, default=2, help='scenes judged for one that is clear'
    )
    parser.add_argument('--machine', type=float, default=0.2, help='dollars for an hour of it')
    parser.add_argument('--traffic', type=float, default=0.09, help='dollars for a GB received')
    args = parser.parse_args()
    os.environ['NO_PROXY'] = os.environ['no_proxy'] = '127.0.0.1'
    with tempfile.TemporaryDirectory() as work:
        root = Path(work)
        items = scene(root / 'files')
        random = np.random.default_rng(1)
        x, y = (
            LEFT + random.uniform(5e3, 1e5, args.places),
            TOP - random.uniform(5e3, 1e5, args.places),
        )
        lon, lat = Transformer.from_crs(32632, 4326, always_xy=True).transform(x, y)
        places = gpd.GeoDataFrame(geometry=gpd.points_from_xy(lon, lat), crs=4326)
        with Server(root / 'files', items) as server:
            plan = Plan(replace(PROVIDERS['earth-search'], url=f'{server.url}/v1'), DATES)
            pid = os.fork()
            if pid == 0:
                wall, cpu = time.perf_counter(), time.process_time()
                try:
                    done = download(places, root / 'store', plan, workers=4, progress=False).done
                    spent = (time.perf_counter() - wall, time.process_time() - cpu, done)
                    (root / 'spent').write_text(json.dumps(spent))
                finally:
                    os._exit(0)
            os.waitpid(pid, 0)
            wall, cpu, done = json.loads((root / 'spent').read_text())
            images = done * 10
            kinds = {'searches': '/v1/search', 'scl': '/files/scl.tif', 'bands': '/files/band.tif'}
            requests = {k: server.requests[v] / images for k, v in kinds.items()}
            sent = {k: server.sent[v] / images for k, v in kinds.items()}
        disk = sum(p.stat().st_size for p in (root / 'store').rglob('*.tif')) / images
    print(f'{done} places, {images} images of 264 x 264 pixels, 3 bands, in {wall:.1f} s')
    print('| an image | requests | kB received |\n|---|---|---|')
    for kind in kinds:
        print(f'| {kind} | {requests[kind]:.1f} | {sent[kind] / 1e3:.0f} |')
    print(f'\nCPU: {cpu / images * 1e3:.0f} ms, on disk: {disk / 1e3:.0f} kB an image\n')
    calls = requests['searches'] + requests['bands'] + args.tried * requests['scl']
    # A search's answer has as many scenes as there are passes and tiles, about 25 kB each.
    size = 6 * 25e3 + sent['bands'] + args.tried * sent['scl']
    print(
        f'With {args.tried:g} scenes judged for each image, {args.latency:g} s for a request, '
        f'{args.workers} workers and {args.rate:g} Mbit/s, {args.machine:g} dollars for an hour '
        f'of a machine and {args.traffic:g} dollars for a GB received:\n'
    )
    print('| images | requests | GB received | GB on disk | hours | $ machine | $ traffic |')
    print('|---|---|---|---|---|---|---|')
    for number in (10_000, 100_000, 1_000_000):
        hours = (
            max(number * calls * args.latency / args.workers, number * size * 8 / args.rate / 1e6)
            / 3600
        )
        print(
            f'| {number:,} | {number * calls:,.0f} | {number * size / 1e9:,.0f} | '
            f'{number * disk / 1e9:,.1f} | {hours:,.1f} | {hours * args.machine:,.2f} | '
            f'{number * size / 1e9 * args.traffic:,.0f} |'
        )


if __name__ == '__main__':
    main()
