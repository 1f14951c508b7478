"""Bad input gives the sentences that docs/reliability.md says, also at the command line."""

import shutil
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
import torch
from torchgeo.main import main

from torchgeo_caco.datamodules import SeasonalTemporalDataModule
from torchgeo_caco.fetching import fetch

from .bad_input import CHECKPOINTS, DATA, RAISE, VICTIM, documented, is_documented, write
from .datasets.server import File, serve

CONF = Path(__file__).parents[1] / 'conf' / 'caco.yaml'
LOGGED = ('counted_at_the_end', 'a_replacement', 'locations_differ')
READ_ALL = {'batch_size': 2, 'seasons_per_period': 3}
#: What a server does, and arguments of the download.
DOWNLOADS = {
    'gone': (File(b'', statuses=[404]), {}),
    'broken_off': (File(b'x' * 100, cuts=[10, 5, 5]), {'retries': 1, 'pause': 0.001}),
    'wrong_length': (File(b'x' * 100), {'size': 99}),
    'wrong_checksum': (File(b'x'), {'md5': '0'}),
}
#: Third parties' remarks on tiny runs.
pytestmark = [
    pytest.mark.filterwarnings('ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning'),
    pytest.mark.filterwarnings('ignore:The .*dataloader.* does not have many workers'),
    pytest.mark.filterwarnings('ignore:.*litlogger.*'),
    pytest.mark.filterwarnings('ignore:Checkpoint directory .* exists and is not empty'),
    pytest.mark.filterwarnings('ignore:The dirpath has changed from'),
]


@pytest.fixture
def root(tmp_path) -> Path:
    """Good locations, to be spoiled."""
    return write(tmp_path / 'root')


def command(root: Path, out: Path, *more: str) -> list[str]:
    """A tiny run."""
    return [
        'fit', '--config', str(CONF), '--data.root', str(root), '--data.batch_size', '2',
        '--data.num_workers', '0', '--data.seasons_per_period', '3',
        '--model.memory_bank_size', '16', '--model.model', 'resnet10t', '--model.size', '32',
        '--model.histogram_every', '0',
        '--trainer.max_epochs', '1', '--trainer.default_root_dir', str(out),
        '--trainer.accelerator', 'cpu', '--trainer.log_every_n_steps', '1',
        '--trainer.enable_progress_bar', 'false', '--trainer.enable_model_summary', 'false',
        *more,
    ]  # fmt: skip


def last_line(arguments: list[str]) -> str:
    """What one reads last when a run fails, without the name of the exception."""
    with pytest.raises((ValueError, OSError)) as caught:
        main(arguments)
    line = ''.join(traceback.format_exception(caught.value)).rstrip().splitlines()[-1]
    name, _, sentence = line.partition(': ')
    assert name.rpartition('.')[2] in ('ValueError', 'FileNotFoundError', 'DatasetNotFoundError')
    return sentence


def as_options(arguments: dict[str, object]) -> list[str]:
    """Arguments of the datamodule at the command line."""
    return [
        text
        for key, value in arguments.items()
        for text in (f'--data.{key}', str(value).replace("'", ''))
    ]


def test_the_table_is_whole():
    cases = [*DATA, *CHECKPOINTS, *DOWNLOADS, *LOGGED]
    assert sorted(documented()) == sorted(cases)


@pytest.mark.parametrize('name', DATA)
def test_sentence(name, root):
    bad = DATA[name]
    bad.spoil(root)
    before = sorted(root.parent.rglob('*'))
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        data = SeasonalTemporalDataModule(str(root), **(READ_ALL | bad.arguments))
        data.prepare_data()
        data.setup('fit')
        list(data.train_dataloader())
    assert is_documented(name, str(caught.value), {root: 'ROOT'})
    left = set(root.parent.rglob('*')) ^ set(before)
    assert {path.suffix for path in left} <= {'.lock', '.sha256'}


@pytest.mark.parametrize('name', DATA)
def test_command_line(name, root, tmp_path):
    bad = DATA[name]
    bad.spoil(root)
    sentence = last_line([*command(root, tmp_path / 'out'), *as_options(bad.arguments)])
    assert is_documented(name, sentence, {root: 'ROOT'})


def test_workers(root, tmp_path):
    DATA['missing_band'].spoil(root)
    options = ['--data.num_workers', '2', *as_options(RAISE)]
    sentence = last_line([*command(root, tmp_path / 'out'), *options])
    assert is_documented('missing_band', sentence, {root: 'ROOT'})


