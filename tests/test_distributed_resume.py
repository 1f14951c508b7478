"""Runs of several processes that were stopped go on, also in another number of processes."""

import os
import signal

import pytest
import torch

from torchgeo_caco import CACoTask

from . import kill
from .ranks import run_ranks

#: Third parties' remarks on tiny runs.
pytestmark = [
    # Lightning's command line uses an older call of jsonargparse.
    pytest.mark.filterwarnings('ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning'),
    pytest.mark.filterwarnings('ignore:The .*dataloader.* does not have many workers'),
    pytest.mark.filterwarnings('ignore:Checkpoint directory .* exists and is not empty'),
    pytest.mark.filterwarnings('ignore:.*ckpt_path="last".* is set, but there is no last'),
]


def at(step, work):
    """Do something in the middle of a step. For a process that ends with its run."""
    original = CACoTask.step

    def hooked(self, *args, **kwargs):
        out = original(self, *args, **kwargs)
        if self.trainer.fit_loop.epoch_loop.total_batch_idx == step:
            work()
        return out

    CACoTask.step = hooked


def run(rank, store, out, ranks, batch, stop, number, told, *more):
    """A run in one of several processes, up to a step in which some of them get a signal."""
    if stop is not None and rank in told:
        at(stop, lambda: os.kill(os.getpid(), number))
    arguments = ['--trainer.devices', str(ranks), '--data.batch_size', str(batch), *more]
    if ranks > 1:
        arguments += ['--trainer.strategy', 'ddp']
    if stop is None:
        kill.fit(store, out, *arguments)
        return
    with pytest.raises(SystemExit) as stopped:
        kill.fit(store, out, *arguments)
    assert stopped.value.code == 128 + (number if rank in told else signal.SIGTERM)


def steps(out):
    """Steps of which a run has logged a loss."""
    return [int(row['step']) for row in kill.rows(out) if row['train_loss']]


@pytest.mark.parametrize(('number', 'told'), [(signal.SIGTERM, (1,)), (signal.SIGINT, (0, 1))])
def test_all_stop_after_the_same_batch(number, told, tiny, tmp_path):
    for name, stops in (('whole', [None]), ('stopped', [4, None])):
        for stop in stops:
            run_ranks(run, 2, tiny, tmp_path / name, 2, 2, stop, number, told)
            assert kill.last(tmp_path / name)['global_step'] == (12 if stop is None else 5)
    whole, stopped = tmp_path / 'whole', tmp_path / 'stopped'
    assert kill.differences(kill.last(whole), kill.last(stopped)) == []
    assert steps(stopped) == list(range(12))


def test_open_gradients_of_all_processes_are_kept(tiny, tmp_path):
    more = ('--trainer.accumulate_grad_batches', '2', '--model.shuffle_bn', 'false')
    for name, stops in (('whole', [None]), ('stopped', [3, None])):
        for stop in stops:
            run_ranks(run, 2, tiny, tmp_path / name, 2, 2, stop, signal.SIGTERM, (0, 1), *more)
    whole, stopped = (kill.last(tmp_path / name)['state_dict'] for name in ('whole', 'stopped'))
    for key, value in whole.items():
        # Gradients were summed up in another order.
        torch.testing.assert_close(stopped[key], value, rtol=1e-3, atol=1e-4, equal_nan=True)


def test_number_of_processes_changes_within_epochs(tiny, tmp_path):
    alike = ('--data.changed_fraction', 'null')
    sigterm = signal.SIGTERM
    run_ranks(run, 1, tiny, tmp_path, 1, 4, 4, sigterm, (0,), *alike)
    run_ranks(run, 2, tiny, tmp_path, 2, 2, 7, sigterm, (0,), *alike)
    middle = kill.last(tmp_path)
    # 12 places, 4 in a batch of all processes.
    assert middle['global_step'] == 8
    visits = middle['state_dict']['estimator.visits']
    assert sorted(visits[:, 0].tolist()) == [2] * 4 + [3] * 8
    run_ranks(run, 1, tiny, tmp_path, 1, 4, None, None, (), *alike)
    end = kill.last(tmp_path)
    assert (end['state_dict']['estimator.visits'] == 4).all()
    assert (end['state_dict']['memory_bank.pointer'] == 4 * 12 % 8).all()
    assert steps(tmp_path) == list(range(12))
    assert end['lr_schedulers'][0]['last_epoch'] == 4


def test_a_larger_batch_of_more_processes(tiny, tmp_path):
    run_ranks(run, 1, tiny, tmp_path, 1, 3, 4, signal.SIGTERM, (0,))
    # 15 of 24 are done. Of the 9 that are left 6 make up a batch of all processes.
    run_ranks(run, 2, tiny, tmp_path, 2, 3, None, None, ())
    epochs = [int(row['epoch']) for row in kill.rows(tmp_path) if row['train_loss']]
    assert epochs == [0] * 4 + [1, 1] + [2] * 2 + [3] * 2
    assert kill.last(tmp_path)['lr_schedulers'][0]['last_epoch'] == 4
