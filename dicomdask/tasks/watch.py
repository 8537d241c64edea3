"""Watch: end this process when a decoder in it hangs.

What hangs in foreign code cannot be stopped without its process. The mark that it left
(see `attempts`) stays, and so after two tries what it decodes is decoded apart.
"""

import faulthandler
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

SECONDS: Final = 300
BYTES_PER_SECOND: Final = 500_000
"""A call that takes so long, and longer than its bytes explain, hangs."""
TICK_SECONDS: Final = 5
HUNG: Final = 75
"""The exit status: try again (EX_TEMPFAIL of sysexits)."""
TOLD: Final = (
    b"dicomdask: a decoder hangs, so its process ends; what is done is kept: run the "
    b"same command again, and what hangs twice is decoded apart\n"
)

_ENDS: Final[dict[int, float]] = {}
"""When the call of each thread should be over."""
_LOCK: Final = threading.Lock()
_WATCHERS: Final = set[int]()
"""The processes that have their watcher: a fork starts its own."""
_WOUND: Final = set[int]()
"""The process whose timer runs."""
_NOWHERE: Final = os.open(os.devnull, os.O_WRONLY)


@contextmanager
def watched(nbytes: int) -> Iterator[None]:
    """End this process if the block takes far longer than its bytes explain.

    Parameters
    ----------
    nbytes
        About how many bytes it reads and makes.
    """
    _start()
    thread = threading.get_ident()
    with _LOCK:
        _ENDS[thread] = time.monotonic() + SECONDS + nbytes // BYTES_PER_SECOND
        if os.getpid() not in _WOUND:
            _wind()
    try:
        yield
    finally:
        del _ENDS[thread]


def _wind() -> None:
    """Wind up the timer that ends this process if nothing winds it up again."""
    faulthandler.dump_traceback_later(SECONDS, exit=True, file=_NOWHERE)
    _WOUND.add(os.getpid())


def _start() -> None:
    process = os.getpid()
    if process in _WATCHERS:
        return
    with _LOCK:
        if process not in _WATCHERS:
            _WATCHERS.add(process)
            threading.Thread(target=_watch, name="watch", daemon=True).start()


def _watch() -> None:
    """Look at the calls of all threads, again and again.

    A call that keeps the interpreter's lock keeps this thread from running as well:
    then the timer that it no longer winds up ends the process.
    """
    while True:
        with _LOCK:
            ends = list(_ENDS.values())
            if ends:
                _wind()
            else:
                faulthandler.cancel_dump_traceback_later()
                _WOUND.clear()
        if any(end < time.monotonic() for end in ends):
            os.write(2, TOLD)
            os._exit(HUNG)
        time.sleep(TICK_SECONDS)
