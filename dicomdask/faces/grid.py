"""A coarse copy of a volume on a grid that lies along the patient's axes."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dicomdask.faces.needed import ndimage

STEP_MM: Final = 3.0
FINE_MM: Final = 2.0
"""Planes are averaged to about this before they are laid on the grid."""
TALL_MM: Final = 480.0
"""A head is looked for in so much of a volume, from its upper end."""
MAX_MM: Final = 1000.0
"""A volume that is wider or deeper is no scan of a patient."""

Plane = NDArray[Any]
Field = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Grid:
    """Points along (left, posterior, superior), `STEP_MM` apart, from `origin` in mm.

    `mean` and `peak` are the average and the largest value around each point; `inside`
    tells which points lie in the volume.
    """

    origin: NDArray[np.float64]
    mean: Field
    peak: Field
    inside: Mask


@dataclass(frozen=True, slots=True)
class Coarse:
    """What is kept of the planes of a volume, in order, and where it lies."""

    mean: Field
    peak: Field
    affine: NDArray[np.float64]


def coarsen(
    planes: Iterable[tuple[int, Plane]], affine: NDArray[np.float64], n: int
) -> Coarse:
    """Return a coarse copy of planes, each with its number along the first axis.

    Parameters
    ----------
    planes
        Pairs of a number and a plane of (rows, columns), in any order; at least one.
        Where one is missing its neighbour stands in.
    affine
        From (plane, row, column, 1) to (left, posterior, superior, 1) in mm.
    n
        The number of planes of the volume.
    """
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    down, right = (max(1, int(FINE_MM // step + 0.5)) for step in steps[1:])
    wanted = set(sampled(affine, n))
    kept: dict[int, tuple[Field, Field]] = {
        z: _pooled(plane, down, right) for z, plane in planes if z in wanted
    }
    every = sampled(affine, n)
    nearest = [min(kept, key=lambda one: (abs(one - z), one)) for z in every]
    mean, peak = (np.stack([kept[z][i] for z in nearest]) for i in (0, 1))
    matrix = affine.copy()
    matrix[:3, 3] += affine[:3, 1] * (down - 1) / 2 + affine[:3, 2] * (right - 1) / 2
    matrix[:3, :3] *= (every.step, down, right)
    return Coarse(mean, peak, matrix)


def sampled(affine: NDArray[np.float64], n: int) -> range:
    """Return the numbers of the planes that a coarse copy is made of."""
    step = float(np.linalg.norm(affine[:3, 0]))
    return range(0, n, max(1, int(FINE_MM // step + 0.5)))


def _pooled(plane: Plane, down: int, right: int) -> tuple[Field, Field]:
    """Return the means and the peaks of blocks; what is left at the ends is cut off."""
    rows, columns = (plane.shape[0] // down, plane.shape[1] // right)
    whole = np.nan_to_num(np.asarray(plane, np.float32))
    cut = whole[: rows * down, : columns * right]
    blocks = cut.reshape(rows, down, columns, right)
    return blocks.mean(axis=(1, 3)), blocks.max(axis=(1, 3))


def lay(coarse: Coarse) -> Grid:
    """Return the grid of a coarse copy."""
    shape = np.array(coarse.mean.shape)
    ends = np.array(np.meshgrid(*((-0.5, size - 0.5) for size in shape)))
    points = coarse.affine[:3, :3] @ ends.reshape(3, -1) + coarse.affine[:3, 3:]
    low, high = points.min(axis=1), points.max(axis=1)
    low[2] = max(low[2], high[2] - TALL_MM)
    size = np.clip(np.ceil((high - low) / STEP_MM), 1, MAX_MM / STEP_MM).astype(int)
    origin = low + STEP_MM / 2
    back = np.linalg.inv(coarse.affine)
    matrix = back[:3, :3] * STEP_MM
    offset = back[:3, :3] @ origin + back[:3, 3]
    mean, peak = (
        ndimage().affine_transform(
            values,
            matrix,
            offset=offset,
            output_shape=tuple(size),
            order=1,
            mode="nearest",
        )
        for values in (coarse.mean, coarse.peak)
    )
    inside = np.ones(tuple(size), bool)
    for axis in range(3):
        parts = [matrix[axis, k] * np.arange(size[k]) for k in range(3)]
        place = np.add.outer(np.add.outer(parts[0], parts[1]), parts[2]) + offset[axis]
        inside &= (place >= -0.5) & (place <= shape[axis] - 0.5)
    return Grid(origin, mean, peak, inside)
