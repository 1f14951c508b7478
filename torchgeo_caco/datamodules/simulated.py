"""Simulated landscapes for pretraining without any data at hand."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..datasets import SimulatedLandscapes
from .seasonal import SeasonalTemporalDataModule


class SimulatedDataModule(SeasonalTemporalDataModule):
    """:class:`SeasonalTemporalDataModule` of a simulated store, written to *root* if not there."""

    imagery = 'simulated time series'

    def __init__(
        self,
        root: str = 'data/simulated',
        num_locations: int = 512,
        image_size: int = 64,
        changed_fraction_simulated: float = 0.25,
        simulation_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        """Initialize a new SimulatedDataModule instance.

        Args:
            root: Folder of the store; a finished one is used as it is.
            num_locations: Number of places.
            image_size: Height and width of the images in pixels.
            changed_fraction_simulated: Share of the places that change.
            simulation_seed: Seed of the landscapes.
            **kwargs: As for :class:`SeasonalTemporalDataModule`.
        """
        super().__init__(root=root, **kwargs)
        self.landscapes = SimulatedLandscapes(
            num_locations,
            image_size,
            self.bands,
            changed_fraction=changed_fraction_simulated,
            seed=simulation_seed,
        )

    def prepare_data(self) -> None:
        """Simulate, unless the store is there; nodes that share the disk may all do so at once.

        Raises:
            FileExistsError: If *root* holds something else.
        """
        root = Path(self.root)
        if (root / 'meta.json').is_file():
            return
        if root.exists() and any(root.iterdir()):
            raise FileExistsError(f'{root} holds files, but no finished store; it was left alone.')
        root.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f'{root.name}.partial-', dir=root.parent) as partial:
            written = self.landscapes.write(Path(partial) / 'store', progress=True)
            try:
                os.rename(written, root)
            except OSError:
                # Another node was the first.
                if not (root / 'meta.json').is_file():
                    raise
