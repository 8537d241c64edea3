"""Where in a grid the head is, and what of it must not be touched.

Nothing is learned and nothing is matched to a template. In CT the inside of the skull
is what bone surrounds; in MR it is the one large piece of bright tissue that lies deep
below the skin on all sides. What is not found with confidence is not found.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dicomdask.faces.grid import STEP_MM, Field, Grid, Mask
from dicomdask.faces.needed import ndimage, spatial

AIR_HU: Final = -300.0
SOFT_HU: Final = (-60.0, 180.0)
BONE_HU: Final = 230.0
RAW_OFFSET: Final = 1024.0
"""What CT values without Rescale Intercept are too large by."""
CORE_MM: Final = (12.0, 9.0, 15.0)
"""The inside of a skull is told from what it leaks into by openings this wide."""
ENCLOSED: Final = 0.85
"""The share of rays from inside a skull that end at bone, of those that end at all."""
N_RAYS: Final = 300
REACH_MM: Final = 130.0
VOLUME_ML: Final = (100.0, 2200.0)
BREADTH_MM: Final = (75.0, 175.0)
"""The least and the largest breadth of the inside of a skull."""
CROWN_MM: Final = 36.0
"""The most tissue that lies above the inside of a skull."""
CANAL: Final = 0.15
"""What is narrower than this share of the widest is the canal of the spine."""
LOWEST_MM: Final = 9.0
FORWARD_MM: Final = 20.0
FOREHEAD_MM: Final = 26.0
"""The most skin and bone, with a sinus between, that a forehead has."""
MARGIN_MM: Final = 5.0
"""So far around the brain nothing is changed."""
FRONT_MM: Final = 25.0
"""How much of the front of the inside of a skull has its floor there."""


@dataclass(frozen=True, slots=True)
class Head:
    """Masks on a grid: the head without its holes, and the inside of its skull.

    `brain` is what must not be touched: in MR also what of the edge of the brain is
    darker than the rest, as it is far from a coil.
    """

    head: Mask
    cavity: Mask
    brain: Mask


def find_head(grid: Grid, modality: str) -> Head | None:
    """Return the head in a grid; None where none is found with confidence.

    Parameters
    ----------
    modality
        `CT`, whose values are in HU, or `MR`.
    """
    if modality == "CT":
        return _find_in_ct(grid)
    return _find_in_mr(grid) if modality == "MR" else None


# --- CT ---


def _find_in_ct(grid: Grid) -> Head | None:
    offset = RAW_OFFSET if float(grid.mean[grid.inside].min()) > AIR_HU else 0.0
    mean, peak = grid.mean - offset, grid.peak - offset
    tissue = (mean > AIR_HU) & grid.inside
    head = _filled(_largest(tissue))
    bone = (peak > BONE_HU) & head
    soft = (mean > SOFT_HU[0]) & (mean < SOFT_HU[1]) & ~bone & head
    depth = distance(soft | ~grid.inside)
    for radius in CORE_MM:
        cores = [
            core
            for core in _pieces((depth > radius) & soft, 4)
            if _is_enclosed(core, bone, tissue, grid.inside)
        ]
        if not cores:
            continue
        cavity = _grown(np.logical_or.reduce(cores), soft, radius)
        if _is_plausible(cavity) and _is_upright(head, cavity, grid.inside):
            return Head(head, cavity, cavity)
    return None


def _pieces(mask: Mask, most: int) -> list[Mask]:
    """Return the largest connected pieces of a mask, largest first."""
    labels, n = ndimage().label(mask)
    if not n:
        return []
    sizes = np.bincount(labels.ravel())[1:]
    order = np.argsort(sizes)[::-1][:most] + 1
    return [labels == number for number in order]


def _grown(core: Mask, soft: Mask, radius: float) -> Mask:
    """Return what an eroded piece was before."""
    near: Mask = distance(~core) <= radius + STEP_MM / 2
    return near & soft


def _is_enclosed(core: Mask, bone: Mask, tissue: Mask, inside: Mask) -> bool:
    """Tell whether bone lies around a piece, where the volume does not end before."""
    depth = distance(core)
    start = np.array(np.unravel_index(int(depth.argmax()), core.shape), float)
    steps = np.arange(1, REACH_MM / STEP_MM)
    places = np.rint(start + steps[:, None, None] * _directions()[None]).astype(int)
    limits = np.array(core.shape) - 1
    is_out = ((places < 0) | (places > limits)).any(axis=2)
    index = tuple(np.clip(places, 0, limits).transpose(2, 0, 1))
    is_out |= ~inside[index]
    is_bone = bone[index] & ~is_out
    is_air = ~tissue[index] & ~is_out
    first = [_first(found) for found in (is_out, is_bone, is_air)]
    hits = (first[1] < first[0]) & (first[1] < first[2])
    exits = (first[2] < first[0]) & (first[2] < first[1])
    exits |= ~hits & (first[0] > len(steps))  # neither bone nor an end: far too large
    known = int(hits.sum() + exits.sum())
    return known >= N_RAYS // 3 and int(hits.sum()) >= ENCLOSED * known


def _first(found: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the first step at which each ray finds something; beyond all if none."""
    n = len(found)
    return np.where(found.any(axis=0), found.argmax(axis=0), n + 1)


