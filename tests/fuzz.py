"""Damage files at random and read them: in the end there is data, or one sentence.

    python -m tests.fuzz --minutes 10 --seed 0

A case fails if it raises anything but a sentence with the path in it, takes longer than a limit,
kills its process, or leaves anything outside of the folder that was its to write. A case is a
function of target, seed and number: ``--only tiff --case 17 --seed 0`` repeats one.
"""

import argparse
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from torchgeo_caco.datasets.unpack import Limits, unpack
from torchgeo_caco.reading import SafeCheckpointIO
from torchgeo_caco.stores import open_store

from .mutate import mutated, prepare

#: Seconds that a case may take, and bytes that it may take more than its process has.
SECONDS, MEMORY = 30, 4 * 2**30
#: Cases for which a process lives.
BLOCK = 100
#: Small, so that a bomb is one.
LIMITS = Limits(members=1000, member_bytes=2**20, ratio=200, free_bytes=2**22)


def read_store(folder: Path) -> None:
    """Read every image of a store."""
    store = open_store(folder)
    for location in range(len(store)):
        store.read(location, range(len(store.dates(location))))
    assert len(store.locations) == len(store)


def read_archive(folder: Path) -> None:
    """Unpack an archive, of one or several parts, and look what has become of it."""
    target = folder / 'target'
    unpack(sorted(folder.glob('archive*')), target, LIMITS)
    paths = list(target.rglob('*'))
    assert paths, 'an empty folder'
    assert all(not p.is_symlink() and (p.is_file() or p.is_dir()) for p in paths), 'a link'
    shutil.rmtree(target)


def read_checkpoint(folder: Path) -> None:
    """Read a checkpoint."""
    with warnings.catch_warnings(action='ignore'):
        SafeCheckpointIO().load_checkpoint(folder / 'last.ckpt')


READERS = {
    'tiff': read_store,
    'packed': read_store,
    'archive': read_archive,
    'hostile': read_archive,
    'checkpoint': read_checkpoint,
}


def is_sentence(error: BaseException, folder: Path) -> bool:
    """Whether an exception says in one line what is wrong with which path."""
    text = str(error)
    known = isinstance(error, ValueError | FileNotFoundError)
    plain = '\n' not in text and len(text) < 1000 and not text.startswith('[Errno')
    return known and plain and str(folder) in text


def run_case(target: str, seed: int, case: int, base: Path) -> str:
    """Make and read one case.

    Returns:
        ``'read'``, ``'refused'``, or what is wrong.
    """
    rng = np.random.default_rng([seed, list(READERS).index(target), case])
    folder = base / 'outer' / 'inner'
    shutil.rmtree(base, ignore_errors=True)
    mutated(target, rng, folder)
    (base / 'outer' / 'canary').write_text('untouched')
    before = listing(base)
    try:
        READERS[target](folder)
        outcome = 'read'
    except BaseException as error:
        if is_sentence(error, folder):
            outcome = 'refused'
        else:
            outcome = ''.join(traceback.format_exception(error))
    if listing(base) != before:
        outcome = f'left behind: {sorted(listing(base) ^ before)[:5]}'
    return outcome


def listing(folder: Path) -> set[tuple[str, int]]:
    """All that lies below a folder, with sizes."""
    return {(str(p), p.lstat().st_size * (not p.is_dir())) for p in folder.rglob('*')}


def _work(
    sender: Connection, target: str, seed: int, cases: Iterable[int], base: Path, quiet: bool
) -> None:
    """In a process of its own: run cases, send outcomes."""
    pages = int(Path('/proc/self/statm').read_text().split()[0])
    limit = pages * os.sysconf('SC_PAGE_SIZE') + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    if quiet:
        # Libraries write about damaged files to the common error stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    for case in cases:
        sender.send(run_case(target, seed, case, base))


def run_block(
    target: str, seed: int, cases: Sequence[int], quiet: bool = True
) -> Iterator[tuple[int, str]]:
    """Run cases in a process that may die; yields their outcomes."""
    context = multiprocessing.get_context('fork')
    receiver, sender = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        arguments = (sender, target, seed, cases, Path(folder) / 'base', quiet)
        process = context.Process(target=_work, args=arguments)
        process.start()
        sender.close()
        for case in cases:
            try:
                outcome = receiver.recv() if receiver.poll(SECONDS) else f'more than {SECONDS} s'
            except EOFError:
                process.join()
                outcome = f'its process ended with {process.exitcode}'
            yield case, outcome
            if outcome.startswith(('more', 'its process')):
                process.kill()
                break
        process.join()


def fuzz(targets: Sequence[str], seed: int, seconds: float) -> dict[str, Counter[str]]:
    """Run blocks of all targets in turn for some time; print what fails.

    Returns:
        For each target how often it was read, refused, and failed.
    """
    prepare()
    counts: dict[str, Counter[str]] = {target: Counter() for target in targets}
    first, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        for target in targets:
            for case, outcome in run_block(target, seed, range(first, first + BLOCK)):
                good = outcome in ('read', 'refused')
                counts[target][outcome if good else 'failed'] += 1
                if not good:
                    print(f'--only {target} --case {case} --seed {seed}: {outcome}', flush=True)
        first += BLOCK
    return counts


def main() -> int:
    """Run as a command; returns 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--minutes', type=float, default=10)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--only', choices=list(READERS), help='one kind of file')
    parser.add_argument('--case', type=int, help='one case of that kind')
    args = parser.parse_args()
    targets = [args.only] if args.only else list(READERS)
    if args.case is not None:
        ((_, outcome),) = run_block(targets[0], args.seed, range(args.case, args.case + 1), False)
        print(outcome)
        return int(outcome not in ('read', 'refused'))
    counts = fuzz(targets, args.seed, 60 * args.minutes)
    print('| kind | cases | read | refused in a sentence | failed |\n|---|---|---|---|---|')
    for target, count in counts.items():
        figures = (count.total(), count['read'], count['refused'], count['failed'])
        print('|', ' | '.join([target, *map(str, figures)]), '|')
    return int(any(count['failed'] for count in counts.values()))


if __name__ == '__main__':
    sys.exit(main())
