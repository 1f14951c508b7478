"""The probe and the change head against small computations of their own."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import Trainer
from sklearn.metrics import average_precision_score
from torch.utils.data import DataLoader

from torchgeo_caco.datasets.oscd import OSCDTiles, tile_corners
from torchgeo_caco.tasks import ChangeHeadTask, ProbeTask

pytestmark = [
    pytest.mark.filterwarnings('ignore:The .*dataloader.* does not have many workers'),
    pytest.mark.filterwarnings('ignore:You defined a `validation_step`'),
]


def batches(count: int, size: int, **make) -> DataLoader:
    rows = [{key: value[i] for key, value in make.items()} for i in range(count)]
    return DataLoader(rows, batch_size=size)


def fit(task, loader, epochs: int) -> None:
    trainer = Trainer(
        accelerator='cpu', max_epochs=epochs, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(task, loader)


def torchvision_resnet(task_encoder) -> torch.nn.Module:
    """The same weights in somebody else's network."""
    model = torchvision.models.resnet18()
    state = {k: v.clone() for k, v in task_encoder.state_dict().items() if not k.startswith('fc')}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert set(missing) <= {'fc.weight', 'fc.bias'}
    assert not unexpected
    model.fc = torch.nn.Identity()
    return model


@pytest.mark.parametrize('batch_norm', ['train', 'eval'])
def test_probe(batch_norm):
    torch.manual_seed(0)
    images, labels = torch.rand(12, 3, 32, 32), torch.arange(12) % 3
    task = ProbeTask('resnet18', num_classes=3, batch_norm=batch_norm, lr=0.1)
    for layer in task.model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_()
    encoder = torchvision_resnet(task.model)
    start = [p.detach().clone() for p in task.model.fc.parameters()]
    frozen = task.model.layer1[0].conv1.weight.clone()
    fit(task, batches(12, 4, image=images, label=labels), 5)

    weight, bias = (p.clone().requires_grad_() for p in start)
    optimizer = torch.optim.Adam([weight, bias])
    encoder.train(batch_norm == 'train')
    # 60 % and 80 % of five epochs.
    for rate in (0.1, 0.1, 0.1, 0.01, 0.001):
        optimizer.param_groups[0]['lr'] = rate
        for rows in torch.arange(12).split(4):
            with torch.no_grad():
                features = encoder(images[rows])
            optimizer.zero_grad()
            F.cross_entropy(F.linear(features, weight, bias), labels[rows]).backward()
            optimizer.step()
    torch.testing.assert_close(task.model.fc.weight, weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(task.model.bn1.running_mean, encoder.bn1.running_mean)
    assert torch.equal(task.model.layer1[0].conv1.weight, frozen)


def test_probe_refuses_other_modes():
    with pytest.raises(ValueError, match="batch_norm must be 'train' or 'eval', not 'frozen'"):
        ProbeTask('resnet10t', num_classes=3, batch_norm='frozen')


def test_average_precision_is_pooled():
    torch.manual_seed(0)
    task = ProbeTask('resnet10t', task='multilabel', num_labels=4, loss='bce', dropout=0.2)
    logits, labels = torch.randn(30, 4), (torch.rand(30, 4) < 0.3).long()
    # The last batch of two images lacks labels.
    for rows in torch.arange(30).split(7):
        task.val_metrics(logits[rows], labels[rows])
    found = task.val_metrics.compute()
    for name, average in (('Overall', 'micro'), ('Average', 'macro')):
        reference = average_precision_score(labels, logits.sigmoid(), average=average)
        assert float(found[f'val_{name}AveragePrecision']) == pytest.approx(reference, abs=1e-5)


def test_loss_is_the_multi_label_soft_margin():
    logits, labels = torch.randn(6, 4), (torch.rand(6, 4) < 0.5).float()
    task = ProbeTask('resnet10t', task='multilabel', num_labels=4, loss='bce')
    reference = torch.nn.MultiLabelSoftMarginLoss()(logits, labels)
    torch.testing.assert_close(task.criterion(logits, labels), reference)


def test_change_head():
    """Features by torchvision's network, the decoder by plain functions."""
    torch.manual_seed(0)
    task = ChangeHeadTask(backbone='resnet18').eval()
    pair = torch.rand(2, 2, 3, 64, 64)
    with torch.no_grad():
        logits = task(pair)
        found = []
        net = torchvision_resnet(task.model.encoder).eval()
        for image in pair.unbind(1):
            first = net.conv1(image)
            stages = [first]
            x = net.maxpool(net.relu(net.bn1(first)))
            for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
                x = layer(x)
                stages.append(x)
            found.append(stages)
        differences = [(a - b).abs() for a, b in zip(*found, strict=True)]
        state = task.model.state_dict()
        x = differences[4]
        for i, skip in enumerate(differences[3::-1]):
            get = lambda name, i=i: state[f'stages.{i}.{name}']  # noqa: E731
            x = x.repeat_interleave(2, -1).repeat_interleave(2, -2)
            x = F.conv2d(x, get('up.1.weight'), get('up.1.bias'), padding=1)
            x = F.conv2d(torch.cat((x, skip), 1), get('join.0.weight'), padding=1)
            x = F.batch_norm(
                x, get('join.1.running_mean'), get('join.1.running_var'), get('join.1.weight'),
                get('join.1.bias'),
            ).relu()  # fmt: skip
        x = x.repeat_interleave(2, -1).repeat_interleave(2, -2)
        x = F.conv2d(x, state['last.1.weight'], state['last.1.bias'])
    assert [d.shape[1] for d in differences] == [64, 64, 128, 256, 512]
    torch.testing.assert_close(logits, x, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits, task(pair.flip(1)), rtol=1e-4, atol=1e-5)


def test_change_head_trains_the_decoder_only():
    task = ChangeHeadTask(backbone='resnet10t', batch_norm='eval')
    encoder = {k: v.clone() for k, v in task.model.encoder.state_dict().items()}
    image, mask = torch.rand(4, 2, 3, 32, 32), (torch.rand(4, 1, 32, 32) < 0.2).long()
    before = task.model.last[1].weight.clone()
    fit(task, batches(4, 2, image=image, mask=mask), 2)
    after = task.model.encoder.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in encoder.items())
    assert not torch.equal(task.model.last[1].weight, before)
    assert task.trainer.optimizers[0].param_groups[0]['lr'] == pytest.approx(1e-3 * 0.95**2)


