"""Input that is bad in one way each, and what the documentation says of it."""

import os
import pickle
import re
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rasterio
import torch

from torchgeo_caco.stores import FolderWriter, PackedWriter

DOCUMENT = Path(__file__).parents[1] / 'docs' / 'reliability.md'
NAMES, BANDS, SIZE = ('a', 'b', 'c', 'd'), ('B2', 'B3', 'B4'), 16
DATES = np.datetime64('2016-01-01') + 200 * np.arange(6)
#: The file that most cases spoil.
VICTIM = Path('c') / '20170204' / 'B3.tif'


@dataclass(frozen=True)
class Bad:
    """Bad input.

    Attributes:
        spoil: Spoils a good folder of locations.
        arguments: Arguments of the datamodule beside those that make it read all dates.
    """

    spoil: Callable[[Path], object] = lambda root: None
    arguments: dict[str, object] = field(default_factory=dict)


def write(root: Path, names: tuple[str, ...] = NAMES) -> Path:
    """Places with six dates, uint8, in the published layout."""
    rng = np.random.default_rng(0)
    with FolderWriter(root, BANDS, (SIZE, SIZE), 'uint8') as writer:
        for name in names:
            images = rng.integers(1, 200, (len(DATES), len(BANDS), SIZE, SIZE))
            writer.add(name, DATES, images.astype('uint8'))
    return root


def overwrite(path: Path, image: np.ndarray) -> None:
    """Write another image in the place of a band."""
    height, width = image.shape
    profile = {'driver': 'GTiff', 'height': height, 'width': width, 'count': 1}
    transform = rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000)
    with rasterio.open(path, 'w', dtype=image.dtype, transform=transform, **profile) as file:
        file.write(image, 1)


def _no_data(root: Path) -> None:
    for band in BANDS:
        overwrite(root / VICTIM.with_name(f'{band}.tif'), np.zeros((SIZE, SIZE), 'uint8'))


def _other_type_everywhere(root: Path) -> None:
    for path in root.rglob('*.tif'):
        overwrite(path, np.ones((SIZE, SIZE)))


def _packed(root: Path) -> None:
    shutil.rmtree(root)
    with PackedWriter(root, BANDS, (SIZE, SIZE), 'uint8') as writer:
        for name in NAMES:
            writer.add(name, DATES, np.ones((len(DATES), len(BANDS), SIZE, SIZE), 'uint8'))


def _unfinished(root: Path) -> None:
    _packed(root)
    (root / 'meta.json').unlink()


def _half_array(root: Path) -> None:
    _packed(root)
    path = root / 'images-00000.npy'
    os.truncate(path, path.stat().st_size // 2)


def _escaping(root: Path) -> None:
    (root.parent / 'x').write_text('x')
    with tarfile.open(root / 'caco10k.tar.gz', 'w:gz') as file:
        file.add(root.parent / 'x', '../../x')
    (root.parent / 'x').unlink()


RAISE = {'on_bad_location': 'raise'}

#: Data that are bad; the names are those in the documentation.
DATA = {
    'missing_root': Bad(shutil.rmtree),
    'empty_root': Bad(lambda root: [shutil.rmtree(root / name) for name in NAMES]),
    'too_few_dates': Bad(lambda root: shutil.rmtree((root / VICTIM).parent), RAISE),
    'missing_band': Bad(lambda root: (root / VICTIM).unlink(), RAISE),
    'truncated_band': Bad(lambda root: os.truncate(root / VICTIM, 300), RAISE),
    'not_a_tiff': Bad(lambda root: (root / VICTIM).write_text('<html>'), RAISE),
    'other_size': Bad(lambda root: overwrite(root / VICTIM, np.ones((40, 40), 'uint8')), RAISE),
    'mixed_types': Bad(lambda root: overwrite(root / VICTIM, np.ones((16, 16), 'int16')), RAISE),
    'unknown_type': Bad(_other_type_everywhere),
    'nodata_only': Bad(_no_data, RAISE),
    'wrong_band': Bad(arguments={'bands': ['B4', 'B99']}),
    'large_batch': Bad(arguments={'batch_size': 5}),
    'nothing_readable': Bad(
        lambda root: (
            [os.truncate(p, 300) for p in root.rglob('*.tif') if p.parts[-3] != 'a']
            + [os.truncate(root / 'a' / '20180311' / 'B4.tif', 300)]
        )
    ),
    'unfinished_store': Bad(_unfinished),
    'truncated_store': Bad(_half_array, RAISE),
    'no_archive': Bad(arguments={'size': '10k'}),
    'damaged_archive': Bad(
        lambda root: (root / 'caco10k.tar.gz').write_bytes(b'\x1f\x8b'), {'size': '10k'}
    ),
    'escaping_archive': Bad(_escaping, {'size': '10k'}),
}


class Program:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (self.command,)


def _write_program(path: Path) -> None:
    torch.save({'state_dict': {}, 'x': Program(f'touch {path.parent / "ran"}')}, path)


#: Spoils ``last.ckpt`` of a good run, and arguments with which the run is then resumed.
CHECKPOINTS: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    'checkpoint_with_code': (_write_program, []),
    'plain_pickle': (lambda path: path.write_bytes(pickle.dumps(Program('false'), 2)), []),
    'truncated_checkpoint': (lambda path: os.truncate(path, 1000), []),
    'not_a_run': (lambda path: torch.save({'weight': torch.ones(1)}, path), []),
    'other_backbone': (lambda path: None, ['--model.model', 'resnet14t']),
    'other_channels': (
        lambda path: None,
        [
            *('--model.in_channels', '2', '--data.bands', '[B4, B3]'),
            *('--model.mean', '[0, 0]', '--model.std', '[1, 1]'),
        ],
    ),
    'other_periods': (
        lambda path: None,
        ['--model.long_term_negatives', 'never', '--data.periods', '1'],
    ),
    'other_bands': (lambda path: None, ['--data.bands', '[B2, B3, B4]']),
}


def documented() -> dict[str, str]:
    """Sentences of the documentation by the names of their cases."""
    rows = re.findall(r'^\|[^|]+\| `([^`]+)` \| `(\w+)` \|$', DOCUMENT.read_text(), re.M)
    return {name: sentence for sentence, name in rows}


def is_documented(name: str, sentence: str, folders: dict[Path, str]) -> bool:
    """Whether a sentence is the documented one; there … stands for some words."""
    for folder, short in folders.items():
        sentence = sentence.replace(str(folder), short)
    sentence = re.sub(r'http://127\.0\.0\.1:\d+', 'URL', sentence)
    pattern = '.+'.join(map(re.escape, documented().get(name, 'no row').split('…')))
    assert re.fullmatch(pattern, sentence), f'{name}: {sentence}'
    return True
