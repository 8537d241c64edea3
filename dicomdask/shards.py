"""Standard Zarr v3 shards as bytes: encode one, read a box out of many.

A shard is `sharding_indexed` with its index at the end (bytes, then crc32c); its inner
chunks are little endian bytes, perhaps blosc, then crc32c. Storage is injected. There
are no locks and no threads, so that readers work in many threads and survive a fork.
"""

import io
import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any, Final, NamedTuple

import google_crc32c
import numpy as np
from numcodecs import blosc

from dicomdask.errors import PlanError, ReadError

Array = np.ndarray[Any, np.dtype[Any]]
Shape = tuple[int, ...]
Box = tuple[slice, ...]
_Piece = tuple[int, Box, Box]  # number in the shard, target in the output, inside
_Span = tuple[int, int, slice, slice]  # the same along one axis, shard's place first
_Located = tuple[int, int, _Piece]  # start and stop in the shard, checksum included
_Part = tuple[Array, Box, Box]  # encoded bytes, target, inside
GetRange = Callable[[str, int, int], Any]
GetRanges = Callable[[str, Sequence[tuple[int, int]]], Sequence[Any]]
GetTail = Callable[[str, int], Any]

ABSENT: Final = 2**64 - 1  # in an index, twice: this chunk is not there
ENTRY_BYTES, CRC_BYTES = 16, 4
RUN_BYTES = 16 << 20
"""Bounds a range of several chunks, and so the memory that a read needs."""

BLOSC_HEADER: Final = struct.Struct("<4xI4xI")  # size decoded, size encoded
DTYPES: Final = tuple(np.dtype(code).name for code in "?bBhHiIqQfd")
LITTLE: Final = {"name": "bytes", "configuration": {"endian": "little"}}
CRC32C: Final = {"name": "crc32c"}
KEY_ENCODING: Final = {"name": "default", "configuration": {"separator": "/"}}
REPAIR: Final = "restore it from a copy, or convert its series again"

CODECS: Final[Mapping[str, Mapping[str, Any] | None]] = {
    "none": None,
    "lz4": {"cname": "lz4", "clevel": 5, "shuffle": "shuffle"},
    "zstd": {"cname": "zstd", "clevel": 1, "shuffle": "bitshuffle"},
}
"""Our codec names, and the blosc configuration each stands for."""


def codec_chain(codec: str, dtype: np.dtype[Any]) -> list[dict[str, Any]]:
    """Return the codecs of an inner chunk as in the array's `zarr.json`."""
    configuration = CODECS[codec]
    if configuration is None:
        return [LITTLE, CRC32C]
    settings = {**configuration, "typesize": dtype.itemsize, "blocksize": 0}
    return [LITTLE, {"name": "blosc", "configuration": settings}, CRC32C]


