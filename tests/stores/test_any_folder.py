"""Whatever folders are called and hold: images, or one sentence."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

from torchgeo_caco.datasets import SeasonalTemporalDataset
from torchgeo_caco.stores import FolderStore
from torchgeo_caco.stores.folder import folder_date

from ..fuzz import is_sentence
from ..mutate import SIZE, tiff

#: Names that a file system takes.
NAMES = st.text(st.characters(exclude_characters='/\0', exclude_categories=['Cs']), max_size=40)
NAMES = NAMES.filter(lambda name: name not in ('', '.', '..') and len(name.encode()) < 200)
DATED = st.builds(
    lambda date, separator, rest: date.strftime(f'%Y{separator}%m{separator}%d') + rest,
    st.dates(min_value=np.datetime64('1984-01-01').item()),
    st.sampled_from(['', '-', '_', '.']),
    NAMES | st.just(''),
)
TYPES = ('uint8', 'uint16', 'int16', 'float32', 'float64', 'int32', 'complex64', 'uint64')


def put(path: Path, data: bytes) -> None:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(NAMES, st.sets(DATED | NAMES, max_size=4), min_size=1, max_size=4))
def test_names(tree):
    expected = {
        name: sorted((folder_date(day), day) for day in days if folder_date(day) is not None)
        for name, days in tree.items()
        if not name.startswith('.')
    }
    expected = {name: days for name, days in expected.items() if days}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, days in tree.items():
            (root / name).mkdir(exist_ok=True)
            for day in days:
                put(root / name / day / 'B4.tif', tiff(0))
        if not expected:
            with pytest.raises(FileNotFoundError) as caught:
                FolderStore(root)
            assert is_sentence(caught.value, root)
            return
        store = FolderStore(root)
        assert store.names == tuple(sorted(expected))
        for location, name in enumerate(store.names):
            dates = [date for date, _ in expected[name]]
            assert store.dates(location).tolist() == [date.item() for date in dates]
            assert store.read(location, range(len(dates))).shape == (len(dates), 1, SIZE, SIZE)


IMAGES = st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from(TYPES))
ALIKE = st.tuples(st.integers(17, 23), st.integers(18, 22), st.sampled_from(TYPES[:2]))


@settings(max_examples=60, deadline=None)
@given(st.lists(IMAGES, min_size=1, max_size=4) | st.lists(ALIKE, min_size=1, max_size=4))
def test_sizes_and_types(images):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / 'root'
        for i, (height, width, dtype) in enumerate(images):
            path = root / 'a' / f'2020010{i + 1}' / 'B4.tif'
            path.parent.mkdir(parents=True)
            profile = {'height': height, 'width': width, 'count': 1, 'dtype': dtype}
            place = rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000)
            with rasterio.open(path, 'w', driver='GTiff', transform=place, **profile) as file:
                file.write(np.full((height, width), i + 1, dtype), 1)
        try:
            store = FolderStore(root)
        except ValueError as error:
            assert images[0][2] not in TYPES[:4]
            assert is_sentence(error, root)
            return
        assert (store.shape, store.dtype) == (images[0][:2], np.dtype(images[0][2]))
        for i, (height, width, dtype) in enumerate(images):
            off = max(abs(height - images[0][0]), abs(width - images[0][1]))
            try:
                image = store.read(0, [i])
            except ValueError as error:
                assert off > 2 or dtype != images[0][2]
                assert is_sentence(error, root)
            else:
                assert dtype == images[0][2]
                assert image.shape == (1, 1, *images[0][:2])
                assert (image == i + 1).all()


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    periods=st.sampled_from([1, 2]),
    seasons=st.integers(1, 4),
    later=st.integers(1, 5),
    replacement=st.booleans(),
)
def test_numbers_of_dates(counts, periods, seasons, later, replacement):
    need = 1 if replacement else seasons
    parts = [(n,) if periods == 1 else (min(later, n), n - min(later, n)) for n in counts]
    kept = [f'p{i}' for i, part in enumerate(parts) if min(part) >= need]
    options = {'periods': periods, 'seasons': seasons, 'seasons_per_period': later}
    options |= {'replacement': replacement, 'bands': ('B4',)}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for i, count in enumerate(counts):
            for day in range(count):
                put(root / f'p{i}' / f'2020010{day + 1}' / 'B4.tif', tiff(0))
        for on_bad_location in ('skip', 'raise'):
            if not kept or (on_bad_location == 'raise' and len(kept) < len(counts)):
                with pytest.raises(ValueError, match='fewer than') as caught:
                    SeasonalTemporalDataset(root, **options, on_bad_location=on_bad_location)
                assert is_sentence(caught.value, root)
                continue
            dataset = SeasonalTemporalDataset(root, **options, on_bad_location=on_bad_location)
            assert dataset.location_names == tuple(kept)
            assert len(dataset.skipped) == len(counts) - len(kept)
            for sample in dataset.__getitems__(range(len(dataset))):
                assert sample['image'].shape == (periods, seasons, 1, SIZE, SIZE)
                different = len(set(sample['dates'].flatten().tolist()))
                assert replacement or different == periods * seasons
