"""What :class:`~torchgeo_caco.tasks.CACoTask` refuses, or warns of, before it trains."""

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch.plugins import HalfPrecision
from torch import Tensor

from ..stores import canonical_band

logger = logging.getLogger(__name__)


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
