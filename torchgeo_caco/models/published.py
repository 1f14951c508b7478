"""The eleven checkpoints that the authors of CACo published, and what is known of them."""

from typing import Any

from ..transforms.stretch import PUBLISHED_QUANTILES
from ..transforms.views import IMAGENET_MEAN, IMAGENET_STD

#: Where they lie, each as ``<name>.pth`` and as Lightning's ``<name>.ckpt``.
URL = 'https://research.cs.cornell.edu/caco/checkpoints/'
PAPER = (
    'https://openaccess.thecvf.com/content/CVPR2023/html/Mall_Change-Aware_Sampling_and_'
    'Contrastive_Learning_for_Satellite_Images_CVPR_2023_paper.html'
)
REPOSITORY = 'https://github.com/utkarshmall13/CACo'
LICENCE = 'not stated for the weights (code: MIT; project page: CC BY-NC 4.0)'

#: What the networks saw: red, green, blue on a 0-255 scale, stretched, then ImageNet's statistics.
INPUT: dict[str, Any] = {
    'bands': list(PUBLISHED_QUANTILES),
    'scale': '0-255',
    'quantiles': [list(pair) for pair in PUBLISHED_QUANTILES.values()],
    'mean': list(IMAGENET_MEAN),
    'std': list(IMAGENET_STD),
}

#: Architecture, method and size of the data to the epochs that the file's name says.
EPOCHS = {
    ('resnet18', 'caco', '100k'): 1000,
    ('resnet18', 'seco', '100k'): 1000,
    ('resnet18', 'teco', '100k'): 1000,
    ('resnet18', 'moco', '100k'): 200,
    ('resnet18', 'caco', '1m'): 200,
    ('resnet18', 'seco', '1m'): 200,
    ('resnet50', 'caco', '100k'): 1000,
    ('resnet50', 'seco', '100k'): 1000,
    ('resnet50', 'moco', '100k'): 200,
    ('resnet50', 'caco', '1m'): 200,
    ('resnet50', 'seco', '1m'): 200,
}

_EUROSAT = 'EuroSAT, linear, accuracy %'
_BIGEARTHNET_10 = 'BigEarthNet, linear, 10 % of labels, mAP %'
_BIGEARTHNET = 'BigEarthNet, linear, mAP %'
_OSCD = 'OSCD, frozen, F1 %'
_DYNAMIC = 'DynamicEarthNet, frozen, mIoU %'
_DYNAMIC_TUNED = 'DynamicEarthNet, fine-tuned, mIoU %'
_MAIN = (_EUROSAT, _BIGEARTHNET_10, _BIGEARTHNET, _OSCD, _DYNAMIC, _DYNAMIC_TUNED)

#: Scores in the paper (tables 1 to 6).
SCORES: dict[tuple[str, str, str], dict[str, float]] = {
    ('resnet18', 'caco', '100k'): {
        **dict(zip(_MAIN, (93.08, 67.89, 69.43, 50.29, 50.20, 51.29), strict=True)),
        'CaiRoad, AP@50 %': 44.38,
        'CaiRoad, AP@400 %': 35.99,
        'CalFire, AP@10 %': 65.71,
        'CalFire, AP@40 %': 53.44,
    },
    ('resnet50', 'caco', '100k'): dict(zip(_MAIN[:4], (94.48, 71.55, 73.63, 52.11), strict=True)),
    ('resnet18', 'caco', '1m'): dict(zip(_MAIN[:3], (94.72, 68.64, 70.41), strict=True)),
    ('resnet50', 'caco', '1m'): dict(zip(_MAIN[:3], (95.90, 73.40, 74.98), strict=True)),
    # SeCo on this data and TeCo are rows of the ablation, table 6.
    ('resnet18', 'seco', '100k'): {_EUROSAT: 91.42, _DYNAMIC: 47.24},
    ('resnet18', 'teco', '100k'): {_EUROSAT: 92.56, _DYNAMIC: 49.68},
    ('resnet18', 'moco', '100k'): dict(
        zip(_MAIN, (87.22, 65.43, 67.20, 38.21, 47.97, 47.15), strict=True)
    ),
    ('resnet50', 'moco', '100k'): dict(zip(_MAIN[:3], (89.75, 70.38, 72.88), strict=True)),
}

NOTES = {
    'caco': 'scores as printed in the paper',
    'seco': "trained on CACo's locations; the paper's SeCo rows on SeCo's own are not listed here",
    'teco': "the ablation's long-term contrast without change-awareness (table 6)",
    'moco': 'the paper says 1000 epochs for its baselines, the file name 200, so that the scores '
    'may be those of another run',
}

_METHODS = {'caco': 'CACo', 'seco': 'SeCo', 'teco': 'TeCo', 'moco': 'MoCo v2'}
_IMAGES = {'100k': 100_000, '1m': 1_000_000}


def file_name(architecture: str, method: str, size: str) -> str:
    """Name of a checkpoint without suffix."""
    return f'{architecture}_{method}_geo_{size}_{EPOCHS[architecture, method, size]}'


def meta(architecture: str, method: str, size: str) -> dict[str, Any]:
    """What is known of a checkpoint, under TorchGeo's names where it has one."""
    entry = (architecture, method, size)
    images = _IMAGES[size]
    return {
        'dataset': f'CACo {size.upper()}: {images} Sentinel-2 images, about {images // 10} places',
        'in_chans': 3,
        'model': architecture,
        'publication': PAPER,
        'repo': REPOSITORY,
        'ssl_method': method,
        'license': LICENCE,
        'epochs': EPOCHS[entry],
        'scores': SCORES.get(entry, {}),
        'note': NOTES[method],
        **INPUT,
    }


def about(architecture: str, method: str, size: str) -> dict[str, Any]:
    """The same for a model card."""
    known = meta(architecture, method, size)
    return {
        'data': known['dataset'],
        'method': _METHODS[method],
        'settings': {'epochs': known['epochs'], 'crop': '224 px'},
        'scores': known['scores'],
        'paper': PAPER,
        'repository': REPOSITORY,
        'license': LICENCE,
        'note': known['note'],
    }
