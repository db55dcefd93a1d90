"""Threads for work that is bound by libraries.

Decoding, resizing, hashing and deflating all run outside Python's lock, so threads use every core without copying
pictures between processes; more processes come from torchrun.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Item = TypeVar('Item')
Result = TypeVar('Result')


def default_workers() -> int:
    """One thread for every core this process may use, shared among the ranks of this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    own = os.environ.get('SLURM_CPUS_PER_TASK', '')
    # Where ranks are slurm's tasks (and not torchrun's within one), these cores are this rank's, bound to it or not.
    if own.isdigit() and os.environ.get('WORLD_SIZE') == os.environ.get('SLURM_NTASKS'):
        return max(1, min(cores, int(own)))
    return max(1, cores // int(os.environ.get('LOCAL_WORLD_SIZE', '1')))


def ordered_map(function: Callable[[Item], Result], items: Iterable[Item], num_workers: int) -> Iterator[Result]:
    """Apply ``function`` in threads; results come in the order of ``items``, and at most a few are ever waiting."""
    with ThreadPoolExecutor(num_workers) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 2 * num_workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def one_thread_per_operation() -> Iterator[None]:
    """Keep torch from splitting single operations: workers would contend, and sums would depend on the core count."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
