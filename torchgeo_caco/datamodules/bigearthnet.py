"""BigEarthNet in RGB, as the published evaluations use it."""

from collections.abc import Sequence
from typing import Literal

from torch.utils.data import Subset
from torchvision.models._api import WeightsEnum

from ..datasets.bigearthnet import MEAN_DEVIATION_STRETCH, BigEarthNetRGB
from ..transforms.downstream import Normalization
from .downstream import DownstreamDataModule, subset_rows


class BigEarthNetRGBDataModule(DownstreamDataModule):
    """LightningDataModule of :class:`~torchgeo_caco.datasets.BigEarthNetRGB`.

    The published average precisions (SeCo, CACo) are those of the ``val`` list; images are
    stretched between two standard deviations to 8 bits and resized to 128 pixels.
    """

    quantiles = MEAN_DEVIATION_STRETCH
    units = 'reflectance'
    eight_bits = True

    def __init__(
        self,
        root: str = 'data',
        batch_size: int = 1024,
        num_workers: int = 0,
        normalization: Normalization = 'plain',
        weights: WeightsEnum | str | bool | None = None,
        fraction: float = 1.0,
        replacement: bool = True,
        size: int | None = 128,
        lists: dict[str, str] | None = None,
        exclude: Sequence[str] = (),
        test_split: Literal['train', 'val', 'test'] = 'val',
    ) -> None:
        """Initialize a new BigEarthNetRGBDataModule instance.

        Args:
            root: Folder of ``BigEarthNet-v1.0``.
            batch_size: Size of a batch.
            num_workers: Processes that read.
            normalization: ``'plain'`` (published) or ``'weights'``.
            weights: Whose input ``'weights'`` means; by default the task's weights.
            fraction: Part of the training images, such as 0.01, 0.1 or 1.
            replacement: Whether that part is drawn with replacement, as published.
            size: Pixels a side; None keeps 120.
            lists: A file of patch names for each split; TorchGeo's by default.
            exclude: Files with names of patches to leave out (snow, cloud and shadow).
            test_split: The split that ``torchgeo test`` scores; ``'val'`` is published.
        """
        super().__init__(
            BigEarthNetRGB, batch_size, num_workers, normalization, weights,
            root=root, lists=lists, exclude=tuple(exclude),
        )  # fmt: skip
        self.fraction, self.replacement, self.size = fraction, replacement, size
        self.test_split = test_split

    def setup(self, stage: str) -> None:
        """Open the splits.

        Args:
            stage: ``'fit'``, ``'validate'`` or ``'test'``.
        """
        if stage == 'test':
            self.test_dataset = BigEarthNetRGB(split=self.test_split, **self.kwargs)
            return
        super().setup(stage)
        if stage == 'fit':
            full = BigEarthNetRGB(split='train', **self.kwargs)
            rows = subset_rows(len(full), self.fraction, self.replacement)
            self.train_dataset = Subset(full, rows)
