"""Helpers for the parity tests: recorded numbers, and tasks with the recipe's weights."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from torchgeo_caco.tasks import CACoTask

FOLDER = Path(__file__).parent / 'data' / 'published'
_spec = importlib.util.spec_from_file_location('weights_recipe', FOLDER / 'weights_recipe.py')
assert _spec is not None and _spec.loader is not None
recipe = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(recipe)

#: The published Sequential's children by position, and timm's names.
CHILDREN = {'conv1': '0', 'bn1': '1', 'layer1': '4', 'layer2': '5', 'layer3': '6', 'layer4': '7'}


def load(name: str) -> dict[str, Any]:
    """One recording; its meta as a dictionary."""
    with np.load(FOLDER / f'{name}.npz') as file:
        arrays = {key: file[key] for key in file.files}
    if 'meta' in arrays:
        arrays['meta'] = json.loads(str(arrays['meta']))
    return arrays


def official_name(name: str) -> str | None:
    """The published name of one of our parameters."""
    branch = 'k' if '_momentum' in name else 'q'
    part, rest = name.split('.', 1)
    if part in ('backbone', 'backbone_momentum'):
        child, tail = rest.split('.', 1)
        return f'encoder_{branch}.{CHILDREN[child]}.{tail}'
    if part.startswith('projection_heads'):
        return f'heads_{branch}.{rest.replace("layers.", "")}'
    return None


def make_task(mode: str, meta: dict[str, Any], dtype: torch.dtype, **arguments: Any) -> CACoTask:
    """A task with the recipe's weights and queues."""
    long_term = {'moco': 'never', 'seco': 'never', 'teco': 'always', 'caco': 'changed'}[mode]
    subspaces = 1 if mode == 'moco' else 3
    dim, queue_size, seed = int(meta['D']), int(meta['K']), int(meta['seed'])
    task = CACoTask(
        subspaces=subspaces, output_dim=dim, memory_bank_size=queue_size,
        long_term_negatives=long_term, **arguments,
    ).to(dtype)  # fmt: skip
    for name, parameter in task.named_parameters():
        official = official_name(name)
        assert official is not None
        value = recipe.value(official, tuple(parameter.shape), seed)
        parameter.data = torch.from_numpy(value).to(dtype)
    queue = torch.from_numpy(recipe.queue(subspaces, dim, queue_size, seed))
    task.memory_bank.queue.copy_(queue_to_ours(queue, task.periods))
    return task.train()


def queue_to_ours(queue: Any, periods: int) -> torch.Tensor:
    """(E, D, K), periods alternating, as (E, P, K / P, D)."""
    queue = torch.as_tensor(queue)
    return queue.unflatten(2, (-1, periods)).permute(0, 3, 2, 1)


def images(
    seed: int, step: int, rows: int, subspaces: int, dtype: torch.dtype, periods: int
) -> Any:
    """The recipe's views as (B, P, C, H, W) and (V, B, P, C, H, W)."""
    query, keys = recipe.images(seed, step, rows, subspaces)
    query = torch.from_numpy(query).to(dtype).unflatten(0, (-1, periods))
    return query, torch.from_numpy(keys).to(dtype).unflatten(1, (-1, periods))
