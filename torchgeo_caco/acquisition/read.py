"""One file's pixels on a patch's grid."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from odc.geo.overlap import compute_reproject_roi
from odc.geo.warp import rio_reproject
from rasterio.windows import Window

from .network import NeverError

#: rasterio silences a warning within its warp by filters that all threads share, so that two at a
#: time leave it loud, or others silent; the store's writer does the same. A patch's warp is short
#: beside its requests.
WARP = threading.Lock()

_files: WeakValueDictionary[str, Any] = WeakValueDictionary()
_FILES = threading.Lock()

#: Pixels around a window, for whatever resampling needs.
MARGIN = 4


@contextmanager
def _one_at_a_time(url: str) -> Iterator[None]:
    """Keep other threads from a file.

    When one closes it, GDAL forgets its header (as we want it to, since it may be an error's), and
    another one that has it open asks the server again, in a place where rasterio keeps all threads
    waiting.
    """
    with _FILES:
        lock = _files.setdefault(url, threading.Lock())
    with lock:
        yield


def read_window(url: str, grid: GeoBox, resampling: str) -> NDArray[Any]:
    """Read the part of a file that a grid needs, and no more.

    Pixels are read first and warped in memory then: GDAL's warper, reading a file by itself, takes
    requests that fail for pixels without data and only warns.

    Args:
        url: Path or address of a raster; its first band is read.
        grid: The grid.
        resampling: How, if the file's grid is another one; pixels that coincide are taken as they
            are.

    Returns:
        Pixels, shape (H, W), in the file's data type; 0 without data.

    Raises:
        NeverError: If the file has no coordinate system.
        rasterio.errors.RasterioError: If it cannot be read.
    """
    with _one_at_a_time(url), rasterio.open(url, sharing=False) as file:
        if file.crs is None:
            raise NeverError('it has no coordinate system')
        source, nodata = GeoBox.from_rio(file), file.nodata or 0
        exact = resampling == 'nearest'
        # As near as half a pixel the nearest one is known without a warp.
        overlap = compute_reproject_roi(source, grid, ttol=0.5 if exact else 0.05)
        paste = overlap.paste_ok and overlap.read_shrink == 1
        if not paste:
            overlap = compute_reproject_roi(source, grid, padding=MARGIN)
        out = np.zeros(grid.shape, file.dtypes[0])
        window = Window.from_slices(*overlap.roi_src)
        if not window.width or not window.height:
            return out
        pixels = file.read(1, window=window)
    if nodata:
        pixels[pixels == nodata] = 0
    if paste:
        rows, columns = (slice(part.start, part.stop) for part in overlap.roi_dst)
        out[rows, columns] = pixels
    else:
        with WARP:
            rio_reproject(
                pixels, out, source[overlap.roi_src], grid, resampling, src_nodata=0, dst_nodata=0
            )
    return out
