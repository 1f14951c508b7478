"""OnlineProbe while a task trains."""

import csv
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from sklearn.neighbors import KNeighborsClassifier
from torch.utils.data import DataLoader
from torchgeo.datamodules import EuroSATDataModule, OSCDDataModule

from torchgeo_caco import CACoTask, SeasonalTemporalDataModule
from torchgeo_caco.callbacks import OnlineProbe
from torchgeo_caco.callbacks import probe as module
from torchgeo_caco.datamodules import EuroSATRGBDataModule

pytestmark = pytest.mark.filterwarnings('ignore:The .*dataloader.* does not have many workers')


def pretrain(
    tiny, out, *callbacks, epochs: int = 2, path: str | None = None, **settings
) -> tuple[Trainer, CACoTask]:
    seed_everything(0, verbose=False)
    trainer = Trainer(
        accelerator='cpu', max_epochs=epochs, default_root_dir=out, log_every_n_steps=1,
        enable_progress_bar=False, enable_model_summary=False, callbacks=list(callbacks),
        **settings,
    )  # fmt: skip
    task = CACoTask('resnet10t', size=32, memory_bank_size=16)
    trainer.fit(task, datamodule=SeasonalTemporalDataModule(str(tiny), 4), ckpt_path=path)
    return trainer, task


def test_figures_are_logged_and_monitored(tiny, eurosat_rgb, tmp_path):
    probe = OnlineProbe(EuroSATRGBDataModule(str(eurosat_rgb)), every_n_epochs=2, batch_size=8)
    saver = ModelCheckpoint(
        tmp_path / 'best', 'best', monitor='probe_knn', mode='max', every_n_epochs=2
    )
    _, task = pretrain(tiny, tmp_path, probe, saver, epochs=4)
    with open(tmp_path / 'metrics.csv', newline='') as file:
        rows = [row for row in csv.DictReader(file) if row.get('probe_knn')]
    assert [int(row['epoch']) for row in rows] == [1, 3]
    assert 0 < float(rows[-1]['probe_share']) < 1
    assert saver.best_model_score in [
        pytest.approx(float(row['probe_knn']), abs=1e-4) for row in rows
    ]
    # The same number by other means.
    data = EuroSATRGBDataModule(str(eurosat_rgb), 18, normalization='weights')
    data.setup('fit')
    task.eval()
    features, labels = [], []
    for dataset in (data.train_dataset, data.val_dataset):
        images = torch.stack([dataset[i]['image'] for i in range(len(dataset))])
        with torch.no_grad():
            features.append(task.backbone(data.normalise(images)).numpy())
        labels.append(np.array(dataset.labels))
    reference = KNeighborsClassifier(20, metric='cosine').fit(features[0], labels[0])
    share = (reference.predict(features[1]) == labels[1]).mean()
    assert float(rows[-1]['probe_knn']) == pytest.approx(share, abs=1e-4)


def test_training_does_not_notice(tiny, eurosat_rgb, tmp_path):
    probe = OnlineProbe(EuroSATRGBDataModule(str(eurosat_rgb)))
    states = []
    for name, callbacks in (('with', [probe]), ('without', [])):
        _, task = pretrain(tiny, tmp_path / name, *callbacks)
        states.append(task.state_dict())
        assert task.backbone.training
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


@pytest.mark.filterwarnings('ignore:Checkpoint directory .* exists and is not empty')
def test_share_of_an_epoch_that_was_resumed(tiny, eurosat_rgb, tmp_path, monkeypatch):
    saver = ModelCheckpoint(tmp_path / 'c', 'step', every_n_train_steps=2)
    pretrain(tiny, tmp_path / 'first', saver, epochs=1)
    # A clock that ticks when it is looked at: at the start, before and after the probe.
    monkeypatch.setattr(module, 'time', SimpleNamespace(monotonic=count(100).__next__))
    probe = OnlineProbe(EuroSATRGBDataModule(str(eurosat_rgb)))
    path = saver.best_model_path
    trainer, _ = pretrain(tiny, tmp_path / 'second', probe, saver, epochs=1, path=path)
    assert trainer.callback_metrics['probe_share'] == pytest.approx(1 / 2)


def test_torchgeos_datamodule(tiny, eurosat, tmp_path):
    bands = ('B04', 'B03', 'B02')
    data = EuroSATDataModule(root=str(eurosat), bands=bands, checksum=False)
    trainer, _ = pretrain(tiny, tmp_path, OnlineProbe(data), epochs=1)
    assert 0 <= trainer.callback_metrics['probe_linear'] <= 1


def test_wrong_arguments(tiny, eurosat_rgb, oscd, tmp_path):
    with pytest.raises(ValueError, match='every_n_epochs must be at least 1'):
        OnlineProbe(EuroSATRGBDataModule(str(eurosat_rgb)), every_n_epochs=0)
    data = OSCDDataModule(
        root=str(oscd), patch_size=32, val_split_pct=0.5, bands=('B04', 'B03', 'B02')
    )
    with pytest.raises(ValueError, match='OSCDDataModule is not for classification'):
        pretrain(tiny, tmp_path, OnlineProbe(data))


def test_two_processes(eurosat_rgb, tmp_path):
    """The figures are those of the first process, in both."""
    probe = OnlineProbe(EuroSATRGBDataModule(str(eurosat_rgb)))
    trainer = Trainer(
        accelerator='cpu', max_epochs=1, default_root_dir=tmp_path, strategy='ddp_fork', devices=2,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[probe, Agreement(probe)],
        logger=False,
    )  # fmt: skip
    trainer.fit(Shifting(), DataLoader(torch.rand(8, 3, 32, 32), 2))
    assert trainer.callback_metrics['probe_knn'] >= 0


class Shifting(LightningModule):
    """Its processes differ in what BatchNorm saw."""

    def __init__(self):
        super().__init__()
        self.backbone = timm.create_model('resnet10t', num_classes=0)

    def training_step(self, batch):
        return self.backbone(batch * (1 + 5 * self.global_rank)).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-3)


class Agreement(ModelCheckpoint):
    """Fails unless every process has the figure of the first one's encoder."""

    def __init__(self, probe):
        super().__init__()
        self.probe = probe

    def on_train_epoch_end(self, trainer, pl_module):
        everyone = [None, None]
        torch.distributed.all_gather_object(everyone, float(trainer.callback_metrics['probe_knn']))
        assert everyone[0] == everyone[1]
        if trainer.is_global_zero:
            assert everyone[0] == pytest.approx(self.probe.score(pl_module)['probe_knn'], abs=1e-6)
