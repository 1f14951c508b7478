"""Normalisation, subsets and layouts of the datamodules of the published evaluations."""

import hashlib
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from PIL import Image
from torchgeo.datasets import DatasetNotFoundError

from torchgeo_caco.datamodules import (
    BigEarthNetRGBDataModule,
    DynamicEarthNetDataModule,
    EuroSATRGBDataModule,
    OSCDTilesDataModule,
)
from torchgeo_caco.datamodules.downstream import describe_weights, subset_rows
from torchgeo_caco.datasets import BigEarthNetRGB, DynamicEarthNet, EuroSATRGB
from torchgeo_caco.datasets.bigearthnet import MEAN_DEVIATION_STRETCH
from torchgeo_caco.datasets.dynamicearthnet import verify_sums
from torchgeo_caco.datasets.oscd import IMAGES, OSCDTiles
from torchgeo_caco.models import CACoResNet18_Weights
from torchgeo_caco.transforms import InputNormalization, PublishedInput

RGB = ('B4', 'B3', 'B2')
OWN = {
    'bands': ['B4', 'B3', 'B2'], 'scale': '0-255', 'quantiles': [[0, 129], [2, 103], [3, 88]],
    'mean': [0.485, 0.456, 0.406], 'std': [0.229, 0.224, 0.225],
}  # fmt: skip


def test_plain_pictures_are_shares_of_255():
    image = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    plain = InputNormalization('plain', RGB, [[0, 255]] * 3, 'picture', OWN)
    torch.testing.assert_close(plain(image), image / 255)
    own = InputNormalization('weights', RGB, [[0, 255]] * 3, 'picture', OWN)
    mean, std = (torch.tensor(OWN[key]).view(3, 1, 1) for key in ('mean', 'std'))
    torch.testing.assert_close(own(image), (image / 255 - mean) / std)


def test_reflectance_is_stretched_as_in_training():
    image = torch.randint(0, 6000, (2, 3, 8, 8))
    own = InputNormalization('weights', RGB, [[0, 1]] * 3, 'reflectance', OWN)
    torch.testing.assert_close(own(image), PublishedInput('reflectance')(image))


def test_the_published_bigearthnet_input_is_that_of_pillow():
    coarse = torch.randint(0, 3000, (1, 3, 12, 12)).float()
    image = torch.nn.functional.interpolate(coarse, (120, 120), mode='bilinear')[0].int()
    plain = InputNormalization(
        'plain', RGB, MEAN_DEVIATION_STRETCH, 'reflectance', None, eight_bits=True, size=128
    )
    low, high = np.array(MEAN_DEVIATION_STRETCH).T[:, :, None, None]
    scaled = ((image.numpy() - low) / (high - low) * 255).clip(0, 255).astype(np.uint8)
    picture = Image.fromarray(scaled.transpose(1, 2, 0)).resize(
        (128, 128), Image.Resampling.BICUBIC
    )
    reference = np.asarray(picture).transpose(2, 0, 1) / 255
    difference = np.abs(plain(image).numpy() - reference)
    # Pillow rounds to 256 values after each of two passes.
    assert difference.max() < 2.1 / 255
    assert difference.mean() < 0.5 / 255


def test_bands_are_put_into_the_order_of_the_weights():
    image = torch.arange(4.0).view(4, 1, 1).expand(4, 2, 2)
    described = {'bands': ['blue', 'green', 'red']}
    found = InputNormalization(
        'plain', ('B2', 'B8', 'B4', 'B3'), [[0, 10]] * 4, 'reflectance', described
    )
    assert found(image)[:, 0, 0].tolist() == pytest.approx([0.0, 0.3, 0.2])
    assert found.describe()['bands'] == ['B2', 'B3', 'B4']
    with pytest.raises(ValueError, match='trained on bands B11, but the data have only B4'):
        InputNormalization('plain', RGB, [[0, 1]] * 3, 'picture', {'bands': ['B11']})
    with pytest.raises(ValueError, match="normalization must be 'plain' or 'weights', not 'own'"):
        InputNormalization('own', RGB, [[0, 1]] * 3, 'picture')


def test_normalisation_of_given_weights(eurosat_rgb, pretrained):
    data = EuroSATRGBDataModule(
        str(eurosat_rgb), 4, normalization='weights', weights=str(pretrained / 'model')
    )
    data.setup('fit')
    batch = data.on_after_batch_transfer(next(iter(data.val_dataloader())), 0)
    assert batch['image'].shape == (4, 3, 32, 32)
    assert batch['image'].min() < 0
    assert data.state_dict()['statistics'] == ("the data set's stretch, the weights' mean and std")
    other = EuroSATRGBDataModule(str(eurosat_rgb), 4)
    with pytest.raises(ValueError, match="trained with normalization='weights', but normalization"):
        other.load_state_dict(data.state_dict())


