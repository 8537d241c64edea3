"""What a frame shows that no frame that was looked at shows: there may be new text."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np

from dicomdask.model import Box

Picture = np.ndarray[Any, np.dtype[np.uint8]]
Array = np.ndarray[Any, np.dtype[Any]]

CELL: Final = 16
"""Frames are compared in squares of so many pixels."""
FAINT_EDGE, EDGE = 12, 32
"""A pixel that differs so much from its neighbour, of 255, may be of a letter: on flat
ground, and where most pixels do."""
ROUGH: Final = 4
"""What is fainter than so many times the differences around cannot be read."""
SAME: Final = 0.75
"""A pixel that differs by less of that from a frame that was looked at is the same."""
DIFFERENCE: Final = 24
"""Places that differ less on average show the same text, or none."""
PIXELS: Final = 12
"""So many new pixels of letters in a cell are worth a look; a letter has more."""
REACH: Final = 48
"""How far around new pixels is looked at."""
SHARE: Final = 0.5
"""Parts that take more of a frame are looked at as a whole."""


def changed(
    pictures: Sequence[Picture], looked: Iterable[Sequence[Picture]]
) -> tuple[Box, ...]:
    """Return the parts of a frame that have to be looked at; none where nothing is new.

    Each cell of the frame has to be that of one frame that was looked at, but for some
    pixels without edges. It is not enough that each pixel is that of any: letters might
    be made up of several frames. All is measured against frames that were looked at,
    never against the frame before: what rises slowly is new as well, once it has risen.

    Parameters
    ----------
    pictures
        The frame, in one or more contrasts.
    looked
        Frames that were looked at, in their contrasts.
    """
    whole, shape = whole_of(pictures), pictures[0].shape
    steps = [_steps(picture) for picture in pictures]
    left: Array | None = None
    for other in looked:
        if len(other) != len(pictures) or other[0].shape != shape:
            continue
        new = np.zeros(shape[:2], bool)
        for step, one, before in zip(steps, pictures, other, strict=True):
            least = _least_edge(before)
            new |= (step >= least) & (_difference(one, before) >= SAME * least)
        cells = _counted(new)
        left = cells if left is None else np.minimum(left, cells)
        if left.max() < PIXELS:
            return ()
    if left is None:
        return (whole,)
    parts = tuple(_parts(left >= PIXELS, shape))
    is_most = sum(part.area for part in parts) > SHARE * whole.area
    return (whole,) if is_most else parts


def _parts(cells: Array, shape: Sequence[int]) -> Iterator[Box]:
    """Yield boxes around the cells that are set, with a margin; none over another."""
    margin = REACH // CELL
    rows = np.nonzero(cells.any(axis=1))[0]
    for band in np.split(rows, np.nonzero(np.diff(rows) > 2 * margin)[0] + 1):
        top, bottom = int(band[0]), int(band[-1]) + 1
        columns = np.nonzero(cells[top:bottom].any(axis=0))[0]
        yield Box(
            max(0, (top - margin) * CELL),
            max(0, (int(columns[0]) - margin) * CELL),
            min(shape[0], (bottom + margin) * CELL),
            min(shape[1], (int(columns[-1]) + 1 + margin) * CELL),
        )


def is_plain(
    pictures: Sequence[Picture], box: Box, others: Iterable[Sequence[Picture]] = ()
) -> bool:
    """Tell whether nothing can be read in a box of a frame, but what others show too.

    It is harder than for `changed`: whatever has any edge has to be that of one other,
    whose edges make nothing of it pass.
    """
    mine = [_cut(picture, box) for picture in pictures]
    steps = [_steps(picture) >= FAINT_EDGE for picture in mine]
    left = _counted(np.logical_or.reduce(steps))
    for other in others:
        if len(other) == len(pictures):
            new = np.zeros(mine[0].shape[:2], bool)
            for step, one, before in zip(steps, mine, other, strict=True):
                is_far = _difference(one, _cut(before, box)) >= SAME * FAINT_EDGE
                new |= step & is_far
            left = np.minimum(left, _counted(new))
    return bool(left.max() < PIXELS)


def _cut(picture: Picture, box: Box) -> Picture:
    return picture[box.top : box.bottom, box.left : box.right]


def whole_of(pictures: Sequence[Picture]) -> Box:
    """Return the box that holds all of a frame."""
    rows, columns = pictures[0].shape[:2]
    return Box(0, 0, rows, columns)


def is_alike(one: Picture, other: Picture) -> bool:
    """Tell whether a text that is in one patch may be in another as well."""
    return float(_difference(one, other).mean()) < DIFFERENCE


def _steps(picture: Picture) -> Picture:
    """Return by how much each pixel differs from the one before, along either axis."""
    found = np.zeros(picture.shape[:2], np.uint8)
    found[1:] = _difference(picture[1:], picture[:-1])
    along = _difference(picture[:, 1:], picture[:, :-1])
    np.maximum(found[:, 1:], along, out=found[:, 1:])
    return found


def _least_edge(picture: Picture) -> Array:
    """Return what may be an edge of a letter at each pixel, by what is around it."""
    steps = _squares(_steps(picture)).mean(axis=(1, 3))
    least = np.clip(ROUGH * steps, FAINT_EDGE, EDGE)
    rows, columns = picture.shape[:2]
    found: Array = np.repeat(np.repeat(least, CELL, 0), CELL, 1)[:rows, :columns]
    return found


def _difference(one: Picture, other: Picture) -> Array:
    """Return by how much pixels differ; in colour where it is most."""
    found: Array = np.maximum(one, other) - np.minimum(one, other)
    if found.ndim == 2:
        return found
    most = found[..., 0]
    for channel in range(1, found.shape[-1]):  # a maximum over an axis is slower
        most = np.maximum(most, found[..., channel])
    return most


def _counted(mask: Array) -> Array:
    """Return how many pixels of each cell are set."""
    found: Array = _squares(mask).sum(axis=(1, 3))
    return found


def _squares(plane: Array) -> Array:
    """Return a plane as cells, of shape (rows of cells, CELL, columns of cells, CELL).

    What the last cells have beyond the plane is 0.
    """
    whole = np.pad(plane, [(0, -size % CELL) for size in plane.shape])
    rows, columns = (size // CELL for size in whole.shape)
    return whole.reshape(rows, CELL, columns, CELL)
