"""One training step: its parts, and the whole against the ceiling of its encoder passes alone."""

import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer

from torchgeo_caco.datamodules import SeasonalTemporalDataModule
from torchgeo_caco.stores import PackedWriter
from torchgeo_caco.tasks import CACoTask

from .common import machine, report, table

PARTS = ('wait for data', 'to the device', 'views', 'forward', 'estimate', 'backward', 'optimiser')


def write_store(root: Path, locations: int, size: int) -> None:
    """Places of eight dates, three bands of 8 bits."""
    rng = np.random.default_rng(0)
    days = np.datetime64('2016-01-01') + np.arange(8) * np.timedelta64(200, 'D')
    with PackedWriter(root, ('B4', 'B3', 'B2'), (size, size), 'uint8') as writer:
        for n in range(locations):
            writer.add(f'{n:06}', days, rng.integers(1, 255, (8, 3, size, size), dtype='uint8'))


class Clock:
    """Adds up the time of parts, waiting for the device at each end."""

    def __init__(self, device: torch.device) -> None:
        """Time what this device does."""
        self.device, self.seconds = device, defaultdict[str, float](float)

    def wait(self) -> None:
        """Until the device has done all."""
        if self.device.type == 'cuda':
            torch.cuda.synchronize()

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Time a part; the time of one within another is the inner one's alone."""
        self.wait()
        start, inside = time.perf_counter(), sum(self.seconds.values())
        yield
        self.wait()
        inside = sum(self.seconds.values()) - inside
        self.seconds[part] += time.perf_counter() - start - inside

    def around(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """A function, timed as a part."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self(part):
                return call(*args, **kwargs)

        return timed


class Measured(Callback):
    """Seconds of the steps of a fit, after the batches that were read ahead."""

    def __init__(self, skip: int, clock: Clock) -> None:
        """Leave out this many steps."""
        self.skip, self.clock, self.seconds = skip, clock, 0.0

    def on_train_batch_end(self, trainer: Any, task: Any, *_: Any) -> None:
        """Look at the clock twice, and let the device work on in between."""
        if trainer.global_step == self.skip:
            self.clock.wait()
            self._start = time.perf_counter()
        elif trainer.global_step == trainer.max_steps:
            self.clock.wait()
            self.seconds = (time.perf_counter() - self._start) / (trainer.max_steps - self.skip)


def make(args: Namespace, root: Path) -> tuple[CACoTask, SeasonalTemporalDataModule]:
    """Task and data as a configuration makes them."""
    torch.manual_seed(0)
    task = CACoTask(args.model, size=args.size, channels_last=args.channels_last)
    if args.compile:
        task.backbone.compile()
        task.backbone_momentum.compile()
    data = SeasonalTemporalDataModule(str(root), args.rows // 2, args.workers)
    return task, data


def cast(args: Namespace, device: torch.device) -> AbstractContextManager[Any]:
    """Automatic mixed precision, if it is wanted."""
    return torch.autocast(device.type, torch.bfloat16, enabled=args.precision == 'bf16-mixed')


def ceiling(args: Namespace, task: CACoTask, clock: Clock, passes: dict[str, int]) -> float:
    """Seconds of the same encoder passes on ready tensors, and nothing else."""
    images = torch.randn(args.rows, 3, args.size, args.size, device=clock.device)
    if args.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    task.train()
    for step in range(args.skip + args.steps):
        if step == args.skip:
            clock.wait()
            start = time.perf_counter()
        with cast(args, clock.device):
            query = [task.backbone(images) for _ in range(passes['backbone'])]
            with torch.no_grad():
                for _ in range(passes['momentum']):
                    task.backbone_momentum(images)
        sum(q.float().sum() for q in query).backward()
        task.backbone.zero_grad()
    clock.wait()
    return (time.perf_counter() - start) / args.steps


def end_to_end(args: Namespace, root: Path, clock: Clock) -> float:
    """Seconds of a step of a fit, from the store."""
    task, data = make(args, root)
    measured = Measured(args.skip, clock)
    trainer = Trainer(
        accelerator='gpu' if clock.device.type == 'cuda' else 'cpu', devices=1,
        max_steps=args.skip + args.steps, precision=args.precision, callbacks=[measured],
        logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=root,
    )  # fmt: skip
    trainer.fit(task, datamodule=data)
    return measured.seconds


def parts(args: Namespace, root: Path, clock: Clock) -> dict[str, int]:
    """Time the parts of a step one by one; count encoder passes."""
    task, data = make(args, root)
    task.to(clock.device).train()
    data.setup('fit')
    task.estimator.allocate(data.location_names, clock.device)
    optimizer = build(task)
    estimator = task.estimator
    for name in ('measure', 'changed', 'update'):
        setattr(estimator, name, clock.around('estimate', getattr(estimator, name)))
    passes = {'backbone': 0, 'momentum': 0}

    def count(which: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            passes[which] += 1

        return hook

    task.backbone.register_forward_hook(count('backbone'))
    task.backbone_momentum.register_forward_hook(count('momentum'))
    batches = forever(data)
    for step in range(args.skip + args.steps):
        if step == args.skip:
            clock.seconds.clear()
        with clock('wait for data'):
            batch = next(batches)
        with clock('to the device'):
            batch = {k: v.to(clock.device, non_blocking=True) for k, v in batch.items()}
            batch = data.on_after_batch_transfer(batch, 0)
        with clock('views'):
            query, keys = task.views(batch['image'])
        with clock('forward'), cast(args, clock.device):
            out = task.step(query, keys, batch['index'])
        with clock('backward'):
            out.loss.backward()
        with clock('optimiser'):
            optimizer.step()
            optimizer.zero_grad()
    return {name: number // (args.skip + args.steps) for name, number in passes.items()}


def build(task: CACoTask) -> torch.optim.Optimizer:
    """The task's own optimiser."""
    task.trainer = Trainer(accelerator='cpu', max_epochs=1, logger=False)
    made: dict[str, Any] = task.configure_optimizers()
    optimizer: torch.optim.Optimizer = made['optimizer']
    return optimizer


def forever(data: SeasonalTemporalDataModule) -> Iterator[Any]:
    """Epoch after epoch."""
    loader = data.train_dataloader()
    while True:
        yield from loader


def main(arguments: list[str] | None = None) -> None:
    """Measure the ceiling, the fit and its parts in turn."""
    gpu = torch.cuda.is_available()
    parser = ArgumentParser('python -m benchmarks.step', description=__doc__)
    parser.add_argument('--model', default='resnet18')
    parser.add_argument('--rows', type=int, default=256 if gpu else 16)
    parser.add_argument('--size', type=int, default=224)
    parser.add_argument('--image-size', type=int, default=264)
    parser.add_argument('--locations', type=int, default=2048 if gpu else 64)
    parser.add_argument('--workers', type=int, default=8 if gpu else 0)
    parser.add_argument('--precision', default='bf16-mixed' if gpu else '32-true')
    parser.add_argument('--channels-last', action='store_true', default=gpu)
    parser.add_argument('--compile', action='store_true')
    parser.add_argument('--steps', type=int, default=40 if gpu else 3)
    parser.add_argument('--skip', type=int, default=20 if gpu else 1)
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--device', choices=('cuda', 'cpu'), default='cuda' if gpu else 'cpu')
    parser.add_argument('--write', metavar='FILE.md', help='e.g. docs/performance.md')
    args = parser.parse_args(arguments)
    clock = Clock(torch.device(args.device))
    shares, whole, part = [], [], defaultdict[str, list[float]](list)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / 'store'
        write_store(root, args.locations, args.image_size)
        passes = {'backbone': 1, 'momentum': 4}
        for _ in range(args.repeats):
            # Before and after, so that a drift of the machine cancels.
            task = make(args, root)[0].to(clock.device)
            before = ceiling(args, task, clock, passes)
            whole.append(end_to_end(args, root, clock))
            shares.append((before + ceiling(args, task, clock, passes)) / 2 / whole[-1])
            clock.seconds.clear()
            found = parts(args, root, clock)
            if found != passes:
                raise SystemExit(f'a step takes the encoder passes {found}, not {passes}.')
            total = sum(clock.seconds.values())
            for key in PARTS:
                part[key].append(clock.seconds[key] / total)
    memory = ''
    if args.device == 'cuda':
        memory = f', {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB of its memory'
    text = (
        f'{args.model}, {args.rows} rows, {args.size} px of {args.image_size} px, '
        f'{args.precision}, {args.workers} workers. {machine()}{memory}. '
        f'Medians of {args.repeats} rounds of {args.steps} steps.\n\n'
        f'Encoder passes a step: 1 with gradient, 4 without. The whole fit runs at '
        f'**{median(shares):.2f}** of the ceiling (rounds: '
        f'{", ".join(f"{share:.2f}" for share in sorted(shares))}), '
        f'{args.rows / median(whole):.3g} rows/s here.\n\n'
    )
    rows = [[key, f'{100 * median(part[key]):.1f} %'] for key in PARTS]
    report('step', text + table(['part', 'share of a step'], rows), args.write)


if __name__ == '__main__':
    main()
