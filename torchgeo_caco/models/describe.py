"""What is known of an encoder's input and making."""

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torchvision.models._api import WeightsEnum

from ..transforms.views import IMAGENET_MEAN, IMAGENET_STD, statistics
from . import published

#: Arguments of the task that a card names.
SETTINGS = (
    'model', 'in_channels', 'size', 'lr', 'weight_decay', 'momentum', 'schedule', 'optimizer',
    'temperature', 'memory_bank_size', 'moco_momentum', 'long_term_negatives', 'queue_negatives',
    'mask_own', 'label', 'estimate', 'ema_beta', 'assignment',
)  # fmt: skip

Described = tuple[dict[str, Any], dict[str, Any]]


def describe_run(
    hparams: Mapping[str, Any],
    data: Mapping[str, Any],
    locations: int,
    epochs: int,
    scores: Mapping[str, float] | None = None,
) -> Described:
    """Describe the encoder of a run.

    Args:
        hparams: Arguments of the task.
        data: What the datamodule says of the input: ``bands``, ``scale``, ``quantiles``..., and
            which ``imagery`` it is.
        locations: Number of places.
        epochs: Epochs trained.
        scores: Figures of the run.

    Returns:
        The input, for whoever uses the encoder, and the making, for its card.
    """
    given = hparams.get('mean'), hparams.get('std')
    mean, std = statistics(int(hparams.get('in_channels', 3)), *given)
    rounded = [[round(v, 6) for v in values.tolist()] for values in (mean, std)]
    described = {**data, 'mean': rounded[0], 'std': rounded[1]}
    imagery = described.pop('imagery', 'satellite time series')
    about = {
        'data': f'{imagery} of {locations} places',
        'method': _method(hparams),
        'settings': {'epochs': epochs, **{k: hparams[k] for k in SETTINGS if k in hparams}},
        'scores': dict(scores or {}),
    }
    return described, about


def describe_checkpoint(checkpoint: Any) -> Described:
    """Describe the encoder in a checkpoint of ours; nothing is known of others."""
    if not isinstance(checkpoint, Mapping):
        return {}, {}
    named = checkpoint.get('hyper_parameters')
    if isinstance(named, Mapping) and 'input' in named and 'about' in named:
        return dict(named['input']), dict(named['about'])
    if 'caco_locations' not in checkpoint:
        return {}, {}
    data: Mapping[str, Any] = next(
        (v for v in checkpoint.values() if isinstance(v, Mapping) and 'quantiles' in v), {}
    )
    described, about = describe_run(
        checkpoint['hyper_parameters'],
        data,
        len(checkpoint['caco_locations']),
        _epochs(checkpoint),
    )
    return described, about | {'steps': checkpoint['global_step']}


def _epochs(checkpoint: Mapping[str, Any]) -> int:
    """Epochs that had ended when a checkpoint was saved."""
    try:
        progress = checkpoint['loops']['fit_loop']['epoch_progress']
        return int(progress['current']['processed'])
    except KeyError:
        # Without loops (save_weights_only); 'epoch' moves only after an epoch's last hook.
        return int(checkpoint['epoch']) + 1


def describe_file(path: Path) -> Described:
    """Describe the encoder in a published file, which is known by its name."""
    name = path.name
    for entry in published.EPOCHS:
        if name.startswith(f'{published.file_name(*entry)}.'):
            return dict(published.INPUT), {**published.about(*entry), 'source': name}
    if match := re.match(r'seco_resnet(18|50)_(100k|1m)\.', name):
        return dict(published.INPUT), {
            'data': f'SeCo {match[2].upper()}: Sentinel-2 images around cities, five dates each',
            'method': 'SeCo',
            'paper': 'https://arxiv.org/abs/2103.16607',
            'repository': 'https://github.com/ServiceNow/seasonal-contrast',
            'source': name,
        }
    if re.match(r'moco(_geo\+tp|_geo|_tp)?\.pth', name):
        described = {
            'bands': ['red', 'green', 'blue'],
            'scale': '0-255',
            'quantiles': [[0, 255]] * 3,
            'mean': list(IMAGENET_MEAN),
            'std': list(IMAGENET_STD),
        }
        return described, {
            'data': 'fMoW, RGB',
            'method': 'geography-aware self-supervised learning',
            'paper': 'https://arxiv.org/abs/2011.09980',
            'repository': 'https://github.com/sustainlab-group/geography-aware-ssl',
            'source': name,
        }
    return {}, {'source': name}


def describe_weight(weight: WeightsEnum) -> Described:
    """Describe the encoder of a weights enum, ours or TorchGeo's."""
    known: Mapping[str, Any] = weight.meta
    described = {key: known[key] for key in published.INPUT if key in known}
    names = {
        'dataset': 'data',
        'ssl_method': 'method',
        'publication': 'paper',
        'repo': 'repository',
    }
    names |= {key: key for key in ('license', 'scores', 'epochs', 'note')}
    about = {ours: known[theirs] for theirs, ours in names.items() if known.get(theirs)}
    return described, {**about, 'source': str(weight)}


def last_metrics(path: Path, step: int) -> dict[str, float]:
    """The last value of each figure in a ``metrics.csv`` up to a step.

    Args:
        path: The file; without it there are no figures.
        step: Optimizer steps made; later rows are left out.

    Returns:
        Figures by name, without those of single batches.
    """
    if not path.is_file():
        return {}
    last: dict[str, float] = {}
    with path.open(newline='') as file:
        for row in csv.DictReader(file):
            if float(row.get('step') or 0) <= step:
                last |= {key: float(value) for key, value in row.items() if value}
    return {k: v for k, v in last.items() if k not in ('epoch', 'step') and not k.endswith('_step')}


def _method(hparams: Mapping[str, Any]) -> str:
    if hparams.get('subspaces') == 1:
        return 'MoCo v2'
    names = {'never': 'SeCo', 'always': 'TeCo', 'changed': 'CACo'}
    return names.get(str(hparams.get('long_term_negatives')), 'self-supervised')
