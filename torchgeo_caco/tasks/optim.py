"""Optimisers and schedules of pretraining."""

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, MultiStepLR, SequentialLR


def build_optimizer(
    module: nn.Module, hparams: Mapping[str, Any], max_epochs: int | None, fused: bool = True
) -> dict[str, Any]:
    """SGD with steps (CACo section 4.1), or AdamW with warm-up and cosine.

    Args:
        module: What is trained; parameters without gradient are left out.
        hparams: ``optimizer``, ``lr``, ``weight_decay``, ``momentum``, ``schedule``,
            ``warmup_epochs``.
        max_epochs: Length of the run, 200 if unknown.
        fused: Whether to use one kernel for all parameters, where there is one.

    Returns:
        Lightning's dictionary of an optimiser and a scheduler.

    Raises:
        ValueError: If the optimiser is unknown.
    """
    epochs = max_epochs if max_epochs is not None and max_epochs > 0 else 200
    parameters = [p for p in module.parameters() if p.requires_grad]
    lr, decay = hparams['lr'], hparams['weight_decay']
    fused = fused and all(p.device.type in ('cuda', 'cpu') for p in parameters)
    if hparams['optimizer'] == 'sgd':
        momentum = hparams['momentum']
        sgd = SGD(parameters, lr=lr, momentum=momentum, weight_decay=decay, fused=fused)
        milestones = [
            round(mark * epochs) if isinstance(mark, float) and mark < 1 else int(mark)
            for mark in hparams['schedule']
        ]
        return {'optimizer': sgd, 'lr_scheduler': {'scheduler': MultiStepLR(sgd, milestones)}}
    if hparams['optimizer'] != 'adamw':
        raise ValueError(f"optimizer must be 'sgd' or 'adamw', not {hparams['optimizer']!r}.")
    groups = [
        {'params': [p for p in parameters if p.ndim > 1], 'weight_decay': decay},
        {'params': [p for p in parameters if p.ndim <= 1], 'weight_decay': 0.0},
    ]
    adamw = AdamW(groups, lr=lr, fused=fused)
    warmup = min(hparams['warmup_epochs'], epochs - 1)
    cosine = CosineAnnealingLR(adamw, max(1, epochs - warmup))
    if warmup < 1:
        return {'optimizer': adamw, 'lr_scheduler': {'scheduler': cosine}}
    linear = LinearLR(adamw, 1 / (warmup + 1), total_iters=warmup)
    scheduler = SequentialLR(adamw, [linear, cosine], [warmup])
    return {'optimizer': adamw, 'lr_scheduler': {'scheduler': scheduler}}
