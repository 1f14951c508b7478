"""Our classes under TorchGeo's names, so that they are found where its own are."""

import torchgeo.datamodules
import torchgeo.datasets
import torchgeo.models.api
import torchgeo.samplers
import torchgeo.tasks


def register() -> None:
    """Add our datasets, datamodules, samplers, tasks, models and weights to TorchGeo's.

    TorchGeo has no public registry, so this sets attributes and entries of its model tables; doing
    it twice changes nothing.
    """
    from . import datamodules, datasets, samplers, tasks

    for source, target in (
        (datasets, torchgeo.datasets),
        (datamodules, torchgeo.datamodules),
        (samplers, torchgeo.samplers),
        (tasks, torchgeo.tasks),
    ):
        for name in source.__all__:
            value = getattr(source, name)
            if isinstance(value, type) and not hasattr(target, name):
                setattr(target, name, value)
    _register_models()


def _register_models() -> None:
    """Add our models to ``get_model``, ``list_models``, ``get_model_weights``, ``get_weight``."""
    from . import models

    api = torchgeo.models.api
    for build, weights in (
        (models.caco_resnet18, models.CACoResNet18_Weights),
        (models.caco_resnet50, models.CACoResNet50_Weights),
    ):
        name = build.__name__
        api._model.setdefault(name, build)
        api._model_weights.setdefault(name, weights)
        api._model_weights.setdefault(build, weights)
        for public in (build, weights):
            if not hasattr(torchgeo.models, public.__name__):
                setattr(torchgeo.models, public.__name__, public)
