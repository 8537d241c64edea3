"""Boxes cut at the borders of chunks and shards; runs of chunks that lie together."""

from collections.abc import Iterable
from itertools import product
from typing import Final

from dicomdask.errors import ReadError
from dicomdask.shards.codec import ABSENT
from dicomdask.shards.index import Index
from dicomdask.shards.metadata import REPAIR, ArrayMeta, Box, Shape

Piece = tuple[int, Box, Box]  # number in the shard, target in the output, inside
_Span = tuple[int, int, slice, slice]  # the same along one axis, shard's place first
Located = tuple[int, int, int]  # start, stop (checksum included), number in the shard

RUN_BYTES: Final = 16 << 20
"""Bounds a range of several chunks, and so the memory that a read needs."""


def is_aligned(box: Box, chunks: Shape) -> bool:
    """Return whether a box begins where a chunk begins."""
    return not any(piece.start % c for piece, c in zip(box, chunks, strict=True))


def _spans(box: slice, chunk: int, grid: int, step: int) -> list[_Span]:
    """Cut one axis of a box at the borders of chunks."""
    start, stop = box.start, box.stop
    spans = []
    for place in range(start // chunk, -(-stop // chunk)):
        origin = place * chunk
        low, high = max(start, origin), min(stop, origin + chunk)
        target = slice(low - start, high - start)
        inside = slice(low - origin, high - origin)
        spans.append((place // grid, place % grid * step, target, inside))
    return spans


def split(meta: ArrayMeta, box: Box) -> dict[Shape, list[Piece]]:
    """Cut a box into pieces of chunks, by the corner of their shard."""
    shards: dict[Shape, list[Piece]] = {}
    for spans in product(*map(_spans, box, meta.chunks, meta.grid, meta.steps)):
        corner, numbers, target, inside = zip(*spans, strict=True)
        shards.setdefault(corner, []).append((sum(numbers), target, inside))
    return shards


def locate(numbers: Iterable[int], index: Index, shard: str) -> list[Located]:
    """Look chunks up in the index; return them in the order in which they lie."""
    located = []
    for number in numbers:
        start, size = index.entries[2 * number : 2 * number + 2]
        if start == ABSENT:
            raise ReadError(f"shard {shard} lacks chunk {number}; {REPAIR}")
        located.append((start, start + size, number))
    return sorted(located)


def join_runs(located: list[Located], max_gap: int) -> list[list[Located]]:
    """Group what lies close together, to be fetched in one range."""
    runs = [located[:1]]
    for item in located[1:]:
        run = runs[-1]
        is_near = 0 <= item[0] - run[-1][1] <= max_gap
        if is_near and item[1] - run[0][0] <= RUN_BYTES:
            run.append(item)
        else:
            runs.append([item])
    return runs
