"""Which boxes of a volume are its samples, in blocks that share chunks. Pure.

A sample spans the last axes of its volume and takes one index of each other one; the
axis c, where there is one, is taken whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Protocol

import numpy as np

from dicomdask.errors import BatchError, OptionError
from dicomdask.loaders.order import Integers, uniform

Shape = tuple[int, ...]
Box = tuple[slice, ...]

SPATIAL: Final = "zyx"


@dataclass(frozen=True, slots=True)
class Grid:
    """What a sampler needs of a volume: its axes, how long, and how they are cut.

    Volumes that are cut alike are equal.

    Attributes
    ----------
    volume_id
        As in the volumes table.
    dimensions
        The names of the axes.
    shape, chunks
        In elements, in the order of `dimensions`.
    """

    volume_id: str = field(compare=False)
    dimensions: tuple[str, ...]
    shape: Shape
    chunks: Shape

    def spanned(self, n_axes: int | None) -> tuple[int, ...]:
        """Return the places of the last `n_axes` spatial axes; None is all of them.

        Raises
        ------
        BatchError
            If the volume has not as many.
        """
        places = [i for i, axis in enumerate(self.dimensions) if axis in SPATIAL]
        if n_axes is not None and n_axes > len(places):
            raise BatchError(
                f"volume {self.volume_id} has the axes {', '.join(self.dimensions)}, "
                f"and a sample spans {n_axes}; leave it out with volumes="
            )
        return tuple(places if n_axes is None else places[-n_axes:])


class Sampler(Protocol):
    """A rule that makes samples of volumes."""

    def sizes(self, grid: Grid) -> Integers:
        """Return how many samples each block of a volume has."""

    def box(self, grid: Grid, block: int, place: int, key: int) -> Box:
        """Return where one sample lies.

        Parameters
        ----------
        grid
            The volume.
        block, place
            The number of the block in the volume, and of the sample in the block.
        key
            Decides what is random, alone.
        """

    def shape(self, grid: Grid) -> Shape:
        """Return the elements of a sample along the axes that it spans."""


@dataclass(frozen=True, slots=True)
class Whole:
    """Samples that span their axes whole: slices, or volumes.

    Parameters
    ----------
    n_axes
        How many axes a sample spans: 2 is a slice, None a volume with all of z, y, x.
    size
        Crop or pad to so many elements along them, about the centre; None leaves them.
    """

    n_axes: int | None = None
    size: Shape | None = None

    def __post_init__(self) -> None:
        if self.size is not None:
            _check_size(self.size)
            if self.n_axes not in (None, len(self.size)):
                raise OptionError(f"size has {self.n_axes} numbers, one for each axis")

    def sizes(self, grid: Grid) -> Integers:
        """Return how many samples each block of a volume has."""
        return _cells(self, grid).sizes()

    def box(self, grid: Grid, block: int, place: int, key: int) -> Box:
        """Return where one sample lies."""
        return _cells(self, grid).box(block, place)

    def shape(self, grid: Grid) -> Shape:
        """Return the elements of a sample along the axes that it spans."""
        spanned = grid.spanned(len(self.size) if self.size else self.n_axes)
        return self.size or tuple(grid.shape[axis] for axis in spanned)

    def starts(self, size: int, extent: int, number: int) -> Shape:
        """Return where samples start along the spanned axis of this number."""
        return ((extent - size) // 2,)


@dataclass(frozen=True, slots=True)
class Tiles:
    """Patches on a grid that covers a volume to its edges.

    Parameters
    ----------
    size
        Elements along the last axes.
    overlap
        How many of them two neighbours share at least; the last ones along an axis lie
        at its end, and share more.
    """

    size: Shape
    overlap: Shape

    def __post_init__(self) -> None:
        _check_size(self.size)
        if len(self.overlap) != len(self.size) or any(
            not 0 <= lap < n for lap, n in zip(self.overlap, self.size, strict=True)
        ):
            raise OptionError("the overlap is 0 or more, and less than the size")

    def sizes(self, grid: Grid) -> Integers:
        """Return how many samples each block of a volume has."""
        return _cells(self, grid).sizes()

    def box(self, grid: Grid, block: int, place: int, key: int) -> Box:
        """Return where one sample lies."""
        return _cells(self, grid).box(block, place)

    def shape(self, grid: Grid) -> Shape:
        """Return the elements of a sample along the axes that it spans."""
        return self.size

    def starts(self, size: int, extent: int, number: int) -> Shape:
        """Return where samples start along the spanned axis of this number."""
        last = max(0, extent - size)
        return (*range(0, last, size - self.overlap[number]), last)


@dataclass(frozen=True, slots=True)
class Random:
    """Patches at random places of a volume, each as likely as any other.

    Parameters
    ----------
    size
        Elements along the last axes.
    per_volume
        How many of a volume are drawn in an epoch; they are one block.
    """

    size: Shape
    per_volume: int

    def __post_init__(self) -> None:
        _check_size(self.size)
        if self.per_volume < 1:
            raise OptionError("per_volume is 1 or more")

    def sizes(self, grid: Grid) -> Integers:
        """Return how many samples each block of a volume has."""
        grid.spanned(len(self.size))
        return np.array([self.per_volume])

    def box(self, grid: Grid, block: int, place: int, key: int) -> Box:
        """Return where one sample lies."""
        extents = _extents(grid, grid.spanned(len(self.size)), self.size)
        rooms = [n - size for n, size in zip(grid.shape, extents, strict=True)]
        draws = uniform(key, range(len(rooms)))
        starts = [
            int(draw * (room + 1)) if room >= 0 else room // 2
            for draw, room in zip(draws, rooms, strict=True)
        ]
        return _box(starts, extents)

    def shape(self, grid: Grid) -> Shape:
        """Return the elements of a sample along the axes that it spans."""
        return self.size


@dataclass(frozen=True, slots=True)
class _Cells:
    """Starts along each axis in groups; a block is one group of each axis."""

    starts: tuple[Shape, ...]
    groups: tuple[Shape, ...]  # where in `starts` each begins, and the last ends
    extents: Shape

    def sizes(self) -> Integers:
        sizes = np.ones(1, np.int64)
        for group in self.groups:
            sizes = np.multiply.outer(sizes, np.diff(group)).ravel()
        return sizes

    def box(self, block: int, place: int) -> Box:
        cell = _digits(block, [len(group) - 1 for group in self.groups])
        runs = [group[i : i + 2] for group, i in zip(self.groups, cell, strict=True)]
        inside = _digits(place, [stop - start for start, stop in runs])
        axes = zip(self.starts, runs, inside, strict=True)
        return _box([starts[run[0] + i] for starts, run, i in axes], self.extents)


def _digits(number: int, bases: Sequence[int]) -> list[int]:
    """Return a number's digits, the last changing fastest."""
    found = []
    for base in reversed(bases):
        number, digit = divmod(number, base)
        found.append(digit)
    return found[::-1]


