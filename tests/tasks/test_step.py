"""What a task refuses, and what it says of a run."""

import pytest
import torch
from lightning.pytorch import Trainer

from torchgeo_caco import CACoTask, SeasonalTemporalDataModule


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
