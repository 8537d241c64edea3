"""Places: in which bucket a file or an instance was seen before.

The index is cut by series. What concerns a file that changed, or two copies of one
instance, may lie in several series; so the index also writes, for each file and each
instance, 8 bytes of a keyed digest and the number of a bucket, sorted. To look some up
costs a few ranges of each run; runs of like size are merged, so they stay few.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any, Final

import numpy as np

from dicomdask import plan, storage
from dicomdask.model import Instance
from dicomdask.pseudonym import Key
from dicomdask.work import Work

Records = np.ndarray[Any, np.dtype[Any]]
Digests = np.ndarray[Any, np.dtype[np.uint64]]

RECORD: Final = np.dtype([("digest", "<u8"), ("bucket", "<u2")])
NOWHERE: Final = 0xFFFF
"""The bucket of a file that is no instance."""
BUCKET_DIGITS: Final = 3
BLOCK: Final = 4096
"""So many records are read at least."""
MOST: Final = 256 * BLOCK
"""So many records are held at most."""
FACTOR: Final = 4
"""So many runs of one size are merged into one of the next."""


def bucket_of(instance: Instance, key: Key) -> str:
    """Return the name of the bucket of an instance's series.

    There are 4096, in the order of the series' keys.
    """
    return plan.series_key(instance, key)[:BUCKET_DIGITS]


def bucket_name(number: int) -> str:
    """Return the name of the bucket with this number."""
    return f"{number:0{BUCKET_DIGITS}x}"


def file_digest(source_key: str) -> int:
    """Return the digest of a file."""
    return int(source_key[:16], 16)


def instance_digest(sop_instance_uid: str, key: Key) -> int:
    """Return the digest of an instance."""
    return int(key.digest("instance", sop_instance_uid, nbytes=8), 16)


def records_of(
    instances: Iterable[Instance], others: Iterable[str], key: Key
) -> Records:
    """Return the records of one part of the manifest.

    Parameters
    ----------
    instances
        Those of its files that are instances.
    others
        The source keys of its other files.
    """
    rows = [(file_digest(name), NOWHERE) for name in others]
    for one in instances:
        bucket = int(bucket_of(one, key), 16)
        uid = instance_digest(one.sop_instance_uid, key)
        rows.append((file_digest(plan.source_key(one.url, key)), bucket))
        rows.append((uid, bucket))
    return np.sort(np.array(rows, RECORD))


def write(work: Work, part: str, records: Records) -> str:
    """Write one run; return its name."""
    name = f"{part}-{len(records)}.bin"
    work.write_places(name, records.tobytes())
    return name


def read_parts(work: Work, parts: Sequence[str]) -> Records:
    """Return the records of some parts of the manifest, as far as none was merged."""
    chosen = set(parts)
    return _concat(
        _from_bytes(storage.read(work.path("places", name)))
        for name, (newest, _) in _runs(work).items()
        if newest in chosen
    )


def find(work: Work, digests: Iterable[int]) -> Records:
    """Return all records with one of some digests."""
    return _find(work, np.unique(np.fromiter(digests, np.uint64)), _runs(work))


def find_others(work: Work, fresh: Records, parts: Sequence[str]) -> Records:
    """Return the records of other parts that share a digest with those of some parts.

    Parameters
    ----------
    fresh
        The records of `parts`, as `read_parts` returns them.
    """
    chosen = set(parts)
    others = {name: run for name, run in _runs(work).items() if run[0] not in chosen}
    return _find(work, np.unique(fresh["digest"]), others)


def _find(work: Work, wanted: Digests, runs: Mapping[str, tuple[str, int]]) -> Records:
    if not len(wanted):
        return np.empty(0, RECORD)
    ranges = storage.Ranges(work.path("places"))
    found = (_Run(ranges, name, n).find(wanted) for name, (_, n) in runs.items())
    return _concat(piece for pieces in found for piece in pieces)


def merge(work: Work, parts: Iterable[str]) -> None:
    """Merge runs of some parts of the manifest while several are of one size."""
    chosen = set(parts)
    while True:
        sizes: dict[int, list[str]] = defaultdict(list)
        for name, (newest, n) in _runs(work).items():
            if newest in chosen:
                sizes[(n.bit_length() - 1) // 2].append(name)
        many = [names for _, names in sorted(sizes.items()) if len(names) >= FACTOR]
        if not many:
            return
        names = sorted(many[0])
        urls = [work.path("places", name) for name in names]
        found = _concat(_from_bytes(storage.read(url)) for url in urls)
        newest = names[-1].split("-")[0]
        merged = write(work, newest, np.sort(found))
        for name, url in zip(names, urls, strict=True):
            if name != merged:
                storage.remove(url)


def remove(work: Work, name: str, gone: Records) -> None:
    """Take records out of one run."""
    found = _from_bytes(storage.read(work.path("places", name)))
    left = found[~np.isin(found, gone)]
    if len(left) == len(found):
        return
    part = name.rpartition("-")[0]
    if len(left):
        write(work, part, left)
    storage.remove(work.path("places", name))


def _runs(work: Work) -> dict[str, tuple[str, int]]:
    """Return the runs by name: the newest part in each, and its number of records."""
    found = {}
    for name in storage.list_names(work.path("places")):
        part, _, n = name.removesuffix(".bin").rpartition("-")
        if part and n.isdecimal():
            found[name] = (part, int(n))
    return found


@dataclass(frozen=True, slots=True)
class _Run:
    """A sorted run of `n` records, of which pieces are read."""

    ranges: storage.Ranges
    name: str
    n: int

    def find(self, wanted: Digests) -> Iterator[Records]:
        """Yield the records with one of some sorted digests, piece by piece."""
        for start, stop in self._spans(wanted):
            for first in range(start, stop, MOST):
                found = self._read(first, min(first + MOST, stop))
                yield found[_is_among(found["digest"], wanted)]

    def _spans(self, wanted: Digests) -> list[tuple[int, int]]:
        """Return which records to read: digests are spread evenly over a run.

        The rank of one is off by sqrt(n) / 2 in the mean. Where so many are wanted that
        their spans would cover the run, it is read as a whole.
        """
        margin = 4 * isqrt(self.n) + 1
        if len(wanted) * (2 * margin + BLOCK) >= self.n:
            return [(0, self.n)]
        middles = (wanted / 2.0**64 * self.n).astype(np.int64)
        spans: list[tuple[int, int]] = []
        for digest, middle in zip(wanted.tolist(), middles.tolist(), strict=True):
            start = max(0, middle - margin) // BLOCK * BLOCK
            stop = min(self.n, (middle + margin) // BLOCK * BLOCK + BLOCK)
            start, stop = self._widen(start, stop, digest)
            if spans and start <= spans[-1][1]:
                start, stop = spans[-1][0], max(stop, spans.pop()[1])
            spans.append((start, stop))
        return spans

    def _widen(self, start: int, stop: int, digest: int) -> tuple[int, int]:
        """Return a span that holds a digest for sure."""
        while start > 0 and self._read(start, start + 1)["digest"][0] >= digest:
            start = max(0, start - BLOCK)
        while stop < self.n and self._read(stop - 1, stop)["digest"][0] <= digest:
            stop = min(self.n, stop + BLOCK)
        return start, stop

    def _read(self, start: int, stop: int) -> Records:
        size = RECORD.itemsize
        return _from_bytes(self.ranges.get_range(self.name, start * size, stop * size))


def _is_among(digests: Digests, wanted: Digests) -> Any:
    """Return which digests are wanted; those are sorted, and not none."""
    ranks = np.searchsorted(wanted, digests)
    ranks[ranks == len(wanted)] = 0
    return wanted[ranks] == digests


def _from_bytes(data: Any) -> Records:
    return np.frombuffer(data, RECORD)


def _concat(parts: Iterable[Records]) -> Records:
    return np.concatenate([np.empty(0, RECORD), *parts])


def names_of(records: Records) -> set[str]:
    """Return the names of the buckets that some records lie in."""
    numbers: Sequence[int] = np.unique(records["bucket"]).tolist()
    return {bucket_name(number) for number in numbers if number != NOWHERE}
