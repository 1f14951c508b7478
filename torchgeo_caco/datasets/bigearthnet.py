"""BigEarthNet's red, green and blue, with any list of patches."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rasterio.errors import RasterioIOError
from torch import Tensor
from torchgeo.datasets import BigEarthNet

from .lists import read_lines

#: Mean minus and plus two standard deviations of bands 4, 3 and 2, which the published evaluations
#: of SeCo and CACo make 0 and 255.
MEAN_DEVIATION_STRETCH = tuple(
    (mean - 2 * std, mean + 2 * std)
    for mean, std in ((590.24, 675.89), (614.22, 582.88), (429.94, 572.42))
)


class BigEarthNetRGB(BigEarthNet):
    """Bands 4, 3 and 2 of the Sentinel-2 patches of BigEarthNet v1, which TorchGeo cannot choose.

    Nineteen classes. Splits are TorchGeo's lists, or lists of the user: a patch name on each line
    (what follows a comma is left out), such as those that the published evaluations use
    (``bigearthnet-{train,val,test}.txt`` of Google's *remote_sensing_representations*, without the
    patches that BigEarthNet lists as covered by snow, cloud or cloud shadow).
    """

    bands_read = ('B04', 'B03', 'B02')

    def __init__(
        self,
        root: str | Path = 'data',
        split: Literal['train', 'val', 'test'] = 'train',
        lists: dict[str, str] | None = None,
        exclude: Sequence[str] = (),
        transforms: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        """Initialize a new BigEarthNetRGB instance.

        Args:
            root: Folder of ``BigEarthNet-v1.0`` and, without lists of the user, of TorchGeo's.
            split: ``'train'``, ``'val'`` or ``'test'``.
            lists: A file for each split.
            exclude: Files with names of patches to leave out.
            transforms: Applied to each sample.

        Raises:
            FileNotFoundError: If patches or lists are not there.
            ValueError: If nothing is left.
        """
        self.lists = {key: Path(value) for key, value in (lists or {}).items()}
        self.exclude = [Path(path) for path in exclude]
        super().__init__(root, split, 's2', 19, transforms, checksum=False)

    def _verify(self) -> None:
        """Look for the patches, and for TorchGeo's lists where the user gave none."""
        folder = Path(self.root) / self.metadata['s2']['directory']
        if not folder.is_dir():
            raise FileNotFoundError(
                f'{folder} is not there; expected a folder for each patch of BigEarthNet v1.'
            )
        listed = self.lists.get(self.split)
        path = listed or Path(self.root) / self.splits_metadata[self.split]['filename']
        for file in (path, *self.exclude):
            if not file.is_file():
                raise FileNotFoundError(f'{file} is not there; expected a list of patch names.')
        self.list = path

    def _load_folders(self) -> list[dict[str, str]]:
        dropped = {name for file in self.exclude for name in _names(file)}
        folder = Path(self.root) / self.metadata['s2']['directory']
        names = [name for name in _names(self.list) if name not in dropped]
        if not names:
            raise ValueError(f'{self.list} leaves no patch for split {self.split!r}.')
        return [{'s2': str(folder / name)} for name in names]

    def _load_image(self, index: int) -> Tensor:
        folder = Path(self.folders[index]['s2'])
        channels = []
        for band in self.bands_read:
            path = folder / f'{folder.name}_{band}.tif'
            try:
                with rasterio.open(path) as file:
                    channels.append(file.read(1, out_dtype='int32'))
            except RasterioIOError as error:
                raise ValueError(f'{path} cannot be read as a GeoTIFF: {error}') from None
        sizes = {channel.shape for channel in channels}
        if len(sizes) > 1:
            raise ValueError(
                f'{folder} has bands of different sizes ({", ".join(self.bands_read)}: '
                f'{", ".join(f"{h} x {w}" for h, w in (c.shape for c in channels))} pixels); '
                'expected one size.'
            )
        return torch.from_numpy(np.stack(channels))

    def _load_target(self, index: int) -> Tensor:
        folder = Path(self.folders[index]['s2'])
        path = folder / f'{folder.name}_labels_metadata.json'
        if not path.is_file():
            raise FileNotFoundError(f'{path} is not there; expected the labels of the patch.')
        try:
            content = json.loads(path.read_text(encoding='utf-8'))
        except ValueError as error:
            raise ValueError(f'{path} cannot be read as JSON: {error}') from None
        labels = content.get('labels') if isinstance(content, dict) else None
        if not isinstance(labels, list):
            raise ValueError(f'{path} has no list of labels; expected {{"labels": [...]}}.')
        unknown = [label for label in labels if label not in [*self.class2idx]]
        if unknown:
            raise ValueError(f"{path}: {unknown[0]!r} is not one of BigEarthNet's classes.")
        return super()._load_target(index)

    def plot(
        self, sample: dict[str, Any], show_titles: bool = True, suptitle: str | None = None
    ) -> Figure:
        """Plot a sample.

        Args:
            sample: A sample; ``image`` as reflectance times 10,000 or in [0, 1].
            show_titles: Whether to show the labels.
            suptitle: A further title.

        Returns:
            The figure.
        """
        figure = Figure(figsize=(4, 4.4), layout='constrained')
        FigureCanvasAgg(figure)
        axis = figure.add_subplot()
        image = sample['image']
        image = image if image.is_floating_point() else image / 2000
        axis.imshow(image.clamp(0, 1).permute(1, 2, 0).numpy())
        axis.axis('off')
        if show_titles:
            titles = [
                f'{word}{", ".join(self._onehot_labels_to_names(sample[key].numpy().astype(bool)))}'
                for key, word in (('label', ''), ('prediction', 'prediction: '))
                if key in sample
            ]
            axis.set_title('\n'.join(titles), fontsize=7)
        if suptitle is not None:
            figure.suptitle(suptitle)
        return figure


def _names(path: Path) -> list[str]:
    lines = (line.partition(',')[0].strip() for line in read_lines(path))
    return [line for line in lines if line]
