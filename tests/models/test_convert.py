"""Checkpoints of others become strict timm models that give the same features."""

import json
import re

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from torchgeo_caco.models import read_encoder, save_model_folder
from torchgeo_caco.models.convert import adapt_channels

LAYOUTS = (
    'CACo, .pth', 'CACo, .ckpt', 'SeCo, .ckpt', 'GSSL, .pth.tar', 'TorchGeo, MoCo',
    'TorchGeo, SimCLR', 'lightly, MoCo', 'lightly, SimCLR', 'solo-learn, MoCo',
    'torchvision, state dict',
)  # fmt: skip
# TorchGeo remarks on every MoCo that it makes with few layers.
pytestmark = pytest.mark.filterwarnings('ignore:MoCo v')


@pytest.mark.parametrize('name', ['resnet18', 'resnet50'])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_same_features(foreign, documented, layout, name, tmp_path):
    said = documented('sources')[layout][('resnet18', 'resnet50').index(name)]
    assert said == 'yes'
    original = foreign.original(name)
    file_name, write = foreign.layouts[layout]
    path = tmp_path / file_name.format(name)
    write(original, name, path)
    encoder = read_encoder(path)
    assert encoder.architecture == name
    model = timm.create_model(name, num_classes=0).eval()
    model.load_state_dict(encoder.state, strict=True)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(images), original(images), rtol=1e-6, atol=1e-6)


def test_all_layouts_are_tested(foreign, documented):
    assert set(LAYOUTS) == set(foreign.layouts) == set(documented('sources'))


def test_what_is_known_of_published_files(foreign, tmp_path):
    for name, bands, data in (
        ('resnet18_caco_geo_100k_1000.pth', ['B4', 'B3', 'B2'], 'CACo 100K'),
        ('seco_resnet18_1m.pth', ['B4', 'B3', 'B2'], 'SeCo 1M'),
        ('moco_geo+tp.pth.tar', ['red', 'green', 'blue'], 'fMoW'),
        ('mine.pth', None, None),
    ):
        torch.save(foreign.original('resnet18').state_dict(), tmp_path / name)
        encoder = read_encoder(tmp_path / name)
        assert encoder.described.get('bands') == bands
        assert data is None or encoder.about['data'].startswith(data)
        assert encoder.about['source'] == name


@pytest.mark.parametrize('name', ['resnet34', 'wide_resnet50_2', 'resnext50_32x4d'])
def test_other_resnets_are_told_apart(foreign, name, tmp_path):
    torch.save(foreign.original(name).state_dict(), tmp_path / 'a.pth')
    assert read_encoder(tmp_path / 'a.pth').architecture == name


def test_other_architectures_by_name_and_folders(tmp_path):
    vit = timm.create_model('vit_tiny_patch16_224', num_classes=0)
    torch.save({'model': {f'encoder.{k}': v for k, v in vit.state_dict().items()}}, tmp_path / 'v')
    with pytest.raises(ValueError, match=r'no encoder that is recognised.*--model'):
        read_encoder(tmp_path / 'v')
    encoder = read_encoder(tmp_path / 'v', 'vit_tiny_patch16_224')
    root = save_model_folder(vit, encoder.architecture, tmp_path / 'vit', {'bands': ['B1']})
    again = read_encoder(root)
    assert again.described == {'bands': ['B1']}
    assert all(torch.equal(encoder.state[k], again.state[k]) for k in vit.state_dict())
    with pytest.raises(ValueError, match='perhaps_resnet is not the name of a timm model'):
        read_encoder(tmp_path / 'v', 'perhaps_resnet')


def test_several_encoders(foreign, tmp_path):
    first, second = (foreign.original('resnet18', seed).state_dict() for seed in (0, 1))
    both = {f'a.{k}': v for k, v in first.items()} | {f'b.{k}': v for k, v in second.items()}
    torch.save(both, tmp_path / 'two.pth')
    with pytest.raises(ValueError, match=r"several encoders: 'a\.', 'b\.'; choose one"):
        read_encoder(tmp_path / 'two.pth')
    chosen = read_encoder(tmp_path / 'two.pth', prefix='b.').state
    assert torch.equal(chosen['conv1.weight'], second['conv1.weight'])
    with pytest.raises(ValueError, match=r"after the prefix 'c\.'"):
        read_encoder(tmp_path / 'two.pth', prefix='c.')


