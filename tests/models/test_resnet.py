"""The published weights as TorchGeo's own are found and used."""

import re
import runpy
from configparser import ConfigParser
from pathlib import Path

import pytest
import timm
import torch
import torchgeo.models
from torchgeo.models import get_model, get_model_weights, get_weight, list_models

from torchgeo_caco.models import (
    CACoResNet18_Weights,
    CACoResNet50_Weights,
    caco_resnet18,
    caco_resnet50,
    load_encoder,
)
from torchgeo_caco.transforms import PublishedInput

ALL = [*CACoResNet18_Weights, *CACoResNet50_Weights]
PUBLISHED = {
    f'resnet{depth}_{rest}.pth'
    for depth, several in {
        18: ('seco_geo_100k_1000', 'teco_geo_100k_1000', 'caco_geo_100k_1000', 'moco_geo_100k_200',
             'seco_geo_1m_200', 'caco_geo_1m_200'),
        50: ('seco_geo_100k_1000', 'caco_geo_100k_1000', 'moco_geo_100k_200', 'seco_geo_1m_200',
             'caco_geo_1m_200'),
    }.items()
    for rest in several
}  # fmt: skip


@pytest.fixture
def cache(foreign, tmp_path, monkeypatch) -> Path:
    """A cache that holds the ResNet-18 of CACo, 100k, and nothing can be downloaded."""
    monkeypatch.setattr('torch.hub._hub_dir', str(tmp_path))
    path = tmp_path / 'checkpoints' / 'resnet18_caco_geo_100k_1000.pth'
    path.parent.mkdir()
    torch.save(foreign.sequential(foreign.original('resnet18')), path)
    return path


def test_all_eleven():
    folder = 'https://research.cs.cornell.edu/caco/checkpoints/'
    assert {weight.url for weight in ALL} == {folder + name for name in PUBLISHED}
    assert len(ALL) == 11


@pytest.mark.parametrize('weight', ALL, ids=str)
def test_what_is_known(weight):
    meta = weight.meta
    method, size = re.fullmatch(r'SENTINEL2_RGB_(\w+)_(100K|1M)', weight.name).groups()
    assert meta['ssl_method'] == method.lower()
    assert meta['model'] in weight.url
    assert f'_{size.lower()}_{meta["epochs"]}.pth' in weight.url
    assert meta['bands'] == ['B4', 'B3', 'B2']
    assert meta['in_chans'] == 3
    assert meta['publication'].startswith('https://')
    assert 'not stated' in meta['license']
    assert size in meta['dataset']
    assert all(0 < score < 100 for score in meta['scores'].values())


def test_the_table_of_names(documented):
    rows = documented('published')
    assert {name.strip('`') for name in rows} == {weight.name for weight in CACoResNet18_Weights}
    assert sum(bool(cells[0]) for cells in rows.values()) == len(CACoResNet50_Weights)
    for name, (other, _, images, epochs) in rows.items():
        weight = CACoResNet18_Weights[name.strip('`')]
        assert weight.meta['epochs'] == int(epochs)
        assert f': {images.replace(",", "")} Sentinel-2 images' in weight.meta['dataset']
        assert not other or CACoResNet50_Weights[other.strip('`')].meta['epochs'] == int(epochs)


def test_scores():
    caco = CACoResNet18_Weights.SENTINEL2_RGB_CACO_100K.meta['scores']
    assert caco['EuroSAT, linear, accuracy %'] == 93.08
    assert caco['OSCD, frozen, F1 %'] == 50.29
    million = CACoResNet50_Weights.SENTINEL2_RGB_CACO_1M.meta['scores']
    assert million['BigEarthNet, linear, mAP %'] == 74.98


@pytest.mark.parametrize(
    ('build', 'weights'),
    [(caco_resnet18, CACoResNet18_Weights), (caco_resnet50, CACoResNet50_Weights)],
)
def test_known_to_torchgeo(build, weights):
    name = build.__name__
    assert name in list_models()
    assert get_model_weights(name) is get_model_weights(build) is weights
    assert all(get_weight(str(weight)) is weight for weight in weights)
    assert getattr(torchgeo.models, name) is build
    assert getattr(torchgeo.models, weights.__name__) is weights
    model = get_model(name, in_chans=4, num_classes=7).eval()
    assert model(torch.rand(1, 4, 32, 32)).shape == (1, 7)


