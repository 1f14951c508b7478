"""What a task refuses, and what it says of a run."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Trainer

from torchgeo_caco import CACoTask, SeasonalTemporalDataModule
from torchgeo_caco.transforms import artificial_augmentation


@pytest.mark.parametrize(
    ('negatives', 'query', 'keys', 'places', 'more'),
    [
        ('never', (4, 2, 3, 32, 32), [(4, 2, 3, 32, 32)] * 3, 4, {}),
        ('changed', (4, 1, 3, 32, 32), [(4, 1, 3, 32, 32)] * 3, 4, {}),
        # As many rows as two places have.
        ('changed', (4, 1, 3, 32, 32), [(4, 1, 3, 32, 32)] * 3, 2, {}),
        ('changed', (4, 3, 32, 32), [(4, 3, 32, 32)] * 3, 4, {}),
        ('changed', (4, 2, 3, 32, 32), [(4, 2, 3, 32, 32)] * 2, 4, {}),
        ('changed', (4, 2, 3, 32, 32), [(4, 2, 3, 32, 32)] * 2 + [(2, 2, 3, 32, 32)], 4, {}),
        ('changed', (2, 2, 3, 32, 32), [(2, 2, 3, 32, 32)] * 3, 2, {'valid': (4, 2)}),
        ('changed', (2, 2, 3, 32, 32), [(2, 2, 3, 32, 32)] * 3, 2, {'changed': (2,)}),
    ],
)
def test_wrong_shapes(negatives, query, keys, places, more):
    task = CACoTask('resnet10t', size=32, memory_bank_size=16, long_term_negatives=negatives)
    before = task.memory_bank.queue.clone()
    labels = {name: torch.ones(shape, dtype=torch.bool) for name, shape in more.items()}
    message = 'changed and valid must be of shape' if more else r'step takes a query and 3 key\(s\)'
    with pytest.raises(ValueError, match=message):
        task.step(
            torch.rand(query), [torch.rand(key) for key in keys], torch.arange(places), **labels
        )
    assert torch.equal(task.memory_bank.queue, before)


def test_flat_rows_are_those_of_places():
    task = CACoTask('resnet10t', size=32, memory_bank_size=16).eval()
    query, keys = torch.rand(2, 2, 3, 32, 32), torch.rand(3, 2, 2, 3, 32, 32)
    state = {key: value.clone() for key, value in task.state_dict().items()}
    loss = task.step(query, keys, torch.arange(2)).loss
    task.load_state_dict(state)
    flat = task.step(query.flatten(0, 1), keys.flatten(1, 2), torch.arange(2)).loss
    assert torch.equal(loss, flat)


@pytest.mark.parametrize('precision', ['bf16-true', '16-true'])
def test_a_precision_that_is_too_low(precision, tiny, tmp_path):
    trainer = Trainer(
        accelerator='cpu', max_epochs=1, logger=False, default_root_dir=tmp_path,
        enable_progress_bar=False, enable_model_summary=False, precision=precision,
    )  # fmt: skip
    task = CACoTask('resnet10t', size=32, memory_bank_size=16)
    with pytest.raises(ValueError, match=f"{precision}.* use 'bf16-mixed'"):
        trainer.fit(task, datamodule=SeasonalTemporalDataModule(str(tiny), 4))


@pytest.mark.filterwarnings('ignore:The .*dataloader.* does not have many workers')
@pytest.mark.parametrize('negatives', ['never', 'always', 'changed'])
@pytest.mark.parametrize('spread', [0.05, 0.5])
def test_a_collapse_is_told(spread, negatives, tiny, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr('torchgeo_caco.tasks.caco.spread', lambda features: torch.tensor(spread))
    trainer = Trainer(
        accelerator='cpu', max_epochs=1, limit_train_batches=2, logger=False,
        default_root_dir=tmp_path, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False,
    )  # fmt: skip
    task = CACoTask('resnet10t', size=32, memory_bank_size=16, long_term_negatives=negatives)
    trainer.fit(task, datamodule=SeasonalTemporalDataModule(str(tiny), 4, periods=task.periods))
    assert ('features have collapsed: their spread is 0.050 of 1' in caplog.text) == (spread < 0.1)


@pytest.mark.parametrize(
    ('bands', 'own', 'hue'),
    [
        (('B04', 'B3', 'B2'), False, True),
        (('B2', 'B3', 'B4'), False, True),
        (('B8', 'B4', 'B3'), False, False),
        (('red', 'green', 'nir'), False, True),
        (('B8', 'B4', 'B3'), True, True),
    ],
)
def test_hue_is_for_red_green_and_blue(bands, own, hue):
    given = {'augmentation2': artificial_augmentation(32)} if own else {}
    task = CACoTask('resnet10t', size=32, memory_bank_size=16, **given)
    task.trainer = Trainer(accelerator='cpu', logger=False, enable_checkpointing=False)
    task.trainer.datamodule = SimpleNamespace(
        bands=bands, periods=2, location_names=list('abcdefgh')
    )
    task.setup('fit')
    names = [type(module).__name__ for module in task.augmentation2.modules()]
    assert ('ColorJitter' in names) == hue
    assert ('RandomBrightness' in names) != hue
    assert task.augmentation2(torch.rand(2, 3, 40, 40)).shape == (2, 3, 32, 32)
    # A task that knows nothing of the data takes the checkpoint.
    other = CACoTask('resnet10t', size=32, memory_bank_size=16, **given)
    checkpoint = {'state_dict': dict(task.state_dict()), 'caco_locations': list('abcdefgh')}
    other.on_load_checkpoint(checkpoint)
    other.load_state_dict(checkpoint['state_dict'])
    assert torch.equal(other.memory_bank.queue, task.memory_bank.queue)
