"""The encoder in anybody's checkpoint, under timm's names."""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn

from .describe import describe_checkpoint, describe_file
from .size import kept_arguments, size_arguments
from .unpickle import read_checkpoint

#: Architectures that are recognised by their tensors. Nested ones are told apart by what is left.
RESNETS = (
    'resnet18', 'resnet34', 'resnet50', 'resnet101', 'resnet152',
    'wide_resnet50_2', 'wide_resnet101_2', 'resnext50_32x4d', 'resnext101_32x8d',
)  # fmt: skip

#: Children of torchvision's ResNet by their numbers in an nn.Sequential, as the published
#: checkpoints (CACo, SeCo) and lightly's examples have them.
CHILDREN = {'conv1': '0', 'bn1': '1', 'layer1': '4', 'layer2': '5', 'layer3': '6', 'layer4': '7'}

#: Parts of names of what follows the trained encoder or guides it.
FOLLOWERS = ('momentum', 'encoder_k', 'key_encoder', 'teacher', 'target', 'ema')


class Encoder(NamedTuple):
    """An encoder by itself.

    Attributes:
        architecture: Its timm name.
        state: Its weights under timm's names, without classifier.
        described: What is known of its input: ``bands``, ``scale``, ``quantiles``, ``mean``...
        about: What is known of its making, for the card: ``data``, ``method``...
        arguments: What ``timm.create_model`` needs for the size of its images, if anything.
    """

    architecture: str
    state: dict[str, Tensor]
    described: dict[str, Any]
    about: dict[str, Any]
    arguments: Mapping[str, Any] = {}

    def build(self) -> nn.Module:
        """The encoder as a timm model in eval mode."""
        channels = first_convolution(self.architecture, self.state)[1]
        model: nn.Module = timm.create_model(
            self.architecture, num_classes=0, in_chans=channels, **self.arguments
        )
        model.load_state_dict(self.state)
        return model.eval()


def read_encoder(path: str | Path, model: str | None = None, prefix: str | None = None) -> Encoder:
    """Find the encoder in a checkpoint, state dict or timm model folder.

    Known are the published CACo and SeCo files, GSSL's, those of TorchGeo, lightly, solo-learn and
    MoCo, torchvision's state dicts, and whatever else holds a ResNet, or *model*, under timm's or
    torchvision's names. Of several encoders the one that was trained is taken, not the one that
    follows it.

    Args:
        path: File, or folder.
        model: The timm name; by default as the checkpoint says, else a ResNet that fits.
        prefix: What stands before the encoder's names, should several be there.

    Returns:
        The encoder.

    Raises:
        FileNotFoundError: If there is nothing at *path*.
        ValueError: If no encoder is found, or more than one.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    checkpoint = read_checkpoint(path)
    state = _state_dict(checkpoint, path)
    named = checkpoint.get('hyper_parameters')
    given = model or (named.get('model') if isinstance(named, Mapping) else None)
    names = (_plain(given),) if isinstance(given, str) and known(given) else RESNETS
    if model and not known(model):
        raise ValueError(f'{model} is not the name of a timm model.')
    for name in names:
        arguments = _built_with(checkpoint, name)
        expected = shapes(name, arguments.get('img_size'))
        found = {p: s for p, s in _encoders(state, expected) if prefix in (None, p)}
        if found:
            described, about = describe_file(path)
            ours = describe_checkpoint(checkpoint)
            weights = _choose(found, path)
            return Encoder(name, weights, described | ours[0], about | ours[1], arguments)
    wanted = f'a {given}' if given else f'a ResNet ({", ".join(RESNETS)})'
    raise ValueError(
        f'{path} holds no encoder that is recognised: expected the weights of {wanted}'
        f'{f" after the prefix {prefix!r}" if prefix else ""}; found names like '
        f'{", ".join(list(state)[:3])}. Another architecture needs its timm name (--model).'
    )


def known(name: str) -> bool:
    """Whether timm can make a model of this name without a download."""
    if name.startswith('local-dir:'):
        return (Path(name.removeprefix('local-dir:')) / 'config.json').is_file()
    return timm.is_model(name)


@cache
def shapes(name: str, img_size: Any = None) -> dict[str, torch.Size]:
    """Names and shapes of a timm model's weights, without classifier."""
    with torch.device('meta'):
        # timm drops an argument that is None.
        model = timm.create_model(name, num_classes=0, img_size=img_size)
    return {key: value.shape for key, value in model.state_dict().items()}


