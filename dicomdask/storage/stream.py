"""A file that is read from where one likes, wherever its bytes come from."""

import io
from collections.abc import Callable
from typing import BinaryIO, cast


def open_stream(size: int, give: Callable[[int, int], bytes]) -> BinaryIO:
    """Open a file of a known size over a function that gives its bytes.

    Parameters
    ----------
    size
        In bytes; nothing behind it is asked for.
    give
        Called with `start` and `stop`; returns the bytes [start, stop), or fewer where
        they end before. Where `start` is not below `stop` it returns none.
    """
    return cast("BinaryIO", _Stream(size, give))


class _Stream(io.RawIOBase):
    """Each read is one call of the function."""

    def __init__(self, size: int, give: Callable[[int, int], bytes]) -> None:
        self._size, self._give, self._position = size, give, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}
        self._position = max(0, base[whence] + offset)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        wanted = self._size if size is None or size < 0 else self._position + size
        data = self._give(self._position, min(wanted, self._size))
        self._position += len(data)
        return data
