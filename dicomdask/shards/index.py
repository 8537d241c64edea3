"""The index of a shard: where its chunks lie."""

from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np

from dicomdask.shards.codec import ABSENT, CRC_BYTES, ENTRY_BYTES, is_intact
from dicomdask.shards.metadata import REPAIR, Array, shard_error

Located = tuple[int, int, int]  # start, stop (checksum included), number in the shard

RUN_BYTES: Final = 1 << 22
"""Bounds a range of several chunks, and so the memory that a read needs; what comes of
one is decoded while others are on their way."""


class Index(NamedTuple):
    """Starts and sizes of a shard's chunks, and which of them were checked."""

    shard: str
    entries: memoryview
    checked: bytearray

    def bounds(self, number: int) -> tuple[int, int]:
        """Return where a chunk lies: start and stop, checksum included."""
        start, size = self.entries[2 * number : 2 * number + 2]
        if start == ABSENT:
            sentence = f"shard {self.shard} lacks chunk {number}; {REPAIR}"
            raise shard_error(self.shard, sentence)
        return start, start + size

    @property
    def nbytes(self) -> int:
        """What it takes in memory."""
        return self.entries.nbytes + len(self.checked) + len(self.shard)


def index_bytes(n_chunks: int) -> int:
    """Return the bytes of an index, checksum included."""
    return n_chunks * ENTRY_BYTES + CRC_BYTES


def parse_index(tail: Array, shard: str) -> Index:
    """Parse the last bytes of a shard, or raise ShardError if they are damaged."""
    if not is_intact(tail):
        raise shard_error(shard, f"the index of shard {shard} is damaged; {REPAIR}")
    entries = tail[:-CRC_BYTES].view("<u8").astype(np.uint64)
    return Index(shard, entries.data, bytearray(entries.size // 2))


def locate(numbers: Iterable[int], index: Index) -> list[Located]:
    """Look chunks up in the index; return them in the order in which they lie."""
    entries = index.entries
    located = [
        (entries[2 * number], entries[2 * number + 1], number) for number in numbers
    ]
    for start, _, number in located:
        if start == ABSENT:
            index.bounds(number)  # raises
    return sorted([(start, start + size, number) for start, size, number in located])


def join_runs(located: list[Located], max_gap: int) -> list[list[Located]]:
    """Group what lies close together, to be fetched in one range."""
    runs = [located[:1]] if located else []
    for item in located[1:]:
        run = runs[-1]
        is_near = 0 <= item[0] - run[-1][1] <= max_gap
        if is_near and item[1] - run[0][0] <= RUN_BYTES:
            run.append(item)
        else:
            runs.append([item])
    return runs
