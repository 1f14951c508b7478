"""EuroSAT in RGB, as the published evaluations use it."""

from torchvision.models._api import WeightsEnum

from ..datasets.eurosat import EuroSATRGB
from ..transforms.downstream import Normalization
from .downstream import DownstreamDataModule


class EuroSATRGBDataModule(DownstreamDataModule):
    """LightningDataModule of :class:`~torchgeo_caco.datasets.EuroSATRGB`.

    The published linear accuracies (SeCo, CACo) are those of the ``val`` list on plain pictures,
    neither resized nor normalised with ImageNet's statistics; both are the defaults here.
    """

    def __init__(
        self,
        root: str = 'data',
        batch_size: int = 32,
        num_workers: int = 0,
        normalization: Normalization = 'plain',
        weights: WeightsEnum | str | bool | None = None,
        lists: dict[str, str] | None = None,
        test_split: str = 'val',
    ) -> None:
        """Initialize a new EuroSATRGBDataModule instance.

        Args:
            root: Folder of the class folders and lists.
            batch_size: Size of a batch.
            num_workers: Processes that read.
            normalization: ``'plain'`` (published) or ``'weights'``.
            weights: Whose input ``'weights'`` means; by default the task's weights.
            lists: A file of names for each split that is not where it is looked for.
            test_split: The split that ``torchgeo test`` scores; ``'val'`` is published.
        """
        super().__init__(
            EuroSATRGB, batch_size, num_workers, normalization, weights, root=root, lists=lists
        )
        self.test_split = test_split

    def setup(self, stage: str) -> None:
        """Open the splits.

        Args:
            stage: ``'fit'``, ``'validate'`` or ``'test'``.
        """
        if stage == 'test':
            self.test_dataset = EuroSATRGB(split=self.test_split, **self.kwargs)
        else:
            super().setup(stage)
