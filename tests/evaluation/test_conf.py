"""Every YAML in conf/eval runs by unmodified ``torchgeo fit`` and ``torchgeo test``."""

import csv
import os
from pathlib import Path

import pytest
import torch
import yaml
from torchgeo.main import main

CONF = Path(__file__).parents[2] / 'conf' / 'eval'
REAL = os.environ.get('TORCHGEO_CACO_REAL_DATA')
UNCHANGED = ('eurosat', 'bigearthnet', 'oscd')
#: Third parties' remarks on tiny runs, and TorchGeo's and torchmetrics' own.
pytestmark = [
    pytest.mark.filterwarnings('ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning'),
    pytest.mark.filterwarnings('ignore:The .*dataloader.* does not have many workers'),
    pytest.mark.filterwarnings('ignore:The number of training batches'),
    pytest.mark.filterwarnings('ignore:.*litlogger.*'),
    pytest.mark.filterwarnings('ignore:Checkpoint directory .* exists and is not empty'),
    pytest.mark.filterwarnings("ignore:For 'tu-'"),
    pytest.mark.filterwarnings('ignore:No positive samples'),
    pytest.mark.filterwarnings('ignore:Average precision score for one or more classes'),
    pytest.mark.filterwarnings('ignore:Metric .* have divergent'),
]


def run(command: str, name: str, out: Path, *more: str) -> None:
    main(
        [
            command, '--config', str(CONF / f'{name}.yaml'), '--data.num_workers', '0',
            '--trainer.max_epochs', '1', '--trainer.accelerator', 'cpu',
            '--trainer.default_root_dir', str(out), '--trainer.logger.save_dir', str(out),
            '--trainer.enable_progress_bar', 'false', '--trainer.enable_model_summary', 'false',
            '--trainer.log_every_n_steps', '1', *more,
        ]
    )  # fmt: skip


def last(out: Path) -> dict[str, float]:
    """The last value of each figure."""
    found: dict[str, float] = {}
    with open(out / 'metrics.csv', newline='') as file:
        for row in csv.DictReader(file):
            found |= {key: float(value) for key, value in row.items() if value}
    return found


def checkpoint_of(out: Path) -> str:
    return str(next(out.rglob('last.ckpt')))


@pytest.mark.parametrize('name', UNCHANGED)
def test_only_torchgeo(name):
    content = yaml.safe_load((CONF / f'{name}.yaml').read_text())
    assert content['model']['class_path'].startswith('torchgeo.tasks.')
    assert content['data']['class_path'].startswith('torchgeo.datamodules.')
    assert 'weights' not in content['model']['init_args']


@pytest.mark.parametrize('name', UNCHANGED)
@pytest.mark.filterwarnings('ignore:input channels 12')
def test_fit_and_test(name, request, pretrained, tmp_path):
    root = request.getfixturevalue(name)
    small = ['--data.dict_kwargs.root', str(root), '--data.dict_kwargs.checksum', 'false']
    small += ['--data.init_args.batch_size', '2']
    if name == 'oscd':
        small += ['--data.init_args.val_split_pct', '0.5', '--data.init_args.patch_size', '64']
    weights = ['--model.weights', str(pretrained / 'checkpoints' / 'last.ckpt')]
    run('fit', name, tmp_path, *small, *weights)
    assert 'val_loss' in last(tmp_path)
    trained = torch.load(checkpoint_of(tmp_path), weights_only=True)['state_dict']
    key = 'model.encoder.layer1.0.conv1.weight' if name == 'oscd' else 'model.layer1.0.conv1.weight'
    own = torch.load(weights[1], weights_only=True)['state_dict']['backbone.layer1.0.conv1.weight']
    assert torch.equal(trained[key], own) == (name != 'bigearthnet')
    run('test', name, tmp_path, *small, '--ckpt_path', checkpoint_of(tmp_path))
    assert 'test_loss' in last(tmp_path)


def test_rgb_weights_on_twelve_bands_are_told(bigearthnet, pretrained, tmp_path):
    weights = str(pretrained / 'checkpoints' / 'last.ckpt')
    arguments = ('--data.dict_kwargs.root', str(bigearthnet), '--data.init_args.batch_size', '2')
    with pytest.warns(UserWarning, match='input channels 12 != input channels in pretrained'):
        run('fit', 'bigearthnet', tmp_path, *arguments, '--model.weights', weights)


