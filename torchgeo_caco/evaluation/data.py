"""Labelled data sets that features are scored on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rasterio.errors import RasterioIOError
from torch.utils.data import Dataset
from torchgeo.datasets import BigEarthNet, DatasetNotFoundError, EuroSAT

from ..datasets.bigearthnet import MEAN_DEVIATION_STRETCH, BigEarthNetRGB
from ..datasets.eurosat import EuroSATRGB, find_list
from ..transforms.downstream import Units


class EvaluationData(NamedTuple):
    """A labelled data set in its splits.

    Samples have ``image`` (C, H, W) in the data set's units and ``label``: () a class, or (L,)
    zeros and ones.

    Attributes:
        name: Kind of data set, a key of :data:`DATASETS`.
        root: Its folder.
        train: Images whose labels may be learned from.
        val: Images to choose the regularisation with; None: a part of *train* is held out.
        test: Images that are scored.
        classes: Names of the classes.
        multilabel: Whether an image may have several.
        bands: Names of the channels.
        quantiles: The data set's own stretch, two values for each channel.
        units: Of the values.
        eight_bits: Whether its own stretch truncates to 256 values.
        tested: Which split is scored, in words.
        size: Pixels a side to which images are resized, if at all.
        label: Its name in tables and files if it is not the only one of its kind.
    """

    name: str
    root: str
    train: Dataset[Any]
    val: Dataset[Any] | None
    test: Dataset[Any]
    classes: Sequence[str]
    multilabel: bool
    bands: Sequence[str]
    quantiles: Sequence[Sequence[float]]
    units: Units
    eight_bits: bool
    tested: str
    size: int | None = None
    label: str = ''

    @property
    def title(self) -> str:
        """Its name in tables and files."""
        return self.label or self.name


def label_all(data: Sequence[EvaluationData]) -> list[EvaluationData]:
    """Tell data sets of one kind apart by the ends of their paths.

    Args:
        data: Data sets in different folders.

    Returns:
        The same, those whose kind comes more than once with a label such as ``eurosat:part/a``.
    """
    labelled = []
    for each in data:
        parts = Path(each.root).resolve().parts
        others = [
            Path(other.root).resolve().parts
            for other in data
            if other.name == each.name and other is not each
        ]
        # As few folders as no other one ends with.
        lengths = (n for n in range(1, len(parts)) if all(o[-n:] != parts[-n:] for o in others))
        folder = '/'.join(parts[-next(lengths, len(parts) - 1) :])
        labelled.append(each._replace(label=f'{each.name}:{folder}') if others else each)
    return labelled


class EuroSATBands(EuroSAT):
    """TorchGeo's EuroSAT, which says which file cannot be read."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        """A sample as TorchGeo gives it.

        Args:
            index: Its number.

        Returns:
            ``image`` (13, H, W), float32, and ``label``.

        Raises:
            ValueError: If the file cannot be read or has fewer bands.
        """
        path = self.samples[index][0]
        try:
            return super().__getitem__(index)
        except RasterioIOError as error:
            raise ValueError(f'{path} cannot be read as a GeoTIFF: {error}') from None
        except IndexError:
            expected = len(self.all_band_names)
            raise ValueError(f'{path} has too few bands; expected {expected}.') from None


def file_name(dataset: Any, index: int) -> str:
    """What a sample was read from, for a sentence about it.

    Args:
        dataset: A data set of an :class:`EvaluationData`.
        index: Number of the sample.

    Returns:
        Its file or folder; just the number of a data set that does not say.
    """
    if isinstance(dataset, EuroSATRGB):
        return str(dataset.files[index])
    if isinstance(dataset, EuroSAT):
        return str(dataset.samples[index][0])
    if isinstance(dataset, BigEarthNetRGB):
        return str(dataset.folders[index]['s2'])
    return f'image {index}'


def _eurosat_rgb(root: str) -> EvaluationData:
    """Without a list of a test split ``val`` is scored, as the published evaluations do."""
    try:
        find_list(Path(root), 'test')
        val, test = EuroSATRGB(root, 'val'), EuroSATRGB(root, 'test')
    except FileNotFoundError:
        val, test = None, EuroSATRGB(root, 'val')
    train = EuroSATRGB(root, 'train')
    return EvaluationData(
        'eurosat_rgb', root, train, val, test, train.classes, False, train.bands,
        [[0, 255]] * 3, 'picture', False, test.split,
    )  # fmt: skip


def _eurosat(root: str) -> EvaluationData:
    train, val = EuroSATBands(root, 'train'), EuroSATBands(root, 'val')
    test = EuroSATBands(root, 'test')
    bands = EuroSAT.all_band_names
    return EvaluationData(
        'eurosat', root, train, val, test, train.classes, False, bands,
        [[0, 10000]] * len(bands), 'reflectance', False, 'test',
    )  # fmt: skip


def _bigearthnet(root: str) -> EvaluationData:
    train, val = BigEarthNetRGB(root, 'train'), BigEarthNetRGB(root, 'val')
    test = BigEarthNetRGB(root, 'test')
    return EvaluationData(
        'bigearthnet', root, train, val, test, BigEarthNet.class_sets[19], True,
        BigEarthNetRGB.bands_read, MEAN_DEVIATION_STRETCH, 'reflectance', True, 'test', 128,
    )  # fmt: skip


#: Kinds of data sets.
DATASETS = {'eurosat_rgb': _eurosat_rgb, 'eurosat': _eurosat, 'bigearthnet': _bigearthnet}


def open_data(text: str) -> EvaluationData:
    """Open ``KIND=FOLDER``, or a folder whose content tells its kind.

    Args:
        text: What the command line said.

    Returns:
        The data set.

    Raises:
        FileNotFoundError: If the folder is not there or holds something else.
        ValueError: If the kind is unknown or the data cannot be evaluated.
    """
    kind, separator, root = text.partition('=')
    if not separator:
        kind, root = find_kind(text), text
    if kind not in DATASETS:
        raise ValueError(f'{kind} is no kind of data set; expected one of {", ".join(DATASETS)}.')
    if not Path(root).is_dir():
        raise FileNotFoundError(f'{root} is not a folder; expected that of a {kind} data set.')
    try:
        return DATASETS[kind](root)
    except DatasetNotFoundError:
        raise FileNotFoundError(
            f'{root} is not a {kind} data set as TorchGeo lays it out.'
        ) from None


def find_kind(root: str) -> str:
    """The kind of a data set by what lies in its folder.

    Args:
        root: The folder.

    Returns:
        A key of :data:`DATASETS`.

    Raises:
        FileNotFoundError: If nothing is recognised.
    """
    path = Path(root)
    if (path / EuroSAT.base_dir).is_dir():
        return 'eurosat'
    if (path / BigEarthNet.metadata['s2']['directory']).is_dir():
        return 'bigearthnet'
    if path.is_dir() and any(
        (path / name).is_file() for name in ('train.txt', 'eurosat-train.txt')
    ):
        return 'eurosat_rgb'
    raise FileNotFoundError(
        f'{root} is not recognised as a data set; say which it is by KIND={root}, with KIND one of '
        f'{", ".join(DATASETS)}.'
    )
