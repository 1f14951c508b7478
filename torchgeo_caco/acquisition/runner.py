"""All places, many at a time, however often it is interrupted."""

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
from tqdm import tqdm

from ..locking import alone
from ..stores import FolderWriter
from .ledger import LEDGER, PLAN, REPORT, Ledger
from .network import redact
from .patch import Outcome, Place, fetch
from .plan import Plan
from .read import WARP

logger = logging.getLogger(__name__)

#: Places in a row that servers fail before we give up for now.
DOWN = 20

#: Names that a place cannot have, since files of the store have them.
_OURS = (LEDGER, PLAN, REPORT)
#: Bytes in a place's name, so that its folder's hidden name fits a file system, too.
_LONGEST = 240


@dataclass(frozen=True)
class Summary:
    """What a download came to.

    Attributes:
        done: Number of places in the store.
        unfillable: Number of places without such images.
        failed: Number of places that servers failed; the next call tries them again.
        requests: Searches and readings of this call.
        report: One line for each thing that is not as it should be.
        spans: What :func:`spans` says of the dates.
        stopped: Why this call stopped early, if it did.
    """

    done: int
    unfillable: int
    failed: int
    requests: int
    report: tuple[str, ...]
    spans: str
    stopped: str | None = None


def read_places(table: gpd.GeoDataFrame) -> list[Place]:
    """Names and points of a table.

    Args:
        table: With points, or anything that has a centre; a column ``location`` holds names.

    Returns:
        The places in order.

    Raises:
        ValueError: If a name is there twice or cannot be a folder's, or a geometry is empty.
    """
    points = table.geometry.to_crs(4326)
    if points.is_empty.any() or points.isna().any():
        raise ValueError('a place without a point cannot be downloaded.')
    points = points.representative_point()
    named = 'location' in table.columns
    names = table['location'].astype(str) if named else [f'{i:07}' for i in range(len(table))]
    places = [Place(name, x, y) for name, x, y in zip(names, points.x, points.y, strict=True)]
    if len({place.name for place in places}) != len(places):
        raise ValueError('two places have the same location name.')
    for name in names:
        if not name or name[0] == '.' or '/' in name or '\0' in name or name in _OURS:
            raise ValueError(
                f'location name {name!r} cannot be that of a folder; one without a slash or a dot '
                f'in front, and none of {", ".join(_OURS)}, was expected.'
            )
        if len(name.encode()) > _LONGEST:
            raise ValueError(
                f'location name {name[:40]!r}... has {len(name.encode())} bytes; at most '
                f'{_LONGEST} were expected.'
            )
    return places


def download(
    places: gpd.GeoDataFrame,
    root: str | Path,
    plan: Plan,
    *,
    count: int | None = None,
    workers: int = 8,
    dask: str | None = None,
    budget: int | None = None,
    again: bool = False,
    progress: bool = True,
) -> Summary:
    """Fetch images of places into a folder store; continue where an earlier call stopped.

    Args:
        places: Points, tried in this order.
        root: Folder of the store: ``<location>/<date>/<band>.tif``, plus a ledger and a report.
        plan: What to fetch.
        count: How many places to fill: one that cannot be filled makes room for a later one. All
            by default.
        workers: Places at a time.
        dask: Address of a Dask scheduler whose workers do the fetching.
        budget: Stop after so many searches and readings.
        again: Also try places once more that could not be filled.
        progress: Whether to show a progress bar.

    Returns:
        What it came to.

    Raises:
        ValueError: If *root* was begun with other places or settings.
        OSError: If *root* cannot be written, or another process writes it.
    """
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    with alone(root / '.lock', f'another process downloads to {root}.'):
        ledger = Ledger(root)
        run = _Run(read_places(places), plan, ledger, count, budget, again)
        ledger.keep_to(plan)
        with _executor(workers, dask) as (executor, slots):
            run.work(executor, slots, progress)
        return run.summary()


@contextmanager
def _executor(workers: int, dask: str | None) -> Iterator[tuple[Executor, int]]:
    """Threads, or the workers of a Dask cluster, and how many places to have under way."""
    if dask is None:
        pool = ThreadPoolExecutor(workers, thread_name_prefix='fetch')
        try:
            yield pool, workers
        finally:
            pool.shutdown(cancel_futures=True)
        return
    from distributed import Client

    with Client(dask, set_as_default=False) as client:
        cores = sum(client.ncores().values())
        # A lost worker's places go to another one, a second time too.
        yield client.get_executor(pure=False, retries=2), max(workers, 2 * cores)


