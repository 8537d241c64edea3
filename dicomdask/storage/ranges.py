"""Ranged reads below one base URL: what the reader of shards is given."""

import os
from collections.abc import Sequence

import numpy as np

from dicomdask.storage import remote
from dicomdask.storage.local import decode_path
from dicomdask.storage.urls import is_local, join


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

    def get_range(self, path: str, start: int, stop: int) -> memoryview:
        """Return the bytes [start, stop) of an object; fewer where it ends before.

        The bytes are the caller's own and may be written to.
        """
        if is_local(self._base):
            file = self._open(path)
            data = np.empty(stop - start, np.uint8).data
            return data[: os.preadv(file.descriptor, [data], start)]
        found = remote.read_range(join(self._base, path), start, stop)
        return memoryview(bytearray(found))

    def get_ranges(
        self, path: str, ranges: Sequence[tuple[int, int]]
    ) -> list[memoryview]:
        """Return several ranges of a distant object, asked for at once."""
        found = remote.read_ranges(join(self._base, path), ranges)
        return [memoryview(bytearray(data)) for data in found]

    def get_tail(self, path: str, nbytes: int) -> bytes:
        """Return the last `nbytes` bytes of an object, all of it where it is short."""
        if is_local(self._base):
            file = self._open(path)
            start = max(0, os.fstat(file.descriptor).st_size - nbytes)
            return os.pread(file.descriptor, nbytes, start)
        return remote.read_tail(join(self._base, path), nbytes)

    def _open(self, path: str) -> _OpenFile:
        file = self._files.get(path)
        if file is None:
            if len(self._files) >= self._max_open:
                self.close()
            opened = _OpenFile(join(decode_path(self._base), path))
            file = self._files.setdefault(path, opened)
        return file

    def close(self) -> None:
        """Close the files that are kept open; later reads open them again."""
        self._files = {}

    def __reduce__(self) -> tuple[type["Ranges"], tuple[str]]:
        return type(self), (self._base,)
