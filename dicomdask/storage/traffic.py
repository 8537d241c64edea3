"""How many bytes went in and out: counted where they pass, for whoever asked."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import BinaryIO, cast

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


def count_reads(file: BinaryIO) -> BinaryIO:
    """Return a file that is read as this one, and whose reads are counted."""
    return cast("BinaryIO", _CountedFile(file))


class _CountedFile(io.RawIOBase):
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def read(self, size: int | None = -1) -> bytes:
        data = self._file.read(-1 if size is None else size)
        note(read=len(data))
        return data

    def close(self) -> None:
        self._file.close()
        super().close()
