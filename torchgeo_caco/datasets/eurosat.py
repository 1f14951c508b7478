"""EuroSAT as RGB pictures, with the lists that the published evaluations use."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchgeo.datasets import NonGeoDataset

from .lists import read_lines

#: Folders in which the published archives keep the classes.
FOLDERS = ('', 'EuroSAT_RGB', '2750')


class EuroSATRGB(NonGeoDataset):
    """The JPEG form of EuroSAT: 27,000 Sentinel-2 pictures of 64 x 64 pixels in ten classes.

    Layout: ``<root>/<Class>/<Class>_N.jpg`` and a list of names for each split,
    ``<root>/train.txt`` or ``<root>/eurosat-train.txt``. The class is the name's part before the
    last underscore; the classes are the folders. Lists of the 13-band form (``.tif``) are taken
    as well. Neither archive nor lists are downloaded: https://github.com/phelber/EuroSAT has the
    pictures; the lists are those of https://arxiv.org/abs/1911.06721.

    If you use this dataset in your research, please cite the following paper:

    * https://ieeexplore.ieee.org/document/8736785
    """

    bands = ('B4', 'B3', 'B2')

    def __init__(
        self,
        root: str | Path = 'data',
        split: str = 'train',
        lists: dict[str, str] | None = None,
        transforms: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        """Initialize a new EuroSATRGB instance.

        Args:
            root: Folder of the class folders.
            split: Name of the split.
            lists: A file for each split that is not where it is looked for.
            transforms: Applied to each sample.

        Raises:
            FileNotFoundError: If there is no folder of classes, no list, or a picture is missing.
            ValueError: If a list is empty or names a class that has no folder.
        """
        self.root, self.split, self.transforms = Path(root), split, transforms
        self.folder = _class_folder(self.root)
        self.classes = sorted(path.name for path in self.folder.iterdir() if path.is_dir())
        self.list = find_list(self.root, split, lists)
        names = [line.strip() for line in read_lines(self.list) if line.strip()]
        if not names:
            raise ValueError(f'{self.list} is empty; expected a file name on each line.')
        self.files, self.labels = [], []
        for name in names:
            stem = Path(name).stem
            label = stem.rpartition('_')[0]
            if label not in self.classes:
                raise ValueError(
                    f'{self.list}: the class of {name!r} is not one of the folders in '
                    f'{self.folder}: {", ".join(self.classes)}.'
                )
            self.files.append(self.folder / label / f'{stem}.jpg')
            self.labels.append(self.classes.index(label))

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """A picture and its class.

        Args:
            index: Number of the picture.

        Returns:
            ``image`` (3, H, W), uint8, red, green, blue; ``label`` (), int64.

        Raises:
            FileNotFoundError: If the file is not there.
            ValueError: If it cannot be read.
        """
        path = self.files[index]
        try:
            with Image.open(path) as file:
                pixels = np.array(file.convert('RGB'))
        except FileNotFoundError:
            raise FileNotFoundError(f'{path} is not there, but {self.list} names it.') from None
        except (UnidentifiedImageError, OSError) as error:
            raise ValueError(f'{path} cannot be read as a picture: {error}') from None
        image: Tensor = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
        sample = {'image': image, 'label': torch.tensor(self.labels[index])}
        return sample if self.transforms is None else self.transforms(sample)

    def plot(
        self, sample: dict[str, Any], show_titles: bool = True, suptitle: str | None = None
    ) -> Figure:
        """Plot a sample.

        Args:
            sample: A sample; ``image`` as bytes or in [0, 1].
            show_titles: Whether to show the class.
            suptitle: A further title.

        Returns:
            The figure.
        """
        figure = Figure(figsize=(3, 3.3), layout='constrained')
        FigureCanvasAgg(figure)
        axis = figure.add_subplot()
        image = sample['image']
        image = image.clamp(0, 1) if image.is_floating_point() else image
        axis.imshow(image.permute(1, 2, 0).numpy())
        axis.axis('off')
        if show_titles:
            title = self.classes[int(sample['label'])]
            if 'prediction' in sample:
                title += f'\nprediction: {self.classes[int(sample["prediction"])]}'
            axis.set_title(title, fontsize=9)
        if suptitle is not None:
            figure.suptitle(suptitle)
        return figure


def find_list(root: Path, split: str, lists: dict[str, str] | None = None) -> Path:
    """The file that lists a split.

    Args:
        root: Folder of the data.
        split: Name of the split.
        lists: Files that the user gave.

    Returns:
        Its path.

    Raises:
        FileNotFoundError: If there is none.
    """
    if lists and split in lists:
        path = Path(lists[split])
        if not path.is_file():
            raise FileNotFoundError(f'{path}, given as the list of split {split!r}, is not there.')
        return path
    for name in (f'{split}.txt', f'eurosat-{split}.txt'):
        if (root / name).is_file():
            return root / name
    raise FileNotFoundError(
        f'{root} has no list of split {split!r}: expected {split}.txt or eurosat-{split}.txt with '
        'a file name on each line.'
    )


def _class_folder(root: Path) -> Path:
    for name in FOLDERS:
        folder = root / name
        if folder.is_dir() and any(folder.glob('*/*_*.jpg')):
            return folder
    raise FileNotFoundError(
        f'{root} is not EuroSAT in RGB: expected <Class>/<Class>_N.jpg, such as '
        'Forest/Forest_1.jpg.'
    )
