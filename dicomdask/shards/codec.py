"""Shards and chunks as bytes: encode, check, decode."""

import io
import struct
from collections.abc import Iterator
from typing import Final

import google_crc32c
import numpy as np
from numcodecs import blosc

from dicomdask.shards.metadata import (
    CODECS,
    REPAIR,
    Array,
    ArrayMeta,
    Shape,
    check_fit,
    shard_error,
)
from dicomdask.shards.rows import Places, copy_rows, decode_rows, rows_of

ABSENT: Final = 2**64 - 1  # in an index, twice: this chunk is not there
ENTRY_BYTES, CRC_BYTES = 16, 4
BLOSC_HEADER: Final = struct.Struct("<4xI4xI")  # size decoded, size encoded


def encode_shard(
    array: Array, chunks: Shape, shards: Shape, codec: str, *, fill: int = 0
) -> bytes:
    """Encode one shard; the same array gives the same bytes.

    Parameters
    ----------
    array
        What of the array lies in this shard; smaller than `shards` at its edges.
    chunks, shards
        Shape of an inner chunk and of a shard, in elements; both in axis order.
    codec
        One of `CODECS`.
    fill
        Pads the chunks that reach over the edge of the array.

    Returns
    -------
    bytes
        The object to store. Every chunk in bounds is in it, even one of fill only.
    """
    check_fit(array.shape, chunks, shards)
    grid = tuple(shard // chunk for shard, chunk in zip(shards, chunks, strict=True))
    index = np.full((*grid, 2), ABSENT, "<u8")
    shard = io.BytesIO()  # hands out what was written without a copy
    for corner, chunk in _cut(array, chunks, fill):
        offset = shard.tell()
        data = _encode_chunk(chunk, codec)
        shard.write(data)
        shard.write(crc(data))
        index[corner] = offset, shard.tell() - offset
    shard.write(index.tobytes())
    shard.write(crc(index))
    return shard.getvalue()


def _cut(array: Array, chunks: Shape, fill: int) -> Iterator[tuple[Shape, Array]]:
    """Yield the chunks in bounds, little endian and padded, all in one buffer."""
    chunk = np.empty(chunks, array.dtype.newbyteorder("<"))
    axes = list(zip(array.shape, chunks, strict=True))
    for corner in np.ndindex(*(-(-extent // size) for extent, size in axes)):
        box = (slice(i * c, i * c + c) for i, c in zip(corner, chunks, strict=True))
        piece = array[tuple(box)]
        if piece.shape != chunks:
            chunk.fill(fill)
        chunk[tuple(map(slice, piece.shape))] = piece
        yield corner, chunk


def _encode_chunk(chunk: Array, codec: str) -> bytes:
    settings = CODECS[codec]
    if settings is None:
        return chunk.tobytes()
    use_one_thread()
    shuffle = getattr(blosc, settings["shuffle"].upper())
    name, level, typesize = settings["cname"], settings["clevel"], chunk.itemsize
    packed: bytes = blosc.compress(chunk, name.encode(), level, shuffle, 0, typesize)
    return packed


def use_one_thread() -> None:
    """Keep blosc from starting threads of its own."""
    # With more threads blosc writes blocks in the order they get done, and its pool
    # does not survive a fork. The switch is one a process; zarr-python sets it too.
    blosc.use_threads = False


def crc(data: bytes | bytearray | Array) -> bytes:
    """Return the crc32c of bytes as it is stored."""
    return struct.pack("<I", google_crc32c.value(data))


def is_intact(data: Array) -> bool:
    """Return whether bytes end in their own checksum."""
    return data[-CRC_BYTES:].tobytes() == crc(data[:-CRC_BYTES])


def check_sum(
    payload: Array | bytearray,
    crc32c: Array | bytes | bytearray,
    number: int,
    shard: str,
) -> None:
    """Refuse a chunk whose checksum is another one."""
    if crc(payload) != crc32c:
        name = f"chunk {number} of shard {shard}"
        raise shard_error(shard, f"{name} is damaged; {REPAIR}")


def check_chunk(chunk: Array, meta: ArrayMeta, number: int, shard: str) -> None:
    """Refuse a wrong checksum, or a wrong size: blosc trusts its own header."""
    payload = chunk[:-CRC_BYTES]
    check_sum(payload, chunk[-CRC_BYTES:].tobytes(), number, shard)
    nbytes = meta.nbytes
    header = chunk[: BLOSC_HEADER.size].tobytes().ljust(BLOSC_HEADER.size)
    sizes = BLOSC_HEADER.unpack(header) if meta.compressed else (nbytes, nbytes)
    if sizes != (nbytes, payload.size):
        name = f"chunk {number} of shard {shard}"
        raise shard_error(shard, f"{name} does not hold {nbytes} bytes; {REPAIR}")


def decode(payload: Array, meta: ArrayMeta) -> Array:
    """Return a whole chunk from its bytes, the checksum left out."""
    data = blosc.decompress(payload) if meta.compressed else payload
    return np.frombuffer(data, meta.dtype).reshape(meta.chunks)


def whole_target(places: Places, meta: ArrayMeta) -> Array | None:
    """Return where a whole chunk goes as it is, if it goes to one such place."""
    target = places[0][0]
    is_whole = (
        len(places) == 1
        and target.shape == meta.chunks
        and target.dtype == meta.dtype
        and target.flags.c_contiguous
    )
    return target if is_whole else None


def place(payload: Array, meta: ArrayMeta, places: Places) -> None:
    """Decode a chunk into its places."""
    target = whole_target(places, meta) if meta.compressed else None
    if target is not None:
        blosc.decompress(payload, target)
        return
    if meta.compressed:
        first, end = rows_of(places)
        rows = decode_rows(payload, meta, first, end)
        if rows is not None:
            copy_rows(places, rows, first)
            return
    copy_into(places, decode(payload, meta))


def copy_into(places: Places, chunk: Array) -> None:
    """Copy what is wanted of a decoded chunk."""
    for target, inside in places:
        target[...] = chunk[inside]
