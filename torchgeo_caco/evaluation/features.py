"""Features of a frozen encoder."""

from collections.abc import Iterator, Sized
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, Dataset, default_collate
from tqdm import tqdm

from .data import file_name

BatchNorm = Literal['eval', 'adapt']


class Split(NamedTuple):
    """Features and labels of a split.

    Attributes:
        x: Features, shape (N, F), float32.
        y: Classes, shape (N,), or zeros and ones, shape (N, L).
    """

    x: NDArray[np.float32]
    y: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> 'Split':
        """Some of the rows."""
        return Split(self.x[rows], self.y[rows])


class _Checked(Dataset[Any]):
    """Samples whose images have the size of the first one; an error stands for one that is bad.

    A worker's exception would come with its traceback as text, a returned one is the sentence.
    """

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset
        self.shape = tuple(dataset[0]['image'].shape)

    def __len__(self) -> int:
        return len(cast(Sized, self.dataset))

    def __getitem__(self, index: int) -> Any:
        try:
            sample = self.dataset[index]
        except (ValueError, OSError) as error:
            return error
        shape = tuple(sample['image'].shape)
        if shape == self.shape:
            return sample
        found, wanted = (' x '.join(str(n) for n in each) for each in (shape, self.shape))
        return ValueError(
            f'{file_name(self.dataset, index)} has {found} values (channels, height, width); '
            f'{wanted}, as {file_name(self.dataset, 0)} has, were expected.'
        )


def _collate(samples: list[Any]) -> Any:
    """A batch, or its first error."""
    errors = (sample for sample in samples if isinstance(sample, Exception))
    return next(errors, None) or default_collate(samples)


def _batches(loader: DataLoader[Any]) -> Iterator[Any]:
    for batch in loader:
        if isinstance(batch, Exception):
            raise batch
        yield batch


def loader(dataset: Dataset[Any], batch_size: int, workers: int) -> DataLoader[Any]:
    """The images in their order; a batch is an exception if one of them is bad."""
    return DataLoader(_Checked(dataset), batch_size, num_workers=workers, collate_fn=_collate)


@torch.inference_mode()
def extract(
    model: nn.Module,
    dataset: Dataset[Any],
    normalise: nn.Module,
    batch_size: int = 128,
    workers: int = 0,
    device: str = 'cpu',
    label: str = 'features',
) -> Split:
    """Features of all images, in evaluation mode.

    Args:
        model: A timm model without classifier.
        dataset: Samples with ``image`` (C, H, W) and ``label``.
        normalise: From the images to the model's input.
        batch_size: Images at a time; changes nothing but speed.
        workers: Processes that read.
        device: Where the model runs.
        label: What the progress bar says; there is one on terminals only.

    Returns:
        Features and labels in the data set's order.

    Raises:
        ValueError: If an image cannot be read or has another size than the first one, or features
            are not finite.
    """
    _place(model.eval(), normalise, device)
    features, labels = [], []
    images = loader(dataset, batch_size, workers)
    for batch in tqdm(_batches(images), label, len(images), leave=False, disable=None):
        features.append(model(_input(batch['image'].to(device), normalise)).float().cpu())
        labels.append(batch['label'])
    x = torch.cat(features).numpy()
    if not np.isfinite(x).all():
        raise ValueError('the features are not finite: the weights do not fit the normalisation.')
    return Split(x, torch.cat(labels).numpy().astype(np.int64))


def adapt_batch_norm(
    model: nn.Module,
    dataset: Dataset[Any],
    normalise: nn.Module,
    batch_size: int = 128,
    workers: int = 0,
    device: str = 'cpu',
) -> None:
    """Replace BatchNorm's running statistics by those of a data set.

    A frozen encoder whose BatchNorm stays in train mode, as in the published EuroSAT and OSCD
    evaluations, sees the statistics of the batch. This is the same without dependence on the batch:
    it is done once, with all training images, and no labels.

    Args:
        model: The model, changed in place.
        dataset: The training images.
        normalise: From the images to the model's input.
        batch_size: Images at a time.
        workers: Processes that read.
        device: Where the model runs.
    """
    _place(model, normalise, device)
    batches = _batches(loader(dataset, batch_size, workers))
    update_bn((_input(b['image'].to(device), normalise) for b in batches), model)
    model.eval()


def _place(model: nn.Module, normalise: nn.Module, device: str) -> None:
    model.to(device)
    model.to(memory_format=torch.channels_last)
    normalise.to(device)


def _input(image: Tensor, normalise: nn.Module) -> Tensor:
    value: Tensor = normalise(image)
    return value.contiguous(memory_format=torch.channels_last)
