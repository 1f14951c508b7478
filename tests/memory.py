"""Train a tiny set for many epochs and print how much memory the process takes.

``python tests/memory.py --epochs 1000`` fails if it takes over 16 MiB more at the end than after a
fifth of the epochs.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ |= {'OMP_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1'}

from lightning.pytorch import Callback, Trainer

from torchgeo_caco import CACoTask, SeasonalTemporalDataModule
from torchgeo_caco.datasets import SimulatedLandscapes

LIMIT = 16


def resident() -> float:
    """Memory of this process in MiB."""
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE') / 2**20


class Watch(Callback):
    """Prints and keeps the memory ten times in a run."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.seen: list[float] = []

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.current_epoch and trainer.current_epoch % self.every == 0:
            self.seen.append(resident())
            print(f'{trainer.current_epoch:5} {self.seen[-1]:8.1f}', flush=True)


def command(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--epochs', type=int, default=1000)
    parser.add_argument('--workers', type=int, default=0)
    given = parser.parse_args(arguments)
    watch = Watch(max(given.epochs // 10, 1))
    with tempfile.TemporaryDirectory() as root:
        store = SimulatedLandscapes(8, 16, changed_fraction=0.5).write(Path(root) / 'store')
        trainer = Trainer(
            accelerator='cpu', max_epochs=given.epochs + 1, default_root_dir=f'{root}/out',
            callbacks=[watch], log_every_n_steps=1, enable_progress_bar=False,
            enable_model_summary=False,
        )  # fmt: skip
        task = CACoTask('test_resnet', size=32, memory_bank_size=16, histogram_every=10)
        print('epoch      MiB', flush=True)
        data = SeasonalTemporalDataModule(
            str(store), 4, num_workers=given.workers, changed_fraction=0.5
        )
        trainer.fit(task, datamodule=data)
    growth = watch.seen[-1] - watch.seen[1]
    print(f'{growth:+.1f} MiB since epoch {2 * watch.every}')
    return int(growth > LIMIT)


if __name__ == '__main__':
    sys.exit(command())
