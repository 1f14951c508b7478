"""Published weights from a server that dies, lies and is not there."""

import hashlib

import pytest
import torch

from torchgeo_caco.models import CACoResNet18_Weights, caco_resnet18
from torchgeo_caco.models.download import cached

from ..datasets.server import File, serve

WEIGHTS = CACoResNet18_Weights.SENTINEL2_RGB_CACO_1M
NAME = 'resnet18_caco_geo_1m_200.pth'


@pytest.fixture(scope='module')
def data(foreign, tmp_path_factory) -> bytes:
    """A file as published."""
    path = tmp_path_factory.mktemp('published') / NAME
    torch.save(foreign.sequential(foreign.original('resnet18')), path)
    return path.read_bytes()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Torch hub's folder of checkpoints."""
    monkeypatch.setattr('torch.hub._hub_dir', str(tmp_path))
    monkeypatch.setattr('torchgeo_caco.fetching.time.sleep', lambda _: None)
    return tmp_path / 'checkpoints'


def at(server, monkeypatch):
    monkeypatch.setattr(WEIGHTS.value, 'url', f'{server.url}/{NAME}')


def files(cache):
    """What lies in the cache beside the lock."""
    return sorted(path.name for path in cache.iterdir() if path.suffix != '.lock')


def test_a_server_that_dies_is_resumed(data, foreign, cache, monkeypatch):
    with serve({f'/{NAME}': File(data, cuts=[10_000_000, 20_000_000])}) as server:
        at(server, monkeypatch)
        model = caco_resnet18(WEIGHTS)
    assert [where for _, where in server.asked] == [None, 'bytes=10000000-', 'bytes=30000000-']
    assert torch.equal(model.conv1.weight, foreign.original('resnet18').conv1.weight)
    assert files(cache) == [NAME, f'{NAME}.sha256']
    recorded = (cache / f'{NAME}.sha256').read_text()
    assert recorded == f'{hashlib.sha256(data).hexdigest()}  {NAME}\n'


def test_another_call_goes_on_and_half_a_file_is_not_used(data, cache, monkeypatch):
    with serve({f'/{NAME}': File(data, cuts=[10_000_000, 0, 0])}) as server:
        at(server, monkeypatch)
        with pytest.raises(ConnectionError, match=r'10000000 bytes are kept in .*\.partial'):
            WEIGHTS.get_state_dict()
        assert NAME not in files(cache)
        assert len(WEIGHTS.get_state_dict()) == 120
        assert server.asked[-1][1] == 'bytes=10000000-'


def test_a_changed_file_is_not_used(data, cache, monkeypatch):
    with serve({f'/{NAME}': File(data)}) as server:
        at(server, monkeypatch)
        WEIGHTS.get_state_dict()
        (cache / NAME).write_bytes(data[:-1] + b'x')
        expected = rf'{NAME} is not what was downloaded: its SHA-256 is \w+, {NAME}\.sha256 says'
        with pytest.raises(ValueError, match=expected):
            WEIGHTS.get_state_dict()
    assert len(server.asked) == 1


@pytest.mark.parametrize('cut', [1000, 40_000_000])
def test_a_truncated_file_on_the_server(cut, data, cache, monkeypatch):
    with serve({f'/{NAME}': File(data[:cut])}) as server:
        at(server, monkeypatch)
        expected = rf'{NAME} cannot be read as a checkpoint.* Delete it and {NAME}\.sha256'
        with pytest.raises(ValueError, match=expected):
            WEIGHTS.get_state_dict()


def test_other_weights_under_this_name(foreign, cache):
    cache.mkdir()
    torch.save(foreign.original('resnet50').state_dict(), cache / NAME)
    with pytest.raises(ValueError, match=r'holds no encoder .* expected the weights of a resnet18'):
        WEIGHTS.get_state_dict()


def test_offline(data, cache, monkeypatch):
    with serve({}) as server:
        at(server, monkeypatch)
        with pytest.raises(ConnectionError, match='answered 404'):
            WEIGHTS.get_state_dict()
    with pytest.raises(ConnectionError) as caught:
        WEIGHTS.get_state_dict()
    told = f'get {WEIGHTS.url} elsewhere and save it as {cache / NAME}.'
    assert told in str(caught.value)
    assert '\n' not in str(caught.value)
    # What was put there by hand is used, and recorded.
    (cache / NAME).write_bytes(data)
    assert len(WEIGHTS.get_state_dict()) == 120
    assert f'{NAME}.sha256' in files(cache)


def test_folder_and_name(data, cache, tmp_path, monkeypatch):
    with serve({f'/{NAME}': File(data)}) as server:
        at(server, monkeypatch)
        WEIGHTS.get_state_dict(model_dir=str(tmp_path / 'mine'), file_name='a.pth')
        assert (tmp_path / 'mine' / 'a.pth').read_bytes() == data
        assert cached(f'{server.url}/{NAME}?download=1', tmp_path).name == NAME
