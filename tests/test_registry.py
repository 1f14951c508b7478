"""What TorchGeo shows of us."""

import torchgeo.datamodules
import torchgeo.datasets
import torchgeo.samplers
import torchgeo.tasks

import torchgeo_caco


def test_our_classes_are_found_in_torchgeo():
    torchgeo_caco.register()
    torchgeo_caco.register()
    assert torchgeo.datasets.SeasonalTemporalDataset is torchgeo_caco.SeasonalTemporalDataset
    assert torchgeo.samplers.ChangeAwareSampler is torchgeo_caco.ChangeAwareSampler
    assert torchgeo.tasks.CACoTask is torchgeo_caco.CACoTask
    modules = torchgeo.datamodules
    assert modules.SeasonalTemporalDataModule is torchgeo_caco.SeasonalTemporalDataModule
