"""The table of docs/weights.md that says who reads which form: each row is what is seen here."""

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torchgeo.tasks import ChangeDetection, Classification, Regression, SemanticSegmentation

from torchgeo_caco import CACoTask
from torchgeo_caco.models import Encoder, export_encoder
from torchgeo_caco.models.convert import adapt_channels

pytestmark = [
    # TorchGeo asks for ImageNet weights by a name that smp's timm encoders do not use, and says
    # that it leaves the first layer as it is made when channels differ.
    pytest.mark.filterwarnings("ignore:For 'tu-'"),
    pytest.mark.filterwarnings('ignore:input channels'),
    # dpt is made for vision transformers.
    pytest.mark.filterwarnings('ignore:Encoder does not have prefix tokens'),
]

NAME = 'CACoResNet18_Weights.SENTINEL2_RGB_CACO_1M'
YES, ADAPTED, RANDOM, NO = (
    'yes', 'yes, first layer adapted', 'yes, first layer random', 'no',
)  # fmt: skip
#: Numbers of bands of the two columns of each form.
CHANNELS = ((3,), (4, 12, 13))

Build = Callable[[str, Any, int], tuple[nn.Module, tuple[int, ...]]]


@pytest.fixture(scope='module')
def forms(foreign, tmp_path_factory) -> dict[str, Any]:
    """One encoder as model folder, checkpoint and enum; its weights."""
    root = tmp_path_factory.mktemp('forms')
    original = foreign.original('resnet18', 5)
    encoder = Encoder('resnet18', original.state_dict(), {}, {})
    (root / 'checkpoints').mkdir()
    path = root / 'checkpoints' / 'resnet18_caco_geo_1m_200.pth'
    torch.save(foreign.sequential(original), path)
    return {
        'hub': str(root),
        'state': encoder.state,
        'folder': str(export_encoder(encoder, root / 'folder', 64)),
        'checkpoint': str(export_encoder(encoder, root / 'encoder.ckpt', 64)),
        'name': NAME,
    }


def _create(**kwargs: Any) -> Build:
    def build(name: str, weights: Any, channels: int) -> tuple[nn.Module, tuple[int, ...]]:
        model = timm.create_model(name, pretrained=weights, in_chans=channels, **kwargs)
        return model, (1, channels, 32, 32)

    return build


def _image_task(task: Any, **kwargs: Any) -> Build:
    def build(name: str, weights: Any, channels: int) -> tuple[nn.Module, tuple[int, ...]]:
        module = task(model=name, weights=weights, in_channels=channels, **kwargs)
        return getattr(module, 'model', module), (1, channels, 32, 32)

    return build


def _segmentation(model: Any) -> Build:
    def build(name: str, weights: Any, channels: int) -> tuple[nn.Module, tuple[int, ...]]:
        task = SemanticSegmentation(model, name, weights, channels, num_classes=3)
        return task.model, (1, channels, 32, 32)

    return build


def _change(model: Any) -> Build:
    def build(name: str, weights: Any, channels: int) -> tuple[nn.Module, tuple[int, ...]]:
        task = ChangeDetection(model, name, weights, channels)
        pair = (1, 2, channels, 32, 32)
        return task.model, pair if model.startswith('fcsiam') else (1, 2 * channels, 32, 32)

    return build


#: What reads, how it is made, what it calls a model folder, and whether it reads the other forms.
READERS: dict[str, tuple[Build, str, bool]] = {
    'timm `create_model`': (_create(), 'local-dir:', False),
    'timm `create_model`, `features_only=True`': (_create(features_only=True), 'local-dir:', False),
    '`Classification`': (_image_task(Classification, num_classes=3), 'local-dir:', True),
    '`Regression`': (_image_task(Regression), 'local-dir:', True),
    **{
        f'`SemanticSegmentation`, `{m}`': (_segmentation(m), 'tu-local-dir:', True)
        for m in ('unet', 'deeplabv3+', 'upernet', 'segformer', 'dpt')
    },
    **{
        f'`ChangeDetection`, `{m}`': (_change(m), 'tu-local-dir:', True)
        for m in ('unet', 'deeplabv3+', 'upernet', 'fcsiamdiff', 'fcsiamconc')
    },
    '`ChangeDetection`, `changevit`': (_change('changevit'), 'local-dir:', True),
    '`ChangeDetection`, `btc`': (_change('btc'), 'local-dir:', True),
}  # fmt: skip


