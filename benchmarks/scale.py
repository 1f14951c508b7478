"""How time and memory grow with the number of locations, on synthetic stores of 1 x 1 px images."""

import json
import resource
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from torchgeo_caco.change import ChangeEstimator, fit_mixture
from torchgeo_caco.datasets import SeasonalTemporalDataset
from torchgeo_caco.samplers import ChangeAwareSampler
from torchgeo_caco.stores import SeasonalStore, pack

from .common import machine, report, table

DATES = 10
STAGES = ('pack', 'open', 'epoch order', 'estimator update', 'mixture fit')


class SyntheticStore(SeasonalStore):
    """Any number of locations that lie nowhere."""

    def __init__(self, count: int) -> None:
        """Make as many locations as that."""
        self.root = Path('synthetic')
        self.names = tuple(f'{n:07}' for n in range(count))
        self.bands, self.dtype, self.shape = ('B4',), np.dtype('uint8'), (1, 1)
        self._counts = np.full(count, DATES)
        self._days = np.datetime64('2016-01-01') + np.arange(DATES) * np.timedelta64(200, 'D')

    @property
    def counts(self) -> np.ndarray:
        """Ten each."""
        return self._counts

    def dates(self, location: int) -> np.ndarray:
        """The same everywhere."""
        return self._days

    def _footprints(self) -> list[None]:
        return [None] * len(self)

    def _gather(self, locations: Any, times: Any, bands: Any, out: np.ndarray) -> None:
        out[:] = 1


def measure(stage: str, count: int, folder: Path) -> dict[str, float]:
    """Seconds and MiB of one stage, in a process of its own.

    Args:
        stage: One of :data:`STAGES`.
        count: Number of locations.
        folder: Where the packed store of this size is, or is to be.

    Returns:
        ``seconds`` and ``mib``, by how much memory grew at its highest.
    """
    run = prepare(stage, count, folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    kept = run()
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    del kept
    return {'seconds': seconds, 'mib': (after - before) / 1024}


def prepare(stage: str, count: int, folder: Path) -> Callable[[], Any]:
    """All that a stage needs before its clock starts."""
    rng = np.random.default_rng(0)
    if stage == 'pack':
        store = SyntheticStore(count)
        # As many images a shard as there are of 264 px in 256 MiB.
        return lambda: pack(store, folder, shard_bytes=1280)
    if stage == 'open':
        return lambda: SeasonalTemporalDataset(folder, bands=('B4',))
    if stage == 'epoch order':
        sampler = ChangeAwareSampler(range(count), changed_fraction=0.3)
        sampler.set_changed(torch.from_numpy(rng.random(count) < 0.1))
        return lambda: list(sampler)
    if stage == 'estimator update':
        estimator = ChangeEstimator([str(n) for n in range(count)])
        index = torch.from_numpy(rng.permutation(count))
        triples = torch.rand(count, 2, 3)
        # A whole epoch in batches of 128.
        return lambda: [
            estimator.update(i, t)
            for i, t in zip(index.split(128), triples.split(128), strict=True)
        ]
    values = np.concatenate(
        [rng.normal(1, 0.2, 2 * count - count // 5), rng.normal(2, 0.5, count // 5)]
    )
    return lambda: fit_mixture(values)


def plot(results: dict[str, dict[int, dict[str, float]]], path: str) -> None:
    """Time and memory against the number of locations, both logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout='constrained')
    for axis, key, label in zip(
        figure.subplots(1, 2),
        ('seconds', 'mib'),
        ('seconds', 'MiB more at the highest'),
        strict=True,
    ):
        for stage, by_count in results.items():
            values = [max(r[key], 1e-4 if key == 'seconds' else 0.1) for r in by_count.values()]
            axis.loglog(list(by_count), values, 'o-', label=stage)
        counts = np.array(list(next(iter(results.values()))), dtype=float)
        start = 1e-3 if key == 'seconds' else 1.0
        axis.loglog(counts, start * counts / counts[0], 'k:', label='linear')
        axis.set(xlabel='locations', ylabel=label)
    axis.legend()
    figure.savefig(path, dpi=100)


def main(arguments: list[str] | None = None) -> None:
    """Measure every stage at every size."""
    parser = ArgumentParser('python -m benchmarks.scale', description=__doc__)
    parser.add_argument('--sizes', type=int, nargs='+', default=[10**3, 10**4, 10**5, 10**6])
    parser.add_argument('--plot', metavar='FILE.png')
    parser.add_argument('--write', metavar='FILE.md', help='e.g. docs/performance.md')
    parser.add_argument('--one', nargs=3, metavar=('STAGE', 'COUNT', 'FOLDER'), help='(internal)')
    args = parser.parse_args(arguments)
    if args.one:
        stage, count, folder = args.one
        print(json.dumps(measure(stage, int(count), Path(folder))))
        return
    results: dict[str, dict[int, dict[str, float]]] = {stage: {} for stage in STAGES}
    with tempfile.TemporaryDirectory() as root:
        for count in args.sizes:
            for stage in STAGES:
                command = [sys.executable, '-W', 'ignore', '-m', 'benchmarks.scale', '--one', stage]
                command += [str(count), f'{root}/{count}']
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                results[stage][count] = json.loads(done.stdout.splitlines()[-1])
    rows = [
        [
            stage,
            *(f'{by[n]["seconds"]:.3g} s, {by[n]["mib"]:.0f} MiB' for n in args.sizes),
            f'{by[args.sizes[-1]]["seconds"] / by[args.sizes[-2]]["seconds"]:.1f}',
        ]
        for stage, by in results.items()
    ]  # fmt: skip
    factor = args.sizes[-1] / args.sizes[-2]
    header = ['stage', *(f'{n:,} locations' for n in args.sizes), f'{factor:.0f} times as many']
    text = (
        f'{DATES} dates a location; each stage in a process of its own, memory is what it takes at '
        f'its highest beyond what was there. {machine()}.\n\n'
    )
    report('scale', text + table(header, rows), args.write)
    if args.plot:
        plot(results, args.plot)


if __name__ == '__main__':
    main()
