"""The published CACo checkpoints as weights enums, as TorchGeo's own are."""

from typing import Any

import timm
from torch import Tensor, nn
from torchvision.models._api import Weights, WeightsEnum

from ..transforms import PublishedInput
from . import published
from .convert import read_encoder
from .download import cached
from .load import load_encoder

_transforms = PublishedInput()


def _weights(architecture: str, method: str, size: str) -> Weights:
    return Weights(
        url=f'{published.URL}{published.file_name(architecture, method, size)}.pth',
        transforms=_transforms,
        meta=published.meta(architecture, method, size),
    )


class CACoWeights(WeightsEnum):
    """Weights whose file has the names of an ``nn.Sequential``.

    ``transforms`` take images (..., 3, H, W) in the order red, green, blue on a 0-255 scale, as
    the published data sets have them: for reflectance times 10,000 use
    :class:`~torchgeo_caco.transforms.PublishedInput` with ``scale='reflectance'``.
    """

    def get_state_dict(
        self,
        progress: bool = True,
        check_hash: bool = True,
        weights_only: bool = True,
        model_dir: str | None = None,
        file_name: str | None = None,
    ) -> dict[str, Tensor]:
        """Download the file if need be and read it.

        Args:
            progress: Always shown, on terminals.
            check_hash: Always done: with the SHA-256 recorded at the first download, for none is
                published.
            weights_only: Always so: nothing in the file is executed.
            model_dir: Folder for the file; torch hub's ``checkpoints`` by default.
            file_name: Its name there.

        Returns:
            Weights under timm's names, without classifier.

        Raises:
            ConnectionError: If the file is neither there nor to be had.
            ValueError: If it is not what was recorded, or not such a checkpoint.
        """
        path = cached(self.url, model_dir, file_name)
        try:
            return read_encoder(path, self.meta['model']).state
        except ValueError as error:
            raise ValueError(
                f'{error} Delete it and {path.name}.sha256 to download it again.'
            ) from error


class CACoResNet18_Weights(CACoWeights):
    """ResNet-18 weights of CACo and the methods it was compared with, for timm's *resnet18*."""

    SENTINEL2_RGB_CACO_100K = _weights('resnet18', 'caco', '100k')
    SENTINEL2_RGB_SECO_100K = _weights('resnet18', 'seco', '100k')
    SENTINEL2_RGB_TECO_100K = _weights('resnet18', 'teco', '100k')
    SENTINEL2_RGB_MOCO_100K = _weights('resnet18', 'moco', '100k')
    SENTINEL2_RGB_CACO_1M = _weights('resnet18', 'caco', '1m')
    SENTINEL2_RGB_SECO_1M = _weights('resnet18', 'seco', '1m')


class CACoResNet50_Weights(CACoWeights):
    """ResNet-50 weights of CACo and the methods it was compared with, for timm's *resnet50*."""

    SENTINEL2_RGB_CACO_100K = _weights('resnet50', 'caco', '100k')
    SENTINEL2_RGB_SECO_100K = _weights('resnet50', 'seco', '100k')
    SENTINEL2_RGB_MOCO_100K = _weights('resnet50', 'moco', '100k')
    SENTINEL2_RGB_CACO_1M = _weights('resnet50', 'caco', '1m')
    SENTINEL2_RGB_SECO_1M = _weights('resnet50', 'seco', '1m')


def caco_resnet18(
    weights: CACoResNet18_Weights | str | None = None, *args: Any, **kwargs: Any
) -> nn.Module:
    """ResNet-18.

    If you use this model in your research, please cite the CACo paper (``weights.meta``).

    Args:
        weights: Pretrained weights, or their name.
        *args: Further arguments of :func:`timm.create_model`.
        **kwargs: Further arguments of :func:`timm.create_model`; with other ``in_chans`` than 3
            the first convolution is adapted as timm does.

    Returns:
        The model.
    """
    return _build('resnet18', CACoResNet18_Weights.verify(weights), *args, **kwargs)


def caco_resnet50(
    weights: CACoResNet50_Weights | str | None = None, *args: Any, **kwargs: Any
) -> nn.Module:
    """ResNet-50.

    If you use this model in your research, please cite the CACo paper (``weights.meta``).

    Args:
        weights: Pretrained weights, or their name.
        *args: Further arguments of :func:`timm.create_model`.
        **kwargs: Further arguments of :func:`timm.create_model`; with other ``in_chans`` than 3
            the first convolution is adapted as timm does.

    Returns:
        The model.
    """
    return _build('resnet50', CACoResNet50_Weights.verify(weights), *args, **kwargs)


def _build(name: str, weights: WeightsEnum | None, *args: Any, **kwargs: Any) -> nn.Module:
    model: nn.Module = timm.create_model(name, *args, **kwargs)
    if weights is not None:
        load_encoder(model, weights)
    return model
