"""What the benchmarks share: interleaved repeats, medians, tables."""

import os
import platform
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch


def interleave(
    ways: dict[str, Callable[[], Any]], repeats: int, sync: Callable[[], Any] | None = None
) -> dict[str, list[float]]:
    """Time several ways to do one thing in turn, so that a noisy machine disturbs all alike.

    Args:
        ways: What to time, by name; each is called once before.
        repeats: Rounds.
        sync: Waits for a device.

    Returns:
        Seconds of every round, by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(repeats + 1):
        for name, call in ways.items():
            start = time.perf_counter()
            call()
            if sync is not None:
                sync()
            if round_:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(seconds: dict[str, list[float]], slow: str, fast: str) -> float:
    """Median over the rounds of how many times faster one way is than another."""
    return median(a / b for a, b in zip(seconds[slow], seconds[fast], strict=True))


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
