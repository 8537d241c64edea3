"""Many requests at once where waiting is what takes the time."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import TypeVar

from dicomdask.limits import AHEAD_BYTES, AHEAD_FILES

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    is_remote: Callable[[Item], bool],
    nbytes: Callable[[Item], int] = lambda _: 0,
) -> Iterator[tuple[Item, Callable[[], Result]]]:
    """Call a function on each item; what waits for a network runs ahead in threads.

    Parameters
    ----------
    is_remote
        Whether an item is worth a thread; the others are called when they are taken.
    nbytes
        What the result of an item takes, to bound what runs ahead.

    Yields
    ------
    tuple
        Each item, in order, and what returns its result or raises its error.
    """
    waiting: deque[tuple[Item, Callable[[], Result]]] = deque()
    held = 0
    with ThreadPoolExecutor(AHEAD_FILES, "dicomdask-ahead") as pool:
        try:
            for item in items:
                while waiting and (len(waiting) >= AHEAD_FILES or held > AHEAD_BYTES):
                    held -= nbytes(waiting[0][0])
                    yield waiting.popleft()
                if not is_remote(item):
                    yield from waiting
                    waiting.clear()
                    held = 0
                    yield item, partial(function, item)
                    continue
                run = copy_context().run  # what it reads is counted for this thread
                future: Future[Result] = pool.submit(run, function, item)
                waiting.append((item, future.result))
                held += nbytes(item)
            yield from waiting
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
