"""What is written gives the original's features, and the commands that write it."""

import re
import sys

import pytest
import timm
import torch
from torchgeo.tasks import Classification

from torchgeo_caco.cli import main
from torchgeo_caco.models import (
    Encoder,
    export_encoder,
    push,
    read_encoder,
    save_model_folder,
)
from torchgeo_caco.models import export as module
from torchgeo_caco.models.describe import describe_checkpoint

DESCRIBED = {
    'bands': ['B4', 'B3', 'B2'], 'scale': '0-255', 'quantiles': [[0, 129], [2, 103], [3, 88]],
    'mean': [0.485, 0.456, 0.406], 'std': [0.229, 0.224, 0.225],
}  # fmt: skip


@pytest.fixture(scope='module')
def encoder(foreign) -> Encoder:
    """A ResNet-18 of which all is known."""
    about = {'data': '12 places', 'method': 'CACo', 'scores': {'knn': 0.5}}
    return Encoder('resnet18', foreign.original('resnet18').state_dict(), DESCRIBED, about)


@pytest.fixture(scope='module')
def folder(encoder, tmp_path_factory):
    return export_encoder(encoder, tmp_path_factory.mktemp('models') / 'folder', 64)


#: The suffixes that are tested below, and the line of the table that speaks of each.
FORMS = {
    suffix: f'`{suffix}`' if suffix else 'a folder'
    for suffix in ('', '.pth', '.safetensors', '.ckpt', '.ts', '.pt2', '.onnx')
}


def test_the_table_of_forms(documented):
    assert list(documented('forms')) == list(FORMS.values())


def features(encoder, images):
    with torch.no_grad():
        return encoder.build()(images)


@pytest.mark.parametrize('suffix', ['', '.pth', '.safetensors', '.ckpt'])
def test_files_that_are_read_again(suffix, encoder, tmp_path):
    again = read_encoder(export_encoder(encoder, tmp_path / f'a{suffix}', 64))
    assert again.architecture == 'resnet18'
    written = tmp_path / f'a{suffix}'
    weights = written / 'model.safetensors' if not suffix else written
    (tmp_path / 'plain').touch()
    assert weights.stat().st_mode == (tmp_path / 'plain').stat().st_mode
    assert set(again.state) == set(encoder.state)
    assert all(torch.equal(value, encoder.state[key]) for key, value in again.state.items())
    kept = ('', '.ckpt')
    assert again.described == (DESCRIBED if suffix in kept else {})


def test_torchgeo_reads_the_checkpoint(encoder, tmp_path):
    path = export_encoder(encoder, tmp_path / 'a.ckpt', 64)
    task = Classification(model='resnet18', weights=str(path), num_classes=3)
    assert torch.equal(task.model.layer4[1].bn2.weight, encoder.state['layer4.1.bn2.weight'])


@pytest.mark.filterwarnings('ignore:.torch.jit')
def test_torchscript(encoder, tmp_path):
    again = torch.jit.load(export_encoder(encoder, tmp_path / 'a.ts', 64))
    images = torch.rand(5, 3, 64, 64)
    torch.testing.assert_close(again(images), features(encoder, images))


def test_torch_export(encoder, tmp_path):
    again = torch.export.load(export_encoder(encoder, tmp_path / 'a.pt2', 64)).module()
    images = torch.rand(5, 3, 64, 64)
    torch.testing.assert_close(again(images), features(encoder, images))


@pytest.mark.filterwarnings('ignore::DeprecationWarning')
@pytest.mark.filterwarnings('ignore::FutureWarning')
def test_onnx(encoder, tmp_path):
    runtime = pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    path = export_encoder(encoder, tmp_path / 'a.onnx', 64)
    session = runtime.InferenceSession(path, providers=['CPUExecutionProvider'])
    images = torch.rand(5, 3, 64, 64)
    (again,) = session.run(None, {'image': images.numpy()})
    torch.testing.assert_close(
        torch.from_numpy(again), features(encoder, images), atol=1e-4, rtol=1e-4
    )


