"""Runs of many epochs: workers that die, memory."""

import gc
import os
import signal

import pytest
import torch
from lightning.pytorch import Trainer

from torchgeo_caco import CACoTask, SeasonalTemporalDataModule
from torchgeo_caco.stores import PackedStore

pytestmark = pytest.mark.filterwarnings('ignore:The .*dataloader.* does not have many workers')


def small(**arguments):
    """A trainer without files."""
    return Trainer(
        accelerator='cpu', logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, **arguments,
    )  # fmt: skip


def test_a_worker_that_dies(tiny, monkeypatch, caplog):
    read = PackedStore.read_batch
    main = os.getpid()

    def deadly(self, numbers, *args, **kwargs):
        if os.getpid() != main and 5 in numbers:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(self, numbers, *args, **kwargs)

    monkeypatch.setattr(PackedStore, 'read_batch', deadly)
    data = SeasonalTemporalDataModule(str(tiny), 4, num_workers=2)
    task = CACoTask('resnet10t', size=32, memory_bank_size=16)
    with pytest.raises(RuntimeError, match='DataLoader worker') as died:
        small(max_epochs=2).fit(task, datamodule=data)
    (sentence,) = died.value.__notes__
    assert sentence in caplog.messages
    assert 'died while it was reading locations ' in sentence
    assert data.location_names[5] in sentence


def test_memory_does_not_grow(tiny):
    counts = []

    class Count(SeasonalTemporalDataModule):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            if self.trainer.fit_loop.epoch_loop.batch_idx == -1:
                gc.collect()
                objects = gc.get_objects()
                counts.append(
                    (len(objects), sum(issubclass(type(o), torch.Tensor) for o in objects))
                )
            return super().on_after_batch_transfer(batch, dataloader_idx)

    task = CACoTask('resnet10t', size=32, memory_bank_size=16)
    small(max_epochs=12).fit(task, datamodule=Count(str(tiny), 4))
    tensors = [tensors for _, tensors in counts[4:]]
    assert len(tensors) == 8
    assert max(tensors) == min(tensors)
    assert max(n for n, _ in counts[4:]) - counts[4][0] < 50
