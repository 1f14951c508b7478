"""What the benchmarks share: interleaved repeats, medians, tables."""

import os
import platform
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch


class Times(NamedTuple):
    """Seconds of one call, a number for each round.

    Attributes:
        wall: On the clock.
        cpu: Of all threads of this process; what a busy machine disturbs least.
    """

    wall: list[float]
    cpu: list[float]


def interleave(
    ways: dict[str, Callable[[], Any]], repeats: int, least: float = 0.1
) -> dict[str, Times]:
    """Time several ways to do one thing in turn, so that a noisy machine disturbs all alike.

    Args:
        ways: What to time, by name.
        repeats: Rounds.
        least: Seconds that a way is repeated in each round.

    Returns:
        Times of every round, by name.
    """
    times = {name: Times([], []) for name in ways}
    number = {}
    for name, call in ways.items():
        call()
        start = time.process_time()
        call()
        number[name] = max(1, min(100, int(least / max(1e-6, time.process_time() - start))))
    for _ in range(repeats):
        for name, call in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(number[name]):
                call()
            times[name].wall.append((time.perf_counter() - wall) / number[name])
            times[name].cpu.append((time.process_time() - cpu) / number[name])
    return times


def ratio(slow: list[float], fast: list[float]) -> float:
    """Median over the rounds of how many times faster one way is than another."""
    return median(a / b for a, b in zip(slow, fast, strict=True))


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [header, ['---'] * len(header), *rows]
    return '\n'.join('| ' + ' | '.join(str(cell) for cell in line) + ' |' for line in lines)


def machine() -> str:
    """What this ran on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    gpu = f', {torch.cuda.get_device_name()}' if torch.cuda.is_available() else ', no GPU'
    return f'{cores} CPU cores ({platform.machine()}){gpu}, PyTorch {torch.__version__}'


def report(name: str, text: str, path: str | None) -> None:
    """Print a section, and put it between its marks in a file of Markdown.

    Args:
        name: Name of the section.
        text: What it says.
        path: The file, if any; it must hold ``<!-- NAME -->`` and ``<!-- /NAME -->``.
    """
    print(text)
    if path is None:
        return
    marks = re.compile(f'(<!-- {name} -->\n).*(<!-- /{name} -->)', re.DOTALL)
    page = Path(path)
    before = page.read_text()
    if not marks.search(before):
        raise SystemExit(f'{path} has no marks <!-- {name} --> and <!-- /{name} -->.')
    page.write_text(marks.sub(lambda m: f'{m[1]}{text}\n{m[2]}', before))
