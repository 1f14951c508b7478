"""A U-Net over the difference of two images' features."""

from typing import Any

import torch
from torch import Tensor, nn


class DifferenceUNet(nn.Module):
    """Change between two images from |f1 - f2| of a ResNet's five stages.

    As in the published evaluations on OSCD (SeCo's ``segmentation.py``): features after the first
    convolution and after the four stages; the decoder doubles the deepest difference by nearest
    neighbour, convolves it, joins the next shallower difference, and so on.
    """

    def __init__(self, encoder: nn.Module, classes: int = 1, dropout: float = 0.3) -> None:
        """Initialize a new DifferenceUNet instance.

        Args:
            encoder: A ResNet of timm.
            classes: Logits a pixel.
            dropout: Dropout of whole channels after each stage of the decoder.

        Raises:
            ValueError: If the encoder is no ResNet.
        """
        super().__init__()
        if not all(hasattr(encoder, name) for name in ('conv1', 'bn1', 'maxpool', 'layer4')):
            raise ValueError(
                f'the change head needs a ResNet, whose stages it knows, not a '
                f'{type(encoder).__name__}.'
            )
        self.encoder = encoder
        widths = _widths(encoder)
        self.stages = nn.ModuleList(
            _Stage(deep, shallow, dropout)
            for deep, shallow in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.last = nn.Sequential(
            nn.Upsample(scale_factor=2, mode='nearest'), nn.Conv2d(widths[0], classes, 1)
        )

    def features(self, image: Tensor) -> list[Tensor]:
        """Features of five stages, the shallowest first.

        Args:
            image: Shape (B, C, H, W).

        Returns:
            Tensors at a half to a thirty-second of the size.
        """
        encoder: Any = self.encoder
        first = encoder.conv1(image)
        x = encoder.maxpool(encoder.act1(encoder.bn1(first)))
        found = [first]
        for name in ('layer1', 'layer2', 'layer3', 'layer4'):
            x = getattr(encoder, name)(x)
            found.append(x)
        return found

    def forward(self, pair: Tensor) -> Tensor:
        """Logits of change.

        Args:
            pair: Two images, shape (B, 2, C, H, W), H and W multiples of 32.

        Returns:
            Shape (B, classes, H, W).
        """
        one, two = (self.features(pair[:, i]) for i in range(2))
        differences = [(a - b).abs() for a, b in zip(one, two, strict=True)]
        x = differences.pop()
        for stage, skip in zip(self.stages, reversed(differences), strict=True):
            x = stage(x, skip)
        logits: Tensor = self.last(x)
        return logits


class _Stage(nn.Module):
    """Double, convolve, join the shallower difference, convolve."""

    def __init__(self, deep: int, shallow: int, dropout: float) -> None:
        super().__init__()
        self.up = nn.Sequential(
            nn.Upsample(scale_factor=2, mode='nearest'), nn.Conv2d(deep, shallow, 3, padding=1)
        )
        self.join = nn.Sequential(
            nn.Conv2d(2 * shallow, shallow, 3, padding=1, bias=False),
            nn.BatchNorm2d(shallow),
            nn.ReLU(),
            nn.Dropout2d(dropout),
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        joined: Tensor = self.join(torch.cat((self.up(x), skip), 1))
        return joined


def _widths(encoder: Any) -> list[int]:
    """Channels of the five stages, the shallowest first."""
    return [encoder.bn1.num_features, *(info['num_chs'] for info in encoder.feature_info[1:])]
