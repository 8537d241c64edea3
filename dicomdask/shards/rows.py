"""Some rows of a chunk, where the others need not be decoded.

Rows are the steps along the first axis. Blosc cuts what it compresses into blocks that
stand for themselves: a frame of those that are wanted is as good as the whole one.
"""

import struct
from typing import Final

import numpy as np
from numcodecs import blosc

from dicomdask.shards.metadata import Array, ArrayMeta, Box

Places = list[tuple[Array, Box]]  # targets of a chunk, and what of it goes there

HEADER: Final = struct.Struct("<4B3I")
"""Of a frame: versions, flags and typesize; bytes decoded, of a block, and encoded."""
IS_COPY: Final = 2  # a flag: the frame holds its content as it is
LEAST_SAVED: Final = 4
"""One in so many blocks must be left out for it to pay."""


def rows_of(places: Places) -> tuple[int, int]:
    """Return the first row that is wanted of a chunk, and the one after the last."""
    return (
        min([inside[0].start for _, inside in places]),
        max([inside[0].stop for _, inside in places]),
    )


def copy_rows(places: Places, rows: Array, first: int) -> None:
    """Copy what is wanted out of the rows of a chunk from the first on."""
    for target, (along, *others) in places:
        some = slice(along.start - first, along.stop - first)
        target[...] = rows[(some, *others)]


def decode_rows(payload: Array, meta: ArrayMeta, first: int, end: int) -> Array | None:
    """Decode rows of a blosc frame; None where it pays not, or it is none of ours."""
    row = meta.nbytes // meta.chunks[0]
    *_, flags, _, nbytes, block, encoded = HEADER.unpack_from(payload.data)
    n_blocks = -(-nbytes // block)
    low, high = first * row // block, -(-end * row // block)
    if low and low * block + block > nbytes:
        low -= 1  # a last block that is shorter cannot stand alone
    if (high - low) * LEAST_SAVED > n_blocks * (LEAST_SAVED - 1) or flags & IS_COPY:
        return None
    starts = struct.unpack_from(f"<{n_blocks}I", payload.data, HEADER.size)
    bounds = [*starts, encoded]
    if bounds != sorted(bounds):  # written by several threads
        return None
    frame = _frame(
        payload, bounds[low : high + 1], min(nbytes, high * block) - low * block
    )
    at = first * row - low * block
    data = np.frombuffer(blosc.decompress(frame), np.uint8, (end - first) * row, at)
    return data.view(meta.dtype).reshape(end - first, *meta.chunks[1:])


def _frame(payload: Array, bounds: list[int], nbytes: int) -> Array:
    """Return a frame of the blocks between bounds, which lie one behind the other."""
    n_blocks, size = len(bounds) - 1, bounds[-1] - bounds[0]
    begin = HEADER.size + 4 * n_blocks
    frame = np.empty(begin + size, np.uint8)
    *kinds, _, block, _ = HEADER.unpack_from(payload.data)
    HEADER.pack_into(frame.data, 0, *kinds, nbytes, block, frame.size)
    starts = [start - bounds[0] + begin for start in bounds[:-1]]
    struct.pack_into(f"<{n_blocks}I", frame.data, HEADER.size, *starts)
    frame[begin:] = payload[bounds[0] : bounds[-1]]
    return frame
