"""OSCD in tiles, as the published evaluations use it."""

from collections.abc import Sequence

from torchvision.models._api import WeightsEnum

from ..datasets.oscd import OSCD_QUANTILES, OSCDTiles, listed_cities
from ..transforms.downstream import Normalization
from .downstream import DownstreamDataModule


class OSCDTilesDataModule(DownstreamDataModule):
    """LightningDataModule of :class:`~torchgeo_caco.datasets.OSCDTiles`.

    Training tiles come from the cities of ``train.txt``, validation and test tiles from those of
    ``test.txt``, as published. Every tile is scored. Without labels of the test cities (they are an
    archive of their own), ``val_cities`` holds some of the training cities out.
    """

    quantiles = OSCD_QUANTILES
    units = 'reflectance'
    eight_bits = True
    samples = 'tiles'

    def __init__(
        self,
        root: str = 'data',
        batch_size: int = 32,
        num_workers: int = 0,
        normalization: Normalization = 'plain',
        weights: WeightsEnum | str | bool | None = None,
        size: int = 96,
        rectified: bool = False,
        val_cities: Sequence[str] | None = None,
    ) -> None:
        """Initialize a new OSCDTilesDataModule instance.

        Args:
            root: Folder of TorchGeo's OSCD.
            batch_size: Tiles in a batch.
            num_workers: Processes that read.
            normalization: ``'plain'`` (published) or ``'weights'``.
            weights: Whose input ``'weights'`` means; by default the task's weights.
            size: Pixels a side of a tile, a multiple of 32.
            rectified: Whether to read the registered images, see the data set.
            val_cities: Training cities to score in the place of the test cities.
        """
        super().__init__(
            OSCDTiles, batch_size, num_workers, normalization, weights,
            root=root, size=size, rectified=rectified,
        )  # fmt: skip
        self.held_out = list(val_cities) if val_cities is not None else None

    def setup(self, stage: str) -> None:
        """Cut the cities.

        Args:
            stage: ``'fit'``, ``'validate'`` or ``'test'``.

        Raises:
            ValueError: If a city to be held out is none of the training cities, or too few tiles
                are left for a batch.
        """
        if stage == 'fit':
            self.train_dataset = self._train()
        if stage in ('fit', 'validate'):
            self.val_dataset = self._scored()
        if stage == 'test':
            self.test_dataset = self._scored()

    def _train(self) -> OSCDTiles:
        cities = None
        if self.held_out is not None:
            listed = listed_cities(self.kwargs['root'], 'train')
            unknown = set(self.held_out) - set(listed)
            if unknown:
                raise ValueError(
                    f'val_cities: {unknown.pop()!r} is none of the training cities: '
                    f'{", ".join(listed)}.'
                )
            cities = [city for city in listed if city not in self.held_out]
        dataset = OSCDTiles(split='train', cities=cities, augment=True, **self.kwargs)
        self.check_batch(dataset)
        return dataset

    def _scored(self) -> OSCDTiles:
        if self.held_out is not None:
            return OSCDTiles(split='train', cities=self.held_out, **self.kwargs)
        return OSCDTiles(split='test', **self.kwargs)
