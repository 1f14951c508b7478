"""What makes a step fast, as far as it can be seen without a clock."""

import copy
import traceback
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from torchgeo_caco import distributed
from torchgeo_caco.callbacks import run_callbacks
from torchgeo_caco.tasks import CACoTask, caco
from torchgeo_caco.tasks.optim import build_optimizer

BATCH, PLACES = 4, 12


@pytest.fixture
def task() -> CACoTask:
    """A small task that knows twelve places."""
    torch.manual_seed(0)
    task = CACoTask('resnet10t', size=32, memory_bank_size=16)
    task.estimator.allocate([str(n) for n in range(PLACES)])
    return task.train()


def inputs(device: str = 'cpu') -> tuple[Tensor, Tensor, Tensor]:
    """Query, keys and numbers of places."""
    query = torch.randn(BATCH, 2, 3, 32, 32, device=device)
    keys = torch.randn(3, BATCH, 2, 3, 32, 32, device=device)
    return query, keys, torch.randint(PLACES, (BATCH,), device=device)


class Waits(TorchDispatchMode):
    """Notes each operation for which the host would wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor)]
        across = len({t.device.type for t in tensors if t.ndim}) > 1
        # What is sent to the device without waiting is no matter, what is fetched always is.
        sent = (kwargs or {}).get('non_blocking') and out.device.type == 'cuda'
        if (across and not sent) or func in (
            torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default
        ):  # fmt: skip
            places = [f'{f.filename}:{f.lineno}' for f in traceback.extract_stack()]
            self.seen.append(f'{func}: {[p for p in places if "site-packages" not in p]}')
        return out


@pytest.mark.parametrize('ranks', [1, 2])
def test_the_step_never_waits_for_the_device(task, ranks, monkeypatch):
    """On a GPU that is only pretended: one that does not calculate, so nothing can be fetched."""
    monkeypatch.setattr(distributed, 'world_size', lambda: ranks)
    monkeypatch.setattr(caco, 'world_size', lambda: ranks)
    monkeypatch.setattr(distributed, 'rank', lambda: 0)
    for name in ('all_reduce', 'all_to_all_single', 'all_gather_into_tensor'):
        monkeypatch.setattr(distributed.dist, name, lambda *_: None)
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    logged: list[str] = []
    monkeypatch.setattr(task, 'log', lambda name, *_, **__: logged.append(name))
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            task.to('cuda')
            query, keys, index = inputs('cuda')
            valid = torch.ones(BATCH, 2, dtype=torch.bool, device='cuda')
            with Waits() as waits:
                out = task.step(query, keys, index, valid=valid)
                task._log_step(out, BATCH)
            assert out.loss.device.type == 'cuda'
            assert waits.seen == []
            assert logged[:3] == ['train_loss', 'train_ssl_std_step', 'train_ssl_std_epoch']
            with Waits() as waits:
                out.losses.cpu()  # It would be seen.
            assert len(waits.seen) == 1
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)


def test_encoder_passes(task):
    passes = {'query': 0, 'key': 0}

    def count(which: str) -> Any:
        return lambda *_: passes.update({which: passes[which] + 1})

    task.backbone.register_forward_hook(count('query'))
    task.backbone_momentum.register_forward_hook(count('key'))
    task.step(*inputs())
    # The query once more through the momentum encoder, for the estimate; its season is a key.
    assert passes == {'query': 1, 'key': 4}


@pytest.mark.filterwarnings('ignore')
def test_compiled_encoders_change_nothing(task):
    other = copy.deepcopy(task)
    names = list(other.state_dict())
    other.backbone.compile(backend='aot_eager')
    other.backbone_momentum.compile(backend='aot_eager')
    assert list(other.state_dict()) == names
    for _ in range(2):
        batch = inputs()
        plain, compiled = task.step(*batch), other.step(*batch)
        torch.testing.assert_close(plain.losses, compiled.losses)
        plain.loss.backward()
        compiled.loss.backward()
    torch.testing.assert_close(task.estimator.estimates, other.estimator.estimates)
    for a, b in zip(task.parameters(), other.parameters(), strict=True):
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-4)


def test_bf16_and_channels_last_keep_full_precision_where_it_matters():
    torch.manual_seed(0)
    task = CACoTask('resnet10t', size=32, memory_bank_size=16, channels_last=True).train()
    task.estimator.allocate([str(n) for n in range(PLACES)])
    with torch.autocast('cpu', torch.bfloat16):
        out = task.step(*inputs())
    assert out.loss.dtype == torch.float32
    assert out.loss.isfinite()
    assert task.estimator.estimates.dtype == task.memory_bank.queue.dtype == torch.float32
    assert task.backbone.conv1[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('name', ['sgd', 'adamw'])
def test_optimisers_are_fused(task, name):
    hparams = {**task.hparams, 'optimizer': name}
    made = build_optimizer(task, hparams, 10)
    assert all(group['fused'] for group in made['optimizer'].param_groups)


@pytest.mark.parametrize(('device', 'rate', 'expected'), [
    ('cuda', 1, [25]), ('cuda', 3, []), ('cpu', 1, []),
])  # fmt: skip
def test_the_progress_bar_does_not_stop_a_gpu_at_every_step(task, tmp_path, device, rate, expected):
    bar = TQDMProgressBar(refresh_rate=rate)
    trainer = SimpleNamespace(
        global_rank=0, default_root_dir=str(tmp_path), loggers=[], logger=None,
        checkpoint_callback=None, checkpoint_callbacks=[], progress_bar_callback=bar,
        log_every_n_steps=25,
        strategy=SimpleNamespace(root_device=torch.device(device), checkpoint_io=None),
    )  # fmt: skip
    owner: Any = SimpleNamespace(trainer=trainer, periods=1)
    bars = [each for each in run_callbacks(owner) if isinstance(each, TQDMProgressBar)]
    assert [each.refresh_rate for each in bars] == expected
