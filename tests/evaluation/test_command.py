"""``torchgeo-caco evaluate`` from end to end."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from torchgeo_caco.cli import main
from torchgeo_caco.evaluation import evaluate_pair

from .conftest import write_tif

REAL = os.environ.get('TORCHGEO_CACO_REAL_DATA')


def evaluate(out: Path, *arguments: str) -> int:
    return main(['evaluate', '--out', str(out), *arguments])


def rows(out: Path) -> list[dict[str, str]]:
    with open(out / 'results.csv', newline='') as file:
        return list(csv.DictReader(file))


def test_everything(eurosat_rgb, pretrained, tmp_path, capsys):
    weights = ('random', f'ours={pretrained / "model"}')
    data = ('--datasets', str(eurosat_rgb))
    assert evaluate(tmp_path / 'a', '--weights', *weights, *data) == 0
    told = capsys.readouterr().out
    assert 'ours' in told
    assert 'published' in told
    found = rows(tmp_path / 'a')
    measured = [row for row in found if row['source'] == 'measured']
    assert {row['weights'] for row in measured} == {'random', 'ours'}
    assert {row['architecture'] for row in measured} == {'resnet18'}
    published = {row['weights']: row['value'] for row in found if row not in measured}
    assert published['CACo 100k'] == '93.08'
    about = json.loads((tmp_path / 'a' / 'results.json').read_text())
    assert len(about['weights']['ours']['sha256']) == 64
    assert about['pairs'][1]['input']['mean'] == pytest.approx([0.485, 0.456, 0.406])
    names = {path.name for path in (tmp_path / 'a').glob('*.png')}
    stem = 'eurosat_rgb_ours_weights_eval'
    wanted = {f'{stem}_{what}.png' for what in ('confusion', 'tsne', 'retrieval')}
    assert wanted | {'eurosat_rgb_scores.png'} <= names
    # The same again, to the byte.
    assert evaluate(tmp_path / 'b', '--weights', *weights, *data, '--no-plots') == 0
    first, second = (tmp_path / name / 'results.csv' for name in 'ab')
    assert first.read_bytes() == second.read_bytes()


def test_settings_give_rows_of_their_own(eurosat_rgb, tmp_path):
    arguments = (
        '--weights', 'random:resnet10t', '--datasets', f'eurosat_rgb={eurosat_rgb}', '--no-plots',
        '--normalization', 'plain', 'weights', '--batch-norm', 'eval', 'adapt',
    )  # fmt: skip
    assert evaluate(tmp_path, *arguments) == 0
    measured = [row for row in rows(tmp_path) if row['source'] == 'measured']
    settings = {(row['normalization'], row['batch_norm']) for row in measured}
    assert settings == {(n, b) for n in ('plain', 'weights') for b in ('eval', 'adapt')}


def test_several_labels(bigearthnet, eurosat, tmp_path):
    arguments = ('--weights', 'random:resnet10t', '--datasets', str(bigearthnet), str(eurosat))
    assert evaluate(tmp_path, *arguments) == 0
    measured = [row for row in rows(tmp_path) if row['source'] == 'measured']
    assert {row['measure'] for row in measured if row['data'] == 'bigearthnet'} >= {
        'AP micro', 'AP macro',
    }  # fmt: skip
    # Of thirteen bands weights without bands get those of a picture.
    assert any(row['data'] == 'eurosat' for row in measured)
    about = json.loads((tmp_path / 'results.json').read_text())
    assert [pair['input']['bands'] for pair in about['pairs']] == [['B4', 'B3', 'B2']] * 2


def test_bands_of_the_weights_are_chosen(eurosat, pretrained, tmp_path):
    arguments = ('--weights', str(pretrained / 'model'), '--datasets', str(eurosat), '--no-plots')
    assert evaluate(tmp_path, *arguments) == 0
    about = json.loads((tmp_path / 'results.json').read_text())
    assert about['pairs'][0]['input']['bands'] == ['B4', 'B3', 'B2']
    # The stretch is the weights' own, in units of the data: 129 of 255 is 0.506 of 10,000.
    assert about['pairs'][0]['input']['quantiles'][0] == pytest.approx([0, 5058.8], abs=0.1)


def test_imagenet_sees_pictures_and_says_which_it_was(eurosat, tmp_path, monkeypatch):
    create = timm.create_model

    def offline(name, pretrained=False, **settings):
        return create(name, pretrained=False, **settings)

    monkeypatch.setattr('torchgeo_caco.evaluation.weights.timm.create_model', offline)
    arguments = ('--weights', 'imagenet:resnet18', '--datasets', str(eurosat), '--no-plots')
    assert evaluate(tmp_path, *arguments) == 0
    about = json.loads((tmp_path / 'results.json').read_text())
    assert about['pairs'][0]['input']['bands'] == ['B4', 'B3', 'B2']
    tag = timm.get_pretrained_cfg('resnet18').tag
    assert about['weights']['imagenet:resnet18']['about']['timm'] == f'resnet18.{tag}'


def test_files_without_bands_are_not_given_any(eurosat, tmp_path, capsys):
    path = tmp_path / 'plain.pt'
    torch.save(timm.create_model('resnet18', num_classes=0).state_dict(), path)
    assert evaluate(tmp_path, '--weights', str(path), '--datasets', str(eurosat)) == 1
    told = capsys.readouterr().err
    assert 'has 3 input channels, but eurosat gives 13' in told
    assert 'nothing is known of the bands of the weights' in told


def test_what_is_missing_costs_one_sentence(eurosat_rgb, tmp_path, capsys):
    arguments = (
        '--weights', 'nothing.ckpt', 'random:resnet10t', '--no-plots',
        '--datasets', str(tmp_path / 'nowhere'), str(eurosat_rgb),
    )  # fmt: skip
    assert evaluate(tmp_path / 'out', *arguments) == 0
    told = capsys.readouterr().err
    assert "nothing.ckpt: weights='nothing.ckpt' is not known" in told
    assert 'nowhere is not recognised as a data set' in told
    assert 'Traceback' not in told
    about = json.loads((tmp_path / 'out' / 'results.json').read_text())
    assert len(about['failed']) == 2


def test_two_folders_of_a_kind_are_told_apart(eurosat_rgb, tmp_path, capsys):
    other = shutil.copytree(eurosat_rgb, tmp_path / 'part' / eurosat_rgb.name)
    names = (other / 'val.txt').read_text().splitlines()
    (other / 'val.txt').write_text('\n'.join(names[::2]))
    arguments = ('--weights', 'random:resnet10t', '--datasets', str(eurosat_rgb), str(other))
    assert evaluate(tmp_path, *arguments, f'{other}/.') == 0
    told = capsys.readouterr()
    assert told.err.count('this folder was given before') == 1
    titles = [f'eurosat_rgb:{root.parent.name}/{root.name}' for root in (eurosat_rgb, other)]
    by_title = {title: [row for row in rows(tmp_path) if row['data'] == title] for title in titles}
    assert sum(map(len, by_title.values())) == len(rows(tmp_path))
    for title, images in zip(titles, ('18', '9'), strict=True):
        assert f'\n{title}: {images} images scored' in told.out
        measured = [row for row in by_title[title] if row['source'] == 'measured']
        assert {row['test_images'] for row in measured} == {images}
        assert len(measured) < len(by_title[title])
    pairs = json.loads((tmp_path / 'results.json').read_text())['pairs']
    assert [pair['data'] for pair in pairs] == titles
    # As many pictures of each: scores, confusion matrix, t-SNE and retrieval.
    assert len(list(tmp_path.glob('*.png'))) == 8


def test_names_that_differ_in_punctuation_keep_their_pictures(eurosat_rgb, tmp_path):
    weights = ('--weights', 'a-b=random:resnet10t', 'a+b=random:resnet10t')
    assert evaluate(tmp_path, *weights, '--datasets', str(eurosat_rgb)) == 0
    assert len(list(tmp_path.glob('*_tsne*.png'))) == 2


def test_a_name_of_weights_comes_once(eurosat_rgb, tmp_path, capsys):
    weights = ('--weights', 'x=random:resnet10t', 'x=random:resnet18')
    assert evaluate(tmp_path, *weights, '--datasets', str(eurosat_rgb)) == 1
    assert capsys.readouterr().err == (
        'torchgeo-caco evaluate: --weights: x is the name of random:resnet10t and of '
        'random:resnet18; expected each once, with a name of its own (NAME=W).\n'
    )


def test_a_device_that_is_not_there_comes_first(tmp_path, capsys):
    arguments = ('--weights', 'nothing.ckpt', '--datasets', str(tmp_path / 'nowhere'))
    for device in ('cuda:99', 'gpu'):
        assert evaluate(tmp_path / 'out', *arguments, '--device', device) == 1
        told = capsys.readouterr().err
        assert told.startswith(f'torchgeo-caco evaluate: --device {device} cannot be used here (')
        assert told.count('\n') == 1


def spoil_image(root: Path) -> str:
    (root / 'River' / 'River_3.jpg').write_bytes(b'no picture')
    return 'River_3.jpg cannot be read as a picture'


def spoil_class(root: Path) -> str:
    lines = (root / 'train.txt').read_text().splitlines()
    (root / 'train.txt').write_text('\n'.join(n for n in lines if not n.startswith('River')))
    return "class 'River' has no training image"


def spoil_count(root: Path) -> str:
    (root / 'train.txt').write_text('River_0.jpg\n')
    return r'1 training image(s) are too few; expected at least 5'


def spoil_label(root: Path) -> str:
    with open(root / 'val.txt', 'a') as file:
        file.write('Glacier_1.jpg\n')
    return "the class of 'Glacier_1.jpg' is not one of the folders"


def spoil_name(root: Path) -> str:
    with open(root / 'val.txt', 'a') as file:
        file.write('River_999.jpg\n')
    return 'River_999.jpg is not there, but'


def spoil_size(root: Path) -> str:
    Image.new('RGB', (40, 40)).save(root / 'River' / 'River_3.jpg')
    return (
        'River_3.jpg has 3 x 40 x 40 values (channels, height, width); 3 x 32 x 32, as '
        f'{root / "Forest" / "Forest_0.jpg"} has, were expected'
    )


@pytest.mark.parametrize(
    'spoil', [spoil_image, spoil_size, spoil_class, spoil_count, spoil_label, spoil_name]
)
@pytest.mark.parametrize('workers', ['0', '1'])
def test_bad_data_costs_one_sentence(spoil, workers, eurosat_rgb, tmp_path, capsys):
    root = shutil.copytree(eurosat_rgb, tmp_path / 'data')
    message = spoil(root)
    arguments = ('--weights', 'random:resnet10t', '--datasets', str(root), '--no-plots')
    assert evaluate(tmp_path / 'out', *arguments, '--num-workers', workers) == 1
    told = capsys.readouterr().err.splitlines()
    assert message in told[0]
    assert told[1:] == ['torchgeo-caco evaluate: nothing could be evaluated, as said above.']
    assert not (tmp_path / 'out').exists()


def spoil_labels(text: str, message: str):
    def spoil(root: Path) -> str:
        path = next(root.glob('*/S2A_MSIL2A_val_1/*.json'))
        path.write_text(text)
        return f'{path} {message}'

    return spoil


def spoil_bands(root: Path) -> str:
    path = next(root.glob('*/S2A_MSIL2A_val_1/*_B03.tif'))
    write_tif(path, np.ones((1, 60, 60), np.uint16))
    return f'{path.parent} has bands of different sizes (B04, B03, B02: 120 x 120, 60 x 60, 120'


def spoil_channels(root: Path) -> str:
    path = next(root.rglob('River_0.tif'))
    write_tif(path, np.ones((3, 64, 64), np.uint16))
    return f'{path} has too few bands; expected 13'


def cut_off(root: Path) -> str:
    path = next(root.rglob('River_0.tif'))
    path.write_bytes(path.read_bytes()[:300])
    return f'{path} cannot be read as a GeoTIFF'


NO_LABELS = 'has no list of labels; expected {"labels": [...]}.'


@pytest.mark.parametrize(
    ('kind', 'spoil'),
    [
        ('bigearthnet', spoil_labels('{}', NO_LABELS)),
        ('bigearthnet', spoil_labels('[]', NO_LABELS)),
        ('bigearthnet', spoil_labels('{"labels": null}', NO_LABELS)),
        ('bigearthnet', spoil_labels('{"lab', 'cannot be read as JSON')),
        ('bigearthnet', spoil_bands),
        ('eurosat', spoil_channels),
        ('eurosat', cut_off),
    ],
)
def test_bad_data_leave_the_others_alone(
    kind, spoil, request, eurosat_rgb, pretrained, tmp_path, capsys
):
    root = shutil.copytree(request.getfixturevalue(kind), tmp_path / 'data')
    message = spoil(root)
    arguments = ('--weights', str(pretrained / 'model'), '--no-plots')
    assert evaluate(tmp_path, *arguments, '--datasets', str(root), str(eurosat_rgb)) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if str(root) in line]
    assert len(told) == 1
    assert message in told[0]
    assert {row['data'] for row in rows(tmp_path)} == {'eurosat_rgb'}


def test_what_pytorch_cannot_do_leaves_the_others_alone(eurosat_rgb, tmp_path, capsys, monkeypatch):
    def fail_once(name, *arguments):
        if name == 'a':
            raise torch.OutOfMemoryError('out of memory.\nSee the manual.')
        return evaluate_pair(name, *arguments)

    monkeypatch.setattr('torchgeo_caco.commands.evaluate.evaluate_pair', fail_once)
    weights = ('--weights', 'a=random:resnet10t', 'b=random:resnet10t')
    assert evaluate(tmp_path, *weights, '--datasets', str(eurosat_rgb), '--no-plots') == 0
    assert f'a on {eurosat_rgb}: out of memory.\n' in capsys.readouterr().err
    assert {row['weights'] for row in rows(tmp_path) if row['source'] == 'measured'} == {'b'}


@pytest.mark.skipif(REAL is None, reason='needs TORCHGEO_CACO_REAL_DATA')
def test_random_features_on_real_pictures(tmp_path):
    """Not far below the 63 to 64 % of random ResNet-18 elsewhere, on a sixth of the pictures."""
    root = tmp_path / 'part'
    root.mkdir()
    real = Path(str(REAL)) / 'eurosat_rgb'
    for folder in real.iterdir():
        if folder.is_dir():
            (root / folder.name).symlink_to(folder)
    for split in ('train', 'val'):
        lines = (real / f'{split}.txt').read_text().splitlines()
        (root / f'{split}.txt').write_text('\n'.join(lines[::6]))
    arguments = ('--weights', 'random:resnet18', '--datasets', str(root), '--no-plots')
    assert evaluate(tmp_path / 'out', *arguments, '--batch-norm', 'adapt') == 0
    measured = [row for row in rows(tmp_path / 'out') if row['source'] == 'measured']
    value = {row['protocol']: float(row['value']) for row in measured}
    assert 50 < value['linear 100 %'] < 70
