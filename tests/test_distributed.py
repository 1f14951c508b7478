"""Several processes do what one does on the same global batch."""

import csv
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import FSDPStrategy
from torch import nn

from torchgeo_caco import CACoTask, SeasonalTemporalDataModule
from torchgeo_caco.datamodules import SimulatedDataModule
from torchgeo_caco.distributed import RowShuffle, check_strategy, count_fused_norms, gather_rows
from torchgeo_caco.stores import open_store

from .ranks import run_ranks
from .two_ranks import distance, flat, train

#: Third parties' remarks on tiny runs.
pytestmark = [
    pytest.mark.filterwarnings('ignore:The .*dataloader.* does not have many workers'),
    pytest.mark.filterwarnings('ignore:Checkpoint directory .* exists and is not empty'),
    pytest.mark.filterwarnings('ignore:Grad strides do not match bucket view strides'),
]


@pytest.mark.parametrize(
    ('precision', 'accumulate', 'arguments'),
    [
        ('64-true', 1, {}),
        ('64-true', 2, {'label': 'location', 'mask_own': 'all'}),
        ('32-true', 1, {}),
    ],
)
def test_two_processes_are_one(precision, accumulate, arguments, tiny, tmp_path):
    for ranks in (1, 2):
        run_ranks(train, ranks, str(tiny), str(tmp_path), ranks, precision, accumulate, arguments)
    names = ('1-0', '2-0', '2-1')
    one, *both = (torch.load(tmp_path / f'{name}.pt', weights_only=True) for name in names)
    assert len(one['losses']) == 9
    assert any(one['gates'])
    # Single precision: a batch of another size is summed up in another order.
    double = precision == '64-true'
    for key in ('losses', 'gradients', 'states', 'weights'):
        tolerance = 1e-9 if double else 1e-6 if key == 'losses' else 1e-4
        for ours, theirs in zip(flat(both[0][key]), flat(one[key]), strict=True):
            assert distance(ours, theirs) <= tolerance
        # Among themselves they agree to the bit.
        torch.testing.assert_close(both[0][key], both[1][key], rtol=0, atol=0, equal_nan=True)


def test_processes_may_keep_their_own_queues(tiny, tmp_path):
    run_ranks(train, 2, str(tiny), str(tmp_path), 2, '32-true', 1, {'gather_distributed': False})
    both = [torch.load(tmp_path / f'2-{rank}.pt', weights_only=True) for rank in range(2)]
    for step, (one, other) in enumerate(zip(*(run['states'] for run in both), strict=True), 1):
        gap = (one['queue'] - other['queue']).abs().amax(-1)
        assert ((gap > 0).sum(-1) == min(2 * step, 10)).all()
        assert torch.equal(one['estimates'], other['estimates'])
    assert all(map(torch.equal, flat(both[0]['gradients']), flat(both[1]['gradients'])))


class Watch(Callback):
    """Keeps what a resumed run begins with, and compares the processes at its end."""

    def on_train_start(self, trainer, pl_module):
        self.state = {k: v.clone() for k, v in pl_module.state_dict().items()}

    def on_train_end(self, trainer, pl_module):
        vector = nn.utils.parameters_to_vector(pl_module.parameters())
        for mine in (vector, pl_module.memory_bank.queue, pl_module.estimator.estimates):
            everyone = gather_rows(mine[None])
            assert torch.equal(everyone, everyone[:1].expand_as(everyone))
        seeds = gather_rows(torch.tensor([torch.initial_seed()]))
        assert len(seeds.unique()) == trainer.world_size


