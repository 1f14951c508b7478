"""The input of the published weights."""

from typing import Literal

import torch
from torch import Tensor, nn

from .stretch import PUBLISHED_QUANTILES, Stretch
from .views import IMAGENET_MEAN, IMAGENET_STD


class PublishedInput(nn.Module):
    """From red, green and blue values to what the published CACo and SeCo networks were trained on.

    Quantile stretch to [0, 1], clipped, then ImageNet's mean and standard deviation. Images keep
    their size: a pixel stays as many metres, and the networks take any size. TorchGeo's
    transforms of its SeCo weights multiply by 255 in between and are of no use here.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, scale: Literal['0-255', 'reflectance'] = '0-255') -> None:
        """Initialize a new PublishedInput instance.

        Args:
            scale: Units of the images: reflectance mapped to 0-255, as in the published data sets,
                or reflectance times 10,000.

        Raises:
            ValueError: If the scale is another.
        """
        super().__init__()
        if scale not in ('0-255', 'reflectance'):
            raise ValueError(f"scale must be '0-255' or 'reflectance', not {scale!r}.")
        factor = 1.0 if scale == '0-255' else 10000 / 255
        quantiles = [[v * factor for v in pair] for pair in PUBLISHED_QUANTILES.values()]
        self.stretch = Stretch(quantiles, nodata=None)
        self.register_buffer('mean', torch.tensor(IMAGENET_MEAN).view(-1, 1, 1))
        self.register_buffer('std', torch.tensor(IMAGENET_STD).view(-1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Stretch and normalise.

        Args:
            image: Bands B4, B3, B2; shape (..., 3, H, W), any dtype.

        Returns:
            Shape (..., 3, H, W), float32.

        Raises:
            ValueError: If there are not three bands.
        """
        if image.ndim < 3 or image.shape[-3] != 3:
            raise ValueError(
                f'expected red, green and blue, shape (..., 3, H, W), not {tuple(image.shape)}.'
            )
        return (self.stretch(image).image - self.mean) / self.std
