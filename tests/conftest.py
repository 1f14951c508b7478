"""Tiny simulated data for all tests."""

import sys
from pathlib import Path

import pytest

from torchgeo_caco.datasets import SimulatedLandscapes


def pytest_sessionstart() -> None:
    """Hide pytest's own arguments, about which Lightning's command line would warn."""
    sys.argv = sys.argv[:1]


@pytest.fixture(scope='session')
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed store of 12 simulated places, 24 px."""
    root = tmp_path_factory.mktemp('tiny') / 'store'
    return SimulatedLandscapes(12, 24, changed_fraction=0.5).write(root)