def test_change_head_needs_a_resnet():
    with pytest.raises(ValueError, match='the change head needs a ResNet'):
        ChangeHeadTask(backbone='vit_tiny_patch16_224')


def test_f1_is_pooled():
    task = ChangeHeadTask(backbone='resnet10t')
    rng = np.random.default_rng(0)
    truth = (rng.random((6, 1, 16, 16)) < np.linspace(0, 0.6, 6)[:, None, None, None]).astype(int)
    logits = rng.normal(truth - 0.5, 1)
    for rows in np.arange(6).reshape(3, 2):
        task.val_metrics(torch.tensor(logits[rows]), torch.tensor(truth[rows]))
    found = {key: float(value) for key, value in task.val_metrics.compute().items()}
    taken = logits > 0
    precision = truth[taken].mean()
    recall = taken[truth == 1].mean()
    assert found['val_OverallPrecision'] == pytest.approx(precision, abs=1e-6)
    assert found['val_OverallRecall'] == pytest.approx(recall, abs=1e-6)
    pooled = 2 * precision * recall / (precision + recall)
    assert found['val_OverallF1Score'] == pytest.approx(pooled, abs=1e-6)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 128))
@settings(max_examples=50, deadline=None)
def test_tiles_cover_each_pixel_once(height, width, size):
    seen = np.zeros((height, width), int)
    for row, column in tile_corners(height, width, size):
        seen[row : row + size, column : column + size] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize('rectified', [False, True])
def test_tiles_of_a_city(oscd, rectified):
    tiles = OSCDTiles(oscd, 'train', ['paris'], 96, rectified)
    assert len(tiles) == 4
    samples = [tiles[i] for i in range(4)]
    assert all(sample['image'].shape == (2, 3, 96, 96) for sample in samples)
    assert sum(int(sample['valid'].sum()) for sample in samples) == 130 * 100
    assert sum(int(sample['mask'].sum()) for sample in samples) == int(tiles.masks[0].sum())
    assert not any(sample['image'][:, :, ~sample['valid'][0]].any() for sample in samples)
    assert tiles.plot(samples[0]).axes


def test_a_turned_tile_keeps_its_mask_and_dates(oscd):
    plain = OSCDTiles(oscd, 'train', ['paris'], 96)
    turned = OSCDTiles(oscd, 'train', ['paris'], 96, augment=True)
    torch.manual_seed(0)
    seen = {tuple(turned[0]['mask'].flatten()[:20].tolist()) for _ in range(40)}
    assert len(seen) == 8
    sample = turned[0]
    match = [
        (turns, flip)
        for turns in range(4)
        for flip in (False, True)
        for view in [torch.rot90(plain[0]['image'], turns, (-2, -1))]
        if torch.equal(view.flip(-1) if flip else view, sample['image'])
    ]
    assert len(match) == 1
    turns, flip = match[0]
    mask = torch.rot90(plain[0]['mask'], turns, (-2, -1))
    assert torch.equal(mask.flip(-1) if flip else mask, sample['mask'])


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'split': 'train', 'cities': ['atlantis']}, "no labels of 'atlantis'"),
        ({'split': 'val'}, 'val.txt is not there; expected names of cities'),
        ({'split': 'train', 'cities': []}, "no cities of OSCD in split 'train'"),
    ],
)
def test_what_is_missing(oscd, arguments, message):
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        OSCDTiles(oscd, **arguments)
