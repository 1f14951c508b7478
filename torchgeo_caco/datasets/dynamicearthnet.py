"""DynamicEarthNet: monthly land cover on Planet images."""

import hashlib
import os
import shutil
import subprocess
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import rasterio
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from rasterio.errors import RasterioIOError
from rasterio.windows import Window
from torch import Tensor
from torchgeo.datasets import DatasetNotFoundError, NonGeoDataset
from torchgeo.datasets.utils import extract_archive

from .lists import read_lines
from .oscd import tile_corners

#: Class of pixels that have no label.
UNLABELLED = 255

#: Archives whose sums were right: path, size, time and sum. Splits share them.
_COMPARED: set[tuple[Path, int, int, str]] = set()


class DynamicEarthNet(NonGeoDataset):
    """Planet Fusion images of 75 places with a land-cover label for each month of two years.

    A sample is a tile of the image of the first of a month with that month's label. Images have
    4 bands at 3 m and 1024 x 1024 pixels, reflectance times 10,000.

    Layout, as published: lists ``dynnet_training_splits/{train,val,test}.txt``, on each line the
    folder of the daily images, the label's file and the month, separated by blanks::

        /planet/.../PF-SR /labels/.../Raster/.../...-2018-01-01.tif 2018-01

    with ``YYYY-MM-DD.tif`` in the folder (bands blue, green, red, near infrared) and one channel
    for each class in the label, 255 where the class is. Lists of other splits can be given; the
    one of 55 and 10 places in the CACo paper has not been published.

    The archives are hundreds of gigabytes; ``download=True`` fetches them with rsync, which
    resumes, and unpacks them. Archives that lie there are unpacked without it, too, if files that
    the list names are missing. The lists lie elsewhere (https://github.com/aysim/dynnet says
    where), and without them nothing large is fetched.

    If you use this dataset in your research, please cite the following paper:

    * https://arxiv.org/abs/2203.12560
    """

    url = 'rsync://m1650201@dataserv.ub.tum.de/m1650201/'
    #: Published with the address, for whoever wants to read.
    password = 'm1650201'
    #: The archive's own list of SHA-512 sums.
    sums = 'checksums.sha512'

    all_bands: tuple[str, ...] = ('B2', 'B3', 'B4', 'B8')
    rgb_bands: tuple[str, ...] = ('B4', 'B3', 'B2')
    classes: ClassVar[tuple[str, ...]] = (
        'impervious surface', 'agriculture', 'forest and other vegetation', 'wetlands', 'soil',
        'water', 'snow and ice',
    )  # fmt: skip
    colours: ClassVar[tuple[str, ...]] = (
        '#606060', '#cccc00', '#00cc00', '#0000cc', '#996600', '#66b2ff', '#ffffff',
    )  # fmt: skip

    def __init__(
        self,
        root: str | Path = 'data',
        split: str = 'train',
        bands: Sequence[str] = rgb_bands,
        tile: int | None = None,
        num_classes: int = 7,
        lists: dict[str, str] | None = None,
        transforms: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        download: bool = False,
        checksum: bool = False,
    ) -> None:
        """Initialize a new DynamicEarthNet instance.

        Args:
            root: Folder of lists, images and labels.
            split: Name of a list.
            bands: Bands of :attr:`all_bands`, in the order wanted.
            tile: Pixels a side of the tiles that an image is cut into; None: whole images.
            num_classes: 7, or 6 to leave out snow and ice, as the authors' own code does.
            lists: A file for each split that is not where it is looked for.
            transforms: Applied to each sample.
            download: Whether to fetch what is not there.
            checksum: Whether to compare the archives that lie there with the published SHA-512
                sums; each once in a process, for it takes a while.

        Raises:
            DatasetNotFoundError: If there is no list and *download* is False.
            FileNotFoundError: If files that the list names are neither there nor in archives, or
                there is no list to fetch.
            ValueError: If a line, a band or the number of classes is not as described, or an
                archive is damaged.
        """
        unknown = [band for band in bands if band not in self.all_bands]
        if unknown:
            raise ValueError(
                f'{unknown[0]} is no band of DynamicEarthNet: {", ".join(self.all_bands)}.'
            )
        if num_classes not in (6, 7):
            raise ValueError(
                f'num_classes must be 7, or 6 without snow and ice, not {num_classes}.'
            )
        self.root, self.split, self.bands, self.tile = Path(root), split, tuple(bands), tile
        self.num_classes, self.transforms = num_classes, transforms
        self.download, self.checksum = download, checksum
        given = (lists or {}).get(split)
        default = self.root / 'dynnet_training_splits' / f'{split}.txt'
        self.list = Path(given) if given else default
        self.entries = self._provide()
        self.tiles = self._cut()

    def __len__(self) -> int:
        """Number of tiles."""
        return len(self.tiles)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """A tile.

        Args:
            index: Its number.

        Returns:
            ``image`` (C, H, W), float32; ``mask`` (H, W), int64: a class, or 255 without label.

        Raises:
            ValueError: If a file cannot be read or has other channels.
        """
        number, row, column = self.tiles[index]
        image_path, label_path = self.entries[number]
        window = None if self.tile is None else Window(column, row, self.tile, self.tile)
        image = _read(image_path, window, len(self.all_bands))
        label = _read(label_path, window, len(self.classes))
        order = [self.all_bands.index(band) for band in self.bands]
        mask = np.where((label == 255).any(0), (label == 255).argmax(0), UNLABELLED)
        mask[mask == self.num_classes] = UNLABELLED
        sample = {
            'image': torch.from_numpy(image[order].astype(np.float32)),
            'mask': torch.from_numpy(mask.astype(np.int64)),
        }
        return sample if self.transforms is None else self.transforms(sample)

    def _provide(self) -> list[tuple[Path, Path]]:
        """Image and label of each month; fetched, compared and unpacked where that is needed."""
        if not self.list.is_file():
            self._fetch_list()
        entries = self._read_list()
        missing, fetched = _missing(entries), False
        if missing and self.download:
            self._rsync()
            fetched = True
        archives = sorted(self.root.glob('*.zip'))
        if self.checksum and (fetched or archives):
            verify_sums(self.root, self.sums)
        if missing:
            for archive in archives:
                _unpack(archive, self.root)
            missing = _missing(entries)
        if missing:
            raise FileNotFoundError(
                f'{len(missing)} files of {self.list} are not there, first {missing[0]}; expected '
                f'them, or the archives that hold them in {self.root}.'
            )
        return entries

    def _fetch_list(self) -> None:
        """See whether the lists came to be published with the data, before all of it is fetched."""
        if not self.download:
            raise DatasetNotFoundError(self)
        self._rsync('--max-size=1m')
        if not self.list.is_file():
            raise FileNotFoundError(
                f'{self.list} is not there, and nothing large was fetched: the lists have to be '
                'fetched separately; https://github.com/aysim/dynnet says where they lie.'
            )

    def _rsync(self, *options: str) -> None:
        """Fetch what is not there yet."""
        if shutil.which('rsync') is None:
            raise FileNotFoundError(
                'DynamicEarthNet is published by rsync, and there is no program of that name; '
                f'install it, or fetch {self.url} (password {self.password}) by other means.'
            )
        self.root.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, 'RSYNC_PASSWORD': self.password}
        command = ['rsync', '--recursive', '--partial', '--times', self.url, f'{self.root}/']
        if subprocess.run([*command, *options], env=environment, check=False).returncode:
            raise ConnectionError(f'{self.url} could not be fetched into {self.root}.')

    def _read_list(self) -> list[tuple[Path, Path]]:
        """Paths of image and label of each month."""
        entries = []
        for number, line in enumerate(read_lines(self.list), 1):
            if not line.strip():
                continue
            parts = line.split()
            if len(parts) != 3:
                raise ValueError(
                    f'{self.list}, line {number}: expected the folder of images, the label and the '
                    f'month, found {line!r}.'
                )
            folder, label, month = parts
            image = self.root / folder.lstrip('/') / f'{month}-01.tif'
            entries.append((image, self.root / label.lstrip('/')))
        if not entries:
            raise FileNotFoundError(f'{self.list} is empty.')
        return entries

    def _cut(self) -> list[tuple[int, int, int]]:
        """Number of the entry, row and column of each tile."""
        if self.tile is None:
            return [(number, 0, 0) for number in range(len(self.entries))]
        tiles = []
        for number, (path, _) in enumerate(self.entries):
            with rasterio.open(path) as file:
                height, width = file.shape
            if height % self.tile or width % self.tile:
                raise ValueError(
                    f'{path} has {height} x {width} pixels, of which tiles of {self.tile} do not '
                    'make a whole.'
                )
            tiles += [(number, *corner) for corner in tile_corners(height, width, self.tile)]
        return tiles

    def plot(
        self, sample: dict[str, Any], show_titles: bool = True, suptitle: str | None = None
    ) -> Figure:
        """Plot a tile: image, label and, if there is one, the prediction.

        Args:
            sample: A sample; ``image`` as reflectance times 10,000 or in [0, 1].
            show_titles: Whether to name the panels.
            suptitle: A further title.

        Returns:
            The figure.
        """
        order = [self.bands.index(b) for b in self.rgb_bands if b in self.bands] or [0]
        image: Tensor = sample['image'][order[:3] if len(order) == 3 else [0, 0, 0]]
        image = image / 3000 if image.max() > 20 else image
        panels = [('image', image.permute(1, 2, 0).clamp(0, 1))]
        panels += [(key, sample[key].squeeze()) for key in ('mask', 'prediction') if key in sample]
        figure = Figure(figsize=(4 * len(panels), 4.3), layout='constrained')
        FigureCanvasAgg(figure)
        colours = ListedColormap(list(self.colours))
        for axis, (name, panel) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
        ):
            shown = (
                np.ma.masked_equal(panel.numpy(), UNLABELLED) if name != 'image' else panel.numpy()
            )
            axis.imshow(shown, cmap=colours, vmin=-0.5, vmax=6.5, interpolation='none')
            axis.axis('off')
            if show_titles:
                axis.set_title(name)
        if suptitle is not None:
            figure.suptitle(suptitle)
        return figure


