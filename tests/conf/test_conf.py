"""Every YAML in conf/ runs by unmodified ``torchgeo fit``, on tiny data."""

import csv
from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from torchgeo.main import main

from ..ranks import run_ranks

CONF = Path(__file__).parents[2] / 'conf'
#: Third parties' remarks on tiny runs.
pytestmark = [
    # Lightning's command line uses an older call of jsonargparse.
    pytest.mark.filterwarnings('ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning'),
    pytest.mark.filterwarnings('ignore:The .*dataloader.* does not have many workers'),
    pytest.mark.filterwarnings('ignore:The number of training batches'),
    pytest.mark.filterwarnings('ignore:.*litlogger.*'),
    pytest.mark.filterwarnings('ignore:Checkpoint directory .* exists and is not empty'),
    pytest.mark.filterwarnings('ignore:Detected call of `lr_scheduler.step'),
]


def fit(name: str, root: Path, out: Path, *more: str) -> None:
    """Run a YAML with the overrides that make it tiny."""
    arguments = [
        'fit', '--config', str(CONF / f'{name}.yaml'),
        '--data.root', str(root), '--data.batch_size', '4', '--data.num_workers', '0',
        '--model.memory_bank_size', '16', '--model.model', 'resnet10t',
        '--trainer.max_epochs', '2', '--trainer.default_root_dir', str(out),
        '--trainer.accelerator', 'cpu', '--trainer.log_every_n_steps', '1',
        '--trainer.enable_progress_bar', 'false', '--trainer.enable_model_summary', 'false',
    ]  # fmt: skip
    main([*arguments, *more])


def rows(out: Path) -> list[dict[str, str]]:
    """Rows of a run's metrics."""
    with open(out / 'metrics.csv', newline='') as file:
        return list(csv.DictReader(file))


NAMES = sorted(path.stem for path in CONF.glob('*.yaml'))


@pytest.mark.parametrize(
    'name', [n for n in NAMES if not n.startswith('moco') and n != 'caco_continue']
)
def test_ours(name, tiny, tmp_path):
    fit(name, tiny, tmp_path, '--model.size', '32')
    losses = [float(row['train_loss']) for row in rows(tmp_path) if row['train_loss']]
    assert len(losses) == 2 * 3
    checkpoint = torch.load(tmp_path / 'checkpoints' / 'last.ckpt', weights_only=True)
    assert checkpoint['hyper_parameters']['model'] == 'resnet10t'
    gated = name not in ('seco', 'teco')
    assert len(checkpoint['caco_locations']) == 12
    assert (checkpoint['state_dict']['estimator.visits'].sum() > 0) == gated
    assert bool(list(tmp_path.glob('change_histogram/*.png'))) == gated
    model = timm.create_model(f'local-dir:{tmp_path / "model"}', pretrained=True)
    state = checkpoint['state_dict']
    assert all(torch.equal(v, state[f'backbone.{k}']) for k, v in model.state_dict().items())


