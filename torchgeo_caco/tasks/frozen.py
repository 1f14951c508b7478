"""BatchNorm of a frozen encoder, and the schedules of the published evaluations."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Adam
from torch.optim.lr_scheduler import ExponentialLR, MultiStepLR

FrozenBatchNorm = Literal['train', 'eval']


def check_batch_norm(batch_norm: str) -> None:
    """Raise a ValueError unless the value is one of the two."""
    if batch_norm not in ('train', 'eval'):
        raise ValueError(f"batch_norm must be 'train' or 'eval', not {batch_norm!r}.")


def freeze(module: nn.Module) -> None:
    """No gradients for a module."""
    for parameter in module.parameters():
        parameter.requires_grad = False


def hold_batch_norm(module: nn.Module) -> None:
    """Put BatchNorm layers into evaluation mode, so that they keep the weights' statistics."""
    for layer in module.modules():
        if isinstance(layer, _BatchNorm):
            layer.eval()


def adam_with_steps(
    parameters: Iterable[nn.Parameter],
    lr: float,
    weight_decay: float,
    schedule: Sequence[int | float],
    epochs: int | None,
) -> Any:
    """Adam whose learning rate drops to a tenth at the given epochs.

    Args:
        parameters: What is trained.
        lr: Learning rate.
        weight_decay: Weight decay.
        schedule: Epochs; numbers below 1 are shares of *epochs*.
        epochs: Length of the run, 100 if unknown.

    Returns:
        Lightning's dictionary.
    """
    length = epochs if epochs is not None and epochs > 0 else 100
    steps = [round(s * length) if isinstance(s, float) and s < 1 else int(s) for s in schedule]
    optimizer = Adam([p for p in parameters if p.requires_grad], lr, weight_decay=weight_decay)
    return {'optimizer': optimizer, 'lr_scheduler': {'scheduler': MultiStepLR(optimizer, steps)}}


def adam_with_decay(
    parameters: Iterable[nn.Parameter], lr: float, weight_decay: float, gamma: float
) -> Any:
    """Adam whose learning rate is multiplied by *gamma* after each epoch.

    Args:
        parameters: What is trained.
        lr: Learning rate.
        weight_decay: Weight decay.
        gamma: Factor.

    Returns:
        Lightning's dictionary.
    """
    optimizer = Adam([p for p in parameters if p.requires_grad], lr, weight_decay=weight_decay)
    scheduler = ExponentialLR(optimizer, gamma)
    return {'optimizer': optimizer, 'lr_scheduler': {'scheduler': scheduler}}
