"""Parts of a step of :class:`~torchgeo_caco.tasks.CACoTask` that need no state of it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..losses import change_aware_logits, info_nce


class StepOutput(NamedTuple):
    """What one step gives.

    Attributes:
        loss: Sum over the subspaces, shape ().
        losses: Loss of each subspace, shape (H,), detached.
        accuracies: Share of rows whose positive is the most similar key, shape (H,).
        std: Mean standard deviation of the L2-normalised features times the root of their number:
            near 1 is spread out, near 0 is collapsed; shape ().
    """

    loss: Tensor
    losses: Tensor
    accuracies: Tensor
    std: Tensor


def embed(head: nn.Module, features: Tensor, periods: int) -> Tensor:
    """Embeddings of features.

    Args:
        head: Projection head.
        features: Shape (B * P, F).
        periods: Number of periods P.

    Returns:
        L2-normalised, shape (B, P, D), float32, or float64 for a float64 model.
    """
    full = torch.float64 if features.dtype == torch.float64 else torch.float32
    return F.normalize(head(features).to(full), dim=-1).unflatten(0, (-1, periods))


def contrast(
    queries: Sequence[Tensor],
    own_keys: Sequence[Tensor],
    queue: Tensor,
    own: Tensor,
    changed: Tensor | None,
    options: Mapping[str, Any],
) -> tuple[Tensor, Tensor]:
    """Losses and accuracies of all subspaces.

    Args:
        queries: Embeddings of each subspace, shape (B, P, D).
        own_keys: Keys of the places of all processes for each subspace, shape (V, N, P, D).
        queue: Queues of all subspaces, shape (H, ...).
        own: Which of the N places is the query's own, shape (B, N), bool.
        changed: Labels of the rows, shape (B, P), bool.
        options: Hyperparameters of the task.

    Returns:
        Losses and accuracies, shape (H,) each; the latter without gradient.
    """
    losses, accuracies = [], []
    for h, (query, keys) in enumerate(zip(queries, own_keys, strict=True)):
        logits = change_aware_logits(
            query,
            keys,
            # The queue is overwritten after this, before the backward pass needs it.
            queue[h].clone().to(query.dtype),
            h,
            own=own,
            changed=changed,
            temperature=options['temperature'],
            long_term_negatives=options['long_term_negatives'],
            queue_negatives=options['queue_negatives'],
            mask_own=options['mask_own'],
        )
        losses.append(info_nce(logits))
        accuracies.append((logits.detach().argmax(-1) == 0).float().mean())
    return torch.stack(losses), torch.stack(accuracies)


def spread(features: Tensor) -> Tensor:
    """How far features are from a collapse, see :class:`StepOutput`.

    Args:
        features: Shape (N, F).

    Returns:
        Shape ().
    """
    normalised = F.normalize(features.float(), dim=1)
    return normalised.std(dim=0).mean() * normalised.shape[1] ** 0.5
