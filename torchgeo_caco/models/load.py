"""Initial weights from wherever they come."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn
from torchgeo.models import get_weight
from torchvision.models._api import WeightsEnum

from .convert import Encoder, adapt_channels, first_convolution, read_encoder

logger = logging.getLogger(__name__)

RGB = ('B4', 'B3', 'B2')

#: What an enum's ``meta`` says of the input; TorchGeo's have the bands alone.
INPUT_KEYS = ('bands', 'scale', 'quantiles', 'mean', 'std')


def find_encoder(source: WeightsEnum | str | Path) -> Encoder:
    """The encoder that initial weights name.

    Args:
        source: A weights enum or its full name, ours or TorchGeo's; a checkpoint or state dict of
            any origin that :func:`~torchgeo_caco.models.read_encoder` knows; a timm model folder,
            also as ``local-dir:PATH``; or ``hf-hub:ORG/NAME``.

    Returns:
        The encoder.

    Raises:
        ValueError: If it is none of these.
    """
    if isinstance(source, WeightsEnum):
        return _from_enum(source)
    text = str(source)
    if text.startswith('hf-hub:'):
        return _from_hub(text)
    path = Path(text.removeprefix('local-dir:'))
    if path.exists() or text.startswith('local-dir:'):
        return read_encoder(path)
    try:
        weight = get_weight(text)
    except ValueError:
        raise ValueError(
            f'weights={text!r} is not known: expected the name of a weights enum (such as '
            f'CACoResNet18_Weights.SENTINEL2_RGB_CACO_1M), the path of a checkpoint or of a timm '
            f'model folder, local-dir:PATH, hf-hub:ORG/NAME, or true for ImageNet.'
        ) from None
    return _from_enum(weight)


def load_encoder(model: nn.Module, source: WeightsEnum | str | Path) -> None:
    """Copy an encoder's weights into a timm model; its classifier stays as it is.

    Where the numbers of input channels differ the first convolution is adapted: red, green and
    blue are picked by name if the model has three channels and the bands of the weights are known,
    else see :func:`~torchgeo_caco.models.convert.adapt_channels`.

    Args:
        model: A timm model, also with ``features_only``.
        source: As for :func:`find_encoder`.

    Raises:
        ValueError: If the weights are those of another architecture.
    """
    encoder = find_encoder(source)
    own, settings = model.state_dict(), getattr(model, 'pretrained_cfg', {})
    architecture = settings.get('architecture', type(model).__name__)
    state = {key: value for key, value in encoder.state.items() if key in own}
    name, channels = first_convolution(encoder.architecture, state)
    if name is not None and own[name].shape[1] != channels:
        wanted = int(own[name].shape[1])
        picked = _pick(encoder.described.get('bands'), wanted)
        logger.warning(
            'The weights have %d input channels and the model %d: its first layer %s.',
            channels,
            wanted,
            f'keeps bands {", ".join(RGB)}' if picked else 'repeats or averages them',
        )
        state[name] = adapt_channels(state[name], wanted, picked)
    wrong = [key for key, value in state.items() if value.shape != own[key].shape]
    heads = _heads(settings.get('classifier'))
    wrong += [key for key in own if key not in state and not key.startswith(heads)]
    # A model for features may leave out last stages; another architecture must not.
    unused = [key for key in encoder.state if key not in own]
    if wrong or (unused and architecture != encoder.architecture):
        raise ValueError(
            f'the weights {source} are those of a {encoder.architecture}, but the model is a '
            f'{architecture}: they do not fit at {(wrong or unused)[0]}.'
        )
    model.load_state_dict(state, strict=False)


def _pick(bands: Sequence[str] | None, wanted: int) -> list[int] | None:
    """Places of red, green and blue among the bands."""
    # Bands 4, 3 and 2 of Landsat 5 and 7 are near infrared, red and green; they have no band 8A.
    names = [band.upper() for band in bands or ()]
    if wanted != len(RGB) or not {*RGB, 'B8A'} <= set(names):
        return None
    return [names.index(band) for band in RGB]


def _from_enum(weight: WeightsEnum) -> Encoder:
    state = weight.get_state_dict(progress=True, check_hash=True, weights_only=True)
    name = str(weight.meta.get('model', ''))
    if not timm.is_model(name):
        raise ValueError(f'{weight} are not the weights of a timm model.')
    described = {key: weight.meta[key] for key in INPUT_KEYS if key in weight.meta}
    return Encoder(name, _without_classifier(state, name), described, {'source': str(weight)})


def _from_hub(name: str) -> Encoder:
    model: Any = timm.create_model(name, pretrained=True, num_classes=0)
    architecture = str(model.pretrained_cfg['architecture'])
    return Encoder(architecture, model.state_dict(), {}, {'source': name})


def _without_classifier(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    settings: Any = timm.get_pretrained_cfg(name)
    heads = _heads(settings.classifier)
    return {key: value for key, value in state.items() if not key.startswith(heads)}


def _heads(classifier: str | Sequence[str] | None) -> tuple[str, ...]:
    """What the names of a classifier's weights begin with."""
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier or ())
    return tuple(f'{name}.' for name in names)
