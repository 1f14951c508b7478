"""A checkpoint and a model folder as weights in unmodified TorchGeo."""

from pathlib import Path

import pytest
import timm
import torch
from lightning.pytorch import Trainer
from torchgeo.tasks import ChangeDetection, Classification, Regression, SemanticSegmentation

from torchgeo_caco import CACoTask, SeasonalTemporalDataModule
from torchgeo_caco.cli import main
from torchgeo_caco.models import read_encoder

pytestmark = [
    pytest.mark.filterwarnings('ignore:The .*dataloader.* does not have many workers'),
    # TorchGeo asks for ImageNet weights by a name that smp's timm encoders do not use.
    pytest.mark.filterwarnings("ignore:For 'tu-'"),
]


@pytest.fixture(scope='module')
def run(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run of ResNet-18."""
    root = tmp_path_factory.mktemp('run')
    trainer = Trainer(
        accelerator='cpu', max_epochs=1, default_root_dir=root, log_every_n_steps=1,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    task = CACoTask('resnet18', size=32, memory_bank_size=16)
    assert task.hparams['schedule'] == (0.6, 0.8)
    trainer.fit(task, datamodule=SeasonalTemporalDataModule(str(tiny), 4))
    return root


def backbone(run: Path) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(run / 'checkpoints' / 'last.ckpt', weights_only=True)
    state = checkpoint['state_dict']
    return {k.removeprefix('backbone.'): v for k, v in state.items() if k.startswith('backbone.')}


def same(model: torch.nn.Module, run: Path, prefix: str = '') -> bool:
    """Whether a model holds the run's backbone."""
    state = model.state_dict()
    return all(torch.equal(state[prefix + key], value) for key, value in backbone(run).items())


def test_files_of_a_run(run):
    names = {path.name for path in run.iterdir()}
    assert {'checkpoints', 'metrics.csv', 'model', 'change_histogram', 'hparams.yaml'} <= names
    assert any(name.startswith('events.out.tfevents') for name in names)
    card = (run / 'model' / 'README.md').read_text()
    for word in ('bands', 'quantiles', 'mean', 'B4'):
        assert word in card


@pytest.mark.parametrize('task', [Classification, Regression])
def test_checkpoint_in_classification_and_regression(run, task):
    path = str(run / 'checkpoints' / 'last.ckpt')
    sizes = {'num_classes': 4} if task is Classification else {}
    assert same(task(model='resnet18', weights=path, **sizes).model, run)


def test_checkpoint_in_segmentation_and_change_detection(run):
    path = str(run / 'checkpoints' / 'last.ckpt')
    unet = SemanticSegmentation(model='unet', backbone='resnet18', weights=path, num_classes=3)
    assert same(unet.model.encoder, run)
    assert unet(torch.rand(1, 3, 64, 64)).shape == (1, 3, 64, 64)
    change = ChangeDetection(model='fcsiamdiff', backbone='resnet18', weights=path)
    assert same(change.model.encoder, run)
    assert change(torch.rand(1, 2, 3, 64, 64)).shape == (1, 1, 64, 64)


def test_model_folder(run):
    name = f'local-dir:{run / "model"}'
    assert same(timm.create_model(name, pretrained=True), run)
    assert timm.create_model(name, pretrained=True, in_chans=4)(torch.rand(1, 4, 64, 64)).ndim == 2
    # As a command line gives it.
    assert same(CACoTask(model=name, weights='true', memory_bank_size=8).backbone, run)
    classes = Classification(model=name, weights=True, num_classes=5)
    assert same(classes.model, run)
    segmentation = SemanticSegmentation(
        model='unet', backbone=f'tu-{name}', weights=True, num_classes=3
    )
    assert same(segmentation.model.encoder, run, 'model.')
    change = ChangeDetection(model='fcsiamdiff', backbone=f'tu-{name}', weights=True)
    assert same(change.model.encoder, run, 'model.')


def test_exported_checkpoint_is_the_runs_model_folder(run, tmp_path):
    checkpoint = str(run / 'checkpoints' / 'last.ckpt')
    assert main(['export', checkpoint, str(tmp_path / 'm'), '--size', '64']) == 0
    exported, written = read_encoder(tmp_path / 'm'), read_encoder(run / 'model')
    assert exported.described == written.described
    assert exported.about['method'] == 'CACo'
    assert exported.about['data'] == 'satellite time series of 12 places'
    assert exported.about['settings'] == written.about['settings']
    assert exported.about['scores']['train_loss'] > 0
    assert all(torch.equal(exported.state[k], v) for k, v in backbone(run).items())


def test_wrong_arguments(tiny, tmp_path):
    for arguments, message in (
        ({'version': 3}, 'version must be 2, not 3'),
        ({'subspaces': 2}, 'subspaces must be 3'),
        ({'subspaces': 1}, "needs long_term_negatives='never'"),
    ):
        with pytest.raises(ValueError, match=message):
            CACoTask('resnet10t', **arguments)
    for arguments, data, message in (
        ({'long_term_negatives': 'never'}, {}, r'needs 1 period\(s\); the data have periods=2'),
        ({}, {'periods': 1}, r'needs 2 period\(s\); the data have periods=1'),
        ({'in_channels': 4}, {}, 'in_channels=4 but the data have 3 bands: B4, B3, B2'),
    ):
        trainer = Trainer(
            accelerator='cpu', max_epochs=1, logger=False, default_root_dir=tmp_path,
            enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        )  # fmt: skip
        task = CACoTask('resnet10t', size=32, memory_bank_size=16, **arguments)
        with pytest.raises(ValueError, match=message):
            trainer.fit(task, datamodule=SeasonalTemporalDataModule(str(tiny), 4, **data))


@pytest.mark.parametrize(
    ('arguments', 'data'),
    [
        ({'optimizer': 'adamw', 'warmup_epochs': 1, 'lr': 1e-3}, {}),
        ({'model': 'vit_tiny_patch16_224', 'size': 224, 'optimizer': 'adamw'}, {}),
        ({'subspaces': 1, 'long_term_negatives': 'never'}, {'periods': 1, 'seasons': 2}),
        ({'label': 'location', 'squared': True, 'estimate': 'distance', 'channels_last': True}, {}),
        ({'queue_negatives': 'all', 'mask_own': 'all', 'change_threshold': 1.0}, {}),
    ],
)
def test_variants(arguments, data, tiny, tmp_path):
    trainer = Trainer(
        accelerator='cpu', max_epochs=2, limit_train_batches=2, logger=False,
        default_root_dir=tmp_path, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, precision='bf16-mixed',
    )  # fmt: skip
    task = CACoTask(**({'model': 'resnet10t', 'size': 32, 'memory_bank_size': 16} | arguments))
    trainer.fit(task, datamodule=SeasonalTemporalDataModule(str(tiny), 4, **data))
    assert torch.isfinite(trainer.callback_metrics['train_loss'])
    assert task.memory_bank.queue.dtype == task.estimator.estimates.dtype == torch.float32
