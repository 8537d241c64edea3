"""Reads boxes out of shards. Storage is injected."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from math import prod

import numpy as np

from dicomdask.shards.boxes import only_piece
from dicomdask.shards.codec import (
    CRC_BYTES,
    check_chunk,
    copy_into,
    decode,
    place,
    use_one_thread,
)
from dicomdask.shards.direct import Direct
from dicomdask.shards.index import (
    Index,
    Located,
    index_bytes,
    join_runs,
    locate,
    parse_index,
)
from dicomdask.shards.metadata import (
    Array,
    ArrayMeta,
    Box,
    Shape,
    shard_key,
)
from dicomdask.shards.recent import Recent
from dicomdask.shards.rows import Places
from dicomdask.shards.scratch import Scratch
from dicomdask.shards.seams import Kept, Source
from dicomdask.shards.threads import pays, run_in_threads
from dicomdask.shards.wanted import (
    Job,
    Key,
    Request,
    Run,
    Wanted,
    group,
    jobs_of,
    missing,
    received,
)

JOB_BYTES = 1 << 20
"""What one thread decodes at a time, in decoded bytes, but at least a chunk."""

DISTANT_GAP = 64 << 10
"""Takes less time to fetch than another round trip."""


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
        self._is_distant = source.is_distant
        self._max_gap = DISTANT_GAP * self._is_distant if max_gap is None else max_gap
        self._indexes: Recent[Index] = Recent(index_bytes)
        self._chunks: Recent[Array] = Recent(cache_bytes)
        self._scratch = Scratch()
        self._direct = Direct(source, self._scratch)
        self._keeps = self._keeps_bytes()

    def _keeps_bytes(self) -> bool:
        """Return whether what is read stays for later reads."""
        return bool(self._chunks.budget or self._kept)

    @property
    def _is_direct(self) -> bool:
        """Whether bytes come from this machine and stay nowhere else."""
        return not (self._is_distant or self._keeps)

    @property
    def cache_bytes(self) -> int:
        """How many bytes of decoded chunks are kept at most."""
        return self._chunks.budget

    def with_cache(self, cache_bytes: int) -> "ShardReader":
        """Return this reader with another cache of decoded chunks, empty still."""
        other = copy(self)
        other._chunks = Recent(cache_bytes)
        other._keeps = other._keeps_bytes()
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
        piece = only_piece(meta, box) if out.size and not self._keeps else None
        if piece is None:
            self.read_many([Request(path, meta, box, out)])
            return out
        try:
            self._read_piece(path, meta, out, *piece)
        except FileNotFoundError as error:
            raise missing(error) from error
        return out

    def _read_piece(
        self,
        path: str,
        meta: ArrayMeta,
        out: Array,
        corner: Shape,
        number: int,
        inside: Box,
    ) -> None:
        """Read what lies in one chunk: what `read_many` does, in fewer steps."""
        key = path, corner
        index = self._indexes.get(key)
        if index is None:
            index = self._indexes_of({key: (meta, {})})[key]
        start, stop = index.bounds(number)
        places = [(out, inside)]
        if self._is_distant:
            [(_, got)] = self._source.get_many([(index.shard, start, stop)])
            data = received(got, stop - start, index.shard)
            self._deliver_one((index, meta, number, data, places, None))
            return
        if not meta.compressed:
            located = [(start, stop, number)]
            if self._direct.read_into_place(
                Run(index, meta, located, {number: places})
            ):
                return
            if self._direct.read_rows(index, meta, start, number, places):
                return
        buffer = self._scratch.take(stop - start)
        try:
            data = buffer[: stop - start]
            self._direct.fill(index.shard, start, data)
            self._deliver_one((index, meta, number, data, places, None))
        finally:
            self._scratch.give(buffer)

    def read_many(self, requests: Iterable[Request]) -> None:
        """Read boxes of several arrays, each into its own place.

        A chunk that several of them need is fetched and decoded once.

        Raises
        ------
        ShardError
            If a shard is missing, damaged or cut short, or lacks a chunk. What was read
            before is in place.
        """
        wanted = group(requests)
        sizes = [
            meta.nbytes * len(chunks) * meta.compressed
            for meta, chunks in wanted.values()
        ]
        in_threads = pays(sum(sizes))
        jobs = self._jobs(wanted, in_threads=in_threads)
        try:
            if in_threads:
                run_in_threads(self._deliver, jobs)
            else:
                for some in jobs:
                    self._deliver(some)
        except FileNotFoundError as error:
            raise missing(error) from error

    def _jobs(self, wanted: Wanted, *, in_threads: bool) -> Iterator[list[Job]]:
        """Yield chunks to be decoded one after the other; fetch what is not at hand."""
        runs: list[Run] = []
        indexes = self._indexes_of(wanted)
        for key, (meta, chunks) in wanted.items():
            index = indexes[key]
            if self._chunks.budget:
                chunks = self._without_decoded(index, chunks)
            located = locate(chunks, index)
            if self._kept is not None:
                at_hand = self._find(index, located)
                located = [one for one in located if one[2] not in at_hand]
                for number, data in at_hand.items():
                    yield [(index, meta, number, data, chunks[number], None)]
            runs += [
                Run(index, meta, run, chunks)
                for run in join_runs(located, self._max_gap)
            ]
        if self._is_direct:
            runs = [run for run in runs if not self._direct.read_into_place(run)]
            runs = [left for run in runs for left in self._without_rows(run)]
        if runs and (in_threads or self._is_distant):
            yield from self._fetch(runs)
        else:
            yield from self._fetch_in_turn(runs)

    def _without_decoded(
        self, index: Index, chunks: dict[int, Places]
    ) -> dict[int, Places]:
        left = {}
        for number, places in chunks.items():
            chunk = self._chunks.get((index.shard, number))
            if chunk is None:
                left[number] = places
            else:
                copy_into(places, chunk)
        return left

    def _indexes_of(self, wanted: Wanted) -> dict[Key, Index]:
        """Return the indexes of shards; those not known are fetched at once."""
        found, unknown = {}, {}
        for key, (meta, _) in wanted.items():
            index = self._indexes.get(key)
            if index is None:
                path, corner = key
                unknown[f"{path}/{shard_key(corner)}"] = key, meta
            else:
                found[key] = index
        for shard, tail, is_new in self._tails(unknown):
            use_one_thread()
            key, _ = unknown[shard]
            found[key] = index = parse_index(tail, shard)
            self._indexes.put(key, index, index.nbytes)
            if is_new and self._kept is not None:
                self._kept.put(shard, -tail.size, None, tail)
        return found

    def _tails(
        self, unknown: Mapping[str, tuple[Key, ArrayMeta]]
    ) -> Iterator[tuple[str, Array, bool]]:
        """Yield the tails of shards, and whether they were fetched just now."""
        left = []
        for shard, (_, meta) in unknown.items():
            size = index_bytes(prod(meta.grid))
            data = self._kept and self._kept.get(shard, -size, None)
            if data:
                yield shard, received(data, size, shard), False
            else:
                left.append((shard, -size, None))
        for number, got in self._source.get_many(left) if left else ():
            shard, size, _ = left[number]
            yield shard, received(got, -size, shard), True

    def _find(self, index: Index, located: Iterable[Located]) -> dict[int, Array]:
        """Return chunks that are kept, by number."""
        found = {}
        for start, stop, number in located:
            data = self._kept and self._kept.get(index.shard, start, stop)
            if data:
                found[number] = received(data, stop - start, index.shard)
        return found

    def _without_rows(self, run: Run) -> Iterator[Run]:
        """Read chunks of which few rows are wanted; yield runs of the others."""
        left = self._direct.without_rows(run)
        if left is run.chunks:
            yield run
            return
        for chunks in join_runs(left, self._max_gap):
            yield Run(run.of, run.meta, chunks, run.places)

    def _fetch(self, runs: Sequence[Run]) -> Iterator[list[Job]]:
        """Yield what comes of each run, in pieces for a thread each."""
        for number, data in self._source.get_many([run.wanted for run in runs]):
            run = runs[number]
            shard, start, stop = run.wanted
            jobs = jobs_of(run, received(data, stop - start, shard))
            step = max(1, JOB_BYTES // run.meta.nbytes)
            for at in range(0, len(jobs), step):
                yield jobs[at : at + step]

    def _fetch_in_turn(self, runs: Iterable[Run]) -> Iterator[list[Job]]:
        """Yield what comes of each run; it is gone when the next is asked for."""
        for run in runs:
            shard, start, stop = run.wanted
            buffer = self._scratch.take(stop - start)
            try:
                data = buffer[: stop - start]
                self._direct.fill(shard, start, data)
                yield jobs_of(run, data)
            finally:
                self._scratch.give(buffer)

    def _deliver(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            self._deliver_one(job)

    def _deliver_one(self, job: Job) -> None:
        """Check a chunk that was never read, decode it, and put it in place."""
        index, meta, number, data, places, start = job
        shard = index.shard
        is_to_keep = self._kept is not None and start is not None
        if is_to_keep or not index.checked[number]:
            check_chunk(data, meta, number, shard)
            index.checked[number] = 1
        if self._kept is not None and start is not None:
            self._kept.put(shard, start, start + data.size, data)
        payload = data[:-CRC_BYTES]
        if not self._chunks.budget:
            place(payload, meta, places)
            return
        chunk = decode(payload, meta)
        if not meta.compressed:  # else it would hold all that came with it
            chunk = chunk.copy()
        self._chunks.put((shard, number), chunk, chunk.nbytes)
        copy_into(places, chunk)