def test_published_weights_bring_their_stretch(monkeypatch):
    weights = CACoResNet18_Weights.SENTINEL2_RGB_CACO_100K
    state = timm.create_model('resnet18', num_classes=0).state_dict()
    monkeypatch.setattr(type(weights), 'get_state_dict', lambda self, **_: state)
    described = describe_weights('CACoResNet18_Weights.SENTINEL2_RGB_CACO_100K')
    image = torch.randint(0, 6000, (3, 8, 8))
    own = InputNormalization('weights', RGB, [[0, 1]] * 3, 'reflectance', described)
    torch.testing.assert_close(own(image), PublishedInput('reflectance')(image))


@pytest.mark.parametrize('weights', [None, 'pretrained'])
@pytest.mark.parametrize('normalization', ['plain', 'weights'])
def test_a_checkpoint_brings_its_normalisation(weights, normalization, bigearthnet, pretrained):
    given = None if weights is None else str(pretrained / 'model')
    settings = {'normalization': normalization, 'size': 64}
    fitted = BigEarthNetRGBDataModule(str(bigearthnet), 2, weights=given, **settings)
    image = torch.randint(0, 4000, (1, 3, 120, 120))
    expected = fitted.normalise(image)
    tested = BigEarthNetRGBDataModule(str(bigearthnet), 2, **settings)
    tested.load_state_dict(fitted.state_dict())
    torch.testing.assert_close(tested.normalise(image), expected)
    assert tested.state_dict() == fitted.state_dict()


def test_lists_of_the_user(eurosat_rgb, tmp_path):
    (tmp_path / 'mine.txt').write_text('River_1.tif\nForest/Forest_2.jpg\n')
    dataset = EuroSATRGB(eurosat_rgb, 'mine', {'mine': str(tmp_path / 'mine.txt')})
    assert [path.name for path in dataset.files] == ['River_1.jpg', 'Forest_2.jpg']
    assert [dataset.classes[int(dataset[i]['label'])] for i in range(2)] == ['River', 'Forest']
    assert dataset.plot(dataset[0]).axes
    with pytest.raises(FileNotFoundError, match=r"no list of split 'other': expected other\.txt"):
        EuroSATRGB(eurosat_rgb, 'other')
    with pytest.raises(FileNotFoundError, match='given as the list'):
        EuroSATRGB(eurosat_rgb, 'mine', {'mine': 'no.txt'})
    with pytest.raises(FileNotFoundError, match='is not EuroSAT in RGB'):
        EuroSATRGB(tmp_path)


def test_parts_of_bigearthnet(bigearthnet, tmp_path):
    names = [f'S2A_MSIL2A_train_{i}' for i in range(8)]
    (tmp_path / 'train.txt').write_text('\n'.join(names))
    (tmp_path / 'clouds.csv').write_text('\n'.join(names[:3]))
    data = BigEarthNetRGBDataModule(
        str(bigearthnet), 2, fraction=0.5, lists={'train': str(tmp_path / 'train.txt')},
        exclude=[str(tmp_path / 'clouds.csv')],
    )  # fmt: skip
    data.setup('fit')
    assert len(data.train_dataset) == 2
    full = BigEarthNetRGB(bigearthnet, 'train')
    assert full[0]['image'].shape == (3, 120, 120)
    assert full[1]['label'].sum() == 2
    assert full.plot(full[0]).axes
    # TorchGeo's own reading of the same bands.
    from torchgeo.datasets import BigEarthNet

    theirs = BigEarthNet(bigearthnet, 'train', 's2', checksum=False)[1]
    assert torch.equal(full[1]['image'].float(), theirs['image'][[3, 2, 1]])
    assert torch.equal(full[1]['label'], theirs['label'])
    with pytest.raises(FileNotFoundError, match=r'BigEarthNet-v1\.0 is not there'):
        BigEarthNetRGB(tmp_path)


def test_lists_that_are_no_text(eurosat_rgb, bigearthnet, dynamicearthnet, tmp_path):
    path = tmp_path / 'list.txt'
    path.write_bytes(b'\xff\xfeA')
    lists = {'train': str(path)}
    message = r'list\.txt is not a text file in UTF-8 \('
    for kind, root in (
        (EuroSATRGB, eurosat_rgb),
        (BigEarthNetRGB, bigearthnet),
        (DynamicEarthNet, dynamicearthnet),
    ):
        with pytest.raises(ValueError, match=message):
            kind(root, 'train', lists=lists)
    (tmp_path / IMAGES).mkdir()
    path.rename(tmp_path / IMAGES / 'train.txt')
    with pytest.raises(ValueError, match=r'train\.txt is not a text file in UTF-8 \('):
        OSCDTiles(tmp_path)


