"""Reads boxes out of shards. Storage is injected."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from dicomdask.errors import ReadError
from dicomdask.shards.boxes import Located, is_aligned, join_runs, locate, split
from dicomdask.shards.codec import (
    CRC_BYTES,
    ENTRY_BYTES,
    check_chunk,
    decode,
    is_intact,
    place,
    use_one_thread,
)
from dicomdask.shards.index import Index, Recent
from dicomdask.shards.metadata import REPAIR, Array, ArrayMeta, Box, shard_key

Places = dict[int, list[tuple[Array, Box]]]  # of a chunk: targets, and what goes there
Wanted = dict[str, tuple[ArrayMeta, Places]]  # by shard


class Request(NamedTuple):
    """A box of an array, and where it goes.

    Attributes
    ----------
    path
        The array's path, as storage knows it: shards lie at `path/c/…`.
    meta
        The array's parsed metadata.
    box
        One slice an axis, in elements, with start and stop within the array.
    out
        Of the box's shape. Of another dtype than the array's, values are cast.
    """

    path: str
    meta: ArrayMeta
    box: Box
    out: Array


GetRange = Callable[[str, int, int], Any]
GetRanges = Callable[[str, Sequence[tuple[int, int]]], Sequence[Any]]
GetTail = Callable[[str, int], Any]
_Part = tuple[Array, ArrayMeta, list[tuple[Array, Box]]]  # encoded bytes first


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
        self._indexes = Recent(cache_bytes)

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
        if not meta.compressed and shape == meta.chunks and is_aligned(box, shape):
            [(corner, [(number, _, _)])] = split(meta, box).items()
            places: Places = {number: []}
            parts = self._parts({f"{path}/{shard_key(corner)}": (meta, places)})
            [(payload, _, _)] = parts
            return np.require(decode(payload, meta), requirements=["A", "W"])
        out = np.empty(shape, meta.dtype)
        self.read_many([Request(path, meta, box, out)])
        return out

    def read_many(self, requests: Iterable[Request]) -> None:
        """Read boxes of several arrays, each into its own place.

        A chunk that several of them need is fetched and decoded once.

        Raises
        ------
        ReadError
            If a shard is missing, damaged or cut short, or lacks a chunk. What was read
            before is in place.
        """
        for payload, meta, places in self._parts(_wanted(requests)):
            place(payload, meta, places)

    def _parts(self, wanted: Wanted) -> Iterator[_Part]:
        for shard, (meta, places) in wanted.items():
            try:
                yield from self._shard_parts(shard, meta, places)
            except FileNotFoundError as error:
                raise ReadError(f"shard {shard} is missing; {REPAIR}") from error

    def _shard_parts(
        self, shard: str, meta: ArrayMeta, places: Places
    ) -> Iterator[_Part]:
        index = self._index(shard, prod(meta.grid))
        runs = join_runs(locate(places, index, shard), self._max_gap)
        for run, data in zip(runs, self._fetch(shard, runs), strict=True):
            first, end = run[0][0], run[-1][1]
            buffer = _received(data, end - first, shard)
            for start, stop, number in run:
                chunk = buffer[start - first : stop - first]
                if not index.checked[number]:
                    check_chunk(chunk, meta, f"chunk {number} of shard {shard}")
                    index.checked[number] = 1
                yield chunk[:-CRC_BYTES], meta, places[number]

    def _index(self, shard: str, n_chunks: int) -> Index:
        index = self._indexes.get(shard)
        if index is None:
            use_one_thread()
            size = n_chunks * ENTRY_BYTES + CRC_BYTES
            tail = _received(self._get_tail(shard, size), size, shard)
            if not is_intact(tail):
                raise ReadError(f"the index of shard {shard} is damaged; {REPAIR}")
            entries = tail[:-CRC_BYTES].view("<u8").astype(np.uint64)
            index = Index(entries.data, bytearray(n_chunks))
            self._indexes.put(shard, index)
        return index

    def _fetch(self, shard: str, runs: list[list[Located]]) -> Iterable[Any]:
        ranges = [(run[0][0], run[-1][1]) for run in runs]
        if self._get_ranges is not None and len(ranges) > 1:
            return self._get_ranges(shard, ranges)
        return (self._get_range(shard, start, stop) for start, stop in ranges)


def _wanted(requests: Iterable[Request]) -> Wanted:
    """Group what is wanted by shard and chunk."""
    wanted: Wanted = {}
    for path, meta, box, out in requests:
        for corner, pieces in split(meta, box).items() if out.size else ():
            shard = f"{path}/{shard_key(corner)}"
            _, places = wanted.setdefault(shard, (meta, {}))
            for number, target, inside in pieces:
                places.setdefault(number, []).append((out[target], inside))
    return wanted


def _received(data: Any, size: int, shard: str) -> Array:
    """Return the bytes that storage gave, if they are as many as were asked for."""
    buffer = np.frombuffer(data, np.uint8)
    if buffer.size == size:
        return buffer
    cut = f"shard {shard} is cut short: {buffer.size} of {size} bytes came"
    raise ReadError(f"{cut}; {REPAIR}")
