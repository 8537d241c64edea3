"""Where slices lie: order, spacing, affine, tilt. In mm and LPS, pure numpy.

Sources: PS3.3 C.7.6.2.1.1 (position and orientation), C.7.6.3.1.1 (pixel spacing).
"""

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dicomdask.errors import InputError

Vector = NDArray[np.float64]

COSINE_WARN: Final = 1e-4
COSINE_REJECT: Final = 1e-2
UNIFORM_TOLERANCE: Final = 0.01
"""Gaps are uniform when each is within this share of the mean gap."""
POSITION_ATOL_MM: Final = 1e-3
TILT_ATOL_DEGREES: Final = 0.01


def parse_orientation(cosines: tuple[float, ...]) -> tuple[Vector, Vector, float]:
    """Return the row and column cosines as unit vectors, and how far off they were.

    Parameters
    ----------
    cosines
        ImageOrientationPatient: the direction in which the column index grows, then
        the direction in which the row index grows.

    Raises
    ------
    InputError
        `bad-geometry` if they are not six numbers, or more than 1e-2 from orthonormal.
    """
    if len(cosines) != 6 or not np.all(np.isfinite(cosines)):
        raise InputError(
            "bad-geometry", "ImageOrientationPatient is not six finite numbers."
        )
    row, column = np.asarray(cosines, float).reshape(2, 3)
    lengths = float(np.linalg.norm(row)), float(np.linalg.norm(column))
    off = max(abs(lengths[0] - 1), abs(lengths[1] - 1), abs(float(row @ column)))
    if off > COSINE_REJECT:
        raise InputError(
            "bad-geometry",
            "ImageOrientationPatient is more than 1e-2 from two orthogonal unit "
            "vectors.",
        )
    return row / lengths[0], column / lengths[1], off


def slice_normal(cosines: tuple[float, ...]) -> Vector:
    """Return the unit normal row x column, along which slices are ordered."""
    row, column, _ = parse_orientation(cosines)
    normal = np.cross(row, column)
    return np.asarray(normal / np.linalg.norm(normal), float)


def project(positions: Vector, normal: Vector) -> Vector:
    """Return how far along the normal each position lies, in mm, shape (n,)."""
    return np.asarray(positions @ normal, float)


def is_uniform(distances: Vector) -> bool:
    """Return whether sorted distances (mm) have gaps within 1 % of the mean gap."""
    if len(distances) < 3:
        return True
    gaps = np.diff(distances)
    mean = (distances[-1] - distances[0]) / (len(distances) - 1)
    return bool(np.all(np.abs(gaps - mean) <= UNIFORM_TOLERANCE * abs(mean)))


def lies_on_line(positions: Vector, distances: Vector) -> bool:
    """Return whether slices lie on one line, be they evenly spaced on it or not.

    A stack that moves to and fro within its planes fails, though its gaps be uniform.

    Parameters
    ----------
    positions
        ImagePositionPatient of the ordered slices, shape (n, 3), in mm.
    distances
        How far along the normal each lies, shape (n,), in mm.
    """
    steps = ((distances - distances[0]) / (distances[-1] - distances[0]))[:, None]
    line = positions[0] + steps * (positions[-1] - positions[0])
    span = float(np.linalg.norm(positions[-1] - positions[0]))
    mean = span / max(len(positions) - 1, 1)
    tolerance = max(UNIFORM_TOLERANCE * mean, POSITION_ATOL_MM)
    return bool(np.abs(positions - line).max() <= tolerance)


@dataclass(frozen=True, slots=True)
class Gaps:
    """What the gaps between ordered slices say.

    `n_missing` slices would fill the holes when `holes` is true: every gap is then a
    whole multiple of the smallest, `steps` times it. `runs` are the (start, stop) of
    the pieces between the holes, `pieces` of those with one gap each.
    """

    holes: bool
    n_missing: int
    runs: tuple[tuple[int, int], ...]
    pieces: tuple[tuple[int, int], ...]
    steps: tuple[int, ...] = ()

    def missing(self) -> tuple[int, ...]:
        """Return the numbers of the slices that would fill the holes, from 0."""
        there = {0, *accumulate(self.steps)}
        return tuple(z for z in range(max(there)) if z not in there)


