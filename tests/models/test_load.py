"""Initial weights from every source, in models of every number of channels."""

import logging

import pytest
import timm
import torch
from torch import Tensor
from torchgeo.models import ResNet18_Weights

from torchgeo_caco import CACoTask
from torchgeo_caco.models import (
    CACoResNet18_Weights,
    export_encoder,
    find_encoder,
    load_encoder,
    read_encoder,
    save_model_folder,
)
from torchgeo_caco.models.convert import adapt_channels

BANDS = ['B1', 'B2', 'B3', 'B4', 'B5', 'B6', 'B7', 'B8', 'B8A', 'B9', 'B10', 'B11', 'B12']


@pytest.fixture(scope='module')
def original(foreign):
    return foreign.original('resnet18', 3)


@pytest.fixture
def sources(foreign, original, tmp_path, monkeypatch) -> dict[str, str]:
    """The same weights, as everybody gives them."""
    monkeypatch.setattr('torch.hub._hub_dir', str(tmp_path))
    (tmp_path / 'checkpoints').mkdir()
    file = 'resnet18_caco_geo_1m_200.pth'
    torch.save(foreign.sequential(original), tmp_path / 'checkpoints' / file)
    state = original.state_dict()
    fake = classmethod(lambda cls, *args, **kwargs: dict(state))
    monkeypatch.setattr(ResNet18_Weights, 'get_state_dict', fake)
    task = CACoTask('resnet18', memory_bank_size=16)
    task.backbone.load_state_dict(state)
    saved = {'state_dict': task.state_dict(), 'hyper_parameters': {'model': 'resnet18'}}
    torch.save(saved, tmp_path / 'last.ckpt')
    torch.save(state, tmp_path / 'state.pth')
    folder = save_model_folder(task.backbone, 'resnet18', tmp_path / 'folder', {})
    return {
        'enum': 'CACoResNet18_Weights.SENTINEL2_RGB_CACO_1M',
        "TorchGeo's enum": 'ResNet18_Weights.SENTINEL2_RGB_MOCO',
        'checkpoint': str(tmp_path / 'last.ckpt'),
        'published file': str(tmp_path / 'checkpoints' / file),
        'state dict': str(tmp_path / 'state.pth'),
        'folder': str(folder),
        'local-dir': f'local-dir:{folder}',
    }


def holds(state: dict[str, Tensor], model: torch.nn.Module, channels: int) -> bool:
    expected = {**state, 'conv1.weight': adapt_channels(state['conv1.weight'], channels)}
    own = model.state_dict()
    return all(torch.equal(own[key], value) for key, value in expected.items())


@pytest.mark.parametrize('channels', [3, 4, 12, 13])
def test_task_takes_all(channels, original, sources, caplog):
    for name, source in sources.items():
        caplog.clear()
        task = CACoTask('resnet18', weights=source, in_channels=channels, memory_bank_size=16)
        assert holds(original.state_dict(), task.backbone, channels), name
        # The key encoder starts as a copy.
        assert holds(original.state_dict(), task.backbone_momentum, channels), name
        told = f'The weights have 3 input channels and the model {channels}'
        assert (told in caplog.text) == (channels != 3)
    weight = CACoResNet18_Weights.SENTINEL2_RGB_CACO_1M
    task = CACoTask('resnet18', weights=weight, memory_bank_size=16)
    assert holds(original.state_dict(), task.backbone, 3)


def test_fewer_channels_pick_red_green_and_blue(foreign, tmp_path, caplog):
    original = foreign.original('resnet18', channels=13)
    model = timm.create_model('resnet18', in_chans=13, num_classes=0)
    model.load_state_dict(original.state_dict())
    root = save_model_folder(model, 'resnet18', tmp_path / 'all', {'bands': BANDS})
    rgb = timm.create_model('resnet18')
    with caplog.at_level(logging.WARNING):
        load_encoder(rgb, root)
    assert 'its first layer keeps bands B4, B3, B2' in caplog.text
    assert torch.equal(rgb.conv1.weight, original.conv1.weight[:, [3, 2, 1]])
    # Landsat's bands of these names are others.
    landsat = save_model_folder(model, 'resnet18', tmp_path / 'l', {'bands': BANDS[:8]})
    load_encoder(rgb, landsat)
    mean = original.conv1.weight.mean(1, keepdim=True).repeat(1, 3, 1, 1) * (13 / 3)
    torch.testing.assert_close(rgb.conv1.weight, mean)


def test_what_is_known_goes_along(sources, tmp_path):
    encoder = find_encoder(sources['enum'])
    assert encoder.described['quantiles'] == [[0, 129], [2, 103], [3, 88]]
    assert encoder.about['scores']['EuroSAT, linear, accuracy %'] == 94.72
    assert encoder.about['source'] == sources['enum']
    assert find_encoder(sources['published file']).described == encoder.described
    theirs = find_encoder(sources["TorchGeo's enum"])
    assert theirs.about['paper'].startswith('https://')


def test_a_model_with_classes_keeps_its_classifier(original, sources):
    model = timm.create_model('resnet18', num_classes=5)
    before = model.fc.weight.clone()
    load_encoder(model, sources['folder'])
    assert holds(original.state_dict(), model, 3)
    assert torch.equal(model.fc.weight, before)


def test_hugging_face(original, tmp_path, monkeypatch):
    model = timm.create_model('resnet18', num_classes=0)
    model.load_state_dict(original.state_dict())
    folder = save_model_folder(model, 'resnet18', tmp_path / 'snapshot', {'bands': ['B4']})
    asked = []

    def download(repository, revision, allow_patterns):
        asked.append((repository, revision))
        assert allow_patterns == ['config.json', 'model.safetensors']
        return str(folder)

    monkeypatch.setattr('torchgeo_caco.models.load.snapshot_download', download)
    for name in ('hf-hub:org/name', 'hf-hub:org/name@v2'):
        encoder = find_encoder(name)
        assert encoder.architecture == 'resnet18'
        assert encoder.described == {'bands': ['B4']}
        assert torch.equal(encoder.state['conv1.weight'], original.conv1.weight)
    assert asked == [('org/name', None), ('org/name', 'v2')]


def test_wrong_weights(sources, tmp_path):
    expected = r"weights='Nothing_Weights\.X' is not known: expected the name of a weights enum"
    with pytest.raises(ValueError, match=expected):
        CACoTask('resnet18', weights='Nothing_Weights.X', memory_bank_size=16)
    with pytest.raises(FileNotFoundError, match=r'none is not a file'):
        find_encoder(f'local-dir:{tmp_path / "none"}')
    with pytest.raises(ValueError, match='those of a resnet18, but the model is a resnet50'):
        CACoTask('resnet50', weights=sources['state dict'], memory_bank_size=16)
    with pytest.raises(ValueError, match='are not the weights of a timm model'):
        find_encoder('Presto_Weights.PRESTO')


def test_exported_checkpoint_keeps_what_is_known(sources, tmp_path):
    encoder = find_encoder(sources['enum'])
    export_encoder(encoder, tmp_path / 'e.ckpt', 64)
    again = read_encoder(tmp_path / 'e.ckpt')
    assert (again.described, again.about) == (encoder.described, encoder.about)
