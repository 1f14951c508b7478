"""The published weights by their name in the YAML of TorchGeo's tasks."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch.cli import LightningCLI
from torchgeo.datamodules import BaseDataModule
from torchgeo.tasks import BaseTask

NAME = 'CACoResNet18_Weights.SENTINEL2_RGB_CACO_1M'
TASKS = {
    'Classification': {'model': 'resnet18', 'num_classes': 3},
    'Regression': {'model': 'resnet18'},
    'SemanticSegmentation': {'model': 'unet', 'backbone': 'resnet18', 'num_classes': 3},
    'ChangeDetection': {'model': 'fcsiamdiff', 'backbone': 'resnet18'},
    'MoCo': {'model': 'resnet18', 'memory_bank_size': 8},
    'SimCLR': {'model': 'resnet18'},
    'BYOL': {'model': 'resnet18'},
}
pytestmark = [
    # Lightning's command line uses an older call of jsonargparse.
    pytest.mark.filterwarnings('ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning'),
    pytest.mark.filterwarnings('ignore:MoCo v'),
    pytest.mark.filterwarnings('ignore:SimCLR v'),
    pytest.mark.filterwarnings('ignore:.*litlogger.*'),
]


@pytest.fixture(scope='module')
def hub(foreign, tmp_path_factory) -> Path:
    """Torch hub's folder, with the weights in it."""
    root = tmp_path_factory.mktemp('hub')
    (root / 'checkpoints').mkdir()
    state = foreign.sequential(foreign.original('resnet18'))
    torch.save(state, root / 'checkpoints' / 'resnet18_caco_geo_1m_200.pth')
    return root


def write(task: str, path: Path, trainer: dict) -> Path:
    model = {'class_path': f'torchgeo.tasks.{task}', 'init_args': TASKS[task] | {'weights': NAME}}
    data = {'class_path': 'torchgeo.datamodules.EuroSATDataModule'}
    path.write_text(yaml.safe_dump({'trainer': trainer, 'model': model, 'data': data}))
    return path


@pytest.mark.parametrize('task', TASKS)
def test_in_every_task(task, foreign, hub, tmp_path, monkeypatch):
    monkeypatch.setattr('torch.hub._hub_dir', str(hub))
    path = write(task, tmp_path / 'a.yaml', {'accelerator': 'cpu'})
    cli = LightningCLI(
        BaseTask, BaseDataModule, run=False, subclass_mode_model=True, subclass_mode_data=True,
        save_config_callback=None, seed_everything_default=0, args=['--config', str(path)],
    )  # fmt: skip
    original = foreign.original('resnet18').layer3[0].conv2.weight
    values = [v for k, v in cli.model.state_dict().items() if k.endswith('layer3.0.conv2.weight')]
    assert any(torch.equal(value, original) for value in values)


SCRIPT = """
import sys, torch
from torchgeo.main import main

plain, ours, hub = sys.argv[1:]
torch.hub.set_dir(hub)
try:
    main(['fit', '--config', plain])
except ValueError as error:
    assert 'is not a valid WeightsEnum' in str(error), error
else:
    raise AssertionError('it needs no import')
assert 'torchgeo_caco' not in sys.modules
try:
    main(['fit', '--config', ours])
except Exception as error:
    # The model is made; there are no images.
    assert type(error).__name__ == 'DatasetNotFoundError', repr(error)
else:
    raise AssertionError('it trains without images')
"""


def test_naming_any_class_of_ours_imports_us(hub, tmp_path):
    trainer = {'accelerator': 'cpu', 'default_root_dir': str(tmp_path)}
    plain = write('Classification', tmp_path / 'plain.yaml', {**trainer, 'logger': False})
    logger = {
        'class_path': 'torchgeo_caco.loggers.MetricsLogger',
        'init_args': {'save_dir': str(tmp_path)},
    }
    ours = write('Classification', tmp_path / 'ours.yaml', {**trainer, 'logger': logger})
    arguments = [sys.executable, '-c', SCRIPT, str(plain), str(ours), str(hub)]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