def shard_key(corner: tuple[int, ...]) -> str:
    """Return the key of a shard below its array, such as `c/0/1/0`."""
    return "/".join(("c", *map(str, corner)))


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
    _check_fit(array.shape, chunks, shards)
    grid = tuple(shard // chunk for shard, chunk in zip(shards, chunks, strict=True))
    index = np.full((*grid, 2), ABSENT, "<u8")
    shard = io.BytesIO()  # hands out what was written without a copy
    for corner, chunk in _cut(array, chunks, fill):
        offset = shard.tell()
        data = _encode_chunk(chunk, codec)
        shard.write(data)
        shard.write(_crc(data))
        index[corner] = offset, shard.tell() - offset
    shard.write(index.tobytes())
    shard.write(_crc(index))
    return shard.getvalue()


def _check_fit(shape: Shape, chunks: Shape, shards: Shape) -> None:
    axes = list(zip(shape, chunks, shards, strict=True))
    if not axes or any(not 0 < n <= s or c < 1 or s % c for n, c, s in axes):
        cut = f"a shard of shape {tuple(shards)} in chunks of {tuple(chunks)}"
        raise PlanError(f"{cut} cannot hold {tuple(shape)}; plan its layout again")


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
    _use_one_thread()
    shuffle = getattr(blosc, settings["shuffle"].upper())
    name, level, typesize = settings["cname"], settings["clevel"], chunk.itemsize
    packed: bytes = blosc.compress(chunk, name.encode(), level, shuffle, 0, typesize)
    return packed


def _use_one_thread() -> None:
    # With more threads blosc writes blocks in the order they get done, and its pool
    # does not survive a fork. The switch is one a process; zarr-python sets it too.
    blosc.use_threads = False


def _crc(data: bytes | Array) -> bytes:
    return struct.pack("<I", google_crc32c.value(data))


@dataclass(frozen=True, slots=True)
class ArrayMeta:
    """What a reader has to know of an array; shapes are in elements, in axis order.

    A shard holds `grid` chunks; one along an axis adds `steps` to a chunk's number.
    """

    shape: Shape
    dtype: np.dtype[Any]
    chunks: Shape
    shards: Shape
    compressed: bool
    dimension_names: tuple[str | None, ...]
    grid: Shape
    steps: Shape


@lru_cache(maxsize=1024)
def parse_metadata(zarr_json: str) -> ArrayMeta | None:
    """Parse the text of an array's `zarr.json`.

    None means that it is cut or encoded in a way not known here: zarr-python reads it.

    Raises
    ------
    ReadError
        If the text is not the metadata of a Zarr v3 array.
    """
    try:
        meta = json.loads(zarr_json)
        if (meta["zarr_format"], meta["node_type"]) != (3, "array"):
            raise ValueError
        return _parse_array(meta) if _is_known(meta) else None
    except (ValueError, KeyError, TypeError) as error:
        sentence = f"the metadata is not that of a Zarr v3 array; {REPAIR}"
        raise ReadError(sentence) from error


def _is_known(meta: dict[str, Any]) -> bool:
    """Tell whether the array is cut and encoded as `encode_shard` does it."""
    *others, sharding = meta["codecs"]
    if others or sharding["name"] != "sharding_indexed":
        return False
    settings = sharding["configuration"]
    names = [codec["name"] for codec in settings["codecs"]]
    return (
        meta["data_type"] in DTYPES
        and meta["chunk_grid"]["name"] == "regular"
        and {**KEY_ENCODING, **meta["chunk_key_encoding"]} == KEY_ENCODING
        and not meta.get("storage_transformers")
        and settings.get("index_location", "end") == "end"
        and settings["index_codecs"] == [LITTLE, CRC32C]
        and settings["codecs"][0] == LITTLE
        and names in (["bytes", "crc32c"], ["bytes", "blosc", "crc32c"])
    )


def _parse_array(meta: dict[str, Any]) -> ArrayMeta:
    settings = meta["codecs"][0]["configuration"]
    shape, chunks = tuple(meta["shape"]), tuple(settings["chunk_shape"])
    shards = tuple(meta["chunk_grid"]["configuration"]["chunk_shape"])
    _check_fit(shards, chunks, shards)
    grid = tuple(s // c for s, c in zip(shards, chunks, strict=True))
    return ArrayMeta(
        shape=shape,
        dtype=np.dtype(meta["data_type"]).newbyteorder("<"),
        chunks=chunks,
        shards=shards,
        compressed=len(settings["codecs"]) > 2,
        dimension_names=tuple(meta.get("dimension_names") or (None,) * len(shape)),
        grid=grid,
        steps=tuple(prod(grid[axis + 1 :]) for axis in range(len(grid))),
    )


class _Index(NamedTuple):
    """Starts and sizes of a shard's chunks, and which of them were checked."""

    entries: memoryview
    checked: bytearray


class _Recent:
    """A cache of indexes with a budget in bytes, in two generations.

    What was used since the last turn survives the next. Each step is one operation on a
    dict, so threads need no lock and a fork cannot catch one held.
    """

    def __init__(self, budget: int) -> None:
        self._budget, self._size = budget, 0
        self._young: dict[str, _Index] = {}
        self._old: dict[str, _Index] = {}

    def __reduce__(self) -> tuple[type["_Recent"], tuple[int]]:
        return _Recent, (self._budget,)  # what was checked, was checked here

    def get(self, key: str) -> _Index | None:
        found = self._young.get(key)
        if found is None and (found := self._old.get(key)) is not None:
            self.put(key, found)
        return found

    def put(self, key: str, index: _Index) -> None:
        size = index.entries.nbytes + len(index.checked) + len(key) + 500
        if self._size + size > self._budget // 2:
            self._old, self._young, self._size = self._young, {}, 0
        self._young[key] = index
        self._size += size


class ShardReader:
    """Reads boxes out of sharded arrays with as few ranged reads as can be.

    A shard's index is fetched once; each run of adjacent chunks is one more range. A
    chunk's checksum is verified at its first read. Pickling leaves the cache behind.

    Parameters
    ----------
    get_range
        `get_range(path, start, stop)` returns these bytes of an object, as a buffer.
        Where it is writable, a whole uncompressed chunk is handed out without a copy.
    get_tail
        `get_tail(path, size)` returns the last bytes of an object, in one request. Both
        raise `FileNotFoundError` where there is no object.
    get_ranges
        `get_ranges(path, ranges)` returns several ranges, perhaps at the same time;
        without it they are fetched one by one.
    max_gap
        Chunks with at most this many bytes between them are fetched as one range.
    cache_bytes
        Bounds the memory that cached indexes take.
    """

    def __init__(
        self,
        get_range: GetRange,
        get_tail: GetTail,
        *,
        get_ranges: GetRanges | None = None,
        max_gap: int = 0,
        cache_bytes: int = 64 << 20,
    ) -> None:
        self._get_range, self._get_tail = get_range, get_tail
        self._get_ranges, self._max_gap = get_ranges, max_gap
        self._indexes = _Recent(cache_bytes)

    def read(self, path: str, meta: ArrayMeta, box: Box) -> Array:
        """Read a box of an array.

        Parameters
        ----------
        path
            The array's path, as storage knows it: shards lie at `path/c/…`.
        meta
            The array's parsed metadata.
        box
            One slice an axis, in elements, with start and stop within the array.

        Returns
        -------
        ndarray
            A new array of the box's shape and the array's dtype.

        Raises
        ------
        ReadError
            If a shard is missing, damaged or cut short, or lacks a chunk.
        """
        shape = tuple([piece.stop - piece.start for piece in box])
        parts = self._parts(path, meta, box)
        if not meta.compressed and shape == meta.chunks and _is_aligned(box, shape):
            [(payload, _, _)] = parts
            return np.require(_decode(payload, meta), requirements=["A", "W"])
        out = np.empty(shape, meta.dtype)
        for payload, target, inside in parts if out.size else ():
            _place(payload, meta, out[target], inside)
        return out

    def _parts(self, path: str, meta: ArrayMeta, box: Box) -> Iterator[_Part]:
        for corner, pieces in _split(meta, box).items():
            shard = f"{path}/{shard_key(corner)}"
            try:
                yield from self._shard_parts(shard, meta, pieces)
            except FileNotFoundError as error:
                raise ReadError(f"shard {shard} is missing; {REPAIR}") from error

    def _shard_parts(
        self, shard: str, meta: ArrayMeta, pieces: list[_Piece]
    ) -> Iterator[_Part]:
        index = self._index(shard, prod(meta.grid))
        runs = _runs(_located(pieces, index, shard), self._max_gap)
        for run, data in zip(runs, self._fetch(shard, runs), strict=True):
            first, end = run[0][0], run[-1][1]
            buffer = _received(data, end - first, shard)
            for start, stop, (number, target, inside) in run:
                chunk = buffer[start - first : stop - first]
                if not index.checked[number]:
                    _check_chunk(chunk, meta, f"chunk {number} of shard {shard}")
                    index.checked[number] = 1
                yield chunk[:-CRC_BYTES], target, inside

    def _index(self, shard: str, n_chunks: int) -> _Index:
        index = self._indexes.get(shard)
        if index is None:
            _use_one_thread()
            size = n_chunks * ENTRY_BYTES + CRC_BYTES
            tail = _received(self._get_tail(shard, size), size, shard)
            if not _is_intact(tail):
                raise ReadError(f"the index of shard {shard} is damaged; {REPAIR}")
            entries = tail[:-CRC_BYTES].view("<u8").astype(np.uint64)
            index = _Index(entries.data, bytearray(n_chunks))
            self._indexes.put(shard, index)
        return index

    def _fetch(self, shard: str, runs: list[list[_Located]]) -> Iterable[Any]:
        ranges = [(run[0][0], run[-1][1]) for run in runs]
        if self._get_ranges is not None and len(ranges) > 1:
            return self._get_ranges(shard, ranges)
        return (self._get_range(shard, start, stop) for start, stop in ranges)


def _is_aligned(box: Box, chunks: Shape) -> bool:
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


def _split(meta: ArrayMeta, box: Box) -> dict[Shape, list[_Piece]]:
    """Cut a box into pieces of chunks, by the corner of their shard."""
    shards: dict[Shape, list[_Piece]] = {}
    for spans in product(*map(_spans, box, meta.chunks, meta.grid, meta.steps)):
        corner, numbers, target, inside = zip(*spans, strict=True)
        shards.setdefault(corner, []).append((sum(numbers), target, inside))
    return shards


def _located(pieces: list[_Piece], index: _Index, shard: str) -> list[_Located]:
    """Look pieces up in the index; return them in the order in which they lie."""
    located = []
    for piece in pieces:
        start, size = index.entries[2 * piece[0] : 2 * piece[0] + 2]
        if start == ABSENT:
            raise ReadError(f"shard {shard} lacks chunk {piece[0]}; {REPAIR}")
        located.append((start, start + size, piece))
    return sorted(located)


def _runs(located: list[_Located], max_gap: int) -> list[list[_Located]]:
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


def _received(data: Any, size: int, shard: str) -> Array:
    """Return the bytes that storage gave, if they are as many as were asked for."""
    buffer = np.frombuffer(data, np.uint8)
    if buffer.size == size:
        return buffer
    cut = f"shard {shard} is cut short: {buffer.size} of {size} bytes came"
    raise ReadError(f"{cut}; {REPAIR}")


def _is_intact(data: Array) -> bool:
    return data[-CRC_BYTES:].tobytes() == _crc(data[:-CRC_BYTES])


def _check_chunk(chunk: Array, meta: ArrayMeta, name: str) -> None:
    """Refuse a wrong checksum, or a wrong size: blosc trusts its own header."""
    if not _is_intact(chunk):
        raise ReadError(f"{name} is damaged; {REPAIR}")
    nbytes = prod(meta.chunks) * meta.dtype.itemsize
    header = chunk[: BLOSC_HEADER.size].tobytes().ljust(BLOSC_HEADER.size)
    sizes = BLOSC_HEADER.unpack(header) if meta.compressed else (nbytes, nbytes)
    if sizes != (nbytes, chunk.size - CRC_BYTES):
        raise ReadError(f"{name} does not hold {nbytes} bytes; {REPAIR}")


def _decode(payload: Array, meta: ArrayMeta) -> Array:
    data = blosc.decompress(payload) if meta.compressed else payload
    return np.frombuffer(data, meta.dtype).reshape(meta.chunks)


def _place(payload: Array, meta: ArrayMeta, target: Array, inside: Box) -> None:
    """Decode a chunk into its place: at once where that is whole."""
    is_whole = target.shape == meta.chunks and target.flags.c_contiguous
    if is_whole and meta.compressed:
        blosc.decompress(payload, target)
    else:
        target[...] = _decode(payload, meta)[inside]
