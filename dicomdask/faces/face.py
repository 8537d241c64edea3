"""What of a head is its face: the skin in front, and what lies close behind it."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dicomdask.faces.grid import STEP_MM, Field, Grid, Mask
from dicomdask.faces.head import MARGIN_MM, Head, distance, floor_in_front
from dicomdask.faces.needed import ndimage

DEPTH_MM: Final = 44.0
"""So deep behind the smoothed skin is a face removed, seen from the front."""
FOREHEAD_MM: Final = 13.0
"""So deep where the brain lies close behind the skin, as it does behind a forehead."""
SKIN_MM: Final = 20.0
"""At least so deep elsewhere, where the head falls off to its sides."""
SMOOTH_MM: Final = 18.0
"""By so much is the skin smoothed before its depth is taken."""
BRAIN_MM: Final = 24.0
"""What is close."""
UNEVEN_MM: Final = 5.0
"""By so much is the depth made uneven."""
HALO_MM: Final = 15.0
"""So far in front of the skin is the air made even: it holds the skin's shadow."""
FACE_MM: Final = 135.0
"""From the floor of the front of an adult's skull down below the chin."""
BROW_MM: Final = 35.0
"""From there up to the middle of the forehead."""
SIDE_MM: Final = 100.0
"""From the middle to the sides, ears included."""
ADULT_MM: Final = 135.0
"""The breadth of the inside of an adult's skull."""
ABOVE_MM: Final = 6.0
"""Higher than this above that floor lies the brain behind the skin, and no face."""
NEAR_MM: Final = 24.0
"""So far around a face is what a coarse look at a plane takes for it."""


@dataclass(frozen=True, slots=True)
class Face:
    """What is removed: points of a grid where `field` is above 0.

    `origin` is the grid's, in mm along (left, posterior, superior). `near` is above 0
    wherever anything near is removed.
    """

    origin: NDArray[np.float64]
    field: Field
    near: Field


def outline(grid: Grid, found: Head, seed: int) -> Face:
    """Return the face of a head.

    Parameters
    ----------
    seed
        Decides how uneven the bottom of what is removed is: nobody who does not know
        it can tell what depth was taken where.
    """
    protected = distance(~found.brain) <= MARGIN_MM
    uneven = _uneven(found.head.shape, seed)
    removed = _removed(found, protected, uneven)
    halo = distance(~removed) <= HALO_MM
    removed |= halo & ~found.head & ~protected
    smooth = ndimage().gaussian_filter(removed.astype(np.float32), 0.7) - 0.5
    clear = distance(~protected) - STEP_MM / 2
    field = np.minimum(smooth * 2 * STEP_MM, clear)
    near = NEAR_MM - distance(field <= 0)
    return Face(grid.origin, field, np.asarray(near, np.float32))


def _removed(found: Head, protected: Mask, uneven: Field) -> Mask:
    """Return what is near the skin, seen from the front, at the heights of a face.

    Where the brain lies close behind the skin, as it does behind a forehead, only the
    skin goes, and so it is everywhere above the floor of the skull in front: a brain
    that is dark there seems to lie deep. Elsewhere the bottom follows a skin that is
    smoothed so much that it does not repeat the face: to move it to the front again
    shows nobody.
    """
    head, cavity = found.head, found.cavity
    frame = _frame(cavity)
    heights = (np.arange(head.shape[2]) - frame.floor) * STEP_MM / frame.scale
    sides = np.abs(np.arange(head.shape[0]) - frame.middle) * STEP_MM / frame.scale
    behind = np.cumsum(head, axis=1) * STEP_MM  # y grows towards the back
    places = np.arange(head.shape[1])[None, :, None] * STEP_MM
    skin = head.argmax(axis=1, keepdims=True) * STEP_MM
    is_before = np.cumsum(protected, axis=1) == 0
    until = np.where(is_before, behind, 0).max(axis=1, keepdims=True)
    is_close = until <= BRAIN_MM * frame.scale
    deep = np.maximum(_smoothed(skin, head) + DEPTH_MM * frame.scale, skin + SKIN_MM)
    thick = FOREHEAD_MM * min(1.0, frame.scale)
    bottom = np.where(is_close, skin + thick, deep)
    is_thin = (heights < ABOVE_MM) | (distance(head) + uneven <= thick)
    near = (heights >= -FACE_MM) & (heights <= BROW_MM)
    near = near[None, None] & (sides <= SIDE_MM)[:, None, None]
    removed: Mask = head & is_before & near & is_thin & (places + uneven <= bottom)
    return removed


def _smoothed(skin: NDArray[np.float64], head: Mask) -> NDArray[np.float64]:
    """Return where the skin lies, in mm, with no more shape than that of an egg."""
    there = head.any(axis=1, keepdims=True).astype(float)
    width = (SMOOTH_MM / STEP_MM, 0, SMOOTH_MM / STEP_MM)
    weight = ndimage().gaussian_filter(there, width)
    total = ndimage().gaussian_filter(skin * there, width)
    found: NDArray[np.float64] = total / np.maximum(weight, 1e-6)
    return found


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where a face is looked for: from the floor of the skull in front."""

    floor: int
    middle: float
    scale: float


def _frame(cavity: Mask) -> _Frame:
    across = np.flatnonzero(cavity.any(axis=(1, 2)))
    breadth = (across[-1] - across[0] + 1) * STEP_MM
    scale = float(np.clip(breadth / ADULT_MM, 0.6, 1.15))
    return _Frame(floor_in_front(cavity), float(across[0] + across[-1]) / 2, scale)


def _uneven(shape: tuple[int, ...], seed: int) -> Field:
    """Return smooth noise, in mm."""
    noise = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    smooth = ndimage().gaussian_filter(noise, 2.0)
    return np.asarray(smooth / smooth.std() * UNEVEN_MM / 2, np.float32)
