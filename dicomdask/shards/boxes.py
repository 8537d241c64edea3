"""Boxes cut at the borders of chunks and shards."""

from itertools import product

from dicomdask.shards.metadata import ArrayMeta, Box, Shape

Piece = tuple[int, Box, Box]  # number in the shard, target in the output, inside
_Span = tuple[int, int, slice, slice]  # the same along one axis, shard's place first


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
