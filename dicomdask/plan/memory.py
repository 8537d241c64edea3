"""How much memory one unit of work takes at most: pure arithmetic, held by tests.

Each bound is that of a worker process that does one such unit at a time. The numbers
were measured and rounded up; tests compare them with what a run really takes.
"""

from math import ceil, prod, sqrt
from typing import Final

import numpy as np

from dicomdask.limits import (
    AHEAD_BYTES,
    AHEAD_FILES,
    BATCH_BYTES,
    HEADER_TEXT_BYTES,
    MAX_FRAMES,
    MAX_HEADER_BYTES,
    SMALL_HEADER_BYTES,
    TRAILER_BYTES,
)
from dicomdask.model import Instance, PlannedVolume
from dicomdask.pixels import stored_samples
from dicomdask.plan.build import Plan

BASE_BYTES: Final = 256 << 20
"""A Dask worker that has imported the tasks and s3fs takes 206 MiB; what a first use
loads and what allocators keep comes on top."""

DECODER_PIXEL_BYTES: Final = 20
"""A decoded frame, and what decoders take for each pixel: 11, or gdcm 20, if it is
installed."""

HEADER_FACTOR: Final = 192
"""What a header takes for each of its bytes as objects: 40 to 90 in real files, 170 in
one of nothing but empty items, which is the worst."""

UNKNOWN_HEADER_BYTES: Final = 1 << 18
"""For a header whose length was not noted."""

TEXT_FACTOR: Final = 8
"""A header as JSON is at most so many times as long: short UIDs are worst."""

TEXT_COPIES: Final = 7
"""What of the headers' text there is at once while rows become Parquet."""

PIECE_COPIES: Final = 5
"""How often the pixels of some frames of a file are held while they are decoded."""

FRAME_BYTES, FRAME_ROW_BYTES = 1000, 8000
"""A frame without its header: after it was decoded, and as rows on their way."""

COUNT_BYTES, COUNT_KEPT_BYTES = 16 << 20, 4 << 20
"""Counting values of up to 16 bits: a block of them widened, and tables."""

WIDE_COUNT_BYTES, WIDE_KEPT_BYTES, WIDE_ROW_BYTES = 36, 16, 56
"""The same for each voxel of more bits where all differ, and on its way to Parquet."""

CHUNK_BYTES: Final = 128
"""What a chunk takes in a shard besides its values: headers, checksum, index."""

LOOK_BYTES: Final = 384 << 20
"""What looks for text keeps once it is loaded, and takes for one frame."""

LOOK_PIXEL_BYTES, LOOKED_PIXEL_BYTES, LOOKED_FRAMES = 48, 9, 8
"""A frame on its way to what a screen shows; and frames that others are compared with,
in three contrasts, in colour."""

PLANNED_FRAME_BYTES, PLANNED_VOLUME_BYTES = 2500, 8000
"""What a part of the plan takes while it is read, by its frames and its volumes."""

FACE_BYTES: Final = 640 << 20
"""What finding a face takes: scipy, and distances on a coarse grid of the volume."""

INSTANCE_BYTES: Final = 8000
"""What an instance takes while it is indexed or planned."""

PACKED_FRAME_BYTES, FACTS_BYTES, GROUP_BYTES = 160, 3200, 400
"""A frame that functional groups describe: packed, its facts while they are read or
planned, and what a header says of it at least where there is so much to tell."""


