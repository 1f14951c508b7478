"""Batches, the stretch, and TorchGeo's own tasks on them."""

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torchgeo.tasks import BYOL, MoCo, SimCLR

from torchgeo_caco.datamodules import SeasonalTemporalDataModule
from torchgeo_caco.stores import FolderWriter, PackedWriter
from torchgeo_caco.transforms import moco_view


def write(root, dtype, top, scale=None):
    rng = np.random.default_rng(0)
    with PackedWriter(root, ('B4', 'B8'), (8, 8), dtype, scale=scale) as writer:
        for name in ('a', 'b', 'c'):
            dates = np.datetime64('2016-01-01') + 200 * np.arange(10)
            images = rng.uniform(top / 100, top, (10, 2, 8, 8)).astype(dtype)
            if np.dtype(dtype).kind == 'f':
                images[:, :, 0] = np.nan
            writer.add(name, dates, images)
    return str(root)


@pytest.mark.parametrize(
    ('dtype', 'top', 'scale', 'expected'),
    [
        ('uint8', 255, None, '0-255'),
        ('uint16', 255, None, '0-255'),
        ('uint16', 5000, None, 'reflectance'),
        ('uint16', 200, 'reflectance', 'reflectance'),
        ('float32', 1.2, None, '0-1'),
        ('float32', 255, None, '0-255'),
        ('float32', 5000, None, 'reflectance'),
    ],
)
def test_scale_is_found_out(dtype, top, scale, expected, tmp_path):
    root = write(tmp_path / 's', dtype, top, scale)
    data = SeasonalTemporalDataModule(root, batch_size=2, bands=('B4',))
    data.setup('fit')
    assert data.describe_input()['scale'] == expected
    factor = {'0-255': 1, 'reflectance': 10000 / 255, '0-1': 1 / 255}[expected]
    assert data.describe_input()['quantiles'] == [[0, pytest.approx(129 * factor)]]


def test_quantiles(tmp_path, caplog):
    root = write(tmp_path / 's', 'uint16', 5000)
    both = ('B4', 'B8')
    with pytest.raises(ValueError, match="use quantiles='auto'"):
        SeasonalTemporalDataModule(root, 2, bands=both).setup('fit')
    data = SeasonalTemporalDataModule(root, 2, bands=both, quantiles='auto')
    data.setup('fit')
    assert 'values are reflectance; stretched to [0, 1] from B4 ' in caplog.text
    for low, high in data.describe_input()['quantiles']:
        assert 0 < low < 300 < 4700 < high < 5000
    again = SeasonalTemporalDataModule(root, 2, bands=both, quantiles=[[0, 1], [0, 2]])
    again.setup('fit')
    assert again.describe_input()['quantiles'] == [[0, 1], [0, 2]]
    # A checkpoint's stretch holds.
    again.load_state_dict(data.state_dict())
    assert again.describe_input() == data.describe_input()
    # The same bands by other names.
    renamed = SeasonalTemporalDataModule(root, 2, bands=('B04', 'b08'))
    renamed.load_state_dict(data.state_dict())
    assert renamed.describe_input()['quantiles'] == data.describe_input()['quantiles']
    other = SeasonalTemporalDataModule(root, 2, bands=('B8',), quantiles='auto')
    with pytest.raises(ValueError, match='is of a run with bands'):
        other.load_state_dict(data.state_dict())


def test_batch_larger_than_the_data(tmp_path):
    root = write(tmp_path / 's', 'uint8', 255)
    with pytest.raises(ValueError, match='batch_size=4 is more than the 3 samples'):
        SeasonalTemporalDataModule(root, 4, bands=('B4',)).setup('fit')


def test_batches(tiny):
    data = SeasonalTemporalDataModule(str(tiny), batch_size=4)
    data.setup('fit')
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert batch['image'].shape == (4, 2, 3, 3, 24, 24)
    assert batch['image'].dtype == torch.float32
    assert 0 <= batch['image'].min() < batch['image'].max() <= 1
    assert batch['valid'].shape == (4, 2, 3)
    assert len(data.location_names) == 12


