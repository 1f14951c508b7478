"""What users do besides the examples: savers and loaders of their own, second runs, longer ones."""

import copy
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, Dataset

from torchgeo_caco import CACoTask, SeasonalTemporalDataModule
from torchgeo_caco.callbacks.run import SparingRichProgressBar
from torchgeo_caco.checkpoints import AtomicCheckpointIO
from torchgeo_caco.cli import main

pytestmark = [
    pytest.mark.filterwarnings('ignore:The .*dataloader.* does not have many workers'),
    pytest.mark.filterwarnings('ignore:.*litlogger.*'),
    pytest.mark.filterwarnings('ignore:Checkpoint directory .* exists and is not empty'),
    pytest.mark.filterwarnings('ignore:The number of training batches'),
]


def task(**more) -> CACoTask:
    """A small task."""
    return CACoTask('resnet10t', size=32, memory_bank_size=16, **more)


def train(tiny: Path, root: Path, *savers: ModelCheckpoint, ckpt_path=None, **more) -> Trainer:
    """Train for an epoch, or more."""
    trainer = Trainer(
        accelerator='cpu', default_root_dir=root, log_every_n_steps=1, callbacks=list(savers),
        enable_progress_bar=False, enable_model_summary=False, **{'max_epochs': 1, **more},
    )  # fmt: skip
    data = SeasonalTemporalDataModule(str(tiny), batch_size=4, num_workers=0)
    trainer.fit(task(), datamodule=data, ckpt_path=ckpt_path)
    return trainer


def test_savers_of_ones_own_are_kept(tiny, tmp_path):
    best = ModelCheckpoint(monitor='train_loss', mode='min')
    steps = ModelCheckpoint(str(tmp_path / 'steps'), every_n_train_steps=1, save_top_k=-1)
    trainer = train(tiny, tmp_path, best, steps)
    assert [each for each in trainer.callbacks if isinstance(each, ModelCheckpoint)] == [
        best,
        steps,
    ]
    assert len(list((tmp_path / 'steps').glob('*.ckpt'))) == trainer.global_step > 1
    written = {path.name for path in (tmp_path / 'checkpoints').glob('*.ckpt')}
    assert len(written) == 2
    assert 'last.ckpt' in written


def test_a_second_run_leaves_the_metrics_of_the_first(tiny, tmp_path, caplog):
    train(tiny, tmp_path)
    first = (tmp_path / 'metrics.csv').read_bytes()
    train(tiny, tmp_path)
    assert 'metrics.csv is of another run; it is metrics-v0.csv now' in caplog.text
    assert (tmp_path / 'metrics-v0.csv').read_bytes() == first
    # One that resumes goes on with them.
    last = str(tmp_path / 'checkpoints' / 'last.ckpt')
    train(tiny, tmp_path, ckpt_path=last, max_epochs=2)
    assert sorted(path.name for path in tmp_path.glob('metrics*')) == [
        'metrics-v0.csv', 'metrics.csv',
    ]  # fmt: skip
    rows = (tmp_path / 'metrics.csv').read_text().splitlines()
    assert len(rows) > len(first.splitlines())
    assert 'is of a run of 1 epochs, this one has 2: the learning rate goes on as' in caplog.text


class Pictures(Dataset):
    """Time series without names."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict:
        return {'image': torch.rand(2, 3, 3, 32, 32), 'index': torch.tensor(index)}


@pytest.mark.filterwarnings('ignore:You defined a `validation_step`')
def test_a_loader_of_ones_own(tmp_path, caplog):
    trainer = Trainer(
        accelerator='cpu', max_epochs=1, default_root_dir=tmp_path, logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(task(), DataLoader(Pictures(), 2))
    assert trainer.callback_metrics['train_loss'].isfinite()
    assert 'The data have no location_names' in caplog.text


def test_a_full_disk_is_not_a_place_to_go_on_from(tiny, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(AtomicCheckpointIO, '_note', lambda *_: None)

    def stop(self, *_):
        self.trainer._signal_connector.received_sigterm = True

    monkeypatch.setattr(CACoTask, 'on_train_batch_end', stop)
    with pytest.raises(SystemExit):
        train(tiny, tmp_path)
    assert 'told to stop, but' in caplog.text
    assert 'goes on from here' not in caplog.text


def test_a_missing_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(__import__('sys').modules, 'torchgeo_caco.acquisition', None)
    assert main(['download', '--help']) == 1
    assert 'pip install "torchgeo_caco[acquisition]"' in capsys.readouterr().err


def test_the_rich_bar_moves_at_some_steps_only(monkeypatch):
    pytest.importorskip('rich')
    moved: list[int] = []
    parent = SparingRichProgressBar.__mro__[1]
    monkeypatch.setattr(parent, 'on_train_batch_end', lambda *a: moved.append(a[-1]))

    class Ten:
        is_last_batch = False

    bar, trainer = SparingRichProgressBar(4, parent().theme), Ten()
    for number in range(10):
        trainer.is_last_batch = number == 9
        bar.on_train_batch_end(trainer, None, None, None, number)
    assert moved == [3, 7, 9]


@pytest.mark.parametrize('savers', [[], [ModelCheckpoint(save_last=True)]])
def test_the_last_checkpoint_is_found_from_python(savers, tiny, tmp_path):
    train(tiny, tmp_path, *copy.deepcopy(savers))
    trainer = train(tiny, tmp_path, *copy.deepcopy(savers), ckpt_path='last', max_epochs=2)
    assert Path(trainer.ckpt_path) == tmp_path / 'checkpoints' / 'last.ckpt'
    steps = [row.split(',') for row in (tmp_path / 'metrics.csv').read_text().splitlines()]
    losses = [row[steps[0].index('train_loss')] for row in steps[1:]]
    assert len([each for each in losses if each]) == trainer.global_step == 6
    assert not list(tmp_path.glob('metrics-v*'))
