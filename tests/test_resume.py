"""A run that was stopped, however it was, ends as the unbroken one does."""

import errno
import importlib.util
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from torchgeo_caco import CACoTask, checkpoints
from torchgeo_caco.callbacks.position import align
from torchgeo_caco.datasets import SimulatedLandscapes
from torchgeo_caco.loggers import MetricsLogger

SCRIPT = Path(__file__).parent / 'kill.py'
_spec = importlib.util.spec_from_file_location('kill', SCRIPT)
assert _spec is not None
assert _spec.loader is not None
kill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(kill)

#: Visit all places alike.
ALIKE = ['--data.changed_fraction', 'null']

#: Third parties' remarks on tiny runs.
pytestmark = [
    # Lightning's command line uses an older call of jsonargparse.
    pytest.mark.filterwarnings('ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning'),
    pytest.mark.filterwarnings('ignore:The .*dataloader.* does not have many workers'),
    pytest.mark.filterwarnings('ignore:.*litlogger.*'),
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
    assert kill.differing_files(whole, tmp_path) == []


def test_told_to_stop_where_signals_are_few(whole, tiny, tmp_path, monkeypatch):
    # As on Windows.
    monkeypatch.delattr(signal, 'SIGUSR1')
    monkeypatch.delattr(signal, 'SIGUSR2')
    monkeypatch.setattr(_SignalConnector, 'register_signal_handlers', lambda self: None)

    def interrupt():
        os.kill(os.getpid(), signal.SIGINT)

    at(monkeypatch, 4, interrupt)
    with pytest.raises(SystemExit) as stopped:
        kill.fit(tiny, tmp_path)
    assert stopped.value.code == 130
    assert kill.last(tmp_path)['global_step'] == 5


def test_told_twice_to_stop(tiny, tmp_path, monkeypatch):
    def twice():
        # Not os.kill: another thread may get the signals, and then two of them may be one.
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)

    at(monkeypatch, 4, twice)
    # Ignored, where a shell has put the tests into the background.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
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
    assert kill.differing_files(tmp_path / 'whole', tmp_path / 'stopped') == []