@pytest.mark.parametrize('name', ['moco', 'moco_tp'])
def test_torchgeos(name, tiny, tmp_path, monkeypatch):
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    views = ['--model.augmentation1.init_args.size=32', '--model.augmentation2.init_args.size=32']
    fit(name, tiny, tmp_path / 'run', *views)
    last = tmp_path / 'run' / 'checkpoints' / 'last.ckpt'
    steps = torch.load(last, weights_only=True)['global_step']
    fit(name, tiny, tmp_path / 'run', *views, '--ckpt_path', 'last', '--trainer.max_epochs', '3')
    # In its folder and nowhere else, and as one run.
    assert not list((tmp_path / 'here').iterdir())
    names = {path.name for path in (tmp_path / 'run').iterdir()}
    assert names == {'checkpoints', 'config.yaml', 'hparams.yaml', 'metrics.csv', 'model'}
    checkpoint = torch.load(last, weights_only=True)
    assert checkpoint['global_step'] == steps // 2 * 3
    logged = [int(row['step']) for row in rows(tmp_path / 'run') if row['train_loss']]
    assert logged == list(range(steps // 2 * 3))
    model = timm.create_model(f'local-dir:{tmp_path / "run" / "model"}', pretrained=True)
    state = checkpoint['state_dict']
    assert all(torch.equal(v, state[f'backbone.{k}']) for k, v in model.state_dict().items())


def test_continued_pretraining(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr('torch.hub._hub_dir', str(tmp_path))
    encoder = timm.create_model('resnet18', num_classes=0)
    published = nn.Sequential(*list(encoder.children())[:8])
    (tmp_path / 'checkpoints').mkdir()
    torch.save(published.state_dict(), tmp_path / 'checkpoints' / 'resnet18_caco_geo_1m_200.pth')
    # Nothing is learned, so that the run ends with what it began with.
    still = ('--model.model', 'resnet18', '--model.size', '32', '--model.lr', '0')
    fit('caco_continue', tiny, tmp_path / 'run', *still, '--trainer.max_epochs', '1')
    checkpoint = torch.load(tmp_path / 'run' / 'checkpoints' / 'last.ckpt', weights_only=True)
    for name, value in encoder.named_parameters():
        for copy in ('backbone', 'backbone_momentum'):
            torch.testing.assert_close(checkpoint['state_dict'][f'{copy}.{name}'], value)


def test_all_are_tested():
    assert {'demo', 'simulated', 'caco', 'caco_resnet50', 'caco_1m', 'seco', 'teco'} <= set(NAMES)
    assert {'moco', 'moco_tp', 'caco_continue'} <= set(NAMES)


def test_a_resumed_run_keeps_estimates_and_metrics(tiny, tmp_path):
    fit('caco', tiny, tmp_path, '--model.size', '32')
    before = torch.load(tmp_path / 'checkpoints' / 'last.ckpt', weights_only=True)
    arguments = ('--model.size', '32', '--trainer.max_epochs', '3', '--ckpt_path', 'last')
    fit('caco', tiny, tmp_path, *arguments)
    after = torch.load(tmp_path / 'checkpoints' / 'last.ckpt', weights_only=True)
    visits = [c['state_dict']['estimator.visits'] for c in (before, after)]
    assert (visits[0] == 2).all()
    assert (visits[1] == 3).all()
    assert after['epoch'] == before['epoch'] + 1
    steps = [int(row['step']) for row in rows(tmp_path) if row['train_loss']]
    assert steps == list(range(9))


def fit_rank(rank: int, overlay: str, root: Path, out: Path, *more: str) -> None:
    """Run caco.yaml with an overlay, as one of two processes."""
    arguments = ('--config', str(CONF / 'trainer' / f'{overlay}.yaml'), '--model.size', '32')
    fit('caco', root, out, *arguments, '--trainer.accelerator', 'cpu', *more)


@pytest.mark.parametrize(
    ('overlay', 'style', 'shape'),
    [
        ('one_gpu', 'lightning', {'devices': '1'}),
        ('one_node', 'lightning', {'devices': '2'}),
        ('several_nodes', 'torchrun', {'devices': '1', 'num_nodes': '2'}),
        ('slurm', 'slurm', {'devices': '1', 'num_nodes': '2'}),
    ],
)
def test_several_processes(overlay, style, shape, tiny, tmp_path):
    more = [word for key, value in shape.items() for word in (f'--trainer.{key}', value)]
    ranks = 1 if overlay == 'one_gpu' else 2
    batch = ('--data.batch_size', str(4 // ranks))
    run_ranks(fit_rank, ranks, overlay, tiny, tmp_path, *more, *batch, style=style)
    assert len([row for row in rows(tmp_path) if row['train_loss']]) == 2 * 3
    checkpoint = torch.load(tmp_path / 'checkpoints' / 'last.ckpt', weights_only=True)
    assert (checkpoint['state_dict']['estimator.visits'] == 2).all()


def test_all_overlays_are_tested():
    assert {path.stem for path in (CONF / 'trainer').iterdir()} == {
        'one_gpu', 'one_node', 'several_nodes', 'slurm',
    }  # fmt: skip
