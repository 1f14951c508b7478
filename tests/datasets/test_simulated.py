"""Simulated landscapes and their truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchgeo_caco.datasets import CHANGES, CLASSES, SimulatedLandscapes, load_truth
from torchgeo_caco.datasets.scenery import BANDS
from torchgeo_caco.stores import open_store


def test_a_place_depends_on_seed_and_number_alone():
    few, many = SimulatedLandscapes(3, 24), SimulatedLandscapes(30, 24)
    for i in range(3):
        assert np.array_equal(few[i].images, many[i].images)
    assert not np.array_equal(few[0].images, SimulatedLandscapes(3, 24, seed=1)[0].images)
    with pytest.raises(IndexError):
        few[3]


def test_truth_is_consistent():
    places = list(SimulatedLandscapes(60, 24, changed_fraction=0.5))
    assert 15 < sum(p.changed for p in places) < 45
    for place in places:
        before, after = place.class_maps
        assert np.array_equal(before != after, place.mask)
        assert place.changed == place.mask.any() == (place.kind in CHANGES)
        assert (place.kind == '') != place.changed
        for layout, label in zip(place.class_maps, place.labels, strict=True):
            assert (
                np.bincount(layout.ravel(), minlength=len(CLASSES))[label]
                == np.bincount(layout.ravel()).max()
            )
        assert place.images.min() >= 1
        assert (np.diff(place.dates).astype(int) > 0).all()
        for part in (place.dates[:5], place.dates[5:]):
            assert (part[-1] - part[0]).astype(int) < 365
    assert not any(p.changed for p in SimulatedLandscapes(20, 24, changed_fraction=0))


@settings(deadline=None, max_examples=15)
@given(
    st.lists(st.sampled_from(BANDS), min_size=1, max_size=13, unique=True),
    st.integers(16, 40),
    st.integers(1, 12),
)
def test_any_bands_sizes_and_dates(bands, size, dates):
    place = SimulatedLandscapes(1, size, bands, dates)[0]
    assert place.images.shape == (2 * dates, len(bands), size, size)
    assert place.images.dtype == np.uint16
    # A band is the same whatever others there are.
    assert len(np.unique(place.dates)) == 2 * dates


@pytest.mark.parametrize('layout', ['packed', 'folder'])
def test_written_through_a_store(layout, tmp_path):
    places = SimulatedLandscapes(3, 20, ('B8', 'B4'))
    root = places.write(tmp_path / 'store', layout)
    store, truth = open_store(root), load_truth(root)
    assert list(store.names) == truth.names.tolist() == [p.name for p in places]
    for i, place in enumerate(places):
        assert store.dates(i).tolist() == place.dates.tolist()
        assert np.array_equal(store.read(i, range(10), ('B8', 'B4')), place.images)
        assert np.array_equal(truth.masks[i], place.mask)
    with pytest.raises(FileExistsError):
        places.write(root, layout)


def test_wrong_arguments(tmp_path):
    with pytest.raises(ValueError, match='unknown bands B14'):
        SimulatedLandscapes(bands=('B4', 'B14'))
    with pytest.raises(ValueError, match='size >= 16'):
        SimulatedLandscapes(size=8)
    with pytest.raises(FileNotFoundError, match='truth'):
        load_truth(tmp_path)
