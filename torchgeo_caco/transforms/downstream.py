"""What a downstream network is fed: plain values, or what its weights were trained on."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..stores import canonical_band
from .stretch import Stretch
from .views import statistics

Normalization = Literal['plain', 'weights']
Units = Literal['picture', 'reflectance']

#: Names of colours that some weights have for their bands.
COLOURS = {'red': 'B4', 'green': 'B3', 'blue': 'B2'}


class InputNormalization(nn.Module):
    """From a data set's values to a network's input.

    ``'plain'`` is what the published evaluations feed: the data set's own stretch to [0, 1],
    without mean and standard deviation. ``'weights'`` is what the weights were trained on: their
    own quantile stretch, then their mean and standard deviation. A picture (JPEG) has been
    stretched for display already, so that only mean and standard deviation are left to do. Of
    weights that say nothing of their input (random ones, ImageNet's, unknown files) ImageNet's are
    taken, after the data set's own stretch.

    Bands are put into the order of the weights under both.
    """

    mean: Tensor
    std: Tensor
    order: Tensor

    def __init__(
        self,
        which: Normalization,
        bands: Sequence[str],
        quantiles: Sequence[Sequence[float]],
        units: Units,
        described: Mapping[str, Any] | None = None,
        eight_bits: bool = False,
        size: int | None = None,
    ) -> None:
        """Initialize a new InputNormalization instance.

        Args:
            which: ``'plain'`` or ``'weights'``.
            bands: The data set's bands.
            quantiles: For each of them the values that the data set's own stretch makes 0 and 1.
            units: ``'picture'``, or ``'reflectance'`` (times 10,000).
            described: What is known of the weights' input, as in
                :class:`~torchgeo_caco.models.Encoder`.
            eight_bits: Whether the data set's own stretch truncates to 256 values, as the
                published evaluations on reflectance do.
            size: Pixels a side to which images are resized, if at all, between stretch and
                statistics; bicubic as Pillow does it.

        Raises:
            ValueError: If *which* is unknown or the weights need bands that the data have not.
        """
        super().__init__()
        if which not in ('plain', 'weights'):
            raise ValueError(f"normalization must be 'plain' or 'weights', not {which!r}.")
        described = dict(described or {})
        order = band_order(bands, described.get('bands'))
        stretch = [list(quantiles[i]) for i in order]
        own = which == 'weights' and units == 'reflectance' and bool(described.get('quantiles'))
        if own:
            factor = {'0-255': 10000 / 255, '0-1': 10000.0}.get(str(described.get('scale')), 1.0)
            stretch = [[v * factor for v in pair] for pair in described['quantiles']]
        given = described.get('mean'), described.get('std')
        mean, std = statistics(len(order), *given)
        if which == 'plain':
            mean, std = torch.zeros(len(order)), torch.ones(len(order))
        self.which, self.eight_bits, self.size = which, eight_bits and not own, size
        self.own_quantiles = own
        self.bands = [canonical_band(bands[i]) for i in order]
        told = described.get('statistics')
        self.source = str(told or _source(which, own, given[0] is not None))
        self.register_buffer('order', torch.tensor(order))
        self.register_buffer('mean', mean.float().view(-1, 1, 1))
        self.register_buffer('std', std.float().view(-1, 1, 1))
        self.stretch = Stretch(stretch, nodata=None)

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Normalise.

        Args:
            image: Shape (..., C, H, W) in the data set's units, any dtype.

        Returns:
            Shape (..., C', H', W'), float32.
        """
        value = self.stretch(image.index_select(-3, self.order)).image
        if self.eight_bits:
            value = (value * 255).floor() / 255
        if self.size is not None:
            sides, lead = (self.size, self.size), value.shape[:-3]
            flat = value.reshape(-1, *value.shape[-3:])
            resized = F.interpolate(flat, sides, mode='bicubic', antialias=True).clamp(0, 1)
            value = resized.reshape(*lead, *resized.shape[1:])
        return (value - self.mean) / self.std

    def describe(self) -> dict[str, Any]:
        """What was done, for a result."""
        return {
            'normalization': self.which,
            'statistics': self.source,
            'bands': self.bands,
            'own_quantiles': self.own_quantiles,
            'quantiles': torch.cat((self.stretch.low, self.stretch.high), 1).squeeze(-1).tolist(),
            'mean': self.mean.flatten().tolist(),
            'std': self.std.flatten().tolist(),
        }


def band_order(bands: Sequence[str], wanted: Sequence[str] | None) -> list[int]:
    """Where a data set has the bands of the weights.

    Args:
        bands: The data set's bands.
        wanted: The weights' bands; if unknown, the data set's order is kept.

    Returns:
        Positions in *bands*.

    Raises:
        ValueError: If one is not there.
    """
    if not wanted:
        return list(range(len(bands)))
    names = [canonical_band(band) for band in bands]
    canonical = [canonical_band(COLOURS.get(str(band).lower(), str(band))) for band in wanted]
    missing = [band for band in canonical if band not in names]
    if missing:
        raise ValueError(
            f'the weights were trained on bands {", ".join(canonical)}, but the data have only '
            f'{", ".join(names)}.'
        )
    return [names.index(band) for band in canonical]


def _source(which: str, own: bool, given: bool) -> str:
    """In words, whose numbers were used."""
    if which == 'plain':
        return "the data set's stretch to [0, 1]"
    first = "the weights' quantiles" if own else "the data set's stretch"
    second = "the weights' mean and std" if given else "ImageNet's mean and std"
    return f'{first}, {second}'
