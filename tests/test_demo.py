"""The demo's own promises; its training is tested with its configuration."""

import pytest

from torchgeo_caco.demo import main


def test_files_of_others_are_left_alone(tmp_path, capsys):
    mine = tmp_path / 'data' / 'archive.zip'
    mine.parent.mkdir()
    mine.write_text('years of work')
    with pytest.raises(SystemExit):
        main(['--out', str(tmp_path)])
    assert mine.read_text() == 'years of work'
    assert f'{tmp_path} holds files that no demo made' in capsys.readouterr().err
