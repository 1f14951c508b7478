"""The encoders that are compared."""

import logging
from pathlib import Path
from typing import Any

import timm
import torch

from ..models import Encoder, find_encoder

logger = logging.getLogger(__name__)

#: Weights that a word names; they know no bands.
GENERIC = ('random', 'imagenet')


def split_name(text: str) -> tuple[str, str]:
    """Split ``NAME=WEIGHTS`` into the name in tables and the weights; both are equal without it."""
    name, separator, source = text.partition('=')
    return (name, source) if separator and name and '/' not in name else (text, text)


def resolve_weights(source: str, architecture: str = 'resnet18', seed: int = 0) -> Encoder:
    """The encoder that a word on the command line means.

    Args:
        source: ``random``, ``imagenet``, either with ``:ARCHITECTURE``, or what
            :func:`~torchgeo_caco.models.find_encoder` takes.
        architecture: Architecture of ``random`` and ``imagenet`` if they name none.
        seed: Seed of random weights.

    Returns:
        The encoder.

    Raises:
        ValueError: If there is no such architecture or no such weights.
        ConnectionError: If ImageNet's weights are neither there nor to be had.
    """
    word, _, given = source.partition(':')
    if word not in GENERIC:
        return find_encoder(source)
    name = given or architecture
    if not timm.is_model(name):
        raise ValueError(f'weights={source!r}: {name} is not the name of a timm model.')
    # timm's names of weights add a tag, such as resnet18.tv_in1k.
    about, plain = {'source': source}, name.partition('.')[0]
    if word == 'random':
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = timm.create_model(name, num_classes=0)
        return Encoder(plain, model.state_dict(), {}, about)
    try:
        model = timm.create_model(name, pretrained=True, num_classes=0)
    # The hub's client has an exception of its own for each way in which a download fails.
    except Exception as error:
        logger.debug('download of ImageNet weights', exc_info=error)
        raise ConnectionError(
            f"ImageNet weights of {name} are neither in Hugging Face's cache nor to be downloaded "
            f'({type(error).__name__}).'
        ) from None
    settings: Any = model.pretrained_cfg
    described = {'mean': list(settings['mean']), 'std': list(settings['std'])}
    tag = f'{plain}.{settings.get("tag")}'
    return Encoder(plain, model.state_dict(), described, about | {'timm': tag})


def is_generic(encoder: Encoder) -> bool:
    """Whether an encoder is what :func:`resolve_weights` makes of ``random`` or ``imagenet``."""
    return str(encoder.about.get('source')).partition(':')[0] in GENERIC


def common_architecture(encoders: list[Encoder], fallback: str = 'resnet18') -> str:
    """The architecture that given weights share, which random ones should have as well."""
    names = {encoder.architecture for encoder in encoders}
    return names.pop() if len(names) == 1 else fallback


def file_of(source: str) -> Path | None:
    """The file whose bytes identify the weights, if there is one."""
    path = Path(source.removeprefix('local-dir:'))
    path = path / 'model.safetensors' if path.is_dir() else path
    return path if path.is_file() else None
