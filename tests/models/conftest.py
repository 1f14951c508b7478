"""Checkpoints in the forms of others, with random values of torchvision's ResNets."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchgeo.tasks import MoCo, SimCLR

KEYS = json.loads(
    (Path(__file__).parents[1] / 'data' / 'published' / 'state_dict_keys.json').read_text()
)


def make_original(name: str, seed: int = 0, channels: int = 3) -> nn.Module:
    """A torchvision ResNet without classifier, in eval mode, all values random."""
    torch.manual_seed(seed)
    model = getattr(torchvision.models, name)()
    if channels != 3:
        model.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
    for key, value in model.state_dict().items():
        if key.endswith('running_mean'):
            value.normal_(0, 0.1)
        elif key.endswith('running_var'):
            value.uniform_(0.5, 1.5)
        elif key.endswith('num_batches_tracked'):
            value.fill_(7)
    model.fc = nn.Identity()
    return model.eval()


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


def sequential(model: nn.Module) -> dict[str, Tensor]:
    """As the published code and lightly's examples take a ResNet apart."""
    return nn.Sequential(*list(model.children())[:-1], nn.Flatten()).state_dict()


def follower(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a momentum encoder holds: close, but not the same."""
    return {k: v + 0.01 if v.is_floating_point() else v for k, v in state.items()}


def foreign_object() -> Any:
    """An object of a class that is gone when it is read."""
    module = ModuleType('datasets_of_others')
    exec('class DataModule:\n    def __init__(self): self.root = "data"', module.__dict__)
    sys.modules[module.__name__] = module
    module.DataModule.__module__ = module.__name__
    return module.DataModule()


def save_foreign(checkpoint: Any, path: Path, **kwargs: Any) -> None:
    torch.save(checkpoint, path, **kwargs)
    sys.modules.pop('datasets_of_others', None)


def published_ckpt(model: nn.Module, name: str, path: Path) -> None:
    """CACo's and SeCo's Lightning checkpoints, with the data module in their hyper-parameters."""
    encoder, keys = sequential(model), KEYS[f'{name}.ckpt']
    state = prefixed('encoder_q.', encoder) | prefixed('encoder_k.', follower(encoder))
    state |= {k: torch.randn(shape) for k, shape in keys.items() if k.startswith('heads')}
    state['queue'] = torch.zeros(1).expand(keys['queue']).clone()
    state['queue_ptr'] = torch.zeros(keys['queue_ptr'], dtype=torch.long)
    assert {k: list(v.shape) for k, v in state.items()} == keys
    hyper = {'base_encoder': name, 'datamodule': foreign_object()}
    save_foreign({'epoch': 9, 'state_dict': state, 'hyper_parameters': hyper}, path)


def gssl(model: nn.Module, name: str, path: Path) -> None:
    """GSSL's MoCo, in the old form of file."""
    head = {'fc.0.weight': torch.randn(8, 8), 'fc.2.weight': torch.randn(128, 8)}
    state = prefixed('module.encoder_q.', model.state_dict() | head)
    state |= prefixed('module.encoder_k.', follower(model.state_dict()) | head)
    state['module.queue'] = torch.randn(128, 16)
    checkpoint = {'epoch': 200, 'arch': name, 'state_dict': state, 'optimizer': foreign_object()}
    save_foreign(checkpoint, path, _use_new_zipfile_serialization=False)


def torchgeo_task(task: Callable[..., Any]) -> Callable[[nn.Module, str, Path], None]:
    def write(model: nn.Module, name: str, path: Path) -> None:
        module = task(name, hidden_dim=16, output_dim=8, memory_bank_size=8)
        module.backbone.load_state_dict(model.state_dict())
        hyper = dict(module.hparams)
        torch.save({'state_dict': module.state_dict(), 'hyper_parameters': hyper}, path)

    return write


def lightly(model: nn.Module, name: str, path: Path) -> None:
    encoder = nn.Sequential(*list(model.children())[:-1]).state_dict()
    state = prefixed('backbone.', encoder) | prefixed('backbone_momentum.', follower(encoder))
    state |= {'projection_head.layers.0.weight': torch.randn(8, 8)}
    torch.save({'state_dict': state}, path)


def lightly_simclr(model: nn.Module, name: str, path: Path) -> None:
    head = {'projection_head.layers.0.weight': torch.randn(8, 8)}
    torch.save({'state_dict': prefixed('backbone.', model.state_dict()) | head}, path)


def solo_learn(model: nn.Module, name: str, path: Path) -> None:
    state = prefixed('backbone.', model.state_dict())
    state |= prefixed('momentum_backbone.', follower(model.state_dict()))
    state |= {'classifier.weight': torch.randn(10, 8), 'projector.0.weight': torch.randn(8, 8)}
    save_foreign({'state_dict': state, 'hyper_parameters': {'cfg': foreign_object()}}, path)


def torchvision_state(model: nn.Module, name: str, path: Path) -> None:
    classifier = {'fc.weight': torch.randn(1000, 8), 'fc.bias': torch.randn(1000)}
    torch.save(model.state_dict() | classifier, path)


def published_pth(model: nn.Module, name: str, path: Path) -> None:
    state = sequential(model)
    assert {k: list(v.shape) for k, v in state.items()} == KEYS[f'{name}.pth']
    torch.save(state, path)


#: Who writes it, to the file's name and what writes it.
LAYOUTS: dict[str, tuple[str, Callable[[nn.Module, str, Path], None]]] = {
    'CACo, .pth': ('{0}_caco_geo_100k_1000.pth', published_pth),
    'CACo, .ckpt': ('{0}_caco_geo_100k_1000.ckpt', published_ckpt),
    'SeCo, .ckpt': ('seco_{0}_1m.ckpt', published_ckpt),
    'GSSL, .pth.tar': ('moco_geo+tp.pth.tar', gssl),
    'TorchGeo, MoCo': ('moco.ckpt', torchgeo_task(MoCo)),
    'TorchGeo, SimCLR': ('simclr.ckpt', torchgeo_task(SimCLR)),
    'lightly, MoCo': ('lightly.ckpt', lightly),
    'lightly, SimCLR': ('simclr_lightly.ckpt', lightly_simclr),
    'solo-learn, MoCo': ('solo.ckpt', solo_learn),
    'torchvision, state dict': ('resnet.pth', torchvision_state),
}


@pytest.fixture(scope='session')
def foreign() -> SimpleNamespace:
    """What makes the checkpoints of others."""
    return SimpleNamespace(
        layouts=LAYOUTS, original=make_original, sequential=sequential, keys=KEYS,
        object=foreign_object, save=save_foreign,
    )  # fmt: skip


@pytest.fixture(scope='session')
def documented() -> Callable[[str], dict[str, list[str]]]:
    """What reads a table of docs/weights.md: cells by the first of each row."""
    text = (Path(__file__).parents[2] / 'docs' / 'weights.md').read_text(encoding='utf-8')

    def table(name: str) -> dict[str, list[str]]:
        lines = text.split(f'<!-- table: {name} -->\n', 1)[1].split('\n\n', 1)[0].splitlines()
        rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
        return {first: cells for first, *cells in rows[2:]}

    return table
