"""A timm model folder: config, weights and a card that says what the input is."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from timm.models._hub import save_for_hf
from torch import nn


def save_model_folder(
    backbone: nn.Module, architecture: str, root: str | Path, described: Mapping[str, Any]
) -> Path:
    """Write a backbone so that ``timm.create_model('local-dir:ROOT', pretrained=True)`` loads it.

    Args:
        backbone: A timm model without classifier.
        architecture: Its timm name.
        root: Folder to write.
        described: What the input is: ``bands``, ``scale``, ``quantiles``, ``mean``, ``std``...

    Returns:
        The folder.
    """
    root = Path(root)
    settings = {
        'model_name': architecture,
        'num_classes': 0,
        'input': dict(described),
        **{key: list(described[key]) for key in ('mean', 'std') if described.get(key)},
    }
    # Weights that lie channels last cannot be written as safetensors.
    backbone = copy.deepcopy(backbone).to(memory_format=torch.contiguous_format)
    save_for_hf(backbone, str(root), model_config=settings, safe_serialization=True)
    (root / 'README.md').write_text(_card(architecture, described, root))
    return root


def _card(architecture: str, described: Mapping[str, Any], root: Path) -> str:
    lines = [f'- {key}: `{json.dumps(value)}`' for key, value in described.items()]
    return '\n'.join(
        [
            '---',
            'library_name: timm',
            'tags: [remote-sensing, self-supervised, torchgeo_caco]',
            '---',
            f'# {architecture}, pretrained with torchgeo_caco',
            '',
            'Input: bands in this order, stretched linearly so that each lower quantile becomes 0',
            'and each upper one 1, clipped, then normalised with mean and standard deviation.',
            '',
            *lines,
            '',
            '```python',
            'import timm',
            '',
            f"model = timm.create_model('local-dir:{root.name}', pretrained=True, num_classes=0)",
            '```',
            '',
        ]
    )
