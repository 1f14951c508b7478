"""The change-aware contrastive loss (CACo, CVPR 2023, section 3.4 and equation 2)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

LongTermNegatives = Literal['never', 'always', 'changed']
QueueNegatives = Literal['same_period', 'all']
MaskOwn = Literal['view', 'all']


def change_aware_logits(
    query: Tensor,
    keys: Tensor,
    queue: Tensor,
    subspace: int,
    *,
    own: Tensor | None = None,
    changed: Tensor | None = None,
    temperature: float = 0.07,
    long_term_negatives: LongTermNegatives = 'changed',
    queue_negatives: QueueNegatives = 'same_period',
    mask_own: MaskOwn = 'view',
) -> Tensor:
    """Compare every query with its positive and its negatives in one subspace.

    For subspace *h* the positive of row (l, p) is view *h* of the same location and period.
    Negatives are, in the order of the columns returned:

    1. the queue of subspace *h* (its own period only, unless ``queue_negatives='all'``);
    2. for h > 0: all other views of the batch, both periods, own location included;
    3. with two periods, unless ``long_term_negatives='never'``: view *h* of every location in
       the *other* period. The entry of the row's own location counts only if the row is
       labelled changed; otherwise its logit is minus infinity.

    Source: CACo section 3.4, with the negatives of the published code as defaults.
    ``queue_negatives='all'`` is equation 2; ``mask_own='all'`` is the paper's text, which takes
    every view of the own location's other period out of an unchanged row's negatives.

    Args:
        query: L2-normalised queries of this process, shape (B, P, D).
        keys: L2-normalised keys of the global batch, shape (V, L, P, D): view *v* through the
            momentum head of this subspace.
        queue: L2-normalised keys of earlier batches, shape (P, Q, D).
        subspace: The subspace *h*, 0 <= h < V.
        own: Which keys show the query's own location, shape (B, L), bool.
            Defaults to the identity (B = L, nothing gathered, no location twice).
        changed: Whether a row is labelled changed, shape (B, P), bool. Needed for
            ``long_term_negatives='changed'`` and P = 2.
        temperature: Softmax temperature, > 0.
        long_term_negatives: Whether the own location's other period is a negative.
        queue_negatives: Which periods' queues are negatives.
        mask_own: Which entries of the own location's other period are gated.

    Returns:
        Logits, shape (B, P, 1 + M), divided by the temperature; column 0 is the positive.

    Raises:
        ValueError: If shapes disagree, or labels are missing where they are needed.
    """
    views, locations, periods, _ = keys.shape
    batch = query.shape[0]
    if query.shape[1] != periods or queue.shape[0] != periods:
        raise ValueError(
            f'query {tuple(query.shape)}, keys {tuple(keys.shape)} and queue '
            f'{tuple(queue.shape)} must agree in the number of periods'
        )
    if own is None:
        if batch != locations:
            raise ValueError(f'own is needed for {batch} queries against {locations} locations')
        own = torch.eye(batch, dtype=torch.bool, device=query.device)
    gate = long_term_negatives == 'changed' and periods == 2
    if gate and changed is None:
        raise ValueError("changed is needed for long_term_negatives='changed'")

    # The positive is the first own entry: with a location twice in a batch, either copy is one.
    first = own.to(torch.uint8).argmax(dim=1)
    positive = torch.einsum('bpd,bpd->bp', query, keys[subspace][first])
    columns = [positive.unsqueeze(-1)]

    if queue_negatives == 'all':
        columns.append(torch.einsum('bpd,rkd->bprk', query, queue).flatten(2))
    else:
        columns.append(torch.einsum('bpd,pkd->bpk', query, queue))

    hidden = ~changed[:, :, None] & own[:, None, :] if gate and changed is not None else None
    minus_infinity = float('-inf')
    if subspace > 0:
        for view in range(views):
            if view == subspace:
                continue
            logits = torch.einsum('bpd,lrd->bplr', query, keys[view])
            if hidden is not None and mask_own == 'all':
                other = ~torch.eye(periods, dtype=torch.bool, device=query.device)
                logits = logits.masked_fill(
                    hidden[..., None] & other[None, :, None, :], minus_infinity
                )
            columns.append(logits.flatten(2))

    if periods == 2 and long_term_negatives != 'never':
        logits = torch.einsum('bpd,lpd->bpl', query, keys[subspace].flip(1))
        if hidden is not None:
            logits = logits.masked_fill(hidden, minus_infinity)
        columns.append(logits)

    return torch.cat(columns, dim=-1) / temperature


def info_nce(logits: Tensor) -> Tensor:
    """InfoNCE: cross-entropy against column 0 (CACo equation 1), averaged over all rows.

    Args:
        logits: Shape (..., 1 + M), the positive first.

    Returns:
        The loss, shape ().
    """
    rows = logits.flatten(0, -2)
    return F.cross_entropy(rows, rows.new_zeros(len(rows), dtype=torch.long))