def test_floats_are_stretched_like_integers(tmp_path):
    root = write(tmp_path / 's', 'float32', 5000, 'reflectance')
    data = SeasonalTemporalDataModule(root, 2, bands=('B4',))
    data.setup('fit')
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert 0 <= batch['image'].min() < batch['image'].max() <= 1
    assert batch['valid'].shape == (2, 2, 3)


@pytest.mark.parametrize('task', [MoCo, SimCLR, BYOL])
@pytest.mark.parametrize('seasons', [1, 2])
@pytest.mark.filterwarnings('ignore:The .*dataloader.* does not have many workers')
@pytest.mark.filterwarnings('ignore:.*lr_scheduler.step')
def test_torchgeos_tasks(task, seasons, tiny, tmp_path):
    data = SeasonalTemporalDataModule(
        str(tiny), 4, periods=1, seasons=seasons, sample='image' if seasons == 1 else 'location',
        flatten=True,
    )  # fmt: skip
    arguments = {'model': 'resnet10t'}
    if task is MoCo:
        view = moco_view(32)
        arguments |= {'augmentation1': view, 'augmentation2': view, 'memory_bank_size': 16}
        arguments |= {'version': 2, 'layers': 2, 'temperature': 0.07}
    elif task is SimCLR:
        arguments |= {
            'augmentations': moco_view(32),
            'memory_bank_size': 0,
            'version': 1,
            'layers': 2,
        }
    trainer = Trainer(
        accelerator='cpu', max_steps=2, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(task(**arguments), datamodule=data)
    assert trainer.global_step == 2
    assert torch.isfinite(trainer.callback_metrics['train_loss'])


def test_images_that_cannot_be_read_do_not_stop_the_set_up(tmp_path):
    rng = np.random.default_rng(0)
    with FolderWriter(tmp_path / 's', ('B4', 'B8'), (8, 8)) as writer:
        for name in ('a', 'b', 'c'):
            dates = np.datetime64('2016-01-01') + 200 * np.arange(10)
            writer.add(name, dates, rng.integers(1, 5000, (10, 2, 8, 8)).astype('uint16'))
    for path in (tmp_path / 's' / 'b').rglob('B8.tif'):
        path.write_text('')
    data = SeasonalTemporalDataModule(str(tmp_path / 's'), 2, bands=('B8',), quantiles='auto')
    data.setup('fit')
    ((low, high),) = data.describe_input()['quantiles']
    assert 0 < low < 300 < 4700 < high < 5000
    for path in tmp_path.rglob('B8.tif'):
        if path.parent != tmp_path / 's' / 'a' / '20160101':
            path.write_text('')
    data = SeasonalTemporalDataModule(
        str(tmp_path / 's'), 2, bands=('B8',), quantiles='auto', seed=1
    )
    with pytest.raises(ValueError, match=r'B8\.tif is no readable GeoTIFF'):
        data.setup('fit')


@pytest.mark.parametrize('nodata', [0, 255, None])
def test_nodata_reaches_the_dataset(nodata, tmp_path):
    dates = np.datetime64('2016-01-01') + 200 * np.arange(10)
    with PackedWriter(tmp_path / 's', ('B4',), (8, 8), 'uint8', nodata=None) as writer:
        for name, value in (('a', 7), ('b', 255), ('c', 0)):
            writer.add(name, dates, np.full((10, 1, 8, 8), value, 'uint8'))
    data = SeasonalTemporalDataModule(str(tmp_path / 's'), 2, bands=('B4',), nodata=nodata)
    data.setup('fit')
    dataset = data.train_dataset
    dataset.__getitems__(range(3))
    assert dataset.replaced == {0: ('c',), 255: ('b',), None: ()}[nodata]