def test_a_real_command(root, tmp_path):
    DATA['empty_root'].spoil(root)
    code = 'from torchgeo.main import main; main()'
    arguments = command(root, tmp_path / 'out')
    done = subprocess.run([sys.executable, '-c', code, *arguments], capture_output=True, text=True)
    assert done.returncode == 1
    sentence = done.stderr.rstrip().splitlines()[-1].partition(': ')[2]
    assert is_documented('empty_root', sentence, {root: 'ROOT'})


@pytest.fixture(scope='module')
def run(tmp_path_factory) -> Path:
    """Good data and a run on them."""
    folder = tmp_path_factory.mktemp('run')
    main(command(write(folder / 'root'), folder / 'out'))
    return folder


@pytest.mark.parametrize('name', CHECKPOINTS)
def test_checkpoint(name, run, tmp_path):
    out = tmp_path / 'out'
    shutil.copytree(run / 'out', out)
    spoil, options = CHECKPOINTS[name]
    spoil(out / 'checkpoints' / 'last.ckpt')
    before = {path: path.read_bytes() for path in out.rglob('*.ckpt')}
    more = ['--trainer.max_epochs', '2', '--ckpt_path', 'last', *options]
    sentence = last_line([*command(run / 'root', out), *more])
    assert is_documented(name, sentence, {out: 'OUT', run / 'root': 'ROOT'})
    assert not list(tmp_path.rglob('ran'))
    assert {path: path.read_bytes() for path in out.rglob('*.ckpt')} == before


def test_the_attack_works(tmp_path):
    path = tmp_path / 'last.ckpt'
    CHECKPOINTS['checkpoint_with_code'][0](path)
    torch.load(path, weights_only=False)
    assert (tmp_path / 'ran').exists()


def test_locations_differ(run, tmp_path, caplog):
    out, root = tmp_path / 'out', tmp_path / 'root'
    shutil.copytree(run / 'out', out)
    shutil.copytree(run / 'root', root)
    shutil.copytree(root / 'a', root / 'a2')
    shutil.copytree(root / 'a', root / 'e')
    shutil.rmtree(root / 'd')
    main(command(root, out, '--trainer.max_epochs', '2', '--ckpt_path', 'last'))
    (said,) = [r.getMessage() for r in caplog.records if 'since the checkpoint' in r.getMessage()]
    assert is_documented('locations_differ', said, {})


@pytest.mark.parametrize('workers', ['0', '2'])
def test_bad_locations_are_counted_at_the_end(workers, root, tmp_path, caplog):
    (root / VICTIM).unlink()
    shutil.rmtree(root / 'd' / '20160101')
    options = ['--data.num_workers', workers, '--trainer.max_epochs', '2']
    main(command(root, tmp_path / 'out', *options, '--data.batch_size', '3'))
    texts = [r.getMessage() for r in caplog.records if r.name.startswith('torchgeo_caco')]
    assert is_documented('counted_at_the_end', texts[-1], {root: 'ROOT'})
    if workers == '0':
        (said,) = [text for text in texts if text.endswith('takes its place.')]
        assert is_documented('a_replacement', said, {root: 'ROOT'})


def test_only_what_happened_is_counted(root, tmp_path, caplog):
    main(command(root, tmp_path / 'out'))
    assert not [r for r in caplog.records if ': of 4 locations' in r.getMessage()]
    shutil.rmtree(root / 'd' / '20160101')
    (root / 'e').mkdir()
    main(command(root, tmp_path / 'out', '--data.batch_size', '3'))
    texts = [r.getMessage() for r in caplog.records if ': of ' in r.getMessage()]
    assert texts == [f'{root}: of 5 locations 2 were skipped for too few dates.']


@pytest.mark.parametrize('name', DOWNLOADS)
def test_download(name, tmp_path):
    file, arguments = DOWNLOADS[name]
    file = File(file.data, list(file.cuts), list(file.statuses))
    with serve({'/a': file}) as server, pytest.raises((ConnectionError, ValueError)) as caught:
        fetch(f'{server.url}/a', tmp_path / 'a', **arguments)
    assert is_documented(name, str(caught.value), {tmp_path: 'ROOT'})
    assert not (tmp_path / 'a').exists()
