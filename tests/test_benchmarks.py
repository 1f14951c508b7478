"""The benchmarks run, at sizes that say nothing."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks import common, loading, scale, step

pytestmark = pytest.mark.filterwarnings('ignore')


@pytest.fixture
def page(tmp_path):
    """A page with a place for each table."""
    path = tmp_path / 'page.md'
    sections = (f'<!-- {n} -->\nto be replaced\n<!-- /{n} -->\n' for n in ('loading', 'step'))
    path.write_text(''.join(sections))
    return path


def test_loading(page, capsys):
    loading.main(['--locations', '2', '--size', '16', '--repeats', '1', '--write', str(page)])
    text = page.read_text()
    assert '| SeasonalTemporalDataset of a PackedStore |' in text
    assert '| TorchGeo SeasonalContrastS2 |' in text
    assert text.count('to be replaced') == 1
    assert '| PackedStore, nothing but the pictures |' in capsys.readouterr().out


def test_ways_of_loading_read_the_same(tmp_path):
    folder = loading.write_pictures(tmp_path, 3, 16)
    packed = loading.pack(folder, tmp_path / 'packed')
    ways = [loading.read_plainly(folder), loading.read_batch(folder, [0, 1, 2])]
    ways += [
        way().reshape(ways[0].shape) for way in loading.others(tmp_path, packed, [0, 1, 2]).values()
    ]
    assert all((way == ways[0]).all() for way in ways)


def test_step(page):
    step.main([
        '--model', 'resnet10t', '--rows', '4', '--size', '32', '--image-size', '32', '--steps', '1',
        '--locations', '8', '--repeats', '1', '--write', str(page),
    ])  # fmt: skip
    assert '| wait for data |' in page.read_text()


def test_scale(tmp_path, capsys):
    for stage in scale.STAGES:
        scale.main(['--one', stage, '50', str(tmp_path / 'store')])
        assert set(json.loads(capsys.readouterr().out.splitlines()[-1])) == {'seconds', 'mib'}
    by_count = {n: {'seconds': n / 1e4, 'mib': 1.0} for n in (10, 100)}
    scale.plot(dict.fromkeys(scale.STAGES, by_count), str(tmp_path / 'plot.png'))
    assert (tmp_path / 'plot.png').stat().st_size > 1000


def test_a_page_without_marks(tmp_path):
    (tmp_path / 'page.md').touch()
    with pytest.raises(SystemExit, match='has no marks <!-- x -->'):
        common.report('x', '', str(tmp_path / 'page.md'))