def test_onnx_is_an_extra(encoder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(ImportError, match=r"pip install 'torchgeo_caco\[onnx\]'"):
        export_encoder(encoder, tmp_path / 'a.onnx', 64)


def test_other_features_are_not_passed_off(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(module, '_write_state', lambda *_: lambda x: x.mean((2, 3))[:, :1] + 1)
    with pytest.raises(ValueError, match=r'a\.pth gives features that differ by'):
        export_encoder(encoder, tmp_path / 'a.pth', 64)


def test_wrong_forms(encoder, tmp_path):
    with pytest.raises(ValueError, match=r'a\.doc is no form that is known: expected a folder or'):
        export_encoder(encoder, tmp_path / 'a.doc')
    (tmp_path / 'file').write_text('')
    with pytest.raises(ValueError, match='file is no form that is known'):
        export_encoder(encoder, tmp_path / 'file')


def example(card: str) -> str:
    return re.search(r'```python\n(.*?)```', card, re.S)[1]


def test_card(encoder, folder, monkeypatch):
    card = (folder / 'README.md').read_text()
    for told in ('bands: `["B4", "B3", "B2"]`', 'scale: 0-255', 'method: CACo', 'knn: `0.5`'):
        assert told in card
    monkeypatch.chdir(folder.parent)
    names: dict = {}
    exec(example(card), names)
    zero = torch.zeros(1, 3, 224, 224)
    low, high, mean, std = (
        torch.tensor(v).view(3, 1, 1)
        for v in ([0, 2, 3], [129, 103, 88], DESCRIBED['mean'], DESCRIBED['std'])
    )
    expected = features(encoder, (((zero - low) / (high - low)).clamp(0, 1) - mean) / std)
    torch.testing.assert_close(names['features'], expected)


def test_card_of_a_model_of_which_nothing_is_known(tmp_path, monkeypatch):
    model = timm.create_model('resnet10t', in_chans=4, num_classes=0)
    save_model_folder(model, 'resnet10t', tmp_path / 'm', {})
    card = (tmp_path / 'm' / 'README.md').read_text()
    assert 'input: not known' in card
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(example(card), names)
    assert names['features'].shape == (1, 512)


class Hub:
    """Stands for Hugging Face's."""

    calls: list = []  # noqa: RUF012

    def create_repo(self, repository, exist_ok):
        assert exist_ok
        self.calls.append(repository)

    def upload_folder(self, repo_id, folder_path, commit_message):
        files = sorted(path.name for path in folder_path.iterdir())
        self.calls.append((repo_id, files, (folder_path / 'README.md').read_text()))
        return f'https://huggingface.co/{repo_id}'


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(module, 'HfApi', Hub)
    monkeypatch.setattr(Hub, 'calls', [])
    return Hub


def test_push(folder, hub, tmp_path):
    assert push(folder, 'org/name') == 'https://huggingface.co/org/name'
    for name in ('name', 'org/', 'a/b/c'):
        with pytest.raises(ValueError, match='is not of the form ORG/NAME'):
            push(folder, name)
    with pytest.raises(ValueError, match=r'not a model folder: model\.safetensors'):
        push(tmp_path, 'org/name')
    assert hub.calls[0] == 'org/name'
    assert len(hub.calls) == 2


def test_export_command(folder, hub, tmp_path, capsys):
    out = tmp_path / 'out'
    arguments = ['export', str(folder), str(out), '--score', 'EuroSAT=93.5', '--bands', 'R,G,B']
    assert main([*arguments, '--licence', 'MIT', '--push', 'org/name', '--size', '64']) == 0
    told = capsys.readouterr().out
    assert f'resnet18 written to {out}' in told
    assert 'uploaded to https://huggingface.co/org/name' in told
    encoder = read_encoder(out)
    assert encoder.described['bands'] == ['R', 'G', 'B']
    assert encoder.about['scores'] == {'knn': 0.5, 'EuroSAT': 93.5}
    assert encoder.about['license'] == 'MIT'
    repository, files, card = hub.calls[1]
    assert (repository, files) == ('org/name', ['README.md', 'config.json', 'model.safetensors'])
    assert "timm.create_model('hf-hub:org/name'" in card


def test_export_command_takes_a_runs_figures(encoder, tmp_path):
    (tmp_path / 'checkpoints').mkdir()
    (tmp_path / 'metrics.csv').write_text(
        'epoch,step,train_loss,train_loss_step\n0,1,5.5,5\n1,2,4.5,4\n1,3,,3\n2,5,9.5,9\n'
    )
    of_run = encoder._replace(about=encoder.about | {'steps': 4})
    path = export_encoder(of_run, tmp_path / 'checkpoints' / 'last.ckpt', 64)
    assert main(['export', str(path), str(tmp_path / 'm'), '--size', '64']) == 0
    assert read_encoder(tmp_path / 'm').about['scores'] == {'train_loss': 4.5, 'knn': 0.5}
    # A model folder at the same place has no part in the run's later rows.
    folder = export_encoder(of_run, tmp_path / 'checkpoints' / 'model', 64)
    assert main(['export', str(folder), str(tmp_path / 'n'), '--size', '64']) == 0
    assert read_encoder(tmp_path / 'n').about['scores'] == {'knn': 0.5}


def test_epochs_that_ended():
    checkpoint = {
        'caco_locations': ['a'], 'hyper_parameters': {}, 'epoch': 1, 'global_step': 6,
        'loops': {'fit_loop': {'epoch_progress': {'current': {'processed': 1}}}},
    }  # fmt: skip
    about = describe_checkpoint(checkpoint)[1]
    assert (about['settings']['epochs'], about['steps']) == (1, 6)
    del checkpoint['loops']
    assert describe_checkpoint(checkpoint)[1]['settings']['epochs'] == 2


def test_convert_command(foreign, tmp_path, monkeypatch, capsys):
    original = foreign.original('resnet18')
    file_name, write = foreign.layouts['CACo, .ckpt']
    path, out = tmp_path / file_name.format('resnet18'), tmp_path / 'out'
    write(original, 'resnet18', path)
    assert main(['convert', str(path), str(out), '--size', '64']) == 0
    model = timm.create_model(f'local-dir:{out}', pretrained=True).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(images), original(images), rtol=1e-6, atol=1e-6)
    card = (out / 'README.md').read_text()
    assert 'CACo 100K' in card
    assert 'not stated for the weights' in card
    # Weights by their name, for who has no file.
    monkeypatch.setattr('torch.hub._hub_dir', str(tmp_path))
    (tmp_path / 'checkpoints').mkdir()
    cached = tmp_path / 'checkpoints' / 'resnet18_caco_geo_1m_200.pth'
    torch.save(foreign.sequential(original), cached)
    name = 'CACoResNet18_Weights.SENTINEL2_RGB_CACO_1M'
    assert main(['convert', name, str(tmp_path / 'b.ckpt'), '--size', '64']) == 0
    encoder = read_encoder(tmp_path / 'b.ckpt')
    assert encoder.about['scores']['EuroSAT, linear, accuracy %'] == 94.72
    capsys.readouterr()


class Attack:
    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return exec, (f'open({str(self.victim)!r}, "w").close()',)


def test_errors_are_one_sentence(foreign, tmp_path, capsys):
    victim, bad = tmp_path / 'victim', tmp_path / 'bad.ckpt'
    torch.save({'state_dict': {'a': torch.ones(1)}, 'x': Attack(victim)}, bad)
    for arguments, told in (
        (['convert', bad], f'{bad} is refused: its pickle names __builtin__.exec'),
        (['convert', tmp_path / 'none.pth'], 'none.pth is not a file; expected a checkpoint'),
        (['export', tmp_path], 'is not a timm model folder: config.json is not there'),
    ):
        assert main([*map(str, arguments), str(tmp_path / 'out')]) == 1
        error = capsys.readouterr().err
        assert error.startswith(f'torchgeo-caco {arguments[0]}: ')
        assert told in error
        assert error.count('\n') == 1
    assert not victim.exists()
    assert not (tmp_path / 'out').exists()
    with pytest.raises(SystemExit):
        main(['export', 'a', 'b', '--score', 'EuroSAT'])
    assert "'EuroSAT' is not of the form NAME=VALUE" in capsys.readouterr().err
