"""A timm model folder: config, weights and a card that says what the input is."""

import copy
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from timm.models._hub import save_for_hf
from torch import nn

#: What timm notes of its own weights of an architecture; they are not in the folder.
FOREIGN = ('tag', 'license', 'origin_url', 'paper_ids', 'notes', 'url', 'hf_hub_id', 'crop_pct')

#: What a reader of the card may not know of a scale.
UNITS = {'reflectance': 'reflectance times 10000', '0-1': '0-1 (reflectance)'}


def save_model_folder(
    backbone: nn.Module,
    architecture: str,
    root: str | Path,
    described: Mapping[str, Any],
    about: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> Path:
    """Write a backbone so that ``timm.create_model('local-dir:ROOT', pretrained=True)`` loads it.

    Args:
        backbone: A timm model without classifier.
        architecture: Its timm name.
        root: Folder to write.
        described: What the input is: ``bands``, ``scale``, ``quantiles``, ``mean``, ``std``...
        about: How it was made: ``data``, ``method``, ``settings``, ``scores``, ``license``...
        name: What the card's example calls the model; ``local-dir:`` and the folder by default.

    Returns:
        The folder.
    """
    root, about = Path(root), dict(about or {})
    # Weights that lie channels last cannot be written as safetensors.
    model: Any = copy.deepcopy(backbone).to(memory_format=torch.contiguous_format)
    inherited = {k: v for k, v in model.pretrained_cfg.items() if not k.startswith(FOREIGN)}
    # A model that came from a folder itself is called by that folder's name.
    architecture = str(inherited.get('architecture') or architecture)
    statistics = {k: list(described[k]) for k in ('mean', 'std') if described.get(k)}
    model.pretrained_cfg = inherited | statistics
    settings = {
        'model_name': architecture,
        'num_classes': 0,
        'input': dict(described),
        'about': about,
        **statistics,
    }
    save_for_hf(model, str(root), model_config=settings, safe_serialization=True)
    # Safetensors leaves its file to be read by its owner only.
    shutil.copymode(root / 'config.json', root / 'model.safetensors')
    card = _card(architecture, described, about, name or f'local-dir:{root.name}', model)
    (root / 'README.md').write_text(card, encoding='utf-8')
    return root


def _card(
    architecture: str,
    described: Mapping[str, Any],
    about: Mapping[str, Any],
    name: str,
    model: nn.Module,
) -> str:
    channels = next((p.shape[1] for p in model.parameters() if p.ndim == 4), 3)
    return '\n'.join(
        [
            '---',
            'library_name: timm',
            'tags: [remote-sensing, self-supervised, torchgeo_caco]',
            '---',
            f'# {architecture}, pretrained for satellite images',
            '',
            'Input: bands in this order, stretched linearly so that each lower quantile becomes 0',
            'and each upper one 1, clipped, then normalised with mean and standard deviation.',
            '',
            *_list(described or {'input': 'not known'}),
            *(['', '## How it was made', '', *_list(about)] if about else []),
            '',
            '## Use',
            '',
            '```python',
            *_example(described, name, channels),
            '```',
            '',
        ]
    )


def _list(values: Mapping[str, Any]) -> list[str]:
    """Lines of a list; what is itself a mapping becomes a list below."""
    lines = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            inner = [f'  - {k}: {_shown(v)}' for k, v in value.items()]
            lines += [f'- {key}:', *inner] if inner else []
        elif isinstance(value, str):
            lines.append(f'- {key}: {UNITS.get(value, value)}')
        else:
            lines.append(f'- {key}: {_shown(value)}')
    return lines


def _shown(value: Any) -> str:
    return f'`{json.dumps(_rounded(value), default=str)}`'


def _rounded(value: Any) -> Any:
    """The same with six digits of each number, which is enough for a reader."""
    if isinstance(value, list | tuple):
        return [_rounded(v) for v in value]
    return float(f'{value:.6g}') if isinstance(value, float) else value


def _example(described: Mapping[str, Any], name: str, channels: int) -> list[str]:
    """Lines of Python that run."""
    quantiles, mean, std = (described.get(key) for key in ('quantiles', 'mean', 'std'))
    lines = ['import timm', 'import torch', '']
    lines.append(f"model = timm.create_model('{name}', pretrained=True, num_classes=0).eval()")
    lines.append(f'image = torch.zeros(1, {channels}, 224, 224)  # yours, in the units above')
    if quantiles:
        low, high = zip(*_rounded(quantiles), strict=True)
        lines += [
            f'low = torch.tensor({list(low)}).view(-1, 1, 1)',
            f'high = torch.tensor({list(high)}).view(-1, 1, 1)',
            'image = ((image - low) / (high - low)).clamp(0, 1)',
        ]
    if mean and std:
        lines += [
            f'mean = torch.tensor({list(mean)}).view(-1, 1, 1)',
            f'std = torch.tensor({list(std)}).view(-1, 1, 1)',
            'image = (image - mean) / std',
        ]
    return [*lines, 'features = model(image)']
