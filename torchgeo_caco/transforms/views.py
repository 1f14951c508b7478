"""The four views of a location, as Kornia pipelines on the device (CACo, section 3.3)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import kornia.augmentation as K
import torch
from torch import Tensor, nn
from torchgeo.transforms import RandomGrayscale

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def statistics(
    channels: int, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of stretched bands.

    Args:
        channels: Number of channels C.
        mean: Means; by default ImageNet's for three channels and 0.5 for any other number.
        std: Standard deviations; by default ImageNet's or 0.25.

    Returns:
        Two tensors of shape (C,).

    Raises:
        ValueError: If their number is not C.
    """
    if mean is None:
        mean = IMAGENET_MEAN if channels == 3 else (0.5,) * channels
    if std is None:
        std = IMAGENET_STD if channels == 3 else (0.25,) * channels
    if len(mean) != channels or len(std) != channels:
        raise ValueError(f'mean and std need {channels} numbers, not {len(mean)} and {len(std)}')
    return torch.tensor(mean), torch.tensor(std)


def normalised_crop(
    size: int,
    channels: int = 3,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    scale: tuple[float, float] = (0.2, 1.0),
) -> nn.Module:
    """Random resized crop, then mean and standard deviation: what ends every view.

    Source: published code of SeCo and CACo (crop of 20 to 100 % of the area).

    Args:
        size: Height and width of the crop in pixels.
        channels: Number of channels C.
        mean: Means of the stretched bands; ImageNet's for RGB by default.
        std: Standard deviations of the stretched bands; ImageNet's for RGB by default.
        scale: Smallest and largest share of the area.

    Returns:
        A module from (B, C, H, W) in [0, 1] to (B, C, size, size).
    """
    return K.AugmentationSequential(
        K.RandomResizedCrop((size, size), scale=scale, cropping_mode='resample'),
        K.Normalize(*statistics(channels, mean, std)),
        data_keys=['input'],
    )


