"""Boxes cut at the borders of chunks and shards."""

from functools import lru_cache

from dicomdask.shards.metadata import ArrayMeta, Box, Shape

Piece = tuple[int, Box, Box]  # number in the shard, target in the output, inside
_Span = tuple[int, int, slice, slice]  # the same along one axis, shard's place first


@lru_cache(maxsize=8192)
def _spans(
    start: int, stop: int, chunk: int, grid: int, step: int
) -> tuple[_Span, ...]:
    """Cut one axis of a box at the borders of chunks; boxes share their axes."""
    spans = []
    for place in range(start // chunk, -(-stop // chunk)):
        origin = place * chunk
        low, high = max(start, origin), min(stop, origin + chunk)
        target = slice(low - start, high - start)
        inside = slice(low - origin, high - origin)
        spans.append((place // grid, place % grid * step, target, inside))
    return tuple(spans)


def split(meta: ArrayMeta, box: Box) -> dict[Shape, list[Piece]]:
    """Cut a box into pieces of chunks, by the corner of their shard."""
    joined: list[tuple[Shape, int, Box, Box]] = [((), 0, (), ())]
    for piece, cut in zip(box, meta.cuts, strict=True):
        spans = _spans(piece.start, piece.stop, *cut)
        joined = [
            ((*corner, place), number + step, (*target, to), (*inside, within))
            for corner, number, target, inside in joined
            for place, step, to, within in spans
        ]
    shards: dict[Shape, list[Piece]] = {}
    for corner, number, target, inside in joined:
        pieces = shards.get(corner)
        if pieces is None:
            pieces = shards[corner] = []
        pieces.append((number, target, inside))
    return shards


def only_piece(meta: ArrayMeta, box: Box) -> tuple[Shape, int, Box] | None:
    """Return the one chunk that a box lies in: its shard, its number, and where."""
    corner: Shape = ()
    inside: Box = ()
    number = 0
    for piece, (chunk, grid, step) in zip(box, meta.cuts, strict=True):
        spans = _spans(piece.start, piece.stop, chunk, grid, step)
        if len(spans) != 1:
            return None
        place, along, _, within = spans[0]
        corner += (place,)
        number += along
        inside += (within,)
    return corner, number, inside