@lru_cache(maxsize=1024)
def _cells(sampler: Whole | Tiles, grid: Grid) -> _Cells:
    """Lay out the samples of a volume: every index, but of c and the spanned axes."""
    size = sampler.shape(grid)
    spanned = grid.spanned(len(size))
    starts = [
        (0,) if axis == "c" else tuple(range(extent))
        for axis, extent in zip(grid.dimensions, grid.shape, strict=True)
    ]
    for number, (axis, n) in enumerate(zip(spanned, size, strict=True)):
        starts[axis] = sampler.starts(n, grid.shape[axis], number)
    extents = _extents(grid, spanned, size)
    axes = zip(starts, extents, grid.shape, grid.chunks, strict=True)
    return _Cells(tuple(starts), tuple(_groups(*axis) for axis in axes), extents)


def _groups(starts: Shape, size: int, extent: int, chunk: int) -> Shape:
    """Return where the boxes along an axis begin to share no chunk with those before.

    So no chunk is in two groups: whoever keeps those of a block reads each once.
    """
    cuts, reached = [0], -1
    for number, start in enumerate(starts):
        first = max(0, start) // chunk
        if number and first > reached:
            cuts.append(number)
        reached = max(reached, (min(start + size, extent) - 1) // chunk)
    return (*cuts, len(starts))


def _extents(grid: Grid, spanned: Sequence[int], size: Shape) -> Shape:
    """Return the size of a box along each axis: one index, but of c and the spanned."""
    extents = [
        n if axis == "c" else 1
        for n, axis in zip(grid.shape, grid.dimensions, strict=True)
    ]
    for axis, n in zip(spanned, size, strict=True):
        extents[axis] = n
    return tuple(extents)


def _box(starts: Sequence[int], extents: Sequence[int]) -> Box:
    return tuple(slice(a, a + n) for a, n in zip(starts, extents, strict=True))


def _check_size(size: Shape) -> None:
    if not 1 <= len(size) <= len(SPATIAL) or min(size) < 1:
        raise OptionError("size is one to three numbers, each 1 or more")
