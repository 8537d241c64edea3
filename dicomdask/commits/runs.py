"""Runs: the sorted pieces of a table, merged when several are of like size."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final

from dicomdask import storage, tables
from dicomdask.commits.parts import (
    ABOVE_ALL,
    TablePart,
    read_part,
    sweep,
    write_part,
)

PART_ROWS: Final = {
    "volumes": 1 << 12,
    "frames": 1 << 16,
    "instances": 1 << 14,
    "inputs": 1 << 16,
    "fingerprints": 1 << 9,
    "redactions": 1 << 16,
}
"""The rows of a full part: a few MB, since a series that goes rewrites one."""
FACTOR: Final = 4
"""So many runs of one size are merged into one of the next."""

Parts = tuple[TablePart, ...]


def next_parts(
    store: str,
    before: Mapping[str, Parts],
    rows: Iterable[Mapping[str, tables.Table]],
    *,
    dropped_series: frozenset[str],
    dropped_sources: frozenset[str],
) -> dict[str, Parts]:
    """Write the parts that make the next state of all tables, and name all its parts.

    Parts that nothing leaves are kept, unless their run is merged with others.
    """
    numbers = {name: _next_run(before.get(name, ())) for name in tables.SCHEMAS}
    writers = {name: _Writer(store, name, n) for name, n in numbers.items()}
    for batch in rows:
        for name, table in batch.items():
            writers[name].add(table)
    found: dict[str, Parts] = {}
    closed = storage.ahead(_Writer.close, writers.values(), is_remote=lambda _: True)
    for name, (_, written) in zip(writers, closed, strict=True):
        dropped = dropped_sources if name == "inputs" else dropped_series
        kept = list(_drop(store, name, before.get(name, ()), sorted(dropped)))
        found[name] = _merge_alike(store, name, (*kept, *written()))
    return found


def _next_run(parts: Parts) -> int:
    return max((part.run for part in parts if part.run is not None), default=-1) + 1


def _drop(
    store: str, name: str, parts: Parts, dropped: Sequence[str]
) -> Iterator[TablePart]:
    """Yield the parts without the rows of some keys; only those with such are read."""
    column = tables.KEYS[name][0]
    for part in parts:
        start, stop = bisect_left(dropped, part.low), bisect_right(dropped, part.high)
        near = dropped[start:stop]
        if not near:
            yield part
            continue
        table = read_part(store, part)
        rest = tables.drop_rows(table, column, near)
        if rest.num_rows == table.num_rows:
            yield part
        elif rest.num_rows:
            yield write_part(store, name, rest, run=part.run)


class _Writer:
    """Writes one run: rows come in the order of their keys, roughly; parts are full."""

    def __init__(self, store: str, name: str, run: int) -> None:
        self._store, self._name, self._run = store, name, run
        self._buffer: list[tables.Table] = []
        self._parts: list[TablePart] = []

    def add(self, table: tables.Table) -> None:
        """Take rows whose keys are not below those of earlier calls."""
        self._buffer.append(table)
        if sum(one.num_rows for one in self._buffer) >= 2 * PART_ROWS[self._name]:
            self._flush(keep=PART_ROWS[self._name])

    def close(self) -> Parts:
        """Write what is left; return all parts."""
        self._flush(keep=0)
        return tuple(self._parts)

    def _flush(self, *, keep: int) -> None:
        """Write full parts until no more than so many rows are left."""
        table = tables.concat(self._name, self._buffer)
        table = tables.sort_keys(self._name, table)
        start, step = 0, PART_ROWS[self._name]
        while table.num_rows - start > keep:
            piece = table.slice(start, step)
            part = write_part(self._store, self._name, piece, run=self._run)
            self._parts.append(part)
            start += step
        self._buffer = [table.slice(start)]


def _merge_alike(store: str, name: str, parts: Parts) -> Parts:
    """Merge the runs of one size when there are several, until no size has many."""
    while True:
        runs = _runs(parts)
        sizes: dict[int, list[Parts]] = defaultdict(list)
        for run in runs:
            sizes[_size(run)].append(run)
        many = [alike for _, alike in sorted(sizes.items()) if len(alike) >= FACTOR]
        if not many:
            return tuple(part for run in runs for part in run)
        merged = tuple(part for run in many[0] for part in run)
        gone = {part.path for part in merged}
        kept = tuple(part for part in parts if part.path not in gone)
        parts = (*kept, *_merge(store, name, merged, _next_run(parts)))


def _runs(parts: Parts) -> list[Parts]:
    """Return the runs among some parts, oldest first, each in the order of its keys."""
    found: dict[tuple[int, str], list[TablePart]] = defaultdict(list)
    for part in parts:
        lone = part.path if part.run is None else ""
        found[-1 if part.run is None else part.run, lone].append(part)
    return [
        tuple(sorted(run, key=lambda part: (part.low, part.high)))
        for _, run in sorted(found.items())
    ]


def _size(run: Parts) -> int:
    rows, size = sum(part.rows for part in run), 0
    while rows >= FACTOR ** (size + 1):
        size += 1
    return size


def _merge(store: str, name: str, parts: Parts, run: int) -> Parts:
    """Write several runs as one, a range of keys at a time."""
    writer = _Writer(store, name, run)
    bounds = sorted({"", ABOVE_ALL, *(part.low for part in parts)})
    for table in sweep(store, name, parts, pairwise(bounds)):
        writer.add(table)
    return writer.close()
