"""How an array is cut into chunks and shards. Pure arithmetic over shapes."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any, Final

import numpy as np

from dicomdask.errors import OptionError
from dicomdask.model import Codec, Layout, Profile

SHARD_BYTES: Final = 256 << 20
"""A shard holds at most so many raw bytes, but never less than one frame of chunks."""

WIDE_SHARE: Final = 16
"""Of values above 16 bits it holds so much less: statistics count each one of them."""

SHARD_FRAMES: Final = 2048
"""A shard holds about so many frames: one task holds what their headers tell."""

DEEP_TILES: Final = {"balanced": (4, 128, 128), "patch": (32, 32, 32)}
FLAT_TILES: Final = {"balanced": (512, 512), "patch": (256, 256)}
"""What chunks hold of slices, rows and columns; `examples/layout.md` says why."""

CHUNK_COST: Final = 32 << 10
"""One more chunk costs a reader as much as so many bytes that it decodes."""

PATCH_PARTS: Final = 8
"""A patch is cut into at most so many chunks along an axis."""

PATCH_CHUNK_BYTES: Final = 4 << 20
"""Chunks for patches hold at most so much, where that many parts allow it."""

MOST_PATCH: Final = 4096


def choose_layout(
    shape: tuple[int, ...],
    dtype: np.dtype[Any] | str,
    profile: Profile = "balanced",
    *,
    samples_axis: int | None = None,
    framewise: bool = False,
    codec: Codec = "lz4",
    patch_size: tuple[int, ...] | None = None,
) -> Layout:
    """Choose how an array is cut.

    Parameters
    ----------
    shape
        Elements along each axis; rows and columns are last.
    dtype
        The type of the stored values.
    profile
        `slice` makes a frame one chunk, `patch` chunks are small cubes, and `balanced`
        ones lie between.
    samples_axis
        The number of the axis of samples, which no chunk and no shard cuts.
    framewise
        Whether frames are no slices of one body, so that each is cut by itself (cines).
    codec
        How chunks are compressed.
    patch_size
        Slices, rows and columns of the patches that will be read; it decides instead of
        the profile.

    Returns
    -------
    Layout
        Chunks no larger than the array; shards of whole chunks and whole frames, one
        for the array unless its raw bytes exceed `SHARD_BYTES`, or its frames
        `SHARD_FRAMES`.
    """
    itemsize = np.dtype(dtype).itemsize
    frame_axes = [axis for axis in range(len(shape) - 2) if axis != samples_axis]
    deepest = frame_axes[-1:]
    depth, plane = tuple(shape[axis] for axis in deepest), shape[-2:]
    samples = () if samples_axis is None else (shape[samples_axis],)
    extents = plane if framewise else (*depth, *plane)
    if patch_size is not None:
        wanted = patch_size[-len(extents) :]
        cut = patch_chunks(extents, wanted, itemsize * prod(samples))
    else:
        cut = _tile(profile, extents, is_frame=framewise and bool(depth))
    whole = [1] * (len(shape) - 2) + list(cut[-2:])
    if len(cut) > 2:
        whole[deepest[0]] = cut[0]
    if samples_axis is not None:
        whole[samples_axis] = shape[samples_axis]
    chunks = tuple(min(n, size) for n, size in zip(shape, whole, strict=True))
    return Layout(chunks, shards=_shards(shape, chunks, itemsize), codec=codec)


def _tile(
    profile: Profile, extents: tuple[int, ...], *, is_frame: bool
) -> tuple[int, ...]:
    """Return the chunks of a profile; a frame of a cine is read as a whole."""
    if profile == "slice" or (is_frame and profile == "balanced"):
        return extents[-2:]
    return (DEEP_TILES if len(extents) > 2 else FLAT_TILES)[profile]


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


# --- chunks for patches of one size -------------------------------------------


def parse_patch_size(size: str | int | Sequence[int]) -> tuple[int, int, int]:
    """Return slices, rows and columns of a patch; one number stands for all three.

    Raises
    ------
    OptionError
        If these are not one or three numbers from 1 to `MOST_PATCH`.

    Examples
    --------
    >>> parse_patch_size("64"), parse_patch_size((32, 96, 96))
    ((64, 64, 64), (32, 96, 96))
    """
    parts = size.split(",") if isinstance(size, str) else np.atleast_1d(size).tolist()
    words = [str(part).strip() for part in parts]
    numbers = [int(word) if word.isdecimal() else 0 for word in words]
    if len(numbers) not in (1, 3) or not all(1 <= n <= MOST_PATCH for n in numbers):
        raise OptionError(
            "--patch-size is one number, or slices, rows and columns, each from 1 to "
            f"{MOST_PATCH}: 64 or 32,96,96"
        )
    depth, rows, columns = numbers * (3 // len(numbers))
    return depth, rows, columns


@lru_cache(maxsize=4096)
def patch_chunks(
    extents: tuple[int, ...], patch: tuple[int, ...], itemsize: int
) -> tuple[int, ...]:
    """Return the chunks that serve patches of one size at the least cost.

    Along each axis a patch, or the array where that is smaller, is cut into 1 to
    `PATCH_PARTS` equal parts; of all combinations within `PATCH_CHUNK_BYTES` the one of
    the least `patch_cost` is taken, of equal ones that of the largest chunks.

    >>> patch_chunks((300, 512, 512), (64, 64, 64), 2)
    (32, 32, 32)
    """
    axes = [
        sorted({-(-min(extent, size) // n) for n in range(1, PATCH_PARTS + 1)})
        for extent, size in zip(extents, patch, strict=True)
    ]
    cuts = list(product(*axes))
    least = min(map(prod, cuts))
    most = max(PATCH_CHUNK_BYTES // itemsize, least)
    return min(
        (chunks for chunks in cuts if prod(chunks) <= most),
        key=lambda chunks: (
            patch_cost(extents, patch, chunks, itemsize),
            -prod(chunks),
        ),
    )


def patch_cost(
    extents: tuple[int, ...],
    patch: tuple[int, ...],
    chunks: tuple[int, ...],
    itemsize: int,
) -> float:
    """Return what it costs to read a patch, in bytes decoded.

    It is the number of chunks that a patch touches times the bytes of a chunk and
    `CHUNK_COST`: the mean over patches at all places, plus the mean over those of a
    grid that starts at 0.
    """
    axes = list(zip(extents, patch, chunks, strict=True))
    anywhere = prod(chunks_touched(*axis, step=1) for axis in axes)
    aligned = prod(chunks_touched(*axis, step=axis[1]) for axis in axes)
    return (anywhere + aligned) * (CHUNK_COST + prod(chunks) * itemsize)


@lru_cache(maxsize=4096)
def chunks_touched(extent: int, patch: int, chunk: int, *, step: int) -> float:
    """Return how many chunks along an axis a patch touches on average.

    Patches begin at every `step`, as long as they lie within the axis; where none
    does, one begins at 0 and is as long as the axis.

    >>> chunks_touched(512, 64, 32, step=1), chunks_touched(512, 64, 32, step=64)
    (2.9665924276169267, 2.0)
    """
    size = min(extent, patch)
    starts = range(0, extent - size + 1, step)
    touched = sum((start + size - 1) // chunk - start // chunk + 1 for start in starts)
    return touched / len(starts)