def _built_with(checkpoint: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What the task of a checkpoint, if it is ours, built its network with."""
    hparams = checkpoint.get('hyper_parameters')
    if 'caco_locations' not in checkpoint or not isinstance(hparams, Mapping):
        return {}
    return size_arguments(name, hparams.get('in_channels', 3), hparams.get('size', 224))[0]


def first_convolution(name: str, state: Mapping[str, Tensor]) -> tuple[str | None, int]:
    """Name of a timm model's first weight, None if it has none, and its number of channels."""
    with torch.device('meta'):
        model: Any = timm.create_model(name, num_classes=0)
    first = model.pretrained_cfg.get('first_conv')
    if not isinstance(first, str) or f'{first}.weight' not in state:
        return None, 3
    return f'{first}.weight', int(state[f'{first}.weight'].shape[1])


def adapt_channels(weight: Tensor, channels: int, picked: list[int] | None = None) -> Tensor:
    """First convolution for another number of channels.

    More channels repeat the ones there are, as timm does; fewer are *picked*, or else each becomes
    the mean kernel. The sum over the channels keeps its size.

    Args:
        weight: Shape (O, I, h, w).
        channels: Number of channels wanted.
        picked: Which of the I channels to keep, if it is known which are wanted.

    Returns:
        Shape (O, channels, h, w).
    """
    old = weight.shape[1]
    if channels == old:
        return weight
    if picked is not None:
        return weight[:, picked]
    if channels < old:
        weight = weight.mean(1, keepdim=True)
    repeats = -(-channels // weight.shape[1])
    return weight.repeat(1, repeats, 1, 1)[:, :channels] * (old / channels)


def _plain(name: str) -> str:
    """The architecture behind the name of a model folder."""
    if not name.startswith('local-dir:'):
        return name
    settings = _read_settings(Path(name.removeprefix('local-dir:')) / 'config.json')
    return str(settings['architecture'])


def _read_settings(config: Path) -> dict[str, Any]:
    """What the config.json of a timm model folder says."""
    try:
        settings = json.loads(config.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'{config} is not JSON, it may be truncated: {error}.') from None
    name = settings.get('architecture') if isinstance(settings, dict) else None
    if not isinstance(name, str):
        raise ValueError(f"{config} has no 'architecture'; the name of a timm model was expected.")
    if not timm.is_model(name):
        raise ValueError(f'{config} says architecture {name!r}, which is not a model of timm.')
    for key in ('input', 'about'):
        if not isinstance(settings.setdefault(key, {}), dict):
            raise ValueError(f'{config} says {key} {settings[key]!r}; a mapping was expected.')
    return settings


def _read_folder(path: Path) -> Encoder:
    config, weights = path / 'config.json', path / 'model.safetensors'
    for file in (config, weights):
        if not file.is_file():
            raise FileNotFoundError(f'{path} is not a timm model folder: {file.name} is not there.')
    settings = _read_settings(config)
    name = settings['architecture']
    state = read_checkpoint(weights)
    arguments = kept_arguments(settings.get('model_args'))
    names = shapes(name, arguments.get('img_size'))
    missing = [key for key in names if key not in state]
    if missing:
        raise ValueError(f'{weights} lacks {missing[0]}; expected the weights of a {name}.')
    wrong = [key for key in names if not _fits(state, {key: names[key]})]
    if wrong:
        found, wanted = tuple(state[wrong[0]].shape), tuple(names[wrong[0]])
        raise ValueError(f'{weights} has {wrong[0]} of shape {found}; a {name} has {wanted}.')
    state = {key: state[key] for key in names}
    return Encoder(name, state, settings['input'], settings['about'], arguments)


def _state_dict(checkpoint: Any, path: Path) -> dict[str, Tensor]:
    """The mapping of names to tensors in what a file held."""
    candidates = [checkpoint]
    if isinstance(checkpoint, Mapping):
        candidates += [checkpoint.get(key) for key in ('state_dict', 'model', 'model_state_dict')]
    for candidate in candidates[::-1]:
        if isinstance(candidate, Mapping):
            tensors = {
                str(key): value for key, value in candidate.items() if isinstance(value, Tensor)
            }
            if tensors:
                return tensors
    raise ValueError(f'{path} holds no state dict: expected names with tensors.')


def _numbered(name: str) -> str:
    """A ResNet's weight as nn.Sequential names it."""
    child, _, rest = name.partition('.')
    return f'{CHILDREN.get(child, child)}.{rest}'


def _encoders(
    state: Mapping[str, Tensor], expected: Mapping[str, torch.Size]
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """All encoders of an architecture in a state dict, with what stands before their names."""
    spellings: list[Callable[[str], str]] = [lambda name: name, _numbered]
    first = next(iter(expected))
    for spelled in spellings:
        start = spelled(first)
        parts = {spelled(name).partition('.')[0] for name in expected}
        for key in state:
            if key != start and not key.endswith('.' + start):
                continue
            prefix = key.removesuffix(start)
            own = {k.removeprefix(prefix) for k in state if k.startswith(prefix)}
            own = {k for k in own if k.partition('.')[0] in parts}
            found = {
                name: state[prefix + spelled(name)] for name in expected if spelled(name) in own
            }
            # Equal numbers on both sides: neither less than the architecture nor more.
            if len(found) == len(expected) == len(own) and _fits(found, expected):
                yield prefix, found


def _fits(state: Mapping[str, Tensor], expected: Mapping[str, torch.Size]) -> bool:
    """Whether shapes are equal, but for the number of input channels."""

    def same(a: torch.Size, b: torch.Size) -> bool:
        return a == b or (len(a) == 4 and a[0] == b[0] and a[2:] == b[2:] and b[1] == 3)

    return all(same(state[name].shape, shape) for name, shape in expected.items())


def _choose(found: Mapping[str, dict[str, Tensor]], path: Path) -> dict[str, Tensor]:
    """The one encoder that was trained."""
    trained = {
        prefix: state
        for prefix, state in found.items()
        if not any(word in prefix for word in FOLLOWERS)
    } or dict(found)
    first, *others = trained.values()
    if any(not torch.equal(first[k], other[k]) for other in others for k in first):
        prefixes = ', '.join(repr(prefix) for prefix in trained)
        raise ValueError(f'{path} holds several encoders: {prefixes}; choose one (--prefix).')
    return {key: value.contiguous() for key, value in first.items()}
