"""From the planes of a volume to its face, and to the pixels that show it."""

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dicomdask.faces.face import Face, outline
from dicomdask.faces.grid import STEP_MM, Plane, coarsen, lay
from dicomdask.faces.head import find_head
from dicomdask.faces.needed import ndimage

COARSE: Final = 8
"""A plane is looked at so coarsely first, to find where it meets a face at all."""


def find_face(
    planes: Iterable[tuple[int, Plane]],
    affine: NDArray[np.float64],
    n: int,
    modality: str,
    seed: int,
) -> Face | None:
    """Return the face of a volume; None where no head is found with confidence.

    Parameters
    ----------
    planes
        Pairs of a number along the first axis and modality values of (rows, columns);
        those of `sampled` are used.
    affine
        4x4, from (plane, row, column, 1) to (left, posterior, superior, 1) in mm.
    n
        The number of planes.
    modality
        `CT` or `MR`; of others no face is found.
    seed
        Decides how uneven the bottom of what goes is; keep it secret.
    """
    if modality not in {"CT", "MR"}:
        return None
    grid = lay(coarsen(planes, affine, n))
    found = find_head(grid, modality)
    return None if found is None else outline(grid, found, seed)


def face_mask(
    shape: tuple[int, ...], number: int, affine: NDArray[np.float64], face: Face
) -> NDArray[np.bool_] | None:
    """Return which pixels of a plane are of a face; None where none is.

    Parameters
    ----------
    shape
        Rows and columns.
    number
        The plane's number along the volume's first axis.
    affine
        As in `find_face`.
    """
    rows, columns = _touched(shape, number, affine, face)
    if rows.start == rows.stop:
        return None
    mask = np.zeros(shape, bool)
    found = _field(number, rows, columns, affine, face) > 0
    mask[rows.start : rows.stop, columns.start : columns.stop] = found
    return mask if found.any() else None


def _touched(
    shape: tuple[int, ...], number: int, affine: NDArray[np.float64], face: Face
) -> tuple[range, range]:
    """Return the rows and columns between which a plane may meet a face."""
    rows, columns = (range(0, size + COARSE - 1, COARSE) for size in shape)
    near = _field(number, rows, columns, affine, face, margin=True) > 0
    if not near.any():
        return range(0), range(0)
    found = []
    for axis, size in enumerate(shape):
        at = np.flatnonzero(near.any(axis=1 - axis)) * COARSE
        found.append(range(max(0, at[0] - COARSE), min(size, at[-1] + COARSE + 1)))
    return found[0], found[1]


def _field(
    number: int,
    rows: range,
    columns: range,
    affine: NDArray[np.float64],
    face: Face,
    *,
    margin: bool = False,
) -> NDArray[Any]:
    """Return a face's field at some rows and columns of a plane."""
    start = affine[:3, 3] + affine[:3, 0] * number - face.origin
    down, right = (np.arange(one.start, one.stop, one.step) for one in (rows, columns))
    places = [
        (
            start[axis]
            + affine[axis, 1] * down[:, None]
            + affine[axis, 2] * right[None, :]
        )
        / STEP_MM
        for axis in range(3)
    ]
    values = face.near if margin else face.field
    # The planes at the ends lie beyond the centres of the outermost cells.
    limits = zip(places, values.shape, strict=True)
    places = [_within(place, size) for place, size in limits]
    found: NDArray[Any] = ndimage().map_coordinates(
        values, places, order=1, mode="constant", cval=-1
    )
    return found


def _within(places: NDArray[Any], size: int) -> NDArray[Any]:
    """Return places up to one cell beyond the ends of an axis as those at its ends."""
    near = (places >= -1) & (places <= size)
    return np.where(near, np.clip(places, 0, size - 1), places)
