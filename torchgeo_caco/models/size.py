"""Which arguments let a timm model take images of a size."""

from collections.abc import Mapping
from typing import Any

import timm
import torch

#: Tried in this order: as the model is, weights that fit every size, weights of this size only.
ARGUMENTS: tuple[dict[str, Any], ...] = ({}, {'dynamic_img_size': True}, {'img_size': None})


def size_arguments(name: str, channels: int, size: int) -> tuple[dict[str, Any], int]:
    """Find out how to build a timm model for images of a size, and how wide its features are.

    Nothing is computed and no random number drawn: the model is tried out on PyTorch's device
    ``meta``, which knows shapes alone.

    Args:
        name: Name of the timm model.
        channels: Number of bands C.
        size: Height and width of the images in pixels.

    Returns:
        Arguments of ``timm.create_model``, none for most networks, and the number of features
        (which is not always ``num_features``).

    Raises:
        ValueError: If the model takes no such images.
    """
    reason = ''
    for choice in ARGUMENTS:
        arguments: dict[str, Any] = {
            key: size if value is None else value for key, value in choice.items()
        }
        try:
            with torch.device('meta'), torch.no_grad():
                model = timm.create_model(name, num_classes=0, in_chans=channels, **arguments)
                features = model.eval()(torch.empty(1, channels, size, size))
        except (AssertionError, TypeError, ValueError, RuntimeError, IndexError) as error:
            # A model that does not know the argument is as good as the one before.
            if not (arguments and isinstance(error, TypeError)):
                reason = str(error).partition('\n')[0] or type(error).__name__
            continue
        if isinstance(features, torch.Tensor) and features.ndim == 2:
            return arguments, features.shape[1]
        reason = 'its output is not one vector for each image'
    raise ValueError(
        f'model={name!r} cannot be built for {channels} bands and size={size} '
        f'(crops of {size} x {size} pixels): {reason.rstrip(".")}.'
    )


def kept_arguments(given: Any) -> dict[str, Any]:
    """Those of the arguments a model was built with that concern the size of its images."""
    if not isinstance(given, Mapping):
        return {}
    names = {name for choice in ARGUMENTS for name in choice}
    return {
        # JSON has no tuples.
        key: tuple(value) if isinstance(value, list) else value
        for key, value in given.items()
        if key in names
    }
