"""A run that was stopped, however it was, ends as the unbroken one does."""

import gc
import importlib.util
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import SLURMEnvironment

from torchgeo_caco import CACoTask, SeasonalTemporalDataModule
from torchgeo_caco.loggers import MetricsLogger
from torchgeo_caco.stores import PackedStore

SCRIPT = Path(__file__).parent / 'kill.py'
_spec = importlib.util.spec_from_file_location('kill', SCRIPT)
assert _spec is not None
assert _spec.loader is not None
kill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(kill)

#: Third parties' remarks on tiny runs.
pytestmark = [
    # Lightning's command line uses an older call of jsonargparse.
    pytest.mark.filterwarnings('ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning'),
    pytest.mark.filterwarnings('ignore:The .*dataloader.* does not have many workers'),
    pytest.mark.filterwarnings('ignore:.*litlogger.*'),
    pytest.mark.filterwarnings("ignore:LightningCLI's args parameter"),
    pytest.mark.filterwarnings('ignore:Checkpoint directory .* exists and is not empty'),
    pytest.mark.filterwarnings('ignore:.*ckpt_path="last".* is set, but there is no last'),
    # Where gradients are accumulated the schedule's first step may come before the optimiser's.
    pytest.mark.filterwarnings('ignore:Detected call of `lr_scheduler.step'),
]


@pytest.fixture(scope='module')
def whole(tiny, tmp_path_factory):
    """The unbroken run."""
    out = tmp_path_factory.mktemp('whole')
    kill.fit(tiny, out)
    return out


def at(monkeypatch, step, work):
    """Do something once, in the middle of a step."""
    original = CACoTask.step

    def hooked(self, *args, **kwargs):
        out = original(self, *args, **kwargs)
        if self.trainer.fit_loop.epoch_loop.total_batch_idx == step and not done:
            done.append(step)
            work()
        return out

    done = []
    monkeypatch.setattr(CACoTask, 'step', hooked)


def test_killed_nine_times_out_of_ten():
    command = [sys.executable, str(SCRIPT), '--kills', '5', '--seed', '1']
    paths = {'PYTHONPATH': os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | paths)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '5 kills' in done.stdout
    assert '0 end states differ' in done.stdout


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize(('number', 'code'), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_told_to_stop(number, code, workers, whole, tiny, tmp_path, monkeypatch):
    at(monkeypatch, 4, lambda: os.kill(os.getpid(), number))
    with pytest.raises(SystemExit) as stopped:
        kill.fit(tiny, tmp_path, workers=workers)
    assert stopped.value.code == code
    assert kill.last(tmp_path)['global_step'] == 5
    kill.fit(tiny, tmp_path, workers=workers)
    assert kill.differences(kill.last(whole), kill.last(tmp_path)) == []
    assert kill.steps(tmp_path) == list(range(12))


def test_told_twice_to_stop(tiny, tmp_path, monkeypatch):
    def twice():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    at(monkeypatch, 4, twice)
    handler = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit):
            kill.fit(tiny, tmp_path)
    finally:
        signal.signal(signal.SIGINT, handler)
    # In the middle of a batch nothing is saved.
    assert kill.last(tmp_path)['global_step'] == 3


@pytest.mark.parametrize(
    'more',
    [
        ['--trainer.accumulate_grad_batches', '2'],
        ['--model.optimizer', 'adamw', '--model.warmup_epochs', '1', '--model.lr', '1e-3'],
        ['--trainer.max_epochs', '-1', '--trainer.max_steps', '10'],
        [f'{kill.SAVER}train_time_interval', '00:00:00'],
    ],
)
@pytest.mark.parametrize('step', [3, 5])
def test_variants(more, step, tiny, tmp_path, monkeypatch):
    for name, stop in (('whole', None), ('stopped', step)):
        out = tmp_path / name
        if stop is not None:
            at(monkeypatch, stop, lambda: os.kill(os.getpid(), signal.SIGTERM))
            with pytest.raises(SystemExit):
                kill.fit(tiny, out, *more)
        kill.fit(tiny, out, *more)
    ends = [kill.last(tmp_path / name) for name in ('whole', 'stopped')]
    assert kill.differences(*ends) == []
    assert kill.steps(tmp_path / 'whole') == kill.steps(tmp_path / 'stopped')


def test_a_checkpoint_that_cannot_be_written(whole, tiny, tmp_path, monkeypatch, caplog):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    at(monkeypatch, 4, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard)))
    try:
        kill.fit(tiny, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    said = [r.getMessage() for r in caplog.records if 'could not be written' in r.getMessage()]
    assert any(f'{tmp_path}/checkpoints/last.ckpt: the checkpoint of step 6' in s for s in said)
    # The training went on, and what was there before is there.
    assert kill.steps(tmp_path) == list(range(12))
    files = sorted(path.name for path in (tmp_path / 'checkpoints').iterdir())
    assert files == ['epoch=0-step=3.ckpt', 'last.ckpt']
    assert kill.last(tmp_path)['global_step'] == 3
    kill.fit(tiny, tmp_path)
    assert kill.differences(kill.last(whole), kill.last(tmp_path)) == []


def test_requeued_by_slurm(whole, tiny, tmp_path, monkeypatch):
    requeued = []
    connector = 'lightning.pytorch.trainer.connectors.signal_connector'
    monkeypatch.setattr(f'{connector}.call', lambda command: requeued.append(command) or 0)
    for key, value in {'SLURM_JOB_ID': '7', 'SLURM_NTASKS': '1', 'SLURM_PROCID': '0'}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv('SLURM_LOCALID', '0')
    monkeypatch.setenv('SLURM_NODEID', '0')

    def stop():
        os.kill(os.getpid(), signal.SIGUSR1)
        # Not in the middle of a batch.
        assert requeued == []

    at(monkeypatch, 3, stop)
    at_5 = CACoTask.training_step

    def killed(self, batch, batch_idx):
        if requeued:
            raise RuntimeError('SLURM ends the job')
        return at_5(self, batch, batch_idx)

    monkeypatch.setattr(CACoTask, 'training_step', killed)
    monkeypatch.setattr(SLURMEnvironment, 'detect', staticmethod(lambda: True))
    with pytest.raises(RuntimeError, match='SLURM ends the job'):
        kill.fit(tiny, tmp_path)
    assert requeued == [['scontrol', 'requeue', '7']]
    assert kill.last(tmp_path)['global_step'] == 4
    requeued.clear()
    kill.fit(tiny, tmp_path)
    assert kill.differences(kill.last(whole), kill.last(tmp_path)) == []


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
                counts.append((len(objects), sum(torch.is_tensor(o) for o in objects)))
            return super().on_after_batch_transfer(batch, dataloader_idx)

    task = CACoTask('resnet10t', size=32, memory_bank_size=16)
    small(max_epochs=12).fit(task, datamodule=Count(str(tiny), 4))
    tensors = [tensors for _, tensors in counts[4:]]
    assert len(tensors) == 8
    assert max(tensors) == min(tensors)
    assert max(n for n, _ in counts[4:]) - counts[4][0] < 50


def test_metrics_after_a_cut(tmp_path):
    path = tmp_path / 'metrics.csv'
    path.write_text('loss,step\n3.5,0\n2.5,1\n1.5,2\n0.5,1')
    logger = MetricsLogger(str(tmp_path))
    logger.log_metrics({'loss': 9.0}, step=2)
    assert path.read_text().split() == ['loss,step', '3.5,0', '2.5,1', '9.0,2']