def test_wrong_files(foreign, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'none\.pth is not a file'):
        read_encoder(tmp_path / 'none.pth')
    torch.save({'epoch': 3}, tmp_path / 'empty.pth')
    with pytest.raises(ValueError, match=r'empty\.pth holds no state dict'):
        read_encoder(tmp_path / 'empty.pth')
    with pytest.raises(FileNotFoundError, match=r'not a timm model folder: config\.json'):
        read_encoder(tmp_path)
    less = foreign.original('resnet18').state_dict()
    del less['layer4.1.bn2.weight']
    torch.save(less, tmp_path / 'less.pth')
    with pytest.raises(ValueError, match=r'less\.pth holds no encoder'):
        read_encoder(tmp_path / 'less.pth')
    root = save_model_folder(timm.create_model('resnet10t', num_classes=0), 'resnet10t',
                             tmp_path / 'folder', {})  # fmt: skip
    config = json.loads((root / 'config.json').read_text())
    (root / 'config.json').write_text(json.dumps(config | {'architecture': 'resnet50'}))
    with pytest.raises(ValueError, match='expected the weights of a resnet50'):
        read_encoder(root)


def _spoil_config(**changes):
    def spoil(root):
        config = json.loads((root / 'config.json').read_text()) | changes
        config = {key: value for key, value in config.items() if value is not None}
        (root / 'config.json').write_text(json.dumps(config))

    return spoil


def _cut_config(root):
    (root / 'config.json').write_text((root / 'config.json').read_text()[:40])


def _other_shape(root):
    state = load_file(root / 'model.safetensors')
    save_file(state | {'bn1.bias': torch.zeros(7)}, root / 'model.safetensors')


@pytest.mark.parametrize(
    ('spoil', 'file', 'message'),
    [
        (_cut_config, 'config.json', 'is not JSON, it may be truncated'),
        (lambda root: (root / 'config.json').write_bytes(b'\xff'), 'config.json', 'is not JSON'),
        (lambda root: (root / 'config.json').write_text('[]'), 'config.json', "no 'architecture'"),
        (_spoil_config(architecture=None), 'config.json', "has no 'architecture'"),
        (_spoil_config(architecture='net'), 'config.json', "'net', which is not a model of timm"),
        (_spoil_config(input=3), 'config.json', 'says input 3; a mapping was expected'),
        (_other_shape, 'model.safetensors', r'bn1.bias of shape (7,); a resnet10t has (64,)'),
    ],
)
def test_wrong_folders(spoil, file, message, tmp_path):
    model = timm.create_model('resnet10t', num_classes=0, in_chans=4)
    root = save_model_folder(model, 'resnet10t', tmp_path / 'folder', {})
    assert read_encoder(root).build().conv1[0].weight.shape[1] == 4
    spoil(root)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read_encoder(root)
    said = str(caught.value)
    assert said.startswith(str(root / file))
    assert '\n' not in said


@pytest.mark.parametrize(('old', 'new'), [(3, 3), (3, 4), (3, 12), (3, 1), (13, 3), (4, 13)])
def test_channels_keep_the_sum(old, new):
    weight = torch.rand(8, old, 7, 7)
    adapted = adapt_channels(weight, new)
    assert adapted.shape == (8, new, 7, 7)
    # On equal channels the answer is the same when the repeats come out even.
    if new % old == 0 or new < old:
        torch.testing.assert_close(adapted.sum(1), weight.sum(1))
    if new > old:
        torch.testing.assert_close(adapted[:, :old], weight * old / new)
    if (old, new) == (13, 3):
        assert torch.equal(adapt_channels(weight, 3, [3, 2, 1]), weight[:, [3, 2, 1]])
