"""From any store to a packed one: whole or not at all, and equal to its source."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
from affine import Affine
from filelock import FileLock

from torchgeo_caco.cli import main
from torchgeo_caco.datasets import SeasonalTemporalDataset
from torchgeo_caco.stores import (
    FolderStore,
    FolderWriter,
    PackedStore,
    packing,
    open_store,
    pack,
    verify,
)

TRANSFORM = Affine(10, 0, 500_000, 0, -10, 5_000_000)
#: Bytes of an image of the source below.
IMAGE = 3 * 6 * 7 * 2


@pytest.fixture(scope='module')
def source(tmp_path_factory) -> Path:
    """Ten places of 6 to 8 dates in the folder layout, the last one without a georeference."""
    root = tmp_path_factory.mktemp('source') / 'folder'
    rng = np.random.default_rng(0)
    with FolderWriter(root, ('B2', 'B3', 'B4'), (6, 7), 'uint16', nodata=0) as writer:
        for n in range(10):
            count = 6 + n % 3
            days = np.datetime64('2016-01-01') + 200 * np.arange(count) + n
            images = rng.integers(1, 9999, (count, 3, 6, 7)).astype('uint16')
            place = {} if n == 9 else {'crs': 'EPSG:32631', 'transform': TRANSFORM}
            writer.add(f'p{n}', days, images, **place)
    return root


def assert_equal(packed: PackedStore, source: FolderStore) -> None:
    """Names, dates, pixels and places are the source's."""
    assert packed.names == source.names
    assert (packed.dtype, packed.shape, packed.nodata) == (source.dtype, source.shape, 0)
    for i in range(len(source)):
        times = range(source.counts[i])
        assert np.array_equal(packed.dates(i), source.dates(i))
        assert np.array_equal(packed.read(i, times), source.read(i, times, packed.bands))
        assert packed.places(i) == source.places(i)


@pytest.mark.parametrize('workers', [0, 2])
def test_everything_arrives(source, tmp_path, workers):
    packed = pack(open_store(source), tmp_path / 'p', workers=workers, shard_bytes=20 * IMAGE)
    assert packed.sizes == [13, 14, 20, 22] or sum(packed.sizes) == 69
    assert len(packed.sizes) > 3
    assert_equal(packed, FolderStore(source))
    verify(FolderStore(source), packed, workers)
    index = gpd.read_parquet(tmp_path / 'p' / 'index.parquet')
    assert index.crs == 'EPSG:4326'
    assert index.location.is_monotonic_increasing
    assert set(index.crs.to_authority()) and set(index['crs'].dropna()) == {'EPSG:32631'}
    assert index.geometry[index.location == 'p9'].isna().all()
    assert index.geometry[index.location != 'p9'].is_valid.all()
    assert {path.suffix for path in (tmp_path / 'p').iterdir()} == {'.npy', '.parquet', '.json'}
    assert [path.name for path in tmp_path.iterdir()] == ['p']
    assert len(SeasonalTemporalDataset(tmp_path / 'p', seasons=1)) == 10
