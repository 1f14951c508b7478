"""The soak, in short."""

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location('soak', Path(__file__).parents[1] / 'soak.py')
soak = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(soak)


def test_a_few_schedules(monkeypatch, capsys):
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    assert soak.main(['--schedules', '3', '--seed', '1000']) == 0
    assert '3 schedules in' in capsys.readouterr().out