def go_on(rank, root, out, ranks, epochs, precision):
    """Train a network with batch norm up to an epoch, from the last checkpoint if there is one."""
    # What another process than the first wrote would lie elsewhere.
    folder = out if rank == 0 else out / 'elsewhere'
    last = out / 'checkpoints' / 'last.ckpt'
    watch = Watch()
    trainer = Trainer(
        accelerator='cpu', devices=ranks, max_epochs=epochs, log_every_n_steps=1, callbacks=[watch],
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        precision=precision,
    )  # fmt: skip
    torch.manual_seed(0)
    task = CACoTask('resnet10t', size=32, memory_bank_size=20)
    data = SeasonalTemporalDataModule(str(root), 4 // ranks)
    if not last.exists():
        trainer.fit(task, datamodule=data)
        return
    before = torch.load(last, weights_only=True)
    trainer.fit(task, datamodule=data, ckpt_path=str(last))
    assert all(torch.equal(v, before['state_dict'][k]) for k, v in watch.state.items())


def test_number_of_processes_changes(tiny, tmp_path):
    for epochs, (ranks, precision) in enumerate(
        [(1, '32-true'), (2, 'bf16-mixed'), (1, '32-true')], 1
    ):
        run_ranks(go_on, ranks, tiny, tmp_path, ranks, epochs, precision)
        checkpoint = torch.load(tmp_path / 'checkpoints' / 'last.ckpt', weights_only=True)
        assert checkpoint['global_step'] == 3 * epochs
        state = checkpoint['state_dict']
        # Every place once an epoch, and in the queues (of 10 a period).
        assert (state['estimator.visits'] == epochs).all()
        assert (state['memory_bank.pointer'] == 12 * epochs % 10).all()
        assert state['estimator.estimates'].isfinite().all()
        assert (state['estimator.labels'] >= 0).all()
    assert not (tmp_path / 'elsewhere').exists()
    with open(tmp_path / 'metrics.csv', newline='') as file:
        steps = [int(row['step']) for row in csv.DictReader(file) if row['train_loss']]
    assert steps == list(range(9))
    assert (tmp_path / 'model' / 'model.safetensors').is_file()


def deal(rank, ranks):
    """Deal rows out and back."""
    dist.init_process_group('gloo', rank=rank, world_size=ranks)
    rows = torch.arange(5)[:, None, None] * ranks + rank + torch.zeros(5, 2, 3)
    assert (gather_rows(rows)[:, 0, 0] == torch.arange(5 * ranks)).all()
    groups = []
    for seed in range(3):
        shuffle = RowShuffle(5, seed, torch.device('cpu'))
        mixed = shuffle.shuffle(rows)
        assert torch.equal(shuffle.restore(mixed), rows)
        everyone = gather_rows(mixed)[:, 0, 0]
        assert sorted(everyone.tolist()) == list(range(5 * ranks))
        groups.append(tuple(sorted((mixed[:, 0, 0] % ranks).tolist())))
        assert ranks == 1 or groups[-1] != (rank,) * 5
    dist.destroy_process_group()


@pytest.mark.parametrize('ranks', [1, 2, 3])
def test_rows_are_dealt_out_and_back(ranks):
    run_ranks(deal, ranks, ranks)


def normalise(rank, out, shuffle):
    """Keys of a network with batch norm."""
    dist.init_process_group('gloo', rank=rank, world_size=2)
    torch.manual_seed(0)
    task = CACoTask('resnet10t', size=32, memory_bank_size=8, shuffle_bn=shuffle)
    torch.manual_seed(rank)
    images = torch.randn(4, 2, 3, 32, 32) + 3 * rank
    expected = task.backbone(images.flatten(0, 1))
    rows = images.flatten(0, 1)
    features = task._momentum_features(rows, task._deal(rows))
    torch.save((expected - features).abs().max(), f'{out}/{rank}.pt')
    dist.destroy_process_group()


@pytest.mark.parametrize('shuffle', [True, False])
def test_a_query_and_its_key_are_normalised_by_different_batches(shuffle, tmp_path):
    run_ranks(normalise, 2, str(tmp_path), shuffle)
    for rank in range(2):
        gap = torch.load(tmp_path / f'{rank}.pt', weights_only=True)
        assert (gap > 0.01) if shuffle else (gap < 1e-5)


def simulate(rank, root):
    """What each node does before training."""
    SimulatedDataModule(root, num_locations=3, image_size=16).prepare_data()


def test_nodes_may_simulate_at_once(tmp_path):
    run_ranks(simulate, 3, str(tmp_path / 'store'))
    assert [path.name for path in tmp_path.iterdir()] == ['store']
    assert len(open_store(tmp_path / 'store')) == 3
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other' / 'file').touch()
    with pytest.raises(FileExistsError, match='other holds files, but no finished store'):
        simulate(0, str(tmp_path / 'other'))


def too_large(rank, root):
    trainer = Trainer(accelerator='cpu', devices=2, max_epochs=1, logger=False)
    with pytest.raises(ValueError, match='batch_size=8 in each of 2 processes is more than the 12'):
        trainer.fit(CACoTask('resnet10t'), datamodule=SeasonalTemporalDataModule(root, 8))


def test_batch_of_all_processes_larger_than_the_data(tiny):
    run_ranks(too_large, 2, str(tiny))


def test_other_strategies_are_refused():
    trainer = SimpleNamespace(world_size=2, strategy=FSDPStrategy())
    with pytest.raises(ValueError, match='strategy=ddp only, not by FSDPStrategy'):
        check_strategy(trainer)
    trainer.world_size = 1
    check_strategy(trainer)


def test_activations_lost_to_synchronised_norms_are_noticed():
    task = CACoTask('test_efficientnet', size=32, memory_bank_size=8)
    task._fused_norms = count_fused_norms(task.backbone)
    assert task._fused_norms > 0
    nn.SyncBatchNorm.convert_sync_batchnorm(task)
    with pytest.raises(ValueError, match='takes activations out of test_efficientnet'):
        task.on_fit_start()