@pytest.mark.filterwarnings('ignore:input channels 12')
def test_model_folders(eurosat, oscd, pretrained, tmp_path):
    folder = f'local-dir:{pretrained / "model"}'
    small = ('--data.init_args.batch_size', '2', '--model.init_args', '{weights: true}')
    run(
        'fit', 'eurosat', tmp_path / 'a', *small, '--model.model', folder,
        '--data.dict_kwargs.root', str(eurosat), '--data.dict_kwargs.checksum', 'false',
    )  # fmt: skip
    run(
        'fit', 'oscd', tmp_path / 'b', *small, '--model.backbone', f'tu-{folder}',
        '--data.dict_kwargs.root', str(oscd), '--data.init_args.val_split_pct', '0.5',
    )  # fmt: skip
    assert 'val_loss' in last(tmp_path / 'a')
    assert 'val_loss' in last(tmp_path / 'b')


PUBLISHED = {
    'eurosat_published': ('eurosat_rgb', ['--data.batch_size', '4'], 'OverallAccuracy'),
    'bigearthnet_published': (
        'bigearthnet', ['--data.batch_size', '2', '--data.size', '64'], 'OverallAveragePrecision',
    ),
    'oscd_published': ('oscd', ['--data.batch_size', '4', '--data.size', '64'], 'OverallF1Score'),
    'dynamicearthnet_published': (
        'dynamicearthnet', ['--data.batch_size', '2', '--data.tile', '64'], 'AverageJaccardIndex',
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', sorted(PUBLISHED))
@pytest.mark.parametrize('normalization', ['plain', 'weights'])
def test_published(name, normalization, request, pretrained, tmp_path):
    data, small, figure = PUBLISHED[name]
    arguments = ['--data.root', str(request.getfixturevalue(data)), *small]
    arguments += ['--data.normalization', normalization]
    weights = ['--model.weights', str(pretrained / 'checkpoints' / 'last.ckpt')]
    run('fit', name, tmp_path, *arguments, *weights)
    assert f'val_{figure}' in last(tmp_path)
    # The result says which normalisation it belongs to.
    hparams = yaml.unsafe_load((tmp_path / 'hparams.yaml').read_text())
    assert hparams['normalization'] == normalization
    saved = torch.load(checkpoint_of(tmp_path), weights_only=True)
    state = next(v for v in saved.values() if isinstance(v, dict) and 'statistics' in v)
    wanted = [0.485, 0.456, 0.406] if normalization == 'weights' else [0, 0, 0]
    assert state['mean'] == pytest.approx(wanted)
    own = torch.load(weights[1], weights_only=True)['state_dict']['backbone.layer1.0.conv1.weight']
    found = [v for k, v in saved['state_dict'].items() if k.endswith('layer1.0.conv1.weight')]
    assert torch.equal(found[0], own)
    run('test', name, tmp_path, *arguments, '--ckpt_path', checkpoint_of(tmp_path))
    assert f'test_{figure}' in last(tmp_path)


def test_all_are_tested():
    assert {path.stem for path in CONF.glob('*.yaml')} == {*UNCHANGED, *PUBLISHED}


@pytest.mark.skipif(REAL is None, reason='needs TORCHGEO_CACO_REAL_DATA')
@pytest.mark.parametrize('name', UNCHANGED)
@pytest.mark.filterwarnings('ignore:input channels 12')
def test_real_data(name, pretrained, tmp_path):
    root = Path(str(REAL)) / ('eurosat_ms' if name == 'eurosat' else name)
    small = ['--data.dict_kwargs.root', str(root), '--data.dict_kwargs.checksum', 'false']
    small += ['--data.init_args.batch_size', '2']
    if name == 'oscd':
        small += ['--data.init_args.val_split_pct', '0.5']
    weights = ['--model.weights', str(pretrained / 'checkpoints' / 'last.ckpt')]
    run('fit', name, tmp_path, *small, *weights)
    assert 'val_loss' in last(tmp_path)
    if name != 'oscd':
        run('test', name, tmp_path, *small, '--ckpt_path', checkpoint_of(tmp_path))
        assert 'test_loss' in last(tmp_path)
