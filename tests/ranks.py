"""Several processes on this machine, forked from this one, which has imported everything."""

import faulthandler
import os
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from threadpoolctl import threadpool_limits
from torch.multiprocessing.spawn import start_processes

#: Nothing here takes this long; a process that waits for one that is gone would wait for ever.
PATIENCE = 600.0


def _run(rank: int, function: Callable[..., None], settings: list[dict[str, str]], *args: Any):
    torch.set_num_threads(1)
    # Who waits for whom, if it comes to that.
    faulthandler.dump_traceback_later(PATIENCE - 5, file=sys.__stderr__)
    # Lightning gives a node's processes all its threads, unless it is told how many they have.
    os.environ |= settings[rank] | {'OMP_NUM_THREADS': '1'}
    # OpenMP's threads of the parent do not live here.
    with threadpool_limits(1):
        function(rank, *args)


def run_ranks(
    function: Callable[..., None], ranks: int, *args: Any, style: str = 'lightning'
) -> None:
    """Call ``function(rank, *args)`` in several processes, and wait for all of them.

    Args:
        function: What to call.
        ranks: Number of processes.
        *args: Its further arguments.
        style: Whose environment variables they find: ``'lightning'``'s own launcher's, or, each
            process as if on a node of its own, ``'torchrun'``'s or ``'slurm'``'s.
    """
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    settings = [_environment(style, rank, ranks, port) for rank in range(ranks)]
    context: Any = start_processes(
        _run, (function, settings, *args), ranks, join=False, start_method='fork'
    )
    end = time.monotonic() + PATIENCE
    try:
        while not context.join(timeout=1):
            assert time.monotonic() < end, f'{ranks} processes did not end in {PATIENCE} s'
    finally:
        for process in context.processes:
            process.kill()


def _environment(style: str, rank: int, ranks: int, port: str) -> dict[str, str]:
    common = {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': port}
    numbers = {'RANK': rank, 'WORLD_SIZE': ranks}
    if style == 'torchrun':
        numbers |= {'GROUP_RANK': rank, 'LOCAL_RANK': 0, 'LOCAL_WORLD_SIZE': 1}
        common |= {'TORCHELASTIC_RUN_ID': 'test'}
    elif style == 'slurm':
        numbers = {'SLURM_NTASKS': ranks, 'SLURM_PROCID': rank, 'SLURM_LOCALID': 0}
        numbers |= {'SLURM_NODEID': rank, 'SLURM_NNODES': ranks, 'SLURM_NTASKS_PER_NODE': 1}
        common |= {'SLURM_JOB_ID': '1', 'SLURM_JOB_NAME': 'test', 'SLURM_NODELIST': '127.0.0.1'}
    else:
        numbers |= {'LOCAL_RANK': rank, 'NODE_RANK': 0}
    return common | {key: str(value) for key, value in numbers.items()}