def outcome(build: Build, name: str, weights: Any, channels: int, state: dict[str, Tensor]) -> str:
    """Say what a reader makes of weights, in the words of the table."""
    try:
        model, shape = build(name, weights, channels)
    except (KeyError, RuntimeError, TypeError, ValueError):
        return NO
    model.eval()(torch.rand(shape))
    encoder = getattr(model, 'encoder', model)
    own = {key.removeprefix('model.'): value for key, value in encoder.state_dict().items()}
    assert all(torch.equal(own[k], v) for k, v in state.items() if k != 'conv1.weight'), name
    first, original = own['conv1.weight'], state['conv1.weight']
    if first.shape == original.shape and torch.equal(first, original):
        return YES
    adapted = torch.allclose(first, adapt_channels(original, first.shape[1]))
    return ADAPTED if adapted else RANDOM


@pytest.mark.parametrize('reader', READERS)
def test_row(reader, forms, documented, monkeypatch):
    monkeypatch.setattr('torch.hub._hub_dir', forms['hub'])
    build, prefix, others = READERS[reader]
    state, cells = forms['state'], []
    for several in CHANNELS:
        folder = prefix + forms['folder']
        found = {outcome(build, folder, True, channels, state) for channels in several}
        assert len(found) == 1
        cells.append(found.pop())
    for several in CHANNELS:
        found = {
            outcome(build, 'resnet18', forms[form], channels, state) if others else '-'
            for channels in several
            for form in ('checkpoint', 'name')
        }
        assert len(found) == 1
        cells.append(found.pop())
    assert documented('readers')[reader] == cells


def test_rows(documented):
    assert list(documented('readers')) == [*READERS, '`CACoTask`']


def test_row_of_our_task(forms, documented, monkeypatch):
    monkeypatch.setattr('torch.hub._hub_dir', forms['hub'])

    def build(name: str, weights: Any, channels: int) -> tuple[nn.Module, tuple[int, ...]]:
        task = CACoTask(name, weights, channels, memory_bank_size=16)
        return task.backbone, (1, channels, 32, 32)

    cells = []
    for several in (('folder',), ('checkpoint', 'name')):
        for channels in CHANNELS:
            found = {
                outcome(build, 'resnet18', forms[form], n, forms['state'])
                for form in several
                for n in channels
            }
            cells += list(found)
    assert documented('readers')['`CACoTask`'] == cells


def test_a_folder_with_13_bands(foreign, tmp_path):
    state = foreign.original('resnet18', channels=13).state_dict()
    folder = export_encoder(Encoder('resnet18', state, {}, {}), tmp_path / 'm', 64)
    name = f'local-dir:{folder}'
    # The folder says how many it has; the tasks have to be told.
    for build, channels, called in (
        (_create(), 13, name),
        (_image_task(Classification, num_classes=3), 13, name),
        (_segmentation('unet'), 13, f'tu-{name}'),
        (_change('fcsiamdiff'), 13, f'tu-{name}'),
    ):
        assert outcome(build, called, True, channels, state) == YES
    assert timm.create_model(name, pretrained=True).conv1.weight.shape[1] == 13


def test_what_torchgeo_refuses_and_the_way_round(forms, monkeypatch):
    monkeypatch.setattr('torch.hub._hub_dir', forms['hub'])
    with pytest.raises(KeyError, match='Wrong encoder name `local-dir:'):
        SemanticSegmentation('unet', f'local-dir:{forms["folder"]}', True, num_classes=3)
    with pytest.raises(RuntimeError, match=r'size mismatch for conv1\.weight'):
        SemanticSegmentation('unet', 'resnet18', NAME, 13, num_classes=3)
    with pytest.raises(RuntimeError, match=r'size mismatch for conv1\.weight'):
        ChangeDetection('unet', 'resnet18', NAME)
    # A plain state dict by its path is none of the forms that TorchGeo reads.
    with pytest.raises(KeyError, match='hyper_parameters'):
        Classification('resnet18', forms['hub'] + '/checkpoints/resnet18_caco_geo_1m_200.pth')
