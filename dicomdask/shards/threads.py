"""A small pool of threads that decode: one a process, made when it first pays."""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Final, TypeVar

Item = TypeVar("Item")

MOST_THREADS: Final = 8
PAYS_FROM_BYTES: Final = 2 << 20
"""Less to decode is decoded by the caller."""
MOST_WAITING: Final = 64
"""Bounds what was fetched and waits to be decoded."""

_pools: dict[int, ThreadPoolExecutor] = {}  # by process: a fork begins without one


def n_threads() -> int:
    """Return how many threads decode here.

    In a process that another started (the worker of a data loader) it is the caller's
    alone: there the processes work side by side.
    """
    if multiprocessing.parent_process() is not None:
        return 1
    return min(MOST_THREADS, len(os.sched_getaffinity(0)))


def pays(nbytes: int) -> bool:
    """Return whether so much is better decoded in threads."""
    return nbytes >= PAYS_FROM_BYTES and n_threads() > 1


def run_in_threads(function: Callable[[Item], None], items: Iterable[Item]) -> None:
    """Call a function on each item in threads; return when all are done."""
    running: deque[Future[None]] = deque()
    try:
        for item in items:
            if len(running) >= MOST_WAITING:
                running.popleft().result()
            running.append(_pool().submit(function, item))
        while running:
            running.popleft().result()
    finally:  # who is told of an error may take the memory that threads write to
        for future in running:
            future.cancel()
        wait(running)


def _pool() -> ThreadPoolExecutor:
    pool = _pools.get(os.getpid())
    if pool is None:  # of two threads that come here at once, one pool is used
        made = ThreadPoolExecutor(n_threads(), "dicomdask-decode")
        pool = _pools.setdefault(os.getpid(), made)
    return pool
