"""What a frame shows that no frame that was looked at shows: there may be new text."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

from dicomdask.model import Box

Picture = np.ndarray[Any, np.dtype[np.uint8]]
Array = np.ndarray[Any, np.dtype[Any]]

CELL: Final = 16
"""Frames are compared in squares of so many pixels."""
EDGE: Final = 32
"""A pixel that differs so much from its neighbour, of 255, may be of a letter."""
DIFFERENCE: Final = 24
"""A pixel that differs less from a frame that was looked at is the same."""
PIXELS: Final = 12
"""So many new pixels of letters in a cell are worth a look; a letter has more."""
REACH: Final = 48
"""How far around new pixels is looked at."""
SHARE: Final = 0.5
"""A part of a frame that is larger is looked at as a whole."""


def changed(
    pictures: Sequence[Picture], looked: Iterable[Sequence[Picture]]
) -> Box | None:
    """Return the part of a frame that has to be looked at; None where there is none.

    Each cell of the frame has to be that of one frame that was looked at, but for some
    pixels without edges. It is not enough that each pixel is that of any: letters might
    be made up of several frames.

    Parameters
    ----------
    pictures
        The frame, in one or more contrasts.
    looked
        Frames that were looked at, in their contrasts.
    """
    whole, shape = whole_of(pictures), pictures[0].shape[:2]
    edges = [_edges(picture) for picture in pictures]
    left: Array | None = None
    for other in looked:
        if len(other) != len(pictures):
            continue
        new = np.zeros(shape, bool)
        for edge, one, before in zip(edges, pictures, other, strict=True):
            new |= edge & (_difference(one, before) >= DIFFERENCE)
        cells = _cells(new)
        left = cells if left is None else np.minimum(left, cells)
        if left.max() < PIXELS:
            return None
    if left is None:
        return whole
    rows, columns = np.nonzero(left >= PIXELS)
    part = Box(
        max(0, int(rows.min()) * CELL - REACH),
        max(0, int(columns.min()) * CELL - REACH),
        min(shape[0], (int(rows.max()) + 1) * CELL + REACH),
        min(shape[1], (int(columns.max()) + 1) * CELL + REACH),
    )
    return whole if part.area > SHARE * shape[0] * shape[1] else part


def whole_of(pictures: Sequence[Picture]) -> Box:
    """Return the box that holds all of a frame."""
    rows, columns = pictures[0].shape[:2]
    return Box(0, 0, rows, columns)


def is_alike(one: Picture, other: Picture) -> bool:
    """Tell whether a text that is in one patch may be in another as well."""
    return float(_difference(one, other).mean()) < DIFFERENCE


def _edges(picture: Picture) -> Array:
    """Return the pixels that differ from the one before them, along either axis."""
    found = np.zeros(picture.shape[:2], bool)
    found[1:] |= _difference(picture[1:], picture[:-1]) >= EDGE
    found[:, 1:] |= _difference(picture[:, 1:], picture[:, :-1]) >= EDGE
    return found


def _difference(one: Picture, other: Picture) -> Array:
    """Return by how much pixels differ; in colour where it is most."""
    found: Array = np.maximum(one, other) - np.minimum(one, other)
    return found.max(axis=-1) if found.ndim == 3 else found


def _cells(mask: Array) -> Array:
    """Return how many pixels of each cell are set."""
    padding = [(0, -size % CELL) for size in mask.shape]
    whole = np.pad(mask, padding)
    rows, columns = (size // CELL for size in whole.shape)
    found: Array = whole.reshape(rows, CELL, columns, CELL).sum(axis=(1, 3))
    return found
