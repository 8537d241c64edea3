"""What is wanted of shards, and what came of it."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from dicomdask.errors import ShardError
from dicomdask.shards.boxes import split
from dicomdask.shards.index import Index, Located
from dicomdask.shards.metadata import (
    REPAIR,
    Array,
    ArrayMeta,
    Box,
    Shape,
    shard_error,
)
from dicomdask.shards.rows import Places
from dicomdask.shards.seams import Buffer

Key = tuple[str, Shape]  # an array's path and the corner of a shard
Wanted = dict[Key, tuple[ArrayMeta, dict[int, Places]]]  # by shard and chunk


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


class Run(NamedTuple):
    """Chunks of one shard that are fetched together."""

    of: Index
    meta: ArrayMeta
    chunks: list[Located]
    places: dict[int, Places]

    @property
    def wanted(self) -> tuple[str, int, int]:
        """The shard, and the range of it."""
        return self.of.shard, self.chunks[0][0], self.chunks[-1][1]


Job = tuple[Index, ArrayMeta, int, Array, Places, int | None]
"""A chunk's number, its bytes and where they go; where it lay, if fetched just now."""


def group(requests: Iterable[Request]) -> Wanted:
    """Group what is wanted by shard and chunk."""
    wanted: Wanted = {}
    for path, meta, box, out in requests:
        for corner, pieces in split(meta, box).items() if out.size else ():
            _, chunks = wanted.setdefault((path, corner), (meta, {}))
            for number, target, inside in pieces:
                places = chunks.get(number)
                if places is None:
                    chunks[number] = [(out[target], inside)]
                else:
                    places.append((out[target], inside))
    return wanted


def jobs_of(run: Run, data: Array) -> list[Job]:
    """Cut what came of a run into its chunks."""
    index, meta, located, places = run
    first = located[0][0]
    return [
        (index, meta, number, data[a - first : b - first], places[number], a)
        for a, b, number in located
    ]


def missing(error: FileNotFoundError) -> ShardError:
    """Return the error of a shard that is not there."""
    shard = error.filename
    return shard_error(shard, f"shard {shard} is missing; {REPAIR}")


def received(data: Buffer, size: int, shard: str) -> Array:
    """Return the bytes that storage gave, if they are as many as were asked for."""
    buffer = np.frombuffer(data, np.uint8)
    if buffer.size != size:
        raise cut_short(shard, buffer.size, size)
    return buffer


def cut_short(shard: str, found: int, size: int) -> ShardError:
    """Return the error of a shard of which fewer bytes came than were asked for."""
    cut = f"shard {shard} is cut short: {found} of {size} bytes came"
    return shard_error(shard, f"{cut}; {REPAIR}")