class _Run:
    """One call of :func:`download`."""

    def __init__(
        self,
        places: Sequence[Place],
        plan: Plan,
        ledger: Ledger,
        count: int | None,
        budget: int | None,
        again: bool,
    ) -> None:
        self.plan, self.ledger, self.budget = plan, ledger, budget
        status = {place.name: ledger.status(place) for place in places}
        final = ('done',) if again else ('done', 'unfillable')
        self.todo = [place for place in places if status[place.name] not in final]
        self.filled = sum(value == 'done' for value in status.values())
        self.count = len(places) if count is None else count
        self.failed = self.in_a_row = self.requests = 0
        self.stopped: str | None = None
        self.names = set(status)

    def work(self, executor: Executor, slots: int, progress: bool) -> None:
        """Keep all slots busy until nothing is left to do."""
        for partial in self.ledger.root.glob('.*.partial'):
            shutil.rmtree(partial)
        writer = FolderWriter(
            self.ledger.root, self.plan.bands, (self.plan.size,) * 2, self.plan.dtype,
            scale=self.plan.scale, resume=True,
        )  # fmt: skip
        todo = iter(self.todo)
        running: dict[Future[Outcome], Place] = {}
        bar = tqdm(
            total=self.count, initial=self.filled, unit='place', disable=not progress,
            smoothing=0.05, dynamic_ncols=True,
        )  # fmt: skip
        with bar:
            while True:
                while len(running) < slots and self._wanted(len(running)):
                    place = next(todo, None)
                    if place is None:
                        break
                    running[executor.submit(fetch, place, self.plan)] = place
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    self._finish(running.pop(future), future.result, writer)
                    bar.n = self.filled
                    bar.set_postfix(failed=self.failed, requests=self.requests)

    def _wanted(self, running: int) -> bool:
        """Whether to start one more place.

        A place that servers failed keeps its room for the next call, and places are started in
        order only as far as is needed: which places fill the store does not depend on timing.
        """
        if self.stopped is None and self.budget is not None and self.requests >= self.budget:
            self.stopped = f'the budget of {self.budget} requests is used up'
        if self.stopped is None and self.in_a_row >= DOWN:
            self.stopped = f'{DOWN} places in a row failed'
        return self.stopped is None and self.filled + self.failed + running < self.count

    def _finish(self, place: Place, result: Callable[[], Outcome], writer: FolderWriter) -> None:
        """Write what came of a place."""
        try:
            outcome = result()
        except Exception as error:
            # A lost Dask worker, or a mistake of ours: either way the other places go on.
            logger.debug('%s failed', place.name, exc_info=True)
            reason = redact(f'{type(error).__name__}: {error}')
            outcome = Outcome(place, 'failed', {'reason': reason})
        self.requests += outcome.record.get('requests', 0)
        self.ledger.add(place, outcome.status, outcome.record)
        if outcome.status == 'done':
            assert outcome.dates is not None
            assert outcome.images is not None
            with WARP:
                writer.add(
                    place.name, outcome.dates, outcome.images,
                    crs=outcome.crs, transform=outcome.transform,
                )  # fmt: skip
        self.filled += outcome.status == 'done'
        self.failed += outcome.status == 'failed'
        self.in_a_row = self.in_a_row + 1 if outcome.status == 'failed' else 0

    def summary(self) -> Summary:
        """What it came to."""
        entries = [entry for name, entry in self.ledger.entries.items() if name in self.names]
        number = {
            status: sum(entry['status'] == status for entry in entries)
            for status in ('done', 'unfillable', 'failed')
        }
        report = tuple(self.ledger.report())
        return Summary(
            **number, requests=self.requests, report=report, spans=spans(entries),
            stopped=self.stopped,
        )  # fmt: skip


def spans(entries: Sequence[dict[str, Any]]) -> str:
    """Which dates a store holds, period by period.

    Args:
        entries: Of a ledger.

    Returns:
        A few lines of text.
    """
    done = [entry['images'] for entry in entries if entry['status'] == 'done']
    lines, middles = [], []
    for period in sorted({image['period'] for images in done for image in images}):
        days = [
            np.array([i['date'] for i in images if i['period'] == period], 'datetime64[D]')
            for images in done
        ]
        days = [d for d in days if len(d)]
        longest = max(int((d.max() - d.min()).astype(int)) for d in days)
        everything = np.concatenate(days)
        lines.append(
            f'period {period}: {len(everything)} images from {everything.min()} to '
            f'{everything.max()}, at one place at most {longest} days apart'
        )
        middles.append({i: d.astype(np.int64).mean() for i, d in enumerate(days)})
    if len(middles) == 2:
        gaps = [middles[1][i] - middles[0][i] for i in middles[0] if i in middles[1]]
        lines.append(f'between the periods: {np.median(gaps) / 365.25:.2f} years (median)')
    return '\n'.join(lines)


__all__ = ('REPORT', 'Summary', 'download', 'read_places', 'spans')
