"""Tiny data sets in the layouts of the real ones, and a tiny pretrained checkpoint."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from lightning.pytorch import Trainer
from PIL import Image
from torchgeo.datasets import EuroSAT

from torchgeo_caco import CACoTask, SeasonalTemporalDataModule
from torchgeo_caco.datasets.oscd import IMAGES, LABELS


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('torchgeo_caco.evaluation.scores.RESAMPLES_SORTED', 20)


COLOURS = {'Forest': (40, 90, 50), 'River': (60, 80, 120), 'SeaLake': (30, 60, 150)}


def write_tif(path: Path, pixels: np.ndarray) -> None:
    """A GeoTIFF of shape (C, H, W)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {'driver': 'GTiff', 'count': len(pixels), 'dtype': pixels.dtype}
    # A place on Earth, or rasterio warns that there is none.
    profile['transform'] = rasterio.transform.from_origin(500000, 5000000, 10, 10)
    height, width = pixels.shape[1:]
    with rasterio.open(path, 'w', height=height, width=width, crs='EPSG:32631', **profile) as file:
        file.write(pixels)


def make_eurosat_rgb(root: Path, train: int = 12, val: int = 6, size: int = 32) -> Path:
    """Pictures of three classes whose mean colour tells them apart, mostly."""
    rng = np.random.default_rng(0)
    names: dict[str, list[str]] = {'train': [], 'val': []}
    for label, colour in COLOURS.items():
        (root / label).mkdir(parents=True)
        for number in range(train + val):
            pixels = rng.normal(colour, 25, (size, size, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / label / f'{label}_{number}.jpg')
            names['train' if number < train else 'val'].append(f'{label}_{number}.jpg')
    for split, listed in names.items():
        (root / f'{split}.txt').write_text('\n'.join(listed) + '\n')
    return root


@pytest.fixture(scope='session')
def eurosat_rgb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_eurosat_rgb(tmp_path_factory.mktemp('eurosat') / 'rgb')


@pytest.fixture(scope='session')
def eurosat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('eurosat') / 'bands'
    rng = np.random.default_rng(0)
    for start, (split, count) in enumerate((('train', 6), ('val', 2), ('test', 2))):
        names = []
        for label in COLOURS:
            for number in range(10 * start, 10 * start + count):
                pixels = rng.integers(0, 3000, (13, 64, 64)).astype(np.uint16)
                write_tif(root / EuroSAT.base_dir / label / f'{label}_{number}.tif', pixels)
                names.append(f'{label}_{number}.jpg')
        (root / f'eurosat-{split}.txt').write_text('\n'.join(names) + '\n')
    return root


@pytest.fixture(scope='session')
def bigearthnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('bigearthnet')
    rng = np.random.default_rng(0)
    sizes = {'01': 20, '02': 120, '03': 120, '04': 120, '05': 60, '06': 60, '07': 60, '08': 120,
             '8A': 60, '09': 20, '11': 60, '12': 60}  # fmt: skip
    labels = ['Pastures', 'Mixed forest', 'Sea and ocean']
    for split, count in (('train', 8), ('val', 4), ('test', 4)):
        names = [f'S2A_MSIL2A_{split}_{i}' for i in range(count)]
        for i, name in enumerate(names):
            folder = root / 'BigEarthNet-v1.0' / name
            for band, size in sizes.items():
                pixels = rng.integers(100, 1500, (1, size, size)).astype(np.uint16)
                write_tif(folder / f'{name}_B{band}.tif', pixels)
            content = {'labels': [labels[i % 3], labels[(i // 2) % 3]]}
            (folder / f'{name}_labels_metadata.json').write_text(json.dumps(content))
        lines = [f'{name},none' for name in names]
        (root / f'bigearthnet-{split}.csv').write_text('\n'.join(lines) + '\n')
    return root


@pytest.fixture(scope='session')
def oscd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('oscd')
    rng = np.random.default_rng(0)
    cities = {'train': ['bercy', 'nantes', 'paris', 'pisa'], 'test': ['rio', 'dubai']}
    bands = [f'B{i:02d}' for i in range(1, 13)] + ['B8A']
    for split, names in cities.items():
        (root / IMAGES).mkdir(exist_ok=True)
        (root / IMAGES / f'{split}.txt').write_text(','.join(names) + '\n')
        for name in names:
            shape = (130, 100)
            mask = (rng.random(shape) < 0.1).astype(np.uint8) * 255
            path = root / LABELS.format(split.capitalize()) / name / 'cm' / 'cm.png'
            path.parent.mkdir(parents=True)
            Image.fromarray(mask).save(path)
            (root / IMAGES / name).mkdir()
            (root / IMAGES / name / 'dates.txt').write_text('date_1: 20160101\ndate_2: 20180101\n')
            for date in (1, 2):
                for folder in (f'imgs_{date}', f'imgs_{date}_rect'):
                    for band in bands:
                        pixels = rng.integers(300, 3500, (1, *shape)).astype(np.uint16)
                        write_tif(root / IMAGES / name / folder / f'{band}.tif', pixels)
    return root


@pytest.fixture(scope='session')
def dynamicearthnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('dynamicearthnet')
    rng = np.random.default_rng(0)
    (root / 'dynnet_training_splits').mkdir()
    for split, count in (('train', 2), ('val', 1), ('test', 1)):
        lines = []
        for number in range(count):
            folder = f'planet/planet.13N/{split}_{number}/PF-SR'
            label = f'labels/{split}_{number}/Labels/Raster/x/x-2018-01-01.tif'
            pixels = rng.integers(200, 3000, (4, 128, 128)).astype(np.int16)
            write_tif(root / folder / '2018-01-01.tif', pixels)
            classes = rng.integers(0, 8, (128, 128))
            one = np.stack([(classes == c) * 255 for c in range(7)]).astype(np.uint8)
            write_tif(root / label, one)
            lines.append(f'/{folder} /{label} 2018-01')
        (root / 'dynnet_training_splits' / f'{split}.txt').write_text('\n'.join(lines) + '\n')
    return root


@pytest.fixture(scope='session')
def pretrained(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny pretraining run of ResNet-18 with ``checkpoints/`` and ``model/``."""
    root = tmp_path_factory.mktemp('pretrained')
    trainer = Trainer(
        accelerator='cpu', max_epochs=1, default_root_dir=root, log_every_n_steps=1,
        enable_progress_bar=False, enable_model_summary=False, limit_train_batches=1,
    )  # fmt: skip
    torch.manual_seed(0)
    task = CACoTask('resnet18', size=32, memory_bank_size=16)
    trainer.fit(task, datamodule=SeasonalTemporalDataModule(str(tiny), 4))
    return root
