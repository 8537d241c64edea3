"""Ranged reads below one base URL: what the reader of shards is given."""

import errno
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dicomdask.storage.flight import Wanted, fetch_many
from dicomdask.storage.local import decode_path
from dicomdask.storage.urls import is_local, join

Buffer = bytes | memoryview


class _OpenFile:
    """A descriptor that is closed when the last one who reads it lets go."""

    __slots__ = ("descriptor",)

    def __init__(self, path: str) -> None:
        self.descriptor = -1
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


class Ranges:
    """Ranged reads below one base URL; the reader of shards is given its methods.

    A local object is opened once and kept open, so that a range costs one `pread`;
    elsewhere a range costs one request.
    Threads may share it without a lock: each step on the dictionary is atomic, and a
    file that is dropped stays open until its reads are done.
    """

    def __init__(self, base: str, *, max_open: int = 256) -> None:
        self._base = base
        self._max_open = max_open
        self._files: dict[str, _OpenFile] = {}

    @property
    def is_distant(self) -> bool:
        """Whether a range costs a round trip."""
        return not is_local(self._base)

    def get_range(self, path: str, start: int, stop: int) -> Buffer:
        """Return the bytes [start, stop) of an object; fewer where it ends before."""
        if is_local(self._base):
            file = self._open(path)
            data = np.empty(stop - start, np.uint8).data
            return data[: os.preadv(file.descriptor, [data], start)]
        return self._fetch(path, start, stop)

    def read_into(self, path: str, start: int, buffers: Sequence[Any]) -> int:
        """Fill buffers from a local object by one call; return how many bytes came."""
        return os.preadv(self._open(path).descriptor, buffers, start)

    def get_many(self, wanted: Sequence[Wanted]) -> Iterator[tuple[int, Buffer]]:
        """Yield ranges of several objects, each with its number, as they come.

        Those of distant objects are in flight together. A range is (path, start, stop);
        the last n bytes of an object are (path, -n, None).
        """
        if not is_local(self._base):
            yield from fetch_many(self._base, wanted)
            return
        for number, (path, start, stop) in enumerate(wanted):
            if stop is None:
                yield number, self.get_tail(path, -start)
            else:
                yield number, self.get_range(path, start, stop)

    def get_tail(self, path: str, nbytes: int) -> bytes:
        """Return the last `nbytes` bytes of an object, all of it where it is short."""
        if is_local(self._base):
            file = self._open(path)
            start = max(0, os.fstat(file.descriptor).st_size - nbytes)
            return os.pread(file.descriptor, nbytes, start)
        return self._fetch(path, -nbytes, None)

    def _fetch(self, path: str, start: int, stop: int | None) -> bytes:
        [(_, data)] = fetch_many(self._base, [(path, start, stop)])
        return data

    def _open(self, path: str) -> _OpenFile:
        file = self._files.get(path)
        if file is None:
            if len(self._files) >= self._max_open:
                self.close()
            try:
                opened = _OpenFile(join(decode_path(self._base), path))
            except FileNotFoundError:
                raise FileNotFoundError(errno.ENOENT, "no such object", path) from None
            file = self._files.setdefault(path, opened)
        return file

    def close(self) -> None:
        """Close the files that are kept open; later reads open them again."""
        self._files = {}

    def __reduce__(self) -> tuple[type["Ranges"], tuple[str]]:
        return type(self), (self._base,)
