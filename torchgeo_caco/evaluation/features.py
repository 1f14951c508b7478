"""Features of a frozen encoder."""

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

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


def loader(dataset: Dataset[Any], batch_size: int, workers: int) -> DataLoader[Any]:
    """The images in their order."""
    return DataLoader(dataset, batch_size, num_workers=workers)


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
        ValueError: If features are not finite.
    """
    _place(model.eval(), normalise, device)
    features, labels = [], []
    for batch in tqdm(loader(dataset, batch_size, workers), label, leave=False, disable=None):
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
    batches = loader(dataset, batch_size, workers)
    update_bn((_input(b['image'].to(device), normalise) for b in batches), model)
    model.eval()


def _place(model: nn.Module, normalise: nn.Module, device: str) -> None:
    model.to(device)
    model.to(memory_format=torch.channels_last)
    normalise.to(device)


def _input(image: Tensor, normalise: nn.Module) -> Tensor:
    value: Tensor = normalise(image)
    return value.contiguous(memory_format=torch.channels_last)
