"""Reads boxes out of shards. Storage is injected."""

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from math import prod
from typing import Any, NamedTuple, Protocol

import numpy as np

from dicomdask.errors import ShardError
from dicomdask.shards.boxes import split
from dicomdask.shards.codec import (
    CRC_BYTES,
    Places,
    check_chunk,
    check_sum,
    copy_into,
    decode,
    place,
    use_one_thread,
    whole_target,
)
from dicomdask.shards.index import (
    Index,
    Located,
    index_bytes,
    join_runs,
    locate,
    parse_index,
)
from dicomdask.shards.metadata import (
    REPAIR,
    Array,
    ArrayMeta,
    Box,
    shard_error,
    shard_key,
)
from dicomdask.shards.recent import Recent
from dicomdask.shards.threads import in_threads

Buffer = bytes | memoryview
JOB_BYTES = 1 << 20
"""What one thread decodes at a time, in decoded bytes, but at least a chunk."""

DISTANT_GAP = 64 << 10
"""Takes less time to fetch than another round trip."""
MOST_BUFFERS = 256
"""So many pairs of buffers are filled by one call; the system takes 1024."""

Wanted = dict[str, tuple[ArrayMeta, dict[int, Places]]]  # by shard and chunk


class Source(Protocol):
    """Where the bytes of shards come from.

    All methods raise `FileNotFoundError` where there is no object, with its path as
    `filename`.
    """

    @property
    def is_distant(self) -> bool:
        """Whether a range costs a round trip, so that few and large ones are better."""

    def get_range(self, path: str, start: int, stop: int) -> Buffer:
        """Return these bytes of an object; fewer where it ends before."""

    def read_into(self, path: str, start: int, buffers: Sequence[Any]) -> int:
        """Fill writable buffers one after the other; return how many bytes came.

        Only called where the source is not distant.
        """

    def get_many(
        self, wanted: Sequence[tuple[str, int, int | None]]
    ) -> Iterator[tuple[int, Buffer]]:
        """Yield the number and the bytes of each range, in any order.

        A range is a path, start and stop; the last n bytes are a path, -n and None.
        """


class Kept(Protocol):
    """Ranges that were fetched before and are at hand, such as on a local disk."""

    def get(self, path: str, start: int, stop: int | None) -> memoryview | None:
        """Return the bytes of a range of `Source.get_many`, as they were put."""

    def put(self, path: str, start: int, stop: int | None, data: Any) -> None:
        """Keep the bytes of a range."""


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


class _Run(NamedTuple):
    """Chunks of one shard that are fetched together."""

    shard: str
    meta: ArrayMeta
    checked: bytearray
    chunks: list[Located]
    places: dict[int, Places]

    @property
    def wanted(self) -> tuple[str, int, int]:
        return self.shard, self.chunks[0][0], self.chunks[-1][1]


class _Job(NamedTuple):
    """A chunk as it is stored, and where it goes."""

    shard: str
    number: int
    meta: ArrayMeta
    checked: bytearray
    data: Array
    places: Places
    start: int | None
    """Where it lies, if it was fetched just now."""


