"""DynamicEarthNet for segmentation."""

from collections.abc import Sequence

from torchvision.models._api import WeightsEnum

from ..datasets.dynamicearthnet import DynamicEarthNet
from ..transforms.downstream import Normalization
from .downstream import DownstreamDataModule

#: Mean and standard deviation of each band in the authors' code.
STATISTICS = {
    'B4': (1042.59, 957.96),
    'B3': (915.62, 715.55),
    'B2': (671.26, 596.94),
    'B8': (2605.21, 1059.90),
}


class DynamicEarthNetDataModule(DownstreamDataModule):
    """LightningDataModule of :class:`~torchgeo_caco.datasets.DynamicEarthNet`.

    Every tile of a split is seen once. ``'plain'`` stretches between two standard deviations.
    """

    units = 'reflectance'
    samples = 'tiles'

    def __init__(
        self,
        root: str = 'data',
        batch_size: int = 8,
        num_workers: int = 0,
        normalization: Normalization = 'plain',
        weights: WeightsEnum | str | bool | None = None,
        bands: Sequence[str] = DynamicEarthNet.rgb_bands,
        tile: int | None = 512,
        num_classes: int = 7,
        lists: dict[str, str] | None = None,
        test_split: str = 'test',
        download: bool = False,
        checksum: bool = False,
    ) -> None:
        """Initialize a new DynamicEarthNetDataModule instance.

        Args:
            root: Folder of lists, images and labels.
            batch_size: Tiles in a batch.
            num_workers: Processes that read.
            normalization: ``'plain'`` or ``'weights'``.
            weights: Whose input ``'weights'`` means; by default the task's weights.
            bands: Bands to read; near infrared is ``B8``.
            tile: Pixels a side of the tiles; None: whole images.
            num_classes: 7, or 6 without snow and ice.
            lists: A file for each split that is not where it is looked for.
            test_split: The split that ``torchgeo test`` scores.
            download: Whether to fetch what is not there.
            checksum: Whether to compare the archives that lie there with the published sums.
        """
        super().__init__(
            DynamicEarthNet, batch_size, num_workers, normalization, weights,
            root=root, bands=tuple(bands), tile=tile, num_classes=num_classes, lists=lists,
            download=download, checksum=checksum,
        )  # fmt: skip
        self.test_split = test_split
        known = [STATISTICS[band] for band in bands if band in STATISTICS]
        self.channels = tuple(bands)
        self.quantiles = tuple((mean - 2 * std, mean + 2 * std) for mean, std in known)

    def setup(self, stage: str) -> None:
        """Open the splits.

        Args:
            stage: ``'fit'``, ``'validate'`` or ``'test'``.
        """
        if stage == 'test':
            self.test_dataset = DynamicEarthNet(split=self.test_split, **self.kwargs)
        else:
            super().setup(stage)
