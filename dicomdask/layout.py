"""How an array is cut into chunks and shards. Pure arithmetic over shapes."""

from math import prod
from typing import Any, Final

import numpy as np

from dicomdask.model import Kind, Layout, Profile

SHARD_BYTES: Final = 256 << 20
"""A shard holds at most so many raw bytes, but never less than one frame of chunks."""

WIDE_SHARE: Final = 16
"""Of values above 16 bits it holds so much less: statistics count each one of them."""

SHARD_FRAMES: Final = 2048
"""A shard holds about so many frames: one task holds what their headers tell."""

DEEP_TILES: Final = {"balanced": (16, 128, 128), "patch": (32, 64, 64)}
FLAT_TILES: Final = {"balanced": (512, 512), "patch": (256, 256)}


def choose_layout(
    kind: Kind,
    shape: tuple[int, ...],
    dtype: np.dtype[Any] | str,
    profile: Profile = "balanced",
    *,
    codec: str = "lz4",
) -> Layout:
    """Choose how an array is cut; provisional until the benchmark decides.

    Parameters
    ----------
    kind
        What the array shows.
    shape
        Elements along each axis; rows and columns are last.
    dtype
        The type of the stored values.
    profile
        `slice` makes a frame one chunk, `patch` chunks are small cubes, and `balanced`
        ones lie between.
    codec
        One of `shards.CODECS`.

    Returns
    -------
    Layout
        Chunks no larger than the array; shards of whole chunks and whole frames, one
        for the array unless its raw bytes exceed `SHARD_BYTES`, or its frames
        `SHARD_FRAMES`.
    """
    chunks = _chunks(kind, shape, profile)
    shards = _shards(shape, chunks, np.dtype(dtype).itemsize)
    return Layout(chunks=chunks, shards=shards, codec=codec)


def _chunks(kind: Kind, shape: tuple[int, ...], profile: Profile) -> tuple[int, ...]:
    # Only colour images have samples before rows and columns, and they have three.
    coloured = (
        kind not in ("volume", "timeseries") and len(shape) > 2 and shape[-3] == 3
    )
    leading, frame = shape[: -3 if coloured else -2], shape[-3 if coloured else -2 :]
    tile = frame
    if profile != "slice":
        tiles = DEEP_TILES if leading else FLAT_TILES
        depth, plane = tiles[profile][:-2], tiles[profile][-2:]
        tile = (*depth, *frame[:-2], *plane)
    whole = (*(1,) * (len(shape) - len(tile)), *tile)
    return tuple(min(n, size) for n, size in zip(shape, whole, strict=True))


def _shards(
    shape: tuple[int, ...], chunks: tuple[int, ...], itemsize: int
) -> tuple[int, ...]:
    """Round the array up to whole chunks; cut leading axes until a shard fits."""
    counts = [-(-n // c) for n, c in zip(shape, chunks, strict=True)]
    chunk_bytes = prod(chunks) * itemsize
    most_bytes = SHARD_BYTES if itemsize <= 2 else SHARD_BYTES // WIDE_SHARE
    for axis in range(len(shape) - 2):
        layer_bytes = prod(counts[axis + 1 :]) * chunk_bytes
        layer_frames = prod(counts[axis + 1 : -2]) * prod(chunks[:-2])
        fitting = min(most_bytes // layer_bytes, SHARD_FRAMES // layer_frames)
        n_shards = -(-counts[axis] // max(1, fitting))
        counts[axis] = -(-counts[axis] // n_shards)  # shards of about the same size
    return tuple(n * c for n, c in zip(counts, chunks, strict=True))
