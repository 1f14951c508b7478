"""Our weights, and anybody's, in torchgeo-bench (the extra ``bench``)."""

from typing import Any

import torch
from torch import Tensor
from torchgeo_bench.datasets.base import BandSpec
from torchgeo_bench.models._input_units import InputUnit, detect_input_unit
from torchgeo_bench.models.interface import BenchModel

from .evaluation.weights import resolve_weights
from .models.convert import first_convolution
from .transforms.downstream import COLOURS, InputNormalization, Normalization


class EncoderBench(BenchModel):
    """An encoder that is fed what its weights were trained on.

    torchgeo-bench hands over raw values with their bands: Sentinel-2 numbers, reflectance in
    [0, 1], or pictures in 0-255. They are brought to the units of the weights, stretched by the
    quantiles of the weights and normalised by their mean and standard deviation; of weights that
    say nothing of their input, by the bands' own range and ImageNet's statistics.
    """

    def __init__(
        self,
        bands: list[BandSpec],
        weights: str = 'random',
        architecture: str = 'resnet18',
        input: Normalization = 'weights',
        seed: int | None = 0,
        **kwargs: Any,
    ) -> None:
        """Initialize a new EncoderBench instance.

        Args:
            bands: The data set's bands, in order.
            weights: ``random``, ``imagenet``, a checkpoint, a model folder or the name of a weights
                enum, such as ``CACoResNet18_Weights.SENTINEL2_RGB_CACO_1M``.
            architecture: Architecture of ``random`` and ``imagenet``.
            input: ``'weights'``, or ``'plain'`` for the bands' range alone.
            seed: Seed of random weights.
            **kwargs: What else torchgeo-bench passes; its own normalisation is not used.

        Raises:
            ValueError: If the data lack bands that the weights need.
        """
        super().__init__(bands, normalization='identity')
        encoder = resolve_weights(weights, architecture, seed or 0)
        self.unit = detect_input_unit(bands)
        factor = 10000.0 if self.unit is InputUnit.REFLECTANCE_0_1 else 1.0
        self.factor = factor
        self.normalise = InputNormalization(
            input,
            [band_name(band) for band in bands],
            [_range(band, factor) for band in bands],
            'picture' if self.unit is InputUnit.UINT8 else 'reflectance',
            encoder.described,
        )
        channels = first_convolution(encoder.architecture, encoder.state)[1]
        if channels != len(self.normalise.bands):
            raise ValueError(
                f'{weights} has {channels} input channels, the data set gives '
                f'{len(self.normalise.bands)}: {", ".join(self.normalise.bands)}.'
            )
        self.backbone = encoder.build()

    def normalize_inputs(self, images: Tensor) -> Tensor:
        """Bring raw values to what the weights were trained on.

        Args:
            images: Shape (B, C, H, W), as the data set gives them.

        Returns:
            Shape (B, C', H, W).
        """
        normalised: Tensor = self.normalise(images * self.factor)
        return normalised

    def _forward_patch_features(self, images: Tensor) -> Tensor:
        """Pooled features, shape (B, K)."""
        with torch.no_grad():
            features: Tensor = self.backbone(images)
        return features


def band_name(band: BandSpec) -> str:
    """Our name of a band: ``B4`` for what torchgeo-bench calls ``red``."""
    return COLOURS.get(band.name, band.source_name)


def _range(band: BandSpec, factor: float) -> tuple[float, float]:
    """What becomes 0 and 1: two standard deviations around the mean, but not beyond the range."""
    low = max(band.min, band.mean - 2 * band.std)
    high = min(band.max, band.mean + 2 * band.std)
    return low * factor, high * factor