def _directions() -> NDArray[np.float64]:
    """Return directions spread evenly over the sphere (Fibonacci's lattice)."""
    number = np.arange(N_RAYS) + 0.5
    height = 1 - 2 * number / N_RAYS
    turn = np.pi * (1 + 5**0.5) * number
    flat = np.sqrt(1 - height**2)
    return np.stack([flat * np.cos(turn), flat * np.sin(turn), height], axis=1)


# --- MR ---

LEVELS: Final = (0.5, 0.65, 0.8, 0.95)
"""Brain is brighter than this share of the median of what is deep in the head."""
NECKS_MM: Final = (6.0, 9.0, 4.5)
SKIN_MM: Final = 4.5
"""Brain lies deeper than this below the skin."""
SOLID: Final = 0.8
"""The share of its convex hull that a brain fills."""
GAP_MM: Final = 12.0
"""Half of the widest gap in a brain that is closed, above the floor of its front."""
SHADE_MM: Final = 15.0
"""So wide may the edge of a brain be that is darker than the rest."""
SHADED: Final = (0.65, 1.3)
"""Between these shares of the brain near it is its edge; eyes and fat are brighter."""
LOCAL_MM: Final = 9.0
"""What is near is weighed by this."""
SKULL_MM: Final = 10.5
"""Edges are added deeper than this below the skin only."""


def _find_in_mr(grid: Grid) -> Head | None:
    values = ndimage().gaussian_filter(np.where(grid.inside, grid.mean, 0), 0.5)
    low, high = np.percentile(values[grid.inside], (2, 98))
    if high <= low:
        return None
    tissue = (values > low + 0.1 * (high - low)) & grid.inside
    head = _filled(_largest(tissue))
    depth = distance(head | ~grid.inside)
    deep = head & (depth > 30)
    if not deep.any():
        return None
    middle = float(np.median(values[deep]))
    seen: set[int] = set()
    for level in LEVELS:
        bright = (values > level * middle) & head & (depth > SKIN_MM)
        within = distance(bright | ~grid.inside)
        for radius in NECKS_MM:
            for core in _pieces((within > radius) & bright, 2):
                cavity = _grown(core, bright, radius)
                about = int(np.log(cavity.sum()) * 100)  # the same again, within 1 %
                if about in seen or not _is_plausible(cavity):
                    continue
                seen.add(about)
                cavity = _closed(cavity, 6.0)
                if not _is_brain(cavity, depth):
                    continue
                if not _is_upright(head, cavity, grid.inside):
                    return None
                return Head(head, cavity, _with_edge(cavity, values, depth))
    return None


