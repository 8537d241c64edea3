"""Isolate: call a function on one input in a process apart, which it may end.

One process is started, and forks for each call: a call that crashes, hangs or takes too
much memory ends its fork and nothing else. What is called and what comes back go over a
pipe of the two processes; nothing identified is in a command line, an environment, a
log or a core dump.
"""

import atexit
import gc
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

from dicomdask.errors import DicomDaskError, InputError, StoreError
from dicomdask.tasks.barrier import guard, quiet

Result = TypeVar("Result")

START_SECONDS: Final = 120
CALL_SECONDS: Final = 60
BYTES_PER_SECOND: Final = 500_000
"""A call that takes so long, and longer than its bytes explain, counts as crashed."""
SPARE_BYTES: Final = 1 << 30
"""What memory a call may take besides many times its bytes."""

IDLE_SECONDS: Final = 60
"""After so long without a call the process apart ends by itself."""

START: Final = "from dicomdask.tasks.isolate import main; main()"
DIED: Final = "died"
NO_PROCESS: Final = (
    "no process can be started to decode in apart from others; see that a worker may "
    "start Python and that its limits on processes and memory are not reached, then "
    "run again"
)


@dataclass(frozen=True, slots=True)
class _Bounds:
    """What one call may take: time, and memory besides what is taken already."""

    seconds: int
    nbytes: int

    def set(self) -> None:
        """Bound this process."""
        signal.alarm(self.seconds)
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        statm = Path("/proc/self/statm")
        if statm.exists():  # elsewhere nothing tells cheaply what is taken
            used = int(statm.read_text().split()[0]) * resource.getpagesize()
            limit = used + self.nbytes
            if hard != resource.RLIM_INFINITY:
                limit = min(limit, hard)
            resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


class Cell:
    """A process apart, started at the first call and ended with the block.

    Parameters
    ----------
    warm, *args
        A function that the process calls once, so that its forks need not.
    seconds
        How long a call may take, besides what its bytes explain.
    """

    def __init__(
        self, warm: Callable[..., object], *args: Any, seconds: int = CALL_SECONDS
    ) -> None:
        self._warm = (warm, args)
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection[Any, Any] | None = None

    def __enter__(self) -> "Cell":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def call(
        self, function: Callable[..., Result], *args: Any, nbytes: int = 0
    ) -> Result:
        """Call a function on one input, twice if its process dies.

        Parameters
        ----------
        function
            A function of a module, called through the barrier.
        nbytes
            About how many bytes it reads and makes: they bound its time and memory.

        Raises
        ------
        InputError
            With the function's own code, or `decoder-crash`.
        StoreError
            If no process can be started.
        """
        bounds = _Bounds(
            self._seconds + nbytes // BYTES_PER_SECOND, SPARE_BYTES + 16 * nbytes
        )
        for _ in range(2):
            answer = self._ask((function, args, bounds))
            if isinstance(answer, DicomDaskError):
                raise answer
            if answer != DIED:
                found: Result = answer[0]
                return found
        raise InputError("decoder-crash")

    def _ask(self, request: Any) -> Any:
        if self._process is not None and self._process.poll() is not None:
            self.stop()  # it was idle for too long
        pipe = self._pipe or self._start()
        try:
            pipe.send(request)
            return pipe.recv()
        except (EOFError, ConnectionError):
            self.stop()
            return DIED

    def _start(self) -> "Connection[Any, Any]":
        try:
            return self._start_process()
        except (OSError, EOFError):  # and what the pipe of a dead process raises
            self.stop()
            raise StoreError(NO_PROCESS) from None

    def _start_process(self) -> "Connection[Any, Any]":
        self._pipe, theirs = Pipe()
        places = os.pathsep.join(path for path in sys.path if path)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - this very interpreter
                [sys.executable, "-P", "-c", START, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": places},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # decoders say there what they see
                stderr=subprocess.DEVNULL,
            )
        self._pipe.send(self._warm)
        if not self._pipe.poll(START_SECONDS):
            raise TimeoutError
        self._pipe.recv()
        return self._pipe

    def stop(self) -> None:
        """End the process; the next call starts another."""
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._pipe = self._process = None


# --- between batches ----------------------------------------------------------


_IDLE: Final[dict[tuple[Hashable, ...], list[Cell]]] = {}
_LOCK: Final = threading.Lock()


@contextmanager
def lent_cell(warm: Callable[..., object], *args: Hashable) -> Iterator[Cell]:
    """Lend a cell that is kept for whoever wants the same next: starting one is slow.

    Only those of one kind are kept, and no more than were lent at the same time.
    """
    kind = (os.getpid(), warm, *args)  # a fork shares no pipe with its parent
    with _LOCK:
        kept = _IDLE.pop(kind, [])
        cell = kept.pop() if kept else Cell(warm, *args)
        others = _take_idle()
        _IDLE[kind] = kept
    for other in others:
        other.stop()
    try:
        yield cell
    finally:
        with _LOCK:
            _IDLE.setdefault(kind, []).append(cell)


def _take_idle() -> list[Cell]:
    mine = [kind for kind in _IDLE if kind[0] == os.getpid()]
    return [cell for kind in mine for cell in _IDLE.pop(kind)]


def stop_idle_cells() -> None:
    """End the processes of the cells that are kept and not lent."""
    with _LOCK:
        idle = _take_idle()
    for cell in idle:
        cell.stop()


atexit.register(stop_idle_cells)

# --- the other side -----------------------------------------------------------


def main() -> None:
    """Answer over the pipe that the command line names by its number."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump would hold the input
    with quiet(), Connection(int(sys.argv[1])) as pipe:
        _serve(pipe)


def _serve(pipe: "Connection[Any, Any]") -> None:
    """Answer calls, each in a fork, until the pipe closes."""
    warm, args = pipe.recv()
    warm(*args)
    gc.freeze()  # or collecting in a fork would copy what it shares
    pipe.send(True)
    while pipe.poll(IDLE_SECONDS):
        try:
            function, args, bounds = pipe.recv()
        except EOFError:
            return
        try:
            child = os.fork()
        except OSError:
            pipe.send(StoreError(NO_PROCESS))
            continue
        if not child:
            _answer(pipe, function, args, bounds)
        if os.waitpid(child, 0)[1]:
            pipe.send(DIED)


def _answer(
    pipe: "Connection[Any, Any]",
    function: Callable[..., Any],
    args: Any,
    bounds: _Bounds,
) -> NoReturn:
    """Answer one call, and end this process whatever happens."""
    status = 1
    try:
        bounds.set()
        try:
            answer: Any = (guard(function, *args),)
        except InputError as error:
            answer = error
        pipe.send(answer)
        status = 0
    finally:
        os._exit(status)