def _colour(
    channels: int, size: int, grayscale_weights: Tensor | None, rgb: bool | None
) -> list[Any]:
    """Jitter, grayscale and blur, with each image's own parameters."""
    if channels == 3 and rgb is not False:
        jitter: list[Any] = [K.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8)]
        gray: Any = K.RandomGrayscale(p=0.2)
    else:
        # Hue and saturation have no meaning beyond RGB.
        jitter = [
            K.RandomBrightness((0.6, 1.4), p=0.8),
            K.RandomContrast((0.6, 1.4), p=0.8),
        ]
        weights = torch.ones(channels) if grayscale_weights is None else grayscale_weights
        gray = RandomGrayscale(weights=weights, p=0.2)
    kernel = max(3, size // 10 // 2 * 2 + 1)
    # As strong for a small crop as for the 224 pixels that it was meant for.
    sigma = (0.1, max(0.2, 2.0 * size / 224))
    blur = K.RandomGaussianBlur((kernel, kernel), sigma=sigma, p=0.5)
    return [*jitter, gray, blur]


def artificial_augmentation(
    size: int,
    channels: int = 3,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    grayscale_weights: Tensor | None = None,
    scale: tuple[float, float] = (0.2, 1.0),
    rgb: bool | None = None,
) -> nn.Module:
    """Colour jitter, grayscale, blur and flip, then :func:`normalised_crop`.

    Source: published code of SeCo and CACo: jitter (0.4, 0.4, 0.4, 0.1) p 0.8, grayscale p 0.2,
    Gaussian blur with sigma from U(0.1, 2) p 0.5, horizontal flip p 0.5, in this order. The upper
    end of sigma is that for crops of 224 pixels; here it follows the size of the crop.
    For anything but RGB brightness and contrast take the place of hue and saturation, and
    grayscale is a weighted mean of the bands.

    Args:
        size: Height and width of the crop in pixels.
        channels: Number of channels C.
        mean: Means of the stretched bands; ImageNet's for RGB by default.
        std: Standard deviations of the stretched bands; ImageNet's for RGB by default.
        grayscale_weights: Weights of the bands, shape (C,), unless RGB; equal by default.
        scale: Smallest and largest share of the area that a crop keeps.
        rgb: Whether three channels are red, green and blue, in any order; by default they are.

    Returns:
        A module from (B, C, H, W) in [0, 1] to (B, C, size, size).
    """
    return nn.Sequential(
        K.AugmentationSequential(
            *_colour(channels, size, grayscale_weights, rgb),
            K.RandomHorizontalFlip(p=0.5),
            data_keys=['input'],
        ),
        normalised_crop(size, channels, mean, std, scale),
    )


def moco_view(
    size: int,
    channels: int = 3,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    grayscale_weights: Tensor | None = None,
    scale: tuple[float, float] = (0.2, 1.0),
    rgb: bool | None = None,
) -> nn.Module:
    """MoCo v2's augmentation: crop first, then colour, blur and flip, for both views.

    Colours and blur are those of :func:`artificial_augmentation`.

    Args:
        size: Height and width of the crop in pixels.
        channels: Number of channels C.
        mean: Means of the stretched bands; ImageNet's for RGB by default.
        std: Standard deviations of the stretched bands; ImageNet's for RGB by default.
        grayscale_weights: Weights of the bands, shape (C,), unless RGB; equal by default.
        scale: Smallest and largest share of the area that a crop keeps.
        rgb: Whether three channels are red, green and blue, in any order; by default they are.

    Returns:
        A module from (B, C, H, W) in [0, 1] to (B, C, size, size).
    """
    return K.AugmentationSequential(
        K.RandomResizedCrop((size, size), scale=scale, cropping_mode='resample'),
        *_colour(channels, size, grayscale_weights, rgb),
        K.RandomHorizontalFlip(p=0.5),
        K.Normalize(*statistics(channels, mean, std)),
        data_keys=['input'],
    )


class Views(NamedTuple):
    """What one step compares.

    Attributes:
        query: View q, shape (B, P, C, s, s).
        keys: Views k_0, k_1, ..., shape (V, B, P, C, s, s).
    """

    query: Tensor
    keys: Tensor


class SeasonalViews(nn.Module):
    """Make the views of a batch of locations from three dates d0, d1, d2 of each period.

    ==== ===== ============ ==========================
    view image augmented    differs from the query by
    ==== ===== ============ ==========================
    q    d0    no
    k0   d1    yes          season and augmentation
    k1   d2    no           season
    k2   d0    yes          augmentation
    ==== ===== ============ ==========================

    With one subspace (MoCo) both views, q of d0 and k0 of d1 (of d0 if there is one date), are
    augmented. Source: CACo section 3.3, dates as in the published code.
    """

    def __init__(self, plain: nn.Module, augmented: nn.Module, subspaces: int = 3) -> None:
        """Initialize a new SeasonalViews instance.

        Args:
            plain: What makes an unaugmented view: (N, C, H, W) in [0, 1] to (N, C, s, s).
            augmented: What makes an augmented view.
            subspaces: Number of subspaces, 1 or 3.
        """
        super().__init__()
        self.plain, self.augmented, self.subspaces = plain, augmented, subspaces

    @torch.no_grad()
    def forward(self, image: Tensor) -> Views:
        """Make the views.

        Args:
            image: Stretched images, shape (B, P, S, C, H, W), in [0, 1].

        Returns:
            The query and the keys.

        Raises:
            ValueError: If there are fewer dates S than the views need.
        """
        batch, periods, seasons = image.shape[:3]
        if self.subspaces == 3 and seasons < 3:
            raise ValueError(f'three subspaces need three dates a period, not {seasons}')

        def views(pipeline: nn.Module, *dates: int) -> Tensor:
            # All dates in one call: what a pipeline costs the host it costs once.
            images = torch.stack([image[:, :, date] for date in dates]).flatten(0, 2)
            return pipeline(images).unflatten(0, (len(dates), batch, periods))

        if self.subspaces == 1:
            query, key = views(self.augmented, 0, min(1, seasons - 1))
            return Views(query, key[None])
        query, season = views(self.plain, 0, 2)
        both, artificial = views(self.augmented, 1, 0)
        return Views(query, torch.stack([both, season, artificial]))
