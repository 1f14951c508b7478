"""A small Sentinel-2 archive on disk: STAC items and cloud-optimised files.

Two tiles in two UTM zones overlap at 12 degrees east. In each window of dates there are passes that
a good client must refuse: one that claims no cloud but has the wrong coordinate system, one that
is cloudy just where the places are, and one that is snowed in.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.warp import transform_geom

BANDS = {'B2': 'blue', 'B3': 'green', 'B4': 'red', 'B5': 'rededge1'}
SIZE = 256
#: Tiles: coordinate system, left and top edge.
TILES = {'32TQR': (32632, 732960, 5000040), '33TTL': (32633, 261960, 5000040)}


@dataclass(frozen=True)
class Pass:
    """What is particular about a pass."""

    name: str
    day: int  # from the middle of the window
    claimed: float  # cloud cover
    scl: int = 4  # class of the middle of each tile
    crs: int | None = None  # a wrong one
    corner: bool = False  # without data in the east of the western tile


PASSES = (
    Pass('wrong', 0, 0.0, crs=32601),
    Pass('cloudy', 1, 1.0, scl=9),
    Pass('snowy', -1, 2.0, scl=11),
    Pass('good', 3, 5.0, corner=True),
    Pass('spare', -4, 30.0),
)


class Archive:
    """Makes the files and knows the items."""

    def __init__(self, root: Path, middles: list[datetime]) -> None:
        self.root, self.items = root, []
        for middle in middles:
            for about in PASSES:
                for tile in TILES:
                    self.items.append(self._scene(middle + timedelta(days=about.day), about, tile))

    def _scene(self, time: datetime, about: Pass, tile: str) -> dict[str, Any]:
        code, left, top = TILES[tile]
        offset = 1000 if time.year >= 2022 else 0
        name = f'S2A_{tile}_{time:%Y%m%d}_{about.name}'
        random = np.random.default_rng(list(name.encode()))
        empty = np.zeros((SIZE, SIZE), bool)
        if about.corner and tile == '32TQR':
            rows, columns = np.mgrid[:SIZE, :SIZE]
            empty = columns + rows // 8 > 170
        classes = np.full((SIZE // 2, SIZE // 2), 4, np.uint8)
        classes[10:-10, 10:-10] = about.scl
        classes[60:62, 60:62] = 8  # a small cloud that never matters much
        classes[empty[::2, ::2]] = 0
        files = {'scl': (classes, 20)}
        for band, asset in BANDS.items():
            step = 2 if band == 'B5' else 1
            n = SIZE // step
            pixels = random.integers(1, 4000, (n, n)) + offset
            pixels[empty[::step, ::step]] = 0
            files[asset] = (pixels.astype(np.uint16), 10 * step)
        for asset, (pixels, metres) in files.items():
            if asset != 'scl' and about.name not in ('good', 'spare'):
                continue  # a good client never asks for them
            write_cog(
                self.root / name / f'{asset}.tif', pixels, about.crs or code,
                Affine(metres, 0, left, 0, -metres, top),
            )  # fmt: skip
        edge = SIZE * 10
        corners = [[left, top], [left + edge, top], [left + edge, top - edge], [left, top - edge]]
        outline = {'type': 'Polygon', 'coordinates': [[*corners, corners[0]]]}
        outline = transform_geom(f'EPSG:{code}', 'EPSG:4326', outline)
        points = np.array(outline['coordinates'][0])
        return {
            'type': 'Feature',
            'stac_version': '1.0.0',
            'stac_extensions': [],
            'id': name,
            'collection': 'sentinel-2-c1-l2a',
            'geometry': outline,
            'bbox': [*points.min(0), *points.max(0)],
            'properties': {
                'datetime': f'{time:%Y-%m-%dT%H:%M:%SZ}',
                'platform': 'sentinel-2a',
                'eo:cloud_cover': about.claimed,
                'grid:code': f'MGRS-{tile}',
                's2:processing_baseline': '05.09' if offset else '02.14',
                'proj:epsg': code,
            },
            'links': [],
            'assets': {asset: {'href': f'files/{name}/{asset}.tif'} for asset in files},
        }


def write_cog(path: Path, pixels: np.ndarray, code: int, transform: Affine) -> None:
    """Write one band as a cloud-optimised GeoTIFF."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = pixels.shape
    with rasterio.open(
        path, 'w', driver='COG', height=height, width=width, count=1, dtype=pixels.dtype,
        crs=f'EPSG:{code}', transform=transform, nodata=0, blocksize=64, compress='deflate',
        overviews='none',
    ) as file:  # fmt: skip
        file.write(pixels, 1)