def find_gaps(distances: Vector) -> Gaps:
    """Describe the gaps of sorted, distinct distances in mm."""
    gaps = np.diff(distances)
    unit = float(np.median(gaps[gaps <= gaps.min() * (1 + 2 * UNIFORM_TOLERANCE)]))
    multiples = np.rint(gaps / unit)
    holes = bool(np.all(np.abs(gaps - multiples * unit) <= UNIFORM_TOLERANCE * gaps))
    missing = int((multiples - 1).sum()) if holes else 0
    pieces = tuple(_uniform_runs(gaps))
    runs = tuple(_runs_between_holes(multiples)) if holes else pieces
    steps = tuple(map(int, multiples)) if holes else ()
    return Gaps(holes, missing, runs, pieces, steps)


def _runs_between_holes(multiples: Vector) -> list[tuple[int, int]]:
    edges = [0, *(np.flatnonzero(multiples > 1) + 1).tolist(), len(multiples) + 1]
    return list(pairwise(edges))


def _uniform_runs(gaps: Vector) -> list[tuple[int, int]]:
    """Cut slices where the gap changes; a slice belongs to the earlier piece."""
    runs, start = [], 0
    n = len(gaps) + 1
    while start < n:
        stop = start + 1
        while stop < n and _like(gaps[stop - 1], gaps[start]):
            stop += 1
        runs.append((start, stop))
        start = stop
    return runs


def _like(gap: float, first: float) -> bool:
    return abs(gap - first) <= UNIFORM_TOLERANCE * abs(first)


def tilt_degrees(positions: Vector, cosines: tuple[float, ...]) -> float:
    """Return the signed angle between the stack's direction and its normal.

    Positive when later slices move towards higher rows; 0 below 0.01 degrees.
    """
    row, column, _ = parse_orientation(cosines)
    step = positions[-1] - positions[0]
    along = float(step @ np.cross(row, column))
    down, right = float(step @ column), float(step @ row)
    angle = float(np.degrees(np.arctan2(np.hypot(down, right), abs(along))))
    if angle < TILT_ATOL_DEGREES:
        return 0.0
    sign = down if abs(down) >= abs(right) else right
    return float(np.copysign(angle, sign))


def affine(
    positions: Vector,
    cosines: tuple[float, ...],
    pixel_spacing: tuple[float, ...],
    *,
    n: int | None = None,
) -> Vector:
    """Return the 4x4 matrix from (z, y, x, 1) to (left, posterior, superior, 1) in mm.

    Parameters
    ----------
    positions
        ImagePositionPatient of the ordered slices, shape (n, 3), in mm. The step in z
        is (last - first) / (n - 1), so a tilted stack keeps its shear; with one slice
        z is the unit normal and its index always 0.
    n
        How many slices there are from the first to the last, by default those given:
        some between may be missing.
    cosines
        ImageOrientationPatient.
    pixel_spacing
        PixelSpacing in mm: between rows, between columns.
    """
    row, column, _ = parse_orientation(cosines)
    n = n or len(positions)
    step = (positions[-1] - positions[0]) / (n - 1) if n > 1 else np.cross(row, column)
    matrix = np.eye(4)
    matrix[:3, 0] = step
    matrix[:3, 1] = column * pixel_spacing[0]
    matrix[:3, 2] = row * pixel_spacing[1]
    matrix[:3, 3] = positions[0]
    return matrix


def slice_spacing(distances: Vector, n: int | None = None) -> float:
    """Return the mean distance of sorted slices along the normal, in mm.

    Parameters
    ----------
    n
        How many slices there are, by default those given: some may be missing.
    """
    return float((distances[-1] - distances[0]) / ((n or len(distances)) - 1))
