"""Our classes under TorchGeo's names, so that they are found where its own are."""

import torchgeo.datamodules
import torchgeo.datasets
import torchgeo.samplers
import torchgeo.tasks


def register() -> None:
    """Add our datasets, datamodules, samplers and tasks to TorchGeo's modules.

    TorchGeo has no public registry, so this sets attributes; doing it twice changes nothing.
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