def test_models(foreign, cache):
    weight = CACoResNet18_Weights.SENTINEL2_RGB_CACO_100K
    original = foreign.original('resnet18')
    model = get_model('caco_resnet18', weights=weight, num_classes=0).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(images), original(images), rtol=1e-6, atol=1e-6)
    # timm's way with its own weights: the same kernels again and again.
    model = caco_resnet18(weight, in_chans=6)
    expected = original.conv1.weight.repeat(1, 2, 1, 1) / 2
    torch.testing.assert_close(model.conv1.weight, expected)
    features = caco_resnet18(weight, features_only=True, out_indices=(1, 2))
    assert [f.shape[1] for f in features(images)] == [64, 128]
    assert torch.equal(features.conv1.weight, original.conv1.weight)
    with pytest.raises(ValueError, match='those of a resnet18, but the model is a resnet50'):
        load_encoder(timm.create_model('resnet50'), weight)


def test_names_and_weights_of_another_model(cache):
    model = caco_resnet18('SENTINEL2_RGB_CACO_100K')
    same = caco_resnet18(CACoResNet18_Weights.SENTINEL2_RGB_CACO_100K)
    assert torch.equal(model.conv1.weight, same.conv1.weight)
    with pytest.raises(TypeError, match='CACoResNet50_Weights'):
        caco_resnet50(CACoResNet18_Weights.SENTINEL2_RGB_CACO_100K)


def test_transforms():
    transforms = CACoResNet18_Weights.SENTINEL2_RGB_CACO_1M.transforms
    # The quantiles of red, green and blue, then ImageNet's statistics.
    low, high = [torch.tensor(v).view(3, 1, 1) for v in ([0, 2, 3], [129, 103, 88])]
    mean, std = [
        torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    ]
    black, white = transforms(low.expand(3, 4, 4)), transforms(high.expand(2, 3, 4, 4))
    torch.testing.assert_close(black, (-mean / std).expand(3, 4, 4))
    torch.testing.assert_close(white, ((1 - mean) / std).expand(2, 3, 4, 4))
    image = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)
    expected = (((image - low) / (high - low)).clamp(0, 1) - mean) / std
    torch.testing.assert_close(transforms(image), expected)
    # What TorchGeo's transforms of its SeCo weights get wrong: nothing is beyond 0 to 1.
    assert transforms(torch.full((3, 2, 2), 255)).max() < 2.7
    reflectance = PublishedInput('reflectance')(image * (10000 / 255))
    torch.testing.assert_close(reflectance, expected, atol=1e-5, rtol=1e-5)


def test_wrong_input():
    with pytest.raises(ValueError, match=r'expected red, green and blue.*not \(4, 8, 8\)'):
        PublishedInput()(torch.rand(4, 8, 8))
    with pytest.raises(ValueError, match="scale must be '0-255' or 'reflectance', not '0-1'"):
        PublishedInput('0-1')


def test_torch_hub(cache):
    root = Path(__file__).parents[2]
    model = torch.hub.load(
        str(root), 'caco_resnet18', source='local', weights='SENTINEL2_RGB_CACO_100K', num_classes=0
    )
    same = caco_resnet18('SENTINEL2_RGB_CACO_100K', num_classes=0).state_dict()
    assert all(torch.equal(value, same[key]) for key, value in model.state_dict().items())
    # Whoever lacks a package is told so, all at once.
    setup = ConfigParser()
    setup.read(root / 'setup.cfg')
    lines = setup['options']['install_requires'].splitlines()
    needed = {re.split(r'[\[>]', line)[0] for line in lines if line and line[0] != '#'}
    told = runpy.run_path(str(root / 'hubconf.py'))['dependencies']
    names = {'scikit-learn': 'sklearn', 'pillow': 'PIL'}
    assert set(told) == {names.get(package, package) for package in needed}