def memory_bytes(volume: PlannedVolume, held: int = 0) -> int:
    """Return the most memory that one of the volume's tasks takes on a worker.

    The largest of what is alive one after the other: the shard's array while frames are
    decoded into it, while its values are counted and while it is encoded; the encoded
    shard while it is written; the rows while they become Parquet.

    Parameters
    ----------
    volume
        The volume; each of its tasks takes this much or less.
    held
        What the part of the plan that it stands in takes; see `held_bytes`.
    """
    dtype = np.dtype(volume.dtype)
    region = _region(volume)
    array, encoded = prod(region) * dtype.itemsize, _encoded_bytes(volume, region)
    chunk = prod(volume.layout.chunks) * dtype.itemsize
    counting, counted, rows = _count_bytes(prod(region), dtype)
    n_frames = prod(region[axis] for axis in volume.frame_axes)
    texts = _text_bytes(volume, n_frames)
    kept, looking = _look_bytes(volume)
    phases = (
        array + _largest_source(volume) + looking,
        array + counting,
        array + counted + encoded + 3 * chunk,
        counted + 2 * encoded,  # a client may copy what it sends
        counted + rows + n_frames * FRAME_ROW_BYTES + TEXT_COPIES * texts,
    )
    return BASE_BYTES + held + kept + n_frames * FRAME_BYTES + texts + max(phases)


def resolve_bytes(instance: Instance) -> int:
    """Return the most memory that comparing an instance with copies takes."""
    samples = stored_samples(instance)
    pixels = prod(instance.shape) * instance.number_of_frames * samples
    is_remote = _is_remote(instance.url)
    size, header = instance.size, instance.header_bytes
    return BASE_BYTES + _source_bytes(size, header, pixels, is_remote=is_remote)


def bucket_bytes(n_instances: int, n_frames: int = 0) -> int:
    """Return the most memory that planning a bucket of the index takes.

    Parameters
    ----------
    n_frames
        How many frames the functional groups of all its instances describe. Packed they
        are held all the time; one series after the other they are unpacked and planned.
    """
    per_frame = PACKED_FRAME_BYTES + max(FACTS_BYTES, PLANNED_FRAME_BYTES)
    return BASE_BYTES + n_instances * INSTANCE_BYTES + n_frames * per_frame


