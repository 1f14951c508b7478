"""From a store's integers to floats in [0, 1], nodata filled."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

#: 2 % and 98 % quantiles of the 0-255 imagery, as the published code of SeCo and CACo uses them.
PUBLISHED_QUANTILES: dict[str, tuple[float, float]] = {
    'B4': (0, 129),
    'B3': (2, 103),
    'B2': (3, 88),
}


class Stretched(NamedTuple):
    """Images in [0, 1] and how much of each shows the ground.

    Attributes:
        image: Shape (..., C, H, W), float32.
        valid: Share of pixels with data, shape (...), float32.
    """

    image: Tensor
    valid: Tensor


class Stretch(nn.Module):
    """Stretch each band linearly between two quantiles, clip, fill nodata.

    A pixel is nodata if all its bands equal *nodata* or are NaN. It is filled with the mean of its
    image's other pixels, so that neither an encoder nor a distance sees the hole's own value.

    Source: quantiles and clipping as in the published code (SeCo and CACo), without its
    truncation to 8 bits.
    """

    low: Tensor
    high: Tensor

    def __init__(self, quantiles: Sequence[Sequence[float]], nodata: float | None = 0) -> None:
        """Initialize a new Stretch instance.

        Args:
            quantiles: For each band the values that become 0 and 1, shape (C, 2).
            nodata: Value that marks nodata, or None.

        Raises:
            ValueError: If a band's upper value is not above its lower value.
        """
        super().__init__()
        low, high = torch.tensor(quantiles, dtype=torch.float32).unbind(-1)
        if not bool((high > low).all()):
            raise ValueError(f'each upper quantile must lie above its lower one: {quantiles}')
        self.register_buffer('low', low.view(-1, 1, 1))
        self.register_buffer('high', high.view(-1, 1, 1))
        self.nodata = nodata

    @torch.no_grad()
    def forward(self, image: Tensor) -> Stretched:
        """Stretch a batch of images.

        Args:
            image: Shape (..., C, H, W), any dtype, in the store's units.

        Returns:
            The stretched images and their valid shares.
        """
        value = image.to(torch.float32)
        stretched = ((value - self.low) / (self.high - self.low)).clamp(0, 1)
        empty = value.isnan()
        if self.nodata is not None:
            empty |= value == self.nodata
        data = ~empty.all(-3, keepdim=True)
        # A band that alone has no value there is filled as the whole pixel is.
        known = data & ~stretched.isnan()
        count = data.sum((-2, -1), keepdim=True)
        total = torch.where(known, stretched, 0).sum((-2, -1), keepdim=True)
        mean = total / known.sum((-2, -1), keepdim=True).clamp(min=1)
        pixels = image.shape[-1] * image.shape[-2]
        return Stretched(torch.where(known, stretched, mean), count[..., 0, 0, 0] / pixels)
