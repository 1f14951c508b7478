"""Kill tiny runs at random moments, resume each until it is done, compare with an unbroken one.

``python tests/kill.py --kills 50`` takes a few minutes and prints what it did; it fails if an end
state differs in a single bit, a row of ``metrics.csv`` or a picture differs, or a ``last.ckpt``
cannot be read.
"""

import argparse
import csv
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Sums must not depend on how many threads share them, and a fork must not find any.
os.environ |= {'OMP_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1'}

import torch
from torchgeo.main import main

from torchgeo_caco.datasets import SimulatedLandscapes

CONF = Path(__file__).parents[1] / 'conf' / 'caco.yaml'
SAVER = '--trainer.callbacks.init_args.'
#: Ways to save; the end must be the same with each of them.
SAVING = ([f'{SAVER}every_n_train_steps', '1'], [f'{SAVER}every_n_train_steps', '2'], [])
#: Entries of a checkpoint in which a way to save, or a path, may show.
OPEN = {'callbacks', 'epoch', 'loops'}
#: Steps of a whole run.
STEPS = 12
#: Kills in one run, at most.
PER_RUN = 6


def fit(store: Path, out: Path, *more: str, workers: int = 0) -> None:
    """A run of 4 epochs of 3 steps that prefers changed locations."""
    main([
        'fit', '--config', str(CONF), '--ckpt_path', 'last',
        '--data.root', str(store), '--data.batch_size', '4', '--data.num_workers', str(workers),
        '--data.changed_fraction', '0.5', '--model.memory_bank_size', '16',
        '--model.model', 'test_resnet', '--model.size', '32', '--model.histogram_every', '2',
        '--trainer.max_epochs', '4', '--trainer.default_root_dir', str(out),
        '--trainer.accelerator', 'cpu', '--trainer.log_every_n_steps', '1',
        '--trainer.enable_progress_bar', 'false', '--trainer.enable_model_summary', 'false',
        *more,
    ])  # fmt: skip


def last(out: Path) -> dict[str, Any]:
    """The newest ``last.ckpt`` of a run."""
    path = max((out / 'checkpoints').glob('last*.ckpt'), key=lambda p: p.stat().st_mtime)
    checkpoint: dict[str, Any] = torch.load(path, weights_only=True)
    return checkpoint


def differences(a: Any, b: Any, name: str = '') -> list[str]:
    """Names of the entries in which two checkpoints are not equal bit for bit."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        keys = a.keys() - OPEN if not name else a.keys()
        return [
            d for key in sorted(keys, key=str) for d in differences(a[key], b[key], f'{name}/{key}')
        ]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        pairs = enumerate(zip(a, b, strict=True))
        return [d for i, (x, y) in pairs for d in differences(x, y, f'{name}/{i}')]
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        # NaN is equal to itself here.
        same = a.dtype == b.dtype and a.shape == b.shape
        same = same and a.numpy().tobytes() == b.numpy().tobytes()
    else:
        same = type(a) is type(b) and a == b
    return [] if same else [name]


def rows(out: Path) -> list[dict[str, str]]:
    """What a run has logged."""
    with open(out / 'metrics.csv', newline='') as file:
        return list(csv.DictReader(file))


def differing_files(a: Path, b: Path) -> list[str]:
    """Names of the files, of rows and pictures, in which two runs are not equal."""
    pictures = [{f.name: f.read_bytes() for f in x.glob('change_histogram/*')} for x in (a, b)]
    names = [name for name in sorted({*pictures[0], *pictures[1]})
             if pictures[0].get(name) != pictures[1].get(name)]  # fmt: skip
    return names if rows(a) == rows(b) else ['metrics.csv', *names]


def fork(work: Callable[[], None], log: Path) -> int:
    """Do something in a child process, whose output goes to a file."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def spent(child: int) -> float:
    """Seconds of processor time that a child has used; the moments must not depend on the load."""
    fields = Path(f'/proc/{child}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def wait(child: int, seconds: float = math.inf) -> int | None:
    """Exit status of a child, or None if it is at work after this processor time."""
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if spent(child) > seconds:
            return None
        time.sleep(0.005)


def broken(
    store: Path, out: Path, workers: int, saving: list[str], moments: Iterator[float], length: float
) -> list[int]:
    """A run that is killed and resumed until it is done; the steps it had saved when killed.

    Moments are in [0, 1], as a share of what is left to do, so that most of them come in time:
    about half of a whole run's time goes by before its first step.
    """
    reached: list[int] = []
    while True:
        child = fork(lambda: fit(store, out, *saving, workers=workers), out / 'log')
        moment = next(moments, None)
        left = 1 - 0.5 * (reached[-1] if reached else 0) / STEPS
        code = wait(child, math.inf if moment is None else moment * left * length)
        if code == 0:
            return reached
        if code is not None or moment is None:
            raise SystemExit(f'a resumed run failed: {code}\n{(out / "log").read_text()}')
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        # Whatever was cut, this file is whole.
        reached.append(last(out)['global_step'] if any(out.glob('checkpoints/last*')) else 0)


def command(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--kills', type=int, default=50)
    parser.add_argument('--workers', type=int, nargs='+', default=[0, 2])
    parser.add_argument('--seed', type=int, default=0)
    given = parser.parse_args(arguments)
    # Memory allocators have threads of their own.
    warnings.filterwarnings('ignore', 'This process .* is multi-threaded', DeprecationWarning)
    rng = random.Random(given.seed)
    root = Path(tempfile.mkdtemp(prefix='kill-'))
    store = root / 'store'
    SimulatedLandscapes(12, 24, changed_fraction=0.5).write(store)
    whole = root / 'unbroken'
    # In this process, so that its children have imported everything. The number of workers must
    # not show, either.
    fit(store, whole, *SAVING[1])
    expected = last(whole)
    begin = time.process_time()
    fit(store, root / 'again', *SAVING[1])
    length = time.process_time() - begin
    total, runs, bad = 0, 0, 0
    print('workers  kills  last.ckpt had step  end state', flush=True)
    for n, workers in enumerate(given.workers):
        left = given.kills * (n + 1) // len(given.workers) - total
        while left > 0:
            out = root / f'run{runs}'
            out.mkdir()
            moments = iter([rng.random() for _ in range(min(left, PER_RUN))])
            reached = broken(store, out, workers, SAVING[runs % len(SAVING)], moments, length)
            found = differences(expected, last(out))
            found += differing_files(whole, out)
            verdict = ', '.join(found[:5]) or 'equal'
            print(f'{workers:7}  {len(reached):5}  {reached!s:18}  {verdict}', flush=True)
            runs, total, left = runs + 1, total + len(reached), left - len(reached)
            bad += bool(found)
            shutil.rmtree(out)
    shutil.rmtree(root)
    print(f'{total} kills in {runs} runs; {bad} end states differ from the unbroken run.')
    return int(bad > 0)


if __name__ == '__main__':
    sys.exit(command())