def test_subsets():
    assert list(subset_rows(10, 1.0, True)) == list(range(10))
    drawn = subset_rows(1000, 0.1, True)
    assert len(drawn) == 100
    assert drawn == np.random.default_rng(42).choice(1000, 100).tolist()
    assert len(set(subset_rows(1000, 0.5, False))) == 500
    with pytest.raises(ValueError, match='fraction must lie above 0'):
        subset_rows(10, 0, True)
    with pytest.raises(ValueError, match=r'fraction=0.01 of 10 images is none'):
        subset_rows(10, 0.01, True)


def test_cities_held_out(oscd):
    data = OSCDTilesDataModule(str(oscd), 4, val_cities=['paris'])
    data.setup('fit')
    assert data.train_dataset.cities == ['bercy', 'nantes', 'pisa']
    assert data.val_dataset.cities == ['paris']
    assert len(data.train_dataloader()) == 3
    published = OSCDTilesDataModule(str(oscd), 4)
    published.setup('test')
    assert published.test_dataset.cities == ['rio', 'dubai']
    with pytest.raises(ValueError, match="'rio' is none of the training cities"):
        OSCDTilesDataModule(str(oscd), 4, val_cities=['rio']).setup('fit')
    with pytest.raises(ValueError, match='batch_size=64 is more than the 16 training tiles'):
        OSCDTilesDataModule(str(oscd), 64).setup('fit')


