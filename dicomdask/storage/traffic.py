"""How many bytes went in and out: counted where they pass, for whoever asked."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock

_lock = Lock()


class Traffic:
    """Bytes read and written since it was made."""

    __slots__ = ("read_bytes", "written_bytes")

    def __init__(self) -> None:
        self.read_bytes = self.written_bytes = 0


_counter: ContextVar[Traffic | None] = ContextVar("traffic", default=None)


@contextmanager
def counted() -> Iterator[Traffic]:
    """Count the bytes of this thread, and of what runs ahead for it, within a block.

    What an inner block counts is not counted by the outer one.
    """
    before, found = _counter.get(), Traffic()
    _counter.set(found)
    try:
        yield found
    finally:
        _counter.set(before)


def note(*, read: int = 0, written: int = 0) -> None:
    """Add to what the innermost block counts."""
    found = _counter.get()
    if found is not None:
        with _lock:
            found.read_bytes += read
            found.written_bytes += written


class CountedFile(io.FileIO):
    """A local file, opened for reading, whose reads are counted."""

    def read(self, size: int | None = -1) -> bytes:
        """Return the next bytes, fewer where the file ends."""
        data = super().read(-1 if size is None else size)
        note(read=len(data))
        return data
