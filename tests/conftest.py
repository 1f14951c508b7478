"""Tiny simulated data for all tests."""

from pathlib import Path

import pytest

from torchgeo_caco.datasets import SimulatedLandscapes


@pytest.fixture(scope='session')
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed store of 12 simulated places, 24 px."""
    root = tmp_path_factory.mktemp('tiny') / 'store'
    return SimulatedLandscapes(12, 24, changed_fraction=0.5).write(root)
