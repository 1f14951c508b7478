"""Checkpoints that are of no use: refused in one sentence, and nothing of them is run."""

import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.plugins import TorchCheckpointIO

#: Arguments of a task that decide on the shapes of its weights and queues.
SHAPING = (
    'model', 'in_channels', 'subspaces', 'layers', 'hidden_dim', 'output_dim', 'memory_bank_size',
)  # fmt: skip


class SafeCheckpointIO(TorchCheckpointIO):
    """Reads weights, numbers and plain containers only, unless one asks for more.

    A checkpoint is a pickle, and a pickle is a program.
    """

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = lambda storage, _: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint.

        Args:
            path: The file.
            map_location: As for :func:`torch.load`.
            weights_only: False trusts the file and runs what is in it; None is True.

        Returns:
            The checkpoint.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is damaged, holds code or is something else.
        """
        try:
            loaded: Any = super().load_checkpoint(
                path, map_location=map_location, weights_only=weights_only is not False
            )
        except pickle.UnpicklingError as error:
            raise ValueError(_explain(path, str(error))) from None
        except OSError:
            raise
        except Exception as error:
            # Damaged pickles make PyTorch raise anything.
            reason = (str(error).splitlines() or [type(error).__name__])[0].partition('. ')[0]
            raise ValueError(
                f'{path} is damaged or no checkpoint: {reason.rstrip(".")}; '
                'a checkpoint of a run was expected.'
            ) from None
        if not isinstance(loaded, dict) or 'state_dict' not in loaded:
            raise ValueError(
                f'{path} holds no state_dict; a checkpoint of a run was expected (for weights '
                'alone there is model.weights).'
            )
        return loaded


def _explain(path: str | Path, message: str) -> str:
    """Whether it is code or nonsense that PyTorch would not unpickle."""
    name = re.search(r'GLOBAL (\S+)', message)
    if name is None:
        return f'{path} is damaged or no checkpoint; a checkpoint of a run was expected.'
    return (
        f'{path} is refused, and nothing of it was run: reading it would call {name[1]}; '
        'weights, numbers and plain containers were expected.'
    )


def check_shapes(saved: Mapping[str, Any], given: Mapping[str, Any], path: Any) -> None:
    """Compare what a checkpoint was trained with to what it is to be loaded into.

    Args:
        saved: The checkpoint's ``hyper_parameters``.
        given: Those of the task.
        path: The checkpoint, for the message.

    Raises:
        ValueError: If weights or queues would not fit.
    """
    differ = [key for key in SHAPING if key in saved and saved[key] != given.get(key)]
    key = 'long_term_negatives'
    if key in saved and (saved[key] == 'never') != (given.get(key) == 'never'):
        # Without them there is one period, and not two.
        differ.append(key)
    if differ:
        there, here = (', '.join(f'{k}={d.get(k)!r}' for k in differ) for d in (saved, given))
        raise ValueError(
            f'{path} is of a run with {there}, but this one has {here}; the same was expected.'
        )
