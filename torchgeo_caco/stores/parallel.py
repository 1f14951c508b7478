"""One task for many arguments, in processes that do not outlive their parent."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

_common: Any = None


def run_all(
    task: Callable[..., Any], common: Any, calls: Sequence[tuple[Any, ...]], workers: int
) -> Iterator[Any]:
    """Call a task with many arguments.

    Args:
        task: Function of *common* and one entry of *calls*.
        common: First argument of all calls; each process gets it once.
        calls: The other arguments.
        workers: Number of processes; 0: this one.

    Yields:
        Results, in the order in which they come.
    """
    if workers < 1 or len(calls) < 2:
        for arguments in calls:
            yield task(common, *arguments)
        return
    with ProcessPoolExecutor(
        min(workers, len(calls)), initializer=_begin, initargs=(common,)
    ) as pool:
        try:
            for future in as_completed([pool.submit(_call, task, each) for each in calls]):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _begin(common: Any) -> None:
    global _common
    _common = common
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """End when the parent was killed; a worker would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(task: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return task(_common, *arguments)