class ShardReader:
    """Reads boxes out of sharded arrays with as few ranged reads as can be.

    A shard's index is fetched once; each run of adjacent chunks is one more range. A
    chunk's checksum is verified at its first read. Pickling leaves the caches behind.

    Parameters
    ----------
    source
        Gives the bytes.
    max_gap
        Chunks with at most this many bytes between them are fetched as one range; by
        default `DISTANT_GAP` where the source is distant, else none.
    index_bytes
        Bounds the memory that cached indexes take.
    cache_bytes
        Bounds the memory that decoded chunks take which are kept for later reads.
    kept
        Holds what was fetched, as it is stored, for later reads and other processes.
    """

    def __init__(
        self,
        source: Source,
        *,
        max_gap: int | None = None,
        index_bytes: int = 64 << 20,
        cache_bytes: int = 0,
        kept: Kept | None = None,
    ) -> None:
        self._source, self._kept = source, kept
        self._max_gap = DISTANT_GAP * source.is_distant if max_gap is None else max_gap
        self._indexes: Recent[Index] = Recent(index_bytes)
        self._chunks: Recent[Array] = Recent(cache_bytes)

    @property
    def cache_bytes(self) -> int:
        """How many bytes of decoded chunks are kept at most."""
        return self._chunks.budget

    def with_cache(self, cache_bytes: int) -> "ShardReader":
        """Return this reader with another cache of decoded chunks, empty still."""
        other = copy(self)
        other._chunks = Recent(cache_bytes)
        return other

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
        ShardError
            If a shard is missing, damaged or cut short, or lacks a chunk.
        """
        shape = tuple([piece.stop - piece.start for piece in box])
        out = np.empty(shape, meta.dtype)
        self.read_many([Request(path, meta, box, out)])
        return out

    def read_many(self, requests: Iterable[Request]) -> None:
        """Read boxes of several arrays, each into its own place.

        A chunk that several of them need is fetched and decoded once.

        Raises
        ------
        ShardError
            If a shard is missing, damaged or cut short, or lacks a chunk. What was read
            before is in place.
        """
        wanted = _wanted(requests)
        nbytes = sum(len(chunks) * meta.nbytes for meta, chunks in wanted.values())
        try:
            in_threads(self._deliver, self._jobs(wanted), nbytes)
        except FileNotFoundError as error:
            shard = error.filename
            raise shard_error(shard, f"shard {shard} is missing; {REPAIR}") from error

    def _jobs(self, wanted: Wanted) -> Iterator[list[_Job]]:
        """Yield chunks to be decoded one after the other; fetch what is not at hand."""
        runs: list[_Run] = []
        indexes = self._indexes_of(wanted)
        for shard, (meta, chunks) in wanted.items():
            index = indexes[shard]
            if self._chunks.budget:
                chunks = self._without_decoded(shard, chunks)
            located = locate(chunks, index, shard)
            if self._kept is not None:
                at_hand = self._find(shard, located)
                located = [one for one in located if one[2] not in at_hand]
                for n, data in at_hand.items():
                    yield [_Job(shard, n, meta, index.checked, data, chunks[n], None)]
            runs += [
                _Run(shard, meta, index.checked, run, chunks)
                for run in join_runs(located, self._max_gap)
            ]
        if not (self._source.is_distant or self._chunks.budget or self._kept):
            runs = [run for run in runs if not self._read_into_place(run)]
        if runs:
            yield from self._fetch(runs)

    def _without_decoded(
        self, shard: str, chunks: dict[int, Places]
    ) -> dict[int, Places]:
        left = {}
        for number, places in chunks.items():
            chunk = self._chunks.get((shard, number))
            if chunk is None:
                left[number] = places
            else:
                copy_into(places, chunk)
        return left

    def _indexes_of(self, wanted: Wanted) -> dict[str, Index]:
        """Return the indexes of shards; those not known are fetched at once."""
        found, missing = {}, []
        for shard, (meta, _) in wanted.items():
            index = self._indexes.get(shard)
            if index is None:
                missing.append((shard, index_bytes(prod(meta.grid))))
            else:
                found[shard] = index
        if missing:
            use_one_thread()
            for shard, tail, is_new in self._tails(missing):
                index = parse_index(tail, shard)
                self._indexes.put(shard, index, index.nbytes)
                found[shard] = index
                if is_new and self._kept is not None:
                    self._kept.put(shard, -tail.size, None, tail)
        return found

    def _tails(
        self, missing: Sequence[tuple[str, int]]
    ) -> Iterator[tuple[str, Array, bool]]:
        """Yield the tails of shards, and whether they were fetched just now."""
        left = []
        for shard, size in missing:
            data = self._kept and self._kept.get(shard, -size, None)
            if data:
                yield shard, _received(data, size, shard), False
            else:
                left.append((shard, -size, None))
        for number, got in self._source.get_many(left) if left else ():
            shard, size, _ = left[number]
            yield shard, _received(got, -size, shard), True

    def _find(self, shard: str, located: Iterable[Located]) -> dict[int, Array]:
        """Return chunks that are kept, by number."""
        found = {}
        for start, stop, number in located:
            data = self._kept and self._kept.get(shard, start, stop)
            if data:
                found[number] = _received(data, stop - start, shard)
        return found

    def _read_into_place(self, run: _Run) -> bool:
        """Read whole uncompressed chunks to where they go; return whether they are."""
        shard, meta, checked, located, places = run
        if meta.compressed or len(located) > MOST_BUFFERS:
            return False
        targets = []
        for start, stop, number in located:
            target = whole_target(places[number], meta)
            if target is None or stop - start != meta.nbytes + CRC_BYTES:
                return False
            targets.append(target)
        sums = [bytearray(CRC_BYTES) for _ in located]
        buffers = [one for pair in zip(targets, sums, strict=True) for one in pair]
        size = located[-1][1] - located[0][0]
        found = self._source.read_into(shard, located[0][0], buffers)
        if found != size:
            raise _cut_short(shard, found, size)
        for (_, _, number), target, crc in zip(located, targets, sums, strict=True):
            if not checked[number]:
                check_sum(target, crc, number, shard)
                checked[number] = 1
        return True

    def _fetch(self, runs: Sequence[_Run]) -> Iterator[list[_Job]]:
        """Yield what comes of each run: chunks, to be decoded one after the other."""
        for number, data in self._source.get_many([run.wanted for run in runs]):
            shard, meta, checked, located, places = runs[number]
            first = located[0][0]
            buffer = _received(data, located[-1][1] - first, shard)
            jobs = [
                _Job(
                    shard, n, meta, checked, buffer[a - first : b - first], places[n], a
                )
                for a, b, n in located
            ]
            step = max(1, JOB_BYTES // meta.nbytes)
            for at in range(0, len(jobs), step):
                yield jobs[at : at + step]

    def _deliver(self, jobs: Sequence[_Job]) -> None:
        """Check chunks that were never read, decode them, and put them in place."""
        for shard, number, meta, checked, data, places, start in jobs:
            is_to_keep = self._kept is not None and start is not None
            if is_to_keep or not checked[number]:
                check_chunk(data, meta, number, shard)
                checked[number] = 1
            if self._kept is not None and start is not None:
                self._kept.put(shard, start, start + data.size, data)
            payload = data[:-CRC_BYTES]
            if self._chunks.budget:
                chunk = decode(payload, meta)
                if not meta.compressed:  # else it would hold all that came with it
                    chunk = chunk.copy()
                self._chunks.put((shard, number), chunk, chunk.nbytes)
                copy_into(places, chunk)
            else:
                place(payload, meta, places)


def _wanted(requests: Iterable[Request]) -> Wanted:
    """Group what is wanted by shard and chunk."""
    wanted: Wanted = {}
    for path, meta, box, out in requests:
        for corner, pieces in split(meta, box).items() if out.size else ():
            shard = f"{path}/{shard_key(corner)}"
            _, chunks = wanted.setdefault(shard, (meta, {}))
            for number, target, inside in pieces:
                chunks.setdefault(number, []).append((out[target], inside))
    return wanted


def _received(data: Buffer, size: int, shard: str) -> Array:
    """Return the bytes that storage gave, if they are as many as were asked for."""
    buffer = np.frombuffer(data, np.uint8)
    if buffer.size != size:
        raise _cut_short(shard, buffer.size, size)
    return buffer


def _cut_short(shard: str, found: int, size: int) -> ShardError:
    cut = f"shard {shard} is cut short: {found} of {size} bytes came"
    return shard_error(shard, f"{cut}; {REPAIR}")
