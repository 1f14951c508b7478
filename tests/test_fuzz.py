"""A short form of the fuzz command, and that it notices what it is for."""

import os
import time
from collections import Counter

import pytest

from . import fuzz


@pytest.mark.parametrize('target', fuzz.READERS)
def test_nothing_fails(target):
    fuzz.prepare()
    outcomes = dict(fuzz.run_block(target, 1234, range(40)))
    failed = {case: text for case, text in outcomes.items() if text not in ('read', 'refused')}
    assert not failed
    assert len(outcomes) == 40
    assert Counter(outcomes.values())['refused'] > 10


@pytest.mark.parametrize(
    ('target', 'case'),
    [
        ('packed', 3599),
        ('packed', 13401),
        ('packed', 15888),
        ('archive', 2838),
        ('hostile', 2018),
        ('hostile', 15990),
    ]
    + [('checkpoint', case) for case in (347, 10608, 14004, 16652)],
)
def test_what_once_failed(target, case):
    fuzz.prepare()
    assert dict(fuzz.run_block(target, 0, range(case, case + 1)))[case] == 'refused'


def _name_error(folder):
    raise KeyError(str(folder))


def _two_lines(folder):
    raise ValueError(f'{folder} is\nbad.')


def _no_path(folder):
    raise ValueError('It is bad.')


def _outside(folder):
    (folder.parents[1] / 'x').write_text('x')


@pytest.mark.parametrize(
    ('reader', 'message'),
    [
        (_name_error, 'KeyError'),
        (_two_lines, 'ValueError'),
        (_no_path, 'It is bad'),
        (_outside, 'left behind'),
        (lambda folder: os._exit(3), 'its process ended with 3'),
        (lambda folder: time.sleep(60), 'more than 1 s'),
        (lambda folder: bytearray(2**34), 'MemoryError'),
    ],
)
def test_notices(reader, message, monkeypatch):
    monkeypatch.setitem(fuzz.READERS, 'tiff', reader)
    monkeypatch.setattr(fuzz, 'SECONDS', 1 if 'more' in message else 30)
    outcomes = dict(fuzz.run_block('tiff', 0, range(1)))
    assert message in outcomes[0]
