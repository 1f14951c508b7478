"""Parts of a step of :class:`~torchgeo_caco.tasks.CACoTask` that need no state of it."""

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from lightning.pytorch.plugins import HalfPrecision
from torch import Tensor, nn

from ..losses import change_aware_logits, info_nce
from ..stores import canonical_band

logger = logging.getLogger(__name__)


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


def check_shapes_of_step(
    query: Tensor,
    keys: Tensor | Sequence[Tensor],
    index: Tensor,
    labels: Sequence[Tensor | None],
    subspaces: int,
    periods: int,
) -> None:
    """See that what is given to ``CACoTask.step`` belongs together.

    Args:
        query: Rows, shape (B, P, C, H, W) or (B * P, C, H, W).
        keys: As many as there are subspaces, each with the same rows.
        index: Shape (B,).
        labels: What is given for each row, shape (B, P) or (B * P,), or None.
        subspaces: Number of subspaces.
        periods: Number of periods P.

    Raises:
        ValueError: If something has another shape.
    """

    def fits(images: Tensor) -> bool:
        rows = images.shape[:-3]
        return rows in ((len(index), periods), (len(index) * periods,))

    if index.ndim != 1 or len(keys) != subspaces or not all(map(fits, (query, *keys))):
        raise ValueError(
            f'step takes a query and {subspaces} key(s) of shape (B, {periods}, C, H, W) and the '
            f'B numbers of their places, not a query of shape {tuple(query.shape)}, keys of shapes '
            f'{[tuple(key.shape) for key in keys]} and an index of shape {tuple(index.shape)}.'
        )
    for each in labels:
        if each is not None and each.numel() != len(index) * periods:
            raise ValueError(
                f'changed and valid must be of shape ({len(index)}, {periods}), '
                f'not {tuple(each.shape)}.'
            )


def check_precision(trainer: Any) -> None:
    """See that a trainer keeps weights, queues and estimates in full precision.

    Args:
        trainer: The trainer.

    Raises:
        ValueError: If it would convert them.
    """
    plugin = trainer.precision_plugin
    if isinstance(plugin, HalfPrecision):
        # Steps of the momentum encoder are too small for 16 bits: it would stand still.
        raise ValueError(
            f'trainer.precision={plugin.precision!r} would keep the momentum encoder, the queues '
            "and the change estimates in 16 bits, which are too few; use 'bf16-mixed'."
        )


def may_be_rgb(bands: Sequence[str]) -> bool:
    """Whether bands are red, green and blue in any order, or of names that say nothing.

    Args:
        bands: Names of the bands, of which Sentinel-2's are known.

    Returns:
        False if they are known to be others.
    """
    names = {canonical_band(str(band)) for band in bands}
    known = all(re.fullmatch(r'B[1-9]\d?A?', name) for name in names)
    return not known or names == {'B2', 'B3', 'B4'}


def check_data(data: Any, periods: int, options: Mapping[str, Any]) -> None:
    """See that a datamodule fits the task, and warn if its queues are long for it.

    Args:
        data: The datamodule.
        periods: Periods the task needs.
        options: Hyperparameters of the task.

    Raises:
        ValueError: If periods or channels differ.
    """
    if data.periods != periods:
        raise ValueError(
            f'long_term_negatives={options["long_term_negatives"]!r} needs '
            f'{periods} period(s); the data have periods={data.periods}.'
        )
    if len(data.bands) != options['in_channels']:
        raise ValueError(
            f'in_channels={options["in_channels"]} but the data have '
            f'{len(data.bands)} bands: {", ".join(data.bands)}.'
        )
    rows = periods * len(data.location_names)
    if options['memory_bank_size'] > 2 * rows:
        logger.warning(
            'memory_bank_size=%d is more than two epochs of %d rows: '
            'many negatives show the very place they are compared with.',
            options['memory_bank_size'],
            rows,
        )