def test_a_checkpoint_that_cannot_be_written(whole, tiny, tmp_path, monkeypatch, caplog):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    at(monkeypatch, 4, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard)))
    try:
        kill.fit(tiny, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    said = [r.getMessage() for r in caplog.records if 'could not be written' in r.getMessage()]
    assert any(f'{tmp_path}/checkpoints/last.ckpt: the checkpoint of step 6' in s for s in said)
    (model,) = [m for m in caplog.messages if 'the model folder could not be written' in m]
    assert f'{tmp_path}/model' in model
    assert not (tmp_path / 'model' / 'model.safetensors').exists()
    # The training went on, and what was there before is there.
    assert kill.rows(tmp_path) == kill.rows(whole)
    files = sorted(path.name for path in (tmp_path / 'checkpoints').iterdir())
    assert files == ['epoch=0-step=3.ckpt', 'last.ckpt']
    assert kill.last(tmp_path)['global_step'] == 3
    kill.fit(tiny, tmp_path)
    assert (tmp_path / 'model' / 'model.safetensors').exists()
    assert kill.differences(kill.last(whole), kill.last(tmp_path)) == []


def test_another_saver_does_not_stand_for_the_last(tiny, tmp_path):
    saver = 'lightning.pytorch.callbacks.ModelCheckpoint'
    kill.fit(
        tiny, tmp_path, f'{kill.SAVER}every_n_train_steps', '5',
        f'--trainer.callbacks+={saver}', f'{kill.SAVER}every_n_epochs', '1',
        f'{kill.SAVER}dirpath', str(tmp_path / 'epochs'),
    )  # fmt: skip
    assert [path.name for path in (tmp_path / 'epochs').iterdir()] == ['epoch=3-step=12.ckpt']
    assert kill.last(tmp_path)['global_step'] == 12


@pytest.mark.parametrize(('failing', 'writes'), [(None, 4), (4, 5)])
def test_the_end_is_written_again_if_it_was_not(failing, writes, tiny, tmp_path, monkeypatch):
    original, paths = checkpoints.write_atomically, []

    def write(path, content):
        paths.append(path.name)
        if path.name == 'last.ckpt' and paths.count('last.ckpt') == failing:
            raise OSError(errno.ENOSPC, 'No space left on device')
        original(path, content)

    monkeypatch.setattr(checkpoints, 'write_atomically', write)
    kill.fit(tiny, tmp_path)
    assert paths.count('last.ckpt') == writes
    assert kill.last(tmp_path)['global_step'] == 12


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


def test_places_added_and_removed(tmp_path, monkeypatch, caplog):
    store = SimulatedLandscapes(12, 24, changed_fraction=0.5).write(tmp_path / 's', 'folder')
    out = tmp_path / 'out'
    at(monkeypatch, 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit):
        kill.fit(store, out, *ALIKE)
    before = kill.last(out)
    gone, new = before['caco_locations'][3], before['caco_locations'][5] + '_new'
    (store / gone).rename(store / new)
    caplog.clear()
    kill.fit(store, out, *ALIKE)
    said = [m for m in caplog.messages if 'since the checkpoint' in m]
    assert said == [
        '1 locations are new since the checkpoint, 1 are gone; '
        'the estimates of the others are kept.'
    ]
    after = kill.last(out)
    visits = [
        dict(
            zip(
                c['caco_locations'], c['state_dict']['estimator.visits'][:, 0].tolist(), strict=True
            )
        )
        for c in (before, after)
    ]
    # The epoch that was stopped begins anew, with all places that are there now.
    assert visits[1].pop(new) == 3
    assert gone not in visits[1]
    assert visits[1] == {name: visits[0][name] + 3 for name in visits[1]}
    assert len(visits[1]) == 11


@pytest.mark.parametrize(('batch', 'steps'), [(3, [3, 3, 4, 4]), (6, [3, 3, 2, 2])])
def test_another_batch_size(batch, steps, tiny, tmp_path, monkeypatch):
    at(monkeypatch, 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit):
        kill.fit(tiny, tmp_path)
    kill.fit(tiny, tmp_path, '--data.batch_size', str(batch))
    epochs = [int(row['epoch']) for row in kill.rows(tmp_path) if row['train_loss']]
    assert [epochs.count(epoch) for epoch in range(4)] == steps
    assert [epochs.count(epoch) for epoch in range(5)] == [*steps, 0]
    assert kill.last(tmp_path)['lr_schedulers'][0]['last_epoch'] == 4


@pytest.mark.parametrize(
    ('accumulate', 'step', 'batch', 'saved', 'restored'),
    [
        # In the middle of an accumulation, in which the run goes on.
        (2, 3, 6, True, True),
        # After a step; the run goes on in the middle of an accumulation.
        (2, 4, 3, False, False),
        # After the first batch of three; the run goes on with the third.
        (3, 3, 3, True, False),
    ],
)
def test_open_gradients(accumulate, step, batch, saved, restored, tiny, tmp_path, monkeypatch):
    more = ['--trainer.accumulate_grad_batches', str(accumulate)]
    at(monkeypatch, step, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit):
        kill.fit(tiny, tmp_path, *more)
    assert ('caco_gradients' in kill.last(tmp_path)) == saved
    original, found = CACoTask.training_step, []

    def noting(self, *args):
        found.append(any(parameter.grad is not None for parameter in self.parameters()))
        return original(self, *args)

    monkeypatch.setattr(CACoTask, 'training_step', noting)
    kill.fit(tiny, tmp_path, *more, '--data.batch_size', str(batch))
    assert found[0] == restored


@given(st.integers(1, 50), st.integers(1, 9), st.integers(0, 60), st.integers(0, 9))
def test_an_epoch_has_its_batches(samples, batch, consumed, ready):
    batch = min(batch, samples)
    progress = {'ready': ready, 'completed': ready - 1, 'started': ready, 'processed': ready}
    loops = {
        'epoch_progress': {'current': {'ready': 2, 'processed': 1}},
        'epoch_loop.batch_progress': {'current': progress, 'is_last_batch': False},
        'state_dict': {'combined_loader': [{'epoch': 1, 'consumed': consumed}]},
    }
    assert align(loops, samples, batch)
    start = loops['state_dict']['combined_loader'][0]['consumed']
    counts = loops['epoch_loop.batch_progress']['current']
    # As many whole batches as are left; if none is, the one at the end.
    assert start == (consumed if samples - consumed >= batch else samples - batch)
    left = (samples - start) // batch
    assert left >= 1
    assert counts['ready'] + left == samples // batch
    assert counts['ready'] - counts['completed'] == 1


def test_metrics_after_a_cut(tmp_path):
    path = tmp_path / 'metrics.csv'
    path.write_text('loss,step\n3.5,0\n2.5,1\n1.5,2\n0.5,1')
    logger = MetricsLogger(str(tmp_path))
    logger.log_metrics({'loss': 9.0}, step=2)
    assert path.read_text().split() == ['loss,step', '3.5,0', '2.5,1', '9.0,2']
    logger.log_metrics({'loss': 9.0}, step=2)
    assert path.read_text().split() == ['loss,step', '3.5,0', '2.5,1', '9.0,2']


def test_the_row_of_an_epoch_after_a_cut(tmp_path):
    path = tmp_path / 'metrics.csv'
    rows = ['loss,mean,step', '3.5,,0', '2.5,,1', ',3.0,1', '1.5,,2', ',1.5,2']
    path.write_text('\n'.join(rows) + '\n')
    MetricsLogger(str(tmp_path)).log_metrics({'mean': 3.0}, step=1)
    assert path.read_text().split() == rows[:4]


def test_metrics_of_a_task_that_says_no_folder():
    with pytest.raises(ValueError, match='MetricsLogger needs save_dir'):
        MetricsLogger().log_metrics({'loss': 1.0}, step=0)


def test_metrics_that_cannot_be_written(tmp_path, caplog):
    path = tmp_path / 'metrics.csv'
    logger = MetricsLogger(str(tmp_path))
    logger.log_metrics({'loss': 0.5}, step=0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 2, hard))
    try:
        for step in (1, 2):
            logger.log_metrics({'loss': 0.5}, step=step)
        logger.log_metrics({'mean': 0.5}, step=2)
        assert path.read_text().split() == ['loss,step', '0.5,0']
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sum(f'{path}: could not be written (File too large)' in m for m in caplog.messages) == 1
    logger.log_metrics({'loss': 0.25}, step=3)
    rows = ['loss,mean,step', '0.5,,0', '0.5,,1', '0.5,,2', ',0.5,2', '0.25,,3']
    assert path.read_text().split() == rows
