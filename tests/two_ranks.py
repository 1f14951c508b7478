"""Two processes against one on the same global batches: how far apart do they end?

``python -m tests.two_ranks`` takes about a minute and prints a table.
"""

import os
import tempfile
from pathlib import Path

# Sums must not depend on how many threads share them, and a fork must not find any.
os.environ |= {'OMP_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1'}

import torch
from lightning.pytorch import Callback, Trainer
from torch import nn

from torchgeo_caco import CACoTask, SeasonalTemporalDataModule
from torchgeo_caco.datasets import SimulatedLandscapes
from torchgeo_caco.distributed import gather_rows

from .ranks import run_ranks


class Resize(nn.Module):
    """A view without randomness."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.register_buffer('gain', torch.tensor(gain))

    def forward(self, x):
        return self.gain * (nn.functional.interpolate(x, (32, 32)).to(self.gain) - 0.5)


class Recorder(Callback):
    """Keeps losses, gradients and states."""

    def __init__(self):
        self.losses, self.gradients, self.states, self.gates = [], [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(gather_rows(outputs['loss'][None]).mean())
        memory, estimator = pl_module.memory_bank, pl_module.estimator
        state = memory.state_dict() | estimator.state_dict()
        self.states.append({key: value.clone() for key, value in state.items()})
        self.gates.append(pl_module.estimator.changed(batch['index']).any())

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        named = pl_module.named_parameters()
        self.gradients.append({k: p.grad.clone() for k, p in named if p.grad is not None})


def train(rank, root, out, ranks, precision, accumulate, arguments):
    """Two epochs and a bit on the global batch, without random views."""
    # All but the first process must take over what the first one drew.
    torch.manual_seed(rank)
    recorder = Recorder()
    trainer = Trainer(
        accelerator='cpu', devices=ranks, strategy='ddp' if ranks > 1 else 'auto',
        max_epochs=3, limit_train_batches=3, accumulate_grad_batches=accumulate, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=out, callbacks=[recorder], precision=precision,
    )  # fmt: skip
    task = CACoTask(
        'test_convnext', size=32, memory_bank_size=20, augmentation1=Resize(2.0),
        augmentation2=Resize(3.0), moco_momentum=0.9, histogram_every=0, **arguments,
    )  # fmt: skip
    trainer.fit(task, datamodule=SeasonalTemporalDataModule(root, 4 // ranks))
    seen = {key: getattr(recorder, key) for key in ('losses', 'gradients', 'states', 'gates')}
    torch.save(seen | {'weights': task.state_dict()}, f'{out}/{ranks}-{rank}.pt')


def flat(x):
    """All tensors of nested lists and dictionaries."""
    if isinstance(x, torch.Tensor):
        return [x]
    return [t for part in (x.values() if isinstance(x, dict) else x) for t in flat(part)]


def distance(a, b):
    """Largest difference, as a share of the largest number."""
    gap = (a.double() - b.double()).nan_to_num().abs().max()
    return float(gap / b.double().nan_to_num().abs().max().clamp(min=1e-12))


def compare(store, out, precision):
    """Distances of losses, gradients, queues and estimates: at the first and at the last step."""
    for ranks in (1, 2):
        run_ranks(train, ranks, str(store), str(out), ranks, precision, 1, {})
    one, two = (torch.load(f'{out}/{n}-0.pt', weights_only=True) for n in (1, 2))
    rows = {}
    for key in ('losses', 'gradients', 'queue', 'estimates'):
        seen = [
            run[key] if key in run else [state[key] for state in run['states']]
            for run in (one, two)
        ]
        pairs = [zip(flat([a[i]]), flat([b[i]]), strict=True) for a, b in [seen] for i in (0, -1)]
        rows[key] = [max(distance(x, y) for x, y in each) for each in pairs]
    return rows


def command():
    """Command line."""
    with tempfile.TemporaryDirectory() as folder:
        store = SimulatedLandscapes(12, 24, changed_fraction=0.5).write(Path(folder) / 'store')
        print('precision  what        step 1   step 9')
        for precision in ('32-true', '64-true'):
            for key, (first, last) in compare(store, folder, precision).items():
                print(f'{precision:9}  {key:10}  {first:.0e}    {last:.0e}', flush=True)


if __name__ == '__main__':
    command()
