"""Many requests of distant objects in flight together, within bounds."""

import asyncio
import errno
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any, BinaryIO, Final, NamedTuple, TypeVar

import fsspec

from dicomdask.errors import DicomDaskError
from dicomdask.limits import AHEAD_BYTES, AHEAD_FILES
from dicomdask.model import SourceFile
from dicomdask.storage import remote, traffic
from dicomdask.storage.ahead import ahead
from dicomdask.storage.requests import ask_from_loop, open_store
from dicomdask.storage.stream import open_stream
from dicomdask.storage.urls import is_local, join

Result = TypeVar("Result")

Wanted = tuple[str, int, int | None]
"""A path and the bytes [start, stop) of it; or -n and None: the last n bytes."""

Answer = bytes | BaseException

REFILL: Final = 8
"""So many requests are handed over to the loop together: each time costs a wake-up."""


class _Ask(NamedTuple):
    """A request: whose it is, what is held for it, and what sends it."""

    number: int
    nbytes: int
    start: Callable[[], Coroutine[Any, Any, bytes]]


# --- ranges -------------------------------------------------------------------


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
    asks = deque(
        _Ask(
            number,
            -start if stop is None else stop - start,
            partial(_fetch, join(base, path), path, start, stop),
        )
        for number, (path, start, stop) in enumerate(wanted)
    )
    for ask, answer in _in_flight(asks, filesystem.loop):
        if isinstance(answer, BaseException):
            raise answer
        yield ask.number, answer


def _read(base: str, path: str, start: int, stop: int | None) -> bytes:
    url = join(base, path)
    try:
        if stop is None:
            return remote.read_tail(url, -start)
        return remote.read_range(url, start, stop)
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "no such object", path) from None


# --- the starts of files ------------------------------------------------------


def parse_starts(
    parse: Callable[[SourceFile, BinaryIO | None], Result], files: Sequence[SourceFile]
) -> Iterator[tuple[int, Result]]:
    """Yield the number of a file and what `parse` makes of its start, as they come.

    Parameters
    ----------
    parse
        Takes a file and a stream over it, or None: then it opens the file by itself.
        Errors of a read are raised in it. It must do nothing but return a result: where
        it wants more of a distant file than is there, it is called again.
    """
    together: dict[int, _Start] = {}
    others: list[int] = []
    for number, file in enumerate(files):
        if is_local(file.url) or not _is_async(file.url):
            others.append(number)
        else:
            together[number] = _Start(file.size)
    yield from _one_by_one(parse, files, others)
    asks: deque[_Ask] = deque()
    for number, start in list(together.items()):
        result = parse(files[number], start.open())
        if start.wanted:
            asks.append(start.ask(number, files[number].url))
        else:
            del together[number]
            yield number, result
    if not asks:
        return
    loop = open_store(files[asks[0].number].url)[0].loop  # that of all file systems
    for ask, answer in _in_flight(asks, loop):
        file, start = files[ask.number], together[ask.number]
        start.take(answer)
        result = parse(file, start.open())
        if start.wanted:  # in front of the others: what came is held so long
            asks.appendleft(start.ask(ask.number, file.url))
        else:
            del together[ask.number]
            yield ask.number, result


def _is_async(url: str) -> bool:
    try:
        return bool(open_store(url)[0].async_impl)
    except DicomDaskError:  # which is told for each file when it is opened
        return False


def _one_by_one(
    parse: Callable[[SourceFile, BinaryIO | None], Result],
    files: Sequence[SourceFile],
    numbers: Sequence[int],
) -> Iterator[tuple[int, Result]]:
    found = ahead(
        lambda number: parse(files[number], None),
        numbers,
        is_remote=lambda number: not is_local(files[number].url),
    )
    for number, take in found:
        yield number, take()


class _Start:
    """The bytes of a file that came so far; it notes what is wanted behind them."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._data: bytes = b""
        self._error: BaseException | None = None
        self.wanted = 0

    def open(self) -> BinaryIO:
        """Return the stream for another try."""
        self.wanted = 0
        return open_stream(self._size, self._give)

    def _give(self, start: int, stop: int) -> bytes:
        if self._error is not None:
            raise self._error
        data = self._data[start:stop]
        if not data and start < stop:
            self.wanted = stop
        return data

    def ask(self, number: int, url: str) -> _Ask:
        """Return the request for what is wanted."""
        start, stop = len(self._data), self.wanted
        return _Ask(
            number, stop, partial(_fetch, url, "", start, stop, is_patient=False)
        )

    def take(self, answer: Answer) -> None:
        """Add what came."""
        if isinstance(answer, BaseException):
            self._error = answer
            return
        traffic.note(read=len(answer))
        self._data += answer
        if len(self._data) < self.wanted:
            self._size = len(self._data)


# --- in flight ----------------------------------------------------------------


class _Flight:
    """Requests in another thread's event loop; what comes of them is taken here."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._done: SimpleQueue[tuple[_Ask, Answer]] = SimpleQueue()
        self._tasks: set[asyncio.Task[None]] = set()  # for the loop's thread alone

    def send(self, asks: Sequence[_Ask]) -> None:
        self._loop.call_soon_threadsafe(self._begin, asks)

    def take(self) -> tuple[_Ask, Answer]:
        return self._done.get()

    def cancel(self) -> None:
        self._loop.call_soon_threadsafe(self._cancel)

    def _begin(self, asks: Sequence[_Ask]) -> None:
        for ask in asks:
            task = self._loop.create_task(self._answer(ask))
            self._tasks.add(task)
            task.add_done_callback(self._forget)

    async def _answer(self, ask: _Ask) -> None:
        """Hand the answer over at once: a callback waits for the loop's next turn."""
        try:
            self._done.put((ask, await ask.start()))
        except BaseException as error:
            self._done.put((ask, error))
            raise

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # else it is logged that nobody asked for it

    def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()


def _in_flight(
    asks: deque[_Ask], loop: asyncio.AbstractEventLoop
) -> Iterator[tuple[_Ask, Answer]]:
    """Send requests, also those that are added meanwhile; yield answers as they come.

    What is held of answers that are not taken yet stays in bounds.
    """
    flight = _Flight(loop)
    running = held = 0
    try:
        while running or asks:
            batch: list[_Ask] = []
            if running <= max(0, AHEAD_FILES - REFILL):
                while asks and (
                    not running
                    or (running < AHEAD_FILES and held + asks[0].nbytes <= AHEAD_BYTES)
                ):
                    batch.append(asks.popleft())
                    running += 1
                    held += batch[-1].nbytes
            if batch:
                flight.send(batch)
            ask, answer = flight.take()
            running -= 1
            held -= ask.nbytes
            yield ask, answer
    finally:
        if running:
            flight.cancel()


async def _fetch(
    url: str, path: str, start: int, stop: int | None, *, is_patient: bool = True
) -> bytes:
    if stop is not None and start >= stop:
        return b""
    get = partial(_get, url, start, stop)
    try:
        return bytes(await ask_from_loop(url, get, is_patient=is_patient))
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
