"""Memory for bytes on their way, used again and again.

Fresh memory costs a page fault every 4 KiB, which takes as long as to fill it.
"""

from typing import Final

import numpy as np

from dicomdask.shards.metadata import Array

LEAST_BYTES, MOST_BYTES = 1 << 16, 1 << 22
MOST_SPARE: Final = 8


class Scratch:
    """Spare buffers. Each step is one operation on a list: no lock, safe in a fork."""

    def __init__(self) -> None:
        self._spare: list[Array] = []

    def __reduce__(self) -> tuple[type["Scratch"], tuple[()]]:
        return Scratch, ()

    def take(self, size: int) -> Array:
        """Return a buffer of so many bytes or more."""
        try:
            buffer = self._spare.pop()
        except IndexError:
            return np.empty(max(size, LEAST_BYTES), np.uint8)
        if buffer.size >= size:
            return buffer
        return np.empty(size + size // 4, np.uint8)

    def give(self, buffer: Array) -> None:
        """Give a buffer back; nobody may look into it any more."""
        if buffer.size <= MOST_BYTES and len(self._spare) < MOST_SPARE:
            self._spare.append(buffer)
