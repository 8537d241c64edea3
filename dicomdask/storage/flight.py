"""Many ranges of distant objects in flight together, within bounds."""

import asyncio
import errno
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any

import fsspec

from dicomdask.limits import AHEAD_BYTES, AHEAD_FILES
from dicomdask.storage import remote
from dicomdask.storage.requests import ask_from_loop, open_store
from dicomdask.storage.urls import join

Wanted = tuple[str, int, int | None]
"""A path and the bytes [start, stop) of it; or -n and None: the last n bytes."""

Start = Callable[[], Coroutine[Any, Any, bytes]]


def fetch_many(base: str, wanted: Sequence[Wanted]) -> Iterator[tuple[int, bytes]]:
    """Yield the number of a range and its bytes, in the order in which they come.

    Raises
    ------
    FileNotFoundError
        If there is no object; its `filename` is the path.
    StorageError
        If access is denied or nothing answers, however often it is tried again.
    """
    filesystem, _ = open_store(base)
    if not filesystem.async_impl:
        for number, one in enumerate(wanted):
            yield number, _read(base, *one)
        return
    starts = [partial(_fetch, base, *one) for one in wanted]
    sizes = [-start if stop is None else stop - start for _, start, stop in wanted]
    yield from _in_flight(starts, sizes, filesystem.loop)


def _read(base: str, path: str, start: int, stop: int | None) -> bytes:
    url = join(base, path)
    try:
        if stop is None:
            return remote.read_tail(url, -start)
        return remote.read_range(url, start, stop)
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "no such object", path) from None


def _in_flight(
    starts: Sequence[Start], sizes: Sequence[int], loop: asyncio.AbstractEventLoop
) -> Iterator[tuple[int, bytes]]:
    """Run coroutines in another thread's loop; hold what is not taken yet in bounds."""
    done: SimpleQueue[tuple[int, Future[bytes]]] = SimpleQueue()
    running: dict[int, Future[bytes]] = {}
    held = sent = 0
    try:
        while running or sent < len(starts):
            while sent < len(starts) and (
                not running
                or (len(running) < AHEAD_FILES and held + sizes[sent] <= AHEAD_BYTES)
            ):
                future = asyncio.run_coroutine_threadsafe(starts[sent](), loop)
                running[sent] = future
                held += sizes[sent]
                future.add_done_callback(partial(_note, done, sent))
                sent += 1
            number, future = done.get()
            del running[number]
            held -= sizes[number]
            yield number, future.result()
    finally:
        for future in running.values():
            future.cancel()


def _note(
    done: SimpleQueue[tuple[int, Future[bytes]]], number: int, future: Future[bytes]
) -> None:
    done.put((number, future))


async def _fetch(base: str, path: str, start: int, stop: int | None) -> bytes:
    if stop is not None and start >= stop:
        return b""
    url = join(base, path)
    try:
        return bytes(await ask_from_loop(url, partial(_get, url, start, stop)))
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "no such object", path) from None
    except OSError as error:
        if error.errno == errno.EINVAL:  # a range behind the end
            return b""
        raise


async def _get(
    url: str,
    start: int,
    stop: int | None,
    filesystem: fsspec.AbstractFileSystem,
    path: str,
) -> bytes:
    if stop is None and not remote.knows_suffix(url):
        size = (await filesystem._info(path))["size"]
        start, stop = max(0, size + start), size
        if not size:
            return b""
    found: bytes = await filesystem._cat_file(path, start=start, end=stop)
    return found
