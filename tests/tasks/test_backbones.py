"""Networks other than ResNets, and what becomes of their checkpoints."""

import pytest
import timm
import torch
from lightning.pytorch import Trainer
from torchgeo.tasks import Classification

from torchgeo_caco import CACoTask, SeasonalTemporalDataModule
from torchgeo_caco.models import read_encoder
from torchgeo_caco.models.size import size_arguments


@pytest.mark.filterwarnings('ignore:The .*dataloader.* does not have many workers')
@pytest.mark.parametrize(
    ('model', 'argument'),
    [
        ('vit_tiny_patch16_224', 'dynamic_img_size'),
        ('test_vit_relpos', 'img_size'),
        ('mobilenetv3_small_050', None),
    ],
)
def test_a_run_and_its_weights(model, argument, tiny, tmp_path):
    trainer = Trainer(
        accelerator='cpu', max_epochs=1, limit_train_batches=1, default_root_dir=tmp_path,
        enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
    )  # fmt: skip
    task = CACoTask(model, size=64, memory_bank_size=16)
    trainer.fit(task, datamodule=SeasonalTemporalDataModule(str(tiny), 4))
    assert set(size_arguments(model, 3, 64)[0]) == ({argument} if argument else set())
    last, folder = str(tmp_path / 'checkpoints' / 'last.ckpt'), str(tmp_path / 'model')
    images = torch.rand(2, 3, 64, 64)
    encoder = task.backbone.eval()
    expected = encoder(images)

    def same(other):
        return torch.equal(other.eval()(images), expected)

    assert same(timm.create_model(f'local-dir:{folder}', pretrained=True, num_classes=0))
    for source in (last, folder):
        assert same(read_encoder(source).build())
        assert same(CACoTask(model, source, size=64, memory_bank_size=8).backbone)
    assert same(CACoTask(f'local-dir:{folder}', True, size=64, memory_bank_size=8).backbone)
    classes = Classification(f'local-dir:{folder}', weights=True, num_classes=5).model
    if argument != 'img_size':
        from_last = Classification(model, weights=last, num_classes=5).model
        assert all(
            torch.equal(v, from_last.state_dict()[k]) for k, v in encoder.state_dict().items()
        )
    classes.reset_classifier(0)
    assert same(classes)
    if argument == 'dynamic_img_size':
        # Weights fit every size.
        other = CACoTask(model, last, size=32, memory_bank_size=8).backbone
        assert all(torch.equal(v, other.state_dict()[k]) for k, v in encoder.state_dict().items())


@pytest.mark.parametrize(
    ('model', 'size', 'width'),
    [
        ('vit_tiny_patch16_224', 96, 192),
        ('swin_tiny_patch4_window7_224', 64, 768),
        ('ghostnet_050', 64, 1280),
        ('mobilenetv4_conv_small_035', 64, 1280),
        ('resnet10t', 32, 512),
    ],
)
def test_features(model, size, width):
    state = torch.get_rng_state()
    arguments, features = size_arguments(model, 4, size)
    assert torch.equal(torch.get_rng_state(), state)
    assert features == width
    built = timm.create_model(model, num_classes=0, in_chans=4, **arguments)
    assert built(torch.rand(2, 4, size, size)).shape == (2, width)


def test_a_size_that_cannot_be():
    with pytest.raises(
        ValueError, match=r"model='test_vit' cannot be built .* size=40 .* divisible"
    ):
        CACoTask('test_vit', size=40, memory_bank_size=8)
