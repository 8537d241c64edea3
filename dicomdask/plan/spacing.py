"""What becomes of a stack whose slices are not evenly spaced."""

from dataclasses import replace
from typing import Final

import numpy as np

from dicomdask import geometry
from dicomdask.model import Irregular
from dicomdask.plan.stack import Refusal, Stack, refuse

MIN_MEAN_PIECE: Final = 3
"""Unevenly spaced slices are cut into pieces of at least this many on average."""


def split_irregular(stack: Stack, on_irregular: Irregular) -> list[Stack | Refusal]:
    """Cut a stack whose slices are not evenly spaced, or refuse it."""
    slices = stack.grid[0]
    positions = np.array([frame.facts.image_position_patient for frame in slices])
    normal = geometry.slice_normal(slices[0].facts.image_orientation_patient)
    distances = geometry.project(positions, normal)
    if geometry.is_uniform(distances):
        if len(slices) < 3 or geometry.lies_on_line(positions, distances):
            return [_warn_of_ends(stack)]
        return [refuse(stack.frames, "not-a-volume")]
    gaps = geometry.find_gaps(distances)
    thicknesses = {frame.facts.slice_thickness for frame in slices}
    speaks = len(thicknesses) == 1 and None not in thicknesses
    holes = gaps.holes and speaks and gaps.n_missing <= len(slices)
    runs = gaps.runs if holes else gaps.pieces
    if on_irregular == "reject":
        code = "missing-slices" if holes else "nonuniform-spacing"
        return [refuse(stack.frames, code)]
    if on_irregular == "pad" and holes:
        if not geometry.lies_on_line(positions, distances):
            return [refuse(stack.frames, "not-a-volume")]
        return [replace(stack, missing=gaps.missing()).warn("padded")]
    too_many = not holes and len(runs) > max(2, len(slices) // MIN_MEAN_PIECE)
    if too_many or len(runs) == 1:
        return [refuse(stack.frames, "nonuniform-spacing")]
    warning = "gap" if holes else "nonuniform"
    pieces = [_piece(stack, run).warn(warning) for run in runs]
    return [part for piece in pieces for part in split_irregular(piece, on_irregular)]


def _piece(stack: Stack, run: tuple[int, int]) -> Stack:
    start, stop = run
    grid = tuple(row[start:stop] for row in stack.grid)
    return replace(stack, grid=grid, split=(*stack.split, f"piece {start}"))


def _warn_of_ends(stack: Stack) -> Stack:
    """Warn where numbers say that slices are missing at an end: positions cannot."""
    slices = stack.grid[0]
    numbers = [frame.facts.instance_number for frame in slices]
    claimed = max(
        (one.images_in_acquisition or 0 for one in stack.instances), default=0
    )
    if stack.axis_keyword is None and claimed > len(slices):
        return stack.warn("fewer-than-images-in-acquisition")
    known = [number for number in numbers if number is not None]
    if stack.axis_keyword is None and len(known) == len(slices) > 1:
        steps = np.diff(np.sort(known))
        if len(set(steps.tolist())) > 1 and not stack.warnings:
            return stack.warn("instance-numbers-missing")
    return stack