def _with_edge(cavity: Mask, values: Field, depth: Field) -> Mask:
    """Return a brain with what of its edge is too dark for a level that suits the rest.

    Far from a coil a brain is darker, and a skull that is thin hardly darker than it:
    so the edge is what joins the brain, is nearly as bright as what of it is near, and
    lies no less deep than a skull. Below the floor of the front lie the eyes: nothing
    is added there.
    """
    above = np.arange(cavity.shape[2]) >= floor_in_front(cavity)
    place = above & (depth > SKULL_MM)
    brain = cavity | (_closed(cavity, GAP_MM) & place)
    width = LOCAL_MM / STEP_MM
    for _ in range(int(SHADE_MM // STEP_MM)):
        total = ndimage().gaussian_filter(np.where(brain, values, 0), width)
        weight = ndimage().gaussian_filter(brain.astype(np.float32), width)
        here = values * weight
        edge = place & (here > SHADED[0] * total) & (here < SHADED[1] * total)
        brain = brain | (edge & ndimage().binary_dilation(brain))
    return brain


def _is_brain(cavity: Mask, depth: Field) -> bool:
    """Tell a brain by its solid shape, deep below the skin all around."""
    shell = cavity & (distance(cavity) <= STEP_MM)
    if np.percentile(depth[shell], 3) < SKIN_MM + STEP_MM:
        return False
    places = np.argwhere(shell)
    hull = spatial().ConvexHull(places).volume
    return bool(cavity.sum() >= SOLID * hull)


# --- both ---


def _is_plausible(cavity: Mask) -> bool:
    """Tell whether the inside of a skull may have this size."""
    volume = float(cavity.sum()) * STEP_MM**3 / 1000
    breadth = _extent(cavity, 0)
    low, high = VOLUME_ML
    return low <= volume <= high and BREADTH_MM[0] <= breadth <= BREADTH_MM[1]


def _is_upright(head: Mask, cavity: Mask, inside: Mask) -> bool:
    """Tell whether a head lies as the header says: no neck on top, no face behind.

    What is lowest in a skull lies in its back half; a head that is bent forwards has
    the tips of its temporal lobes lowest, which lie little in front of the middle. In
    front the brain begins close behind the skin.
    """
    areas = cavity.sum(axis=(0, 1))
    heights = np.flatnonzero(areas >= CANAL * areas.max())
    above = (head & inside)[:, :, heights[-1] :].any(axis=(0, 1))
    if float(above.sum()) * STEP_MM > CROWN_MM:
        return False
    low = cavity[:, :, heights[0] : heights[0] + int(LOWEST_MM / STEP_MM)]
    middle, lowest = (float(np.argwhere(mask)[:, 1].mean()) for mask in (cavity, low))
    if (middle - lowest) * STEP_MM > FORWARD_MM:
        return False
    return float(np.median(_forehead(head, cavity))) <= FOREHEAD_MM


def _forehead(head: Mask, cavity: Mask) -> NDArray[np.float64]:
    """Return how thick a forehead is, in mm, in front of the frontmost of a cavity."""
    front = np.flatnonzero(cavity.any(axis=(0, 2)))[0]
    part = cavity[:, front : front + int(LOWEST_MM / STEP_MM)].any(axis=1)
    before = np.cumsum(cavity, axis=1) == 0
    thick: NDArray[np.float64] = (head & before).sum(axis=1)[part] * STEP_MM
    return thick


def floor_in_front(cavity: Mask) -> int:
    """Return the number of the lowest plane of the front of the inside of a skull."""
    front = np.flatnonzero(cavity.any(axis=(0, 2)))[0]
    part = cavity[:, front : front + int(FRONT_MM // STEP_MM)]
    return int(np.flatnonzero(part.any(axis=(0, 1)))[0])


def _extent(mask: Mask, axis: int) -> float:
    others = tuple(other for other in range(3) if other != axis)
    found = np.flatnonzero(mask.any(axis=others))
    return float(found[-1] - found[0] + 1) * STEP_MM if len(found) else 0.0


def distance(mask: Mask) -> Field:
    """Return how far inside a mask each point lies, in mm; 0 outside of it."""
    if mask.all():
        return np.full(mask.shape, np.inf, np.float32)
    found: Any = ndimage().distance_transform_edt(mask, sampling=STEP_MM)
    return np.asarray(found, np.float32)


def _largest(mask: Mask) -> Mask:
    pieces = _pieces(mask, 1)
    return pieces[0] if pieces else mask


def _closed(mask: Mask, radius: float) -> Mask:
    """Return a mask with its gaps closed that are narrower than twice a radius."""
    wide = np.pad(mask, int(radius // STEP_MM) + 2)
    grown = distance(~wide) <= radius
    shrunk: Mask = distance(grown) > radius
    n = int(radius // STEP_MM) + 2
    return shrunk[n:-n, n:-n, n:-n] | mask


def _filled(mask: Mask) -> Mask:
    """Return a head without its holes: airways are filled plane by plane."""
    closed = _closed(mask, 2 * STEP_MM)
    for axis in (2, 0):
        for number in range(closed.shape[axis]):
            plane = np.moveaxis(closed, axis, 0)[number]
            plane |= ndimage().binary_fill_holes(plane)
    return closed