@pytest.mark.parametrize(
    ('kind', 'data', 'count', 'settings'),
    [
        (EuroSATRGBDataModule, 'eurosat_rgb', '36 training images', {}),
        (BigEarthNetRGBDataModule, 'bigearthnet', '4 training images', {'fraction': 0.5}),
        (OSCDTilesDataModule, 'oscd', '16 training tiles', {}),
        (DynamicEarthNetDataModule, 'dynamicearthnet', '8 training tiles', {'tile': 64}),
    ],
)
def test_a_batch_that_cannot_be_filled(kind, data, count, settings, request):
    """Otherwise training ends without an error, and without a step."""
    root = request.getfixturevalue(data)
    trainer = Trainer(
        accelerator='cpu', max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    message = f'batch_size=64 is more than the {count} of {root}; at most as many were expected.'
    with pytest.raises(ValueError, match=re.escape(message)):
        trainer.fit(BoringModel(), datamodule=kind(str(root), 64, **settings))


def test_dynamicearthnet(dynamicearthnet):
    whole = DynamicEarthNet(dynamicearthnet, 'train', bands=('B4', 'B3', 'B2', 'B8'))
    assert len(whole) == 2
    sample = whole[0]
    assert sample['image'].shape == (4, 128, 128)
    assert set(sample['mask'].unique().tolist()) == {*range(7), 255}
    tiles = DynamicEarthNet(dynamicearthnet, 'train', tile=64)
    assert len(tiles) == 8
    assert torch.equal(tiles[1]['mask'], sample['mask'][:64, 64:])
    assert torch.equal(tiles[1]['image'], sample['image'][:3, :64, 64:])
    six = DynamicEarthNet(dynamicearthnet, 'train', num_classes=6)
    assert set(six[0]['mask'].unique().tolist()) == {*range(6), 255}
    assert len(whole.plot(sample | {'prediction': sample['mask']}).axes) == 3
    data = DynamicEarthNetDataModule(str(dynamicearthnet), 2, tile=64)
    data.setup('fit')
    batch = data.on_after_batch_transfer(next(iter(data.val_dataloader())), 0)
    assert 0 <= batch['image'].min() < batch['image'].max() <= 1


def test_dynamicearthnet_errors(dynamicearthnet, tmp_path, monkeypatch):
    with pytest.raises(DatasetNotFoundError):
        DynamicEarthNet(tmp_path)
    for line, message in (
        ('/planet/x 2018-01', 'line 1: expected the folder of images, the label and the month'),
        ('/planet/x /labels/y.tif 2018-01', '2 files of .* are not there'),
    ):
        (tmp_path / 'list.txt').write_text(line)
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            DynamicEarthNet(tmp_path, lists={'train': str(tmp_path / 'list.txt')})
    with pytest.raises(ValueError, match='of which tiles of 100 do not make a whole'):
        DynamicEarthNet(dynamicearthnet, tile=100)
    with pytest.raises(ValueError, match='B9 is no band'):
        DynamicEarthNet(dynamicearthnet, bands=('B9',))
    with pytest.raises(ValueError, match='num_classes must be 7'):
        DynamicEarthNet(dynamicearthnet, num_classes=5)
    monkeypatch.setenv('PATH', '')
    with pytest.raises(FileNotFoundError, match='published by rsync'):
        DynamicEarthNet(tmp_path / 'new', download=True)


def test_dynamicearthnet_is_fetched(dynamicearthnet, tmp_path, monkeypatch):
    """With a stand-in for rsync that copies."""
    program = tmp_path / 'bin' / 'rsync'
    program.parent.mkdir()
    program.write_text('#!/bin/sh\n/bin/cp -R "$4"/. "$5"\n')
    program.chmod(0o755)
    monkeypatch.setenv('PATH', str(program.parent))
    monkeypatch.setattr(DynamicEarthNet, 'url', str(dynamicearthnet))
    monkeypatch.setattr(DynamicEarthNet, 'sums', '../sums')
    name = 'dynnet_training_splits/val.txt'
    digest = hashlib.sha512((dynamicearthnet / name).read_bytes()).hexdigest()
    (tmp_path / 'sums').write_text(f'{digest}  {name}\n')
    assert len(DynamicEarthNet(tmp_path / 'new', 'val', download=True, checksum=True)) == 1
    (tmp_path / 'new' / name).write_text('changed')
    with pytest.raises(ValueError, match=r'val.txt is damaged: its SHA-512 sum'):
        verify_sums(tmp_path / 'new', '../sums')


@pytest.fixture
def published(dynamicearthnet, tmp_path, monkeypatch) -> Path:
    """What a stand-in for rsync has: an archive of all and its sum; its calls are in ``calls``."""
    folder = tmp_path / 'published'
    folder.mkdir()
    with zipfile.ZipFile(folder / 'all.zip', 'w') as file:
        for part in ('planet', 'labels'):
            for path in sorted((dynamicearthnet / part).rglob('*.tif')):
                file.write(path, path.relative_to(dynamicearthnet))
    digest = hashlib.sha512((folder / 'all.zip').read_bytes()).hexdigest()
    (folder / DynamicEarthNet.sums).write_text(f'{digest}  all.zip\n')
    program = tmp_path / 'bin' / 'rsync'
    program.parent.mkdir()
    # Small files alone if a size is given, as rsync does.
    program.write_text(
        '#!/bin/sh\n'
        f'echo "$6" >> {tmp_path}/calls\n'
        f'/bin/cp "$4"/{DynamicEarthNet.sums} "$5"\n'
        '[ "$6" = --max-size=1m ] || /bin/cp "$4"/all.zip "$5"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv('PATH', str(program.parent))
    monkeypatch.setattr(DynamicEarthNet, 'url', str(folder))
    return folder


def with_lists(dynamicearthnet: Path, root: Path) -> Path:
    lists = 'dynnet_training_splits'
    shutil.copytree(dynamicearthnet / lists, root / lists)
    return root


def test_dynamicearthnet_is_fetched_for_the_files_of_the_list(dynamicearthnet, published, tmp_path):
    root = with_lists(dynamicearthnet, tmp_path / 'new')
    assert len(DynamicEarthNet(root, 'train', download=True, checksum=True)) == 2
    # All is there now: nothing is asked for.
    assert len(DynamicEarthNet(root, 'val', download=True)) == 1
    assert (tmp_path / 'calls').read_text() == '\n'


def test_dynamicearthnet_without_lists_fetches_nothing_large(published, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'train\.txt is not there, and nothing large was'):
        DynamicEarthNet(tmp_path / 'new', download=True)
    assert (tmp_path / 'calls').read_text() == '--max-size=1m\n'
    assert not (tmp_path / 'new' / 'all.zip').exists()


def test_archives_of_dynamicearthnet_that_lie_there(dynamicearthnet, published, tmp_path):
    root = with_lists(dynamicearthnet, tmp_path / 'new')
    with pytest.raises(
        FileNotFoundError, match=r'4 files of .*, first .*2018-01-01\.tif; expected'
    ):
        DynamicEarthNet(root)
    whole = (published / 'all.zip').read_bytes()
    (root / 'all.zip').write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=r'all\.zip cannot be unpacked: .*; expected a whole zip'):
        DynamicEarthNet(root)
    with pytest.raises(FileNotFoundError, match='expected the published SHA-512 sums'):
        DynamicEarthNet(root, checksum=True)
    shutil.copy(published / DynamicEarthNet.sums, root)
    (root / 'all.zip').write_bytes(whole)
    assert len(DynamicEarthNet(root, checksum=True)) == 2
    (root / 'all.zip').write_bytes(whole + b'more')
    # Also when all files are there.
    with pytest.raises(ValueError, match=r'all\.zip is damaged: its SHA-512 sum'):
        DynamicEarthNet(root, checksum=True)
    assert not (tmp_path / 'calls').exists()
