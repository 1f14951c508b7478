"""The demo as a stranger runs it, on a few places."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from torchgeo_caco.demo import PICTURES, main
from torchgeo_caco.models import export_encoder, read_encoder


def run(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a demo of two epochs."""
    return subprocess.run(
        [
            sys.executable, '-m', 'torchgeo_caco.demo', '--out', str(out),
            '--data.init_args.num_locations', '24', '--data.init_args.batch_size', '8',
            '--trainer.max_epochs', '2', '--model.init_args.memory_bank_size', '16', *arguments,
        ],
        cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    """A finished demo's folder, and what it printed."""
    out = tmp_path_factory.mktemp('demo') / 'demo'
    ended = run(out)
    assert ended.returncode == 0, ended.stderr
    return out, ended.stdout


def test_files_of_others_are_left_alone(tmp_path, capsys):
    mine = tmp_path / 'data' / 'archive.zip'
    mine.parent.mkdir()
    mine.write_text('years of work')
    with pytest.raises(SystemExit):
        main(['--out', str(tmp_path)])
    assert mine.read_text() == 'years of work'
    assert f'{tmp_path} holds files that no demo made' in capsys.readouterr().err


def test_what_is_printed_stays_with_pictures(demo):
    out, printed = demo
    figures = json.loads((out / 'results.json').read_text())
    assert list(figures) == [
        'probe_random', 'probe_pretrained', 'auroc_ratio', 'auroc_distance'
    ]  # fmt: skip
    for value in figures.values():
        assert 0 <= value <= 1
        assert f' {value:.3f}' in printed
    for name in PICTURES:
        assert (out / name).stat().st_size > 5000


def test_the_card_says_that_the_places_are_simulated(demo, tmp_path):
    out, _ = demo
    card = (out / 'model' / 'README.md').read_text()
    assert 'data: simulated time series of 24 places' in card
    assert 'scale: reflectance times 10000' in card
    again = export_encoder(read_encoder(out / 'checkpoints' / 'last.ckpt'), tmp_path / 'm', 64)
    assert 'data: simulated time series of 24 places' in (again / 'README.md').read_text()


def test_nothing_of_an_earlier_demo_passes_for_a_later_ones(demo):
    out, _ = demo
    ended = run(out, '--no-such-argument')
    assert ended.returncode == 2
    assert 'no-such-argument' in ended.stderr
    assert not (out / 'results.json').exists()
    assert not any((out / name).exists() for name in ('model', *PICTURES))