def index_bytes(n_files: int, n_frames: int = 0) -> int:
    """Return the most memory that indexing a part of the manifest takes.

    Short headers are read many at once, the longest there may be alone; so are the
    functional groups in them, and what they say of frames is packed then.

    Parameters
    ----------
    n_frames
        How many frames the functional groups of all files describe.
    """
    headers = AHEAD_FILES * 2 * SMALL_HEADER_BYTES + MAX_HEADER_BYTES * 5 // 4
    at_once = max(MAX_FRAMES, AHEAD_FILES * SMALL_HEADER_BYTES // GROUP_BYTES)
    facts = min(n_frames, at_once) * FACTS_BYTES + n_frames * PACKED_FRAME_BYTES
    return BASE_BYTES + n_files * INSTANCE_BYTES + headers + facts


def largest_task_bytes(part: Plan) -> int:
    """Return the most memory that a task of one part of the plan takes; 0 for none."""
    held = held_bytes(part)
    found = (memory_bytes(volume, held) for volume in part.volumes)
    return max(found, default=0)


def held_bytes(part: Plan, *, cleans_faces: bool = False) -> int:
    """Return what a part of the plan takes on a worker, which reads it as a whole.

    What finding faces takes as well, where the policy cleans them.
    """
    frames = sum(len(one.frames) + len(one.references) for one in part.volumes)
    volumes = len(part.volumes)
    found = FACE_BYTES if cleans_faces else 0
    frames += len(part.outcomes)
    return frames * PLANNED_FRAME_BYTES + volumes * PLANNED_VOLUME_BYTES + found


def inflated_bytes(what: PlannedVolume | Instance) -> int:
    """Return how long a deflated data set may be by what its header says."""
    if isinstance(what, PlannedVolume):
        pixels = what.frame_bytes
    else:
        bits = prod(what.shape) * what.number_of_frames * (what.bits_allocated or 0)
        pixels = bits * (what.samples_per_pixel or 1) // 8
    return (what.header_bytes or MAX_HEADER_BYTES) + pixels + TRAILER_BYTES


def shard_raw_bytes(volume: PlannedVolume) -> int:
    """Return the decoded bytes of one whole shard, padding of its chunks included."""
    return prod(volume.layout.shards) * np.dtype(volume.dtype).itemsize


def _largest_source(volume: PlannedVolume) -> int:
    """Return what the largest source takes while frames of it are decoded.

    A file of many frames is read in pieces where its frames lie in it as they are.
    """
    is_remote = any(_is_remote(frame.url) for frame in volume.frames)
    sizes = [frame.size for frame in volume.frames if frame.offset is None]
    n_tiles = max(((frame.tile or 0) + 1 for frame in volume.frames), default=1)
    n_pixels = prod(volume.frame_shape) * ceil(sqrt(n_tiles)) ** 2
    if len(sizes) == len(volume.frames):
        size = max(sizes, default=0)
        return _source_bytes(size, volume.header_bytes, n_pixels, is_remote=is_remote)
    piece = volume.header_bytes + max(BATCH_BYTES, volume.frame_bytes)
    own = PIECE_COPIES * piece + (2 * (AHEAD_BYTES + piece) if is_remote else 0)
    return own + volume.header_bytes * HEADER_FACTOR


def _source_bytes(
    size: int, header_bytes: int, n_pixels: int, *, is_remote: bool
) -> int:
    """Return what one source takes, with what is fetched ahead from a network."""
    own = 2 * size + n_pixels * DECODER_PIXEL_BYTES + 2 * TRAILER_BYTES
    ahead = 2 * (AHEAD_BYTES + size) if is_remote else 0
    return own + ahead + (header_bytes or UNKNOWN_HEADER_BYTES) * HEADER_FACTOR


def _look_bytes(volume: PlannedVolume) -> tuple[int, int]:
    """Return what a look for text takes all the time, and while there is one."""
    if volume.look is not None:
        return 0, 0
    n_pixels = prod(volume.shape[-2:])
    n_looked = min(LOOKED_FRAMES, len(volume.frames) + len(volume.references))
    return LOOK_BYTES, n_pixels * (LOOK_PIXEL_BYTES + n_looked * LOOKED_PIXEL_BYTES)


def _region(volume: PlannedVolume) -> tuple[int, ...]:
    """Return the shape of the largest shard within the array's bounds."""
    pairs = zip(volume.layout.shards, volume.shape, strict=True)
    return tuple(min(shard, extent) for shard, extent in pairs)


def _encoded_bytes(volume: PlannedVolume, region: tuple[int, ...]) -> int:
    """Return what an encoded shard takes where nothing can be compressed."""
    chunks, shards = volume.layout.chunks, volume.layout.shards
    n_chunks = prod(-(-n // c) for n, c in zip(region, chunks, strict=True))
    n_places = prod(shards) // prod(chunks)
    values = prod(chunks) * np.dtype(volume.dtype).itemsize
    return n_chunks * values + n_places * CHUNK_BYTES


def _count_bytes(n_values: int, dtype: np.dtype[np.generic]) -> tuple[int, int, int]:
    """Return what statistics take: to count, to keep, and on their way to Parquet."""
    if dtype.itemsize <= 2:
        return COUNT_BYTES, COUNT_KEPT_BYTES, COUNT_BYTES
    per_value = (WIDE_COUNT_BYTES, WIDE_KEPT_BYTES, WIDE_ROW_BYTES)
    counting, kept, rows = (n_values * nbytes for nbytes in per_value)
    return counting, kept, rows


def _text_bytes(volume: PlannedVolume, n_frames: int) -> int:
    """Return what the headers of a shard's frames have not in common, as text."""
    longest = TEXT_FACTOR * (volume.header_bytes or UNKNOWN_HEADER_BYTES)
    return min(n_frames * longest, HEADER_TEXT_BYTES + longest)


def _is_remote(url: str) -> bool:
    return "://" in url and not url.startswith("file://")
