"""OSCD's cities in tiles."""

from collections.abc import Callable, Sequence
from itertools import product
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

IMAGES = 'Onera Satellite Change Detection dataset - Images'
LABELS = 'Onera Satellite Change Detection dataset - {} Labels'

#: Values of bands 4, 3 and 2 that the published evaluations make 0 and 255.
OSCD_QUANTILES = ((426, 3698), (667, 2969), (885, 2620))


def tile_corners(height: int, width: int, size: int) -> list[tuple[int, int]]:
    """Upper left corners of the tiles that cover an image once, row by row.

    Args:
        height: Height of the image.
        width: Width of the image.
        size: Pixels a side of a tile, and from tile to tile.

    Returns:
        Rows and columns; tiles at the lower and right border reach over it.
    """
    return list(product(range(0, height, size), range(0, width, size)))


class OSCDTiles(NonGeoDataset):
    """All tiles of OSCD's cities, two dates and the mask, as the published evaluations cut them.

    TorchGeo's ``OSCD`` gives whole cities, its datamodule a random crop of each. Here a city is cut
    by a fixed grid; at the border tiles are filled with zeros and the mask with "no change", as
    Pillow's crop does in the published code, and ``valid`` says which pixels are real.
    Archives are TorchGeo's (``torchgeo.datasets.OSCD(root, download=True)``).

    If you use this dataset in your research, please cite the following paper:

    * https://doi.org/10.1109/IGARSS.2018.8518015
    """

    bands = ('B04', 'B03', 'B02')

    def __init__(
        self,
        root: str | Path = 'data',
        split: str = 'train',
        cities: Sequence[str] | None = None,
        size: int = 96,
        rectified: bool = False,
        augment: bool = False,
        transforms: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        """Initialize a new OSCDTiles instance.

        Args:
            root: Folder of TorchGeo's OSCD.
            split: ``'train'`` or ``'test'``: whose labels to take.
            cities: Names of cities; by default those that ``train.txt`` or ``test.txt`` lists.
            size: Pixels a side of a tile.
            rectified: Whether to read ``imgs_1_rect`` and ``imgs_2_rect``, which are registered
                to each other, in the place of the published ``imgs_1`` and ``imgs_2``.
            augment: Whether to flip and turn tiles at random, as published for training.
            transforms: Applied to each sample.

        Raises:
            FileNotFoundError: If a city, an image or its labels are not there.
            ValueError: If an image cannot be read or there are no cities.
        """
        self.root, self.split, self.size = Path(root), split, size
        self.augment, self.transforms, self.rectified = augment, transforms, rectified
        self.cities = list(cities) if cities is not None else listed_cities(self.root, split)
        if not self.cities:
            raise ValueError(f'no cities of OSCD in split {split!r} of {self.root}.')
        self.images: list[Tensor] = []
        self.masks: list[Tensor] = []
        self.tiles: list[tuple[int, int, int]] = []
        for number, city in enumerate(self.cities):
            mask = self._mask(city)
            self.masks.append(mask)
            self.images.append(self._pair(city, mask.shape))
            corners = tile_corners(mask.shape[0], mask.shape[1], size)
            self.tiles += [(number, row, column) for row, column in corners]

    def __len__(self) -> int:
        """Number of tiles."""
        return len(self.tiles)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """A tile.

        Args:
            index: Its number; cities follow each other, tiles of a city go row by row.

        Returns:
            ``image`` (2, 3, size, size), float32, Sentinel-2 values of red, green and blue;
            ``mask`` (1, size, size), int64, 1 is change; ``valid`` (1, size, size), bool.
        """
        number, row, column = self.tiles[index]
        image, mask = self.images[number], self.masks[number]
        valid = torch.ones_like(mask, dtype=torch.bool)
        window = (slice(row, row + self.size), slice(column, column + self.size))
        sample = {
            'image': self._fill(image[..., *window]).float(),
            'mask': self._fill(mask[window]).long().unsqueeze(0),
            'valid': self._fill(valid[window]).unsqueeze(0),
        }
        if self.augment:
            turns, flip = int(torch.randint(4, ())), bool(torch.rand(()) < 0.5)
            for key, value in sample.items():
                turned = torch.rot90(value, turns, (-2, -1))
                sample[key] = (turned.flip(-1) if flip else turned).contiguous()
        return sample if self.transforms is None else self.transforms(sample)

    def _fill(self, part: Tensor) -> Tensor:
        height, width = part.shape[-2:]
        return torch.nn.functional.pad(part, (0, self.size - width, 0, self.size - height))

    def _mask(self, city: str) -> Tensor:
        for split in (self.split, 'train', 'test'):
            path = self.root / LABELS.format(split.capitalize()) / city / 'cm' / 'cm.png'
            if path.is_file():
                return torch.from_numpy(_read(path, 'L') > 0).to(torch.uint8)
        raise FileNotFoundError(
            f'{self.root} has no labels of {city!r}: expected '
            f'{LABELS.format(self.split.capitalize())}/{city}/cm/cm.png.'
        )

    def _pair(self, city: str, shape: Sequence[int]) -> Tensor:
        """Both dates on the mask's grid, shape (2, 3, H, W), uint16 values as int32."""
        pair = []
        for date in (1, 2):
            name = f'imgs_{date}_rect' if self.rectified else f'imgs_{date}'
            folder = self.root / IMAGES / city / name
            channels = [_read(_band(folder, band)) for band in self.bands]
            image = torch.from_numpy(np.stack(channels).astype(np.int32))
            image = image[:, : shape[0], : shape[1]]
            missing = shape[1] - image.shape[2], shape[0] - image.shape[1]
            pair.append(torch.nn.functional.pad(image, (0, missing[0], 0, missing[1])))
        return torch.stack(pair)

    def plot(
        self, sample: dict[str, Any], show_titles: bool = True, suptitle: str | None = None
    ) -> Figure:
        """Plot a tile: both dates, the mask and, if there is one, the prediction.

        Args:
            sample: A sample; ``image`` in Sentinel-2 values or in [0, 1].
            show_titles: Whether to name the panels.
            suptitle: A further title.

        Returns:
            The figure.
        """
        image = sample['image']
        image = image / 3000 if image.max() > 20 else image
        panels = [(image[i].permute(1, 2, 0).clamp(0, 1), f'date {i + 1}') for i in range(2)]
        names = ('mask', 'prediction')
        panels += [(sample[key].squeeze(0), key) for key in names if key in sample]
        figure = Figure(figsize=(3 * len(panels), 3.3), layout='constrained')
        FigureCanvasAgg(figure)
        for axis, (panel, name) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
        ):
            axis.imshow(panel.numpy(), cmap='gray', vmin=0, vmax=1, interpolation='none')
            axis.axis('off')
            if show_titles:
                axis.set_title(name)
        if suptitle is not None:
            figure.suptitle(suptitle)
        return figure


def listed_cities(root: str | Path, split: str) -> list[str]:
    """Cities of a split in the order of the published list.

    Args:
        root: Folder of TorchGeo's OSCD.
        split: ``'train'`` or ``'test'``.

    Returns:
        Names.

    Raises:
        FileNotFoundError: If there is no list.
    """
    path = Path(root) / IMAGES / f'{split}.txt'
    if not path.is_file():
        raise FileNotFoundError(f'{path} is not there; expected names of cities, with commas.')
    names = ','.join(read_lines(path)).split(',')
    return [name.strip() for name in names if name.strip()]


def _band(folder: Path, band: str) -> Path:
    """The file of a band: ``B04.tif``, or a product's name that ends so."""
    found = sorted(folder.glob(f'*{band}.tif'))
    if not found:
        other = 'rectified=False' if folder.name.endswith('_rect') else 'rectified=True'
        raise FileNotFoundError(
            f'{folder} has no {band}.tif; the other set of images is read with {other}.'
        )
    return found[0]


def _read(path: Path, mode: str | None = None) -> Any:
    try:
        with Image.open(path) as file:
            return np.array(file if mode is None else file.convert(mode))
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f'{path} cannot be read as an image: {error}') from None
