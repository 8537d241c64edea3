"""Reads from this machine: bytes go to where they are wanted, and no further ones come.

Chunks that are not compressed are read whole to their place, or by the rows that are
wanted of them.
"""

from dicomdask.shards.codec import CRC_BYTES, check_sum, whole_target
from dicomdask.shards.index import Index, Located
from dicomdask.shards.metadata import Array, ArrayMeta
from dicomdask.shards.rows import Places, copy_rows, rows_of
from dicomdask.shards.scratch import Scratch
from dicomdask.shards.seams import Source
from dicomdask.shards.wanted import Run, cut_short

MOST_BUFFERS = 256
"""So many pairs of buffers are filled by one call; the system takes 1024."""


class Direct:
    """Reads from a source that is not distant.

    Parameters
    ----------
    source
        Gives the bytes.
    scratch
        Lends memory for what does not go to its place at once.
    """

    def __init__(self, source: Source, scratch: Scratch) -> None:
        self._source, self._scratch = source, scratch

    def fill(self, shard: str, start: int, data: Array) -> None:
        """Fill a buffer with the bytes of a shard from `start` on."""
        found = self._source.read_into(shard, start, [data])
        if found != data.size:
            raise cut_short(shard, found, data.size)

    def read_into_place(self, run: Run) -> bool:
        """Read whole uncompressed chunks to where they go; return whether they are."""
        index, meta, located, places = run
        if meta.compressed or len(located) > MOST_BUFFERS:
            return False
        buffers: list[Array | bytearray] = []
        end = located[0][0]
        for start, stop, number in located:
            target = whole_target(places[number], meta)
            is_next = start == end  # else bytes between would go to no place
            if target is None or not is_next or stop - start != meta.nbytes + CRC_BYTES:
                return False
            end = stop
            buffers += (target, bytearray(CRC_BYTES))
        shard, size = index.shard, located[-1][1] - located[0][0]
        found = self._source.read_into(shard, located[0][0], buffers)
        if found != size:
            raise cut_short(shard, found, size)
        for at, (_, _, number) in enumerate(located):
            if not index.checked[number]:
                check_sum(buffers[2 * at], buffers[2 * at + 1], number, shard)
                index.checked[number] = 1
        return True

    def without_rows(self, run: Run) -> list[Located]:
        """Read chunks of which few rows are wanted; return the others."""
        index, meta, located, places = run
        if meta.compressed:
            return located
        return [
            one
            for one in located
            if not self.read_rows(index, meta, one[0], one[2], places[one[2]])
        ]

    def read_rows(
        self, index: Index, meta: ArrayMeta, start: int, number: int, places: Places
    ) -> bool:
        """Read no more than is wanted of an uncompressed chunk that was checked before.

        Return whether there were few enough.
        """
        first, end = rows_of(places)
        if not index.checked[number] or 2 * (end - first) > meta.chunks[0]:
            return False
        row = meta.nbytes // meta.chunks[0]
        buffer = self._scratch.take((end - first) * row)
        try:
            data = buffer[: (end - first) * row]
            self.fill(index.shard, start + first * row, data)
            rows = data.view(meta.dtype).reshape(end - first, *meta.chunks[1:])
            copy_rows(places, rows, first)
        finally:
            self._scratch.give(buffer)
        return True