def verify_sums(root: Path, name: str) -> None:
    """Compare files with a list of SHA-512 sums.

    Args:
        root: Folder of the files and the list.
        name: The list: sum and name on each line.

    Raises:
        FileNotFoundError: If the list is not there.
        ValueError: If a file that is there has another sum.
    """
    path = root / name
    if not path.is_file():
        raise FileNotFoundError(f'{path} is not there; expected the published SHA-512 sums.')
    for line in path.read_text().splitlines():
        expected, _, file = line.strip().partition(' ')
        target = root / file.strip().lstrip('*./')
        if not target.is_file():
            continue
        facts = target.stat()
        known = (target.resolve(), facts.st_size, facts.st_mtime_ns, expected)
        if known in _COMPARED:
            continue
        with target.open('rb') as opened:
            if hashlib.file_digest(opened, 'sha512').hexdigest() != expected:
                raise ValueError(f'{target} is damaged: its SHA-512 sum is not that in {path}.')
        _COMPARED.add(known)


def _missing(entries: list[tuple[Path, Path]]) -> list[Path]:
    return [path for entry in entries for path in entry if not path.is_file()]


def _unpack(archive: Path, root: Path) -> None:
    try:
        extract_archive(archive, root)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(
            f'{archive} cannot be unpacked: {error}; expected a whole zip archive.'
        ) from None


def _read(path: Path, window: Window | None, channels: int) -> Any:
    try:
        with rasterio.open(path) as file:
            values = file.read(window=window)
    except RasterioIOError as error:
        raise ValueError(f'{path} cannot be read as a GeoTIFF: {error}') from None
    if len(values) != channels:
        raise ValueError(f'{path} has {len(values)} channels; expected {channels}.')
    return values
