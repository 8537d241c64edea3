"""From the instances of one series to stacks: frames that belong on one grid.

Hard keys always split. Soft keys split only where they tell apart slices that lie at
one position; trigger time, say, may well differ from slice to slice of one volume.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from dicomdask import geometry
from dicomdask.errors import InputError
from dicomdask.model import Instance, Irregular

SAME_POSITION_MM: Final = 1e-3
SAME_COSINE: Final = 1e-4
MIN_MEAN_PIECE: Final = 3
"""Unevenly spaced slices are cut into pieces of at least this many on average."""

CROSS_SECTIONAL: Final = frozenset({"CT", "MR", "PT", "NM"})
"""Modalities whose frames are slices placed in space; others are projections."""

GRID_KEYS: Final = (
    ("echo_numbers",),
    ("echo_time",),
    ("diffusion_b_value",),
    ("diffusion_b_value", "diffusion_gradient_orientation"),
    ("temporal_position_identifier",),
    ("inversion_time",),
    ("flip_angle",),
    ("repetition_time",),
)
"""Soft keys whose values are those of a fourth axis."""

APART_KEYS: Final = (("image_type",), ("stack_id",))
"""Soft keys whose values make volumes of their own."""

RANK_KEYS: Final = (
    "trigger_time",
    "acquisition_number",
    "acquisition_time",
    "content_time",
    "instance_number",
)
"""Soft keys that grow from slice to slice: their rank at a position is the axis."""


@dataclass(frozen=True, slots=True)
class Stack:
    """Instances on a grid of (t, z); `split` are the values that set it apart."""

    grid: tuple[tuple[Instance, ...], ...]
    split: tuple[str, ...]
    axis_keyword: str | None = None
    axis_values: tuple[str, ...] = ()
    n_missing: int = 0
    placed: bool = True
    uniform: bool = True
    warnings: tuple[str, ...] = ()

    @property
    def instances(self) -> tuple[Instance, ...]:
        """All instances, t before z."""
        return tuple(instance for row in self.grid for instance in row)

    def warn(self, warning: str) -> "Stack":
        """Return the stack with one more warning."""
        return replace(self, warnings=(*self.warnings, warning))


@dataclass(frozen=True, slots=True)
class Refusal:
    """Instances that do not make a stack, and why."""

    instances: tuple[Instance, ...]
    code: str
    reason: str | None = None


def split_series(
    instances: Sequence[Instance], on_irregular: Irregular
) -> list[Stack | Refusal]:
    """Return the stacks of one series, in a stable order whatever the input's."""
    results: list[Stack | Refusal] = []
    for split, group in _hard_groups(sorted(instances, key=_stable_order)):
        for result in _split_group(group, split):
            if isinstance(result, Refusal) or not result.placed:
                results.append(result)
            else:
                results.extend(_split_irregular(result, on_irregular))
    return results


def _stable_order(instance: Instance) -> tuple[str, int, str]:
    return (instance.sop_instance_uid, instance.size, instance.header_digest)


# --- hard keys ----------------------------------------------------------------


def _hard_groups(
    instances: Iterable[Instance],
) -> list[tuple[tuple[str, ...], list[Instance]]]:
    groups: dict[tuple[str, ...], list[Instance]] = defaultdict(list)
    directions = _cluster_orientations(instances)
    for instance in instances:
        direction = directions[instance.image_orientation_patient]
        groups[(direction, *_hard_key(instance))].append(instance)
    return sorted(groups.items())


def _hard_key(instance: Instance) -> tuple[str, ...]:
    values = (
        instance.modality,
        instance.sop_class_uid,
        instance.frame_of_reference_uid,
        instance.rows,
        instance.columns,
        tuple(round(spacing, 6) for spacing in instance.pixel_spacing),
        instance.bits_allocated,
        instance.bits_stored,
        instance.pixel_representation,
        instance.samples_per_pixel,
        instance.photometric_interpretation,
        instance.convolution_kernel,
        "LOCALIZER" in instance.image_type,
        len(instance.image_position_patient),
    )
    return tuple(str(value) for value in values)


def _cluster_orientations(
    instances: Iterable[Instance],
) -> dict[tuple[float, ...], str]:
    """Name each orientation by the first within 1e-4 of it."""
    names: dict[tuple[float, ...], str] = {}
    leaders: list[tuple[float, ...]] = []
    for cosines in sorted(
        {one.image_orientation_patient for one in instances}, key=repr
    ):
        leader = next((one for one in leaders if _same_cosines(one, cosines)), None)
        if leader is None:
            leaders.append(leader := cosines)
        names[cosines] = ",".join(f"{round(value, 4) + 0.0:.4f}" for value in leader)
    return names


def _same_cosines(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return len(one) == len(other) and all(
        abs(a - b) <= SAME_COSINE for a, b in zip(one, other, strict=True)
    )


# --- soft keys ----------------------------------------------------------------


def _split_group(
    group: list[Instance], split: tuple[str, ...]
) -> list[Stack | Refusal]:
    if not all(_is_placed(instance) for instance in group):
        return [_lone(instance, split) for instance in group]
    try:
        slots = _slots(group)
    except InputError as error:
        return [Refusal(tuple(group), error.code, error.reason)]
    return _split_repeats(slots, split)


def _is_placed(instance: Instance) -> bool:
    return instance.modality in CROSS_SECTIONAL and bool(
        instance.image_position_patient or instance.image_orientation_patient
    )


def _lone(instance: Instance, split: tuple[str, ...]) -> Stack:
    """Return an image that nothing places in space as a stack of its own."""
    own = (*split, instance.sop_instance_uid)
    stack = Stack(((instance,),), own, placed=False)
    return stack.warn("no-position") if instance.modality in CROSS_SECTIONAL else stack


def _slots(group: list[Instance]) -> list[list[Instance]]:
    """Return the instances by position along the normal; several may share one."""
    normal = geometry.slice_normal(group[0].image_orientation_patient)
    for instance in group:
        position = instance.image_position_patient
        if len(position) != 3 or not np.all(np.isfinite(position)):
            raise InputError(
                "bad-geometry", "ImagePositionPatient is not three finite numbers."
            )
    positions = np.array([instance.image_position_patient for instance in group])
    distances = geometry.project(positions, normal)
    order = np.argsort(distances, kind="stable")
    slots: list[list[Instance]] = []
    last = -np.inf
    for index in order:
        if distances[index] - last > SAME_POSITION_MM:
            slots.append([])
        slots[-1].append(group[index])
        last = distances[index]
    return slots


def _split_repeats(
    slots: list[list[Instance]], split: tuple[str, ...]
) -> list[Stack | Refusal]:
    if all(len(slot) == 1 for slot in slots):
        return [Stack((tuple(slot[0] for slot in slots),), split)]
    for fields in (*GRID_KEYS, *APART_KEYS):
        if _resolves(slots, fields):
            return _by_key(slots, fields, split)
    varying = [
        fields
        for fields in (*APART_KEYS, *GRID_KEYS)
        if len(_values(slots, fields)) > 1
    ]
    spanning = [fields for fields in varying if _spans(slots, fields)]
    if spanning:
        return _recurse(slots, spanning[0], split)
    if any(_resolves(slots, (key,)) for key in RANK_KEYS):
        return _by_rank(slots, split)
    if varying:
        return _recurse(slots, varying[0], split)
    return [Refusal(_everything(slots), "repeated-positions")]


def _everything(slots: list[list[Instance]]) -> tuple[Instance, ...]:
    return tuple(instance for slot in slots for instance in slot)


Fields = tuple[str, ...]


def _value(instance: Instance, fields: Fields) -> tuple[object, ...]:
    values = (getattr(instance, field) for field in fields)
    return tuple(None if value != value else value for value in values)


def _values(slots: list[list[Instance]], fields: Fields) -> list[tuple[object, ...]]:
    found = {_value(instance, fields) for slot in slots for instance in slot}
    return sorted(found, key=_sort_key)


def _sort_key(value: tuple[object, ...]) -> tuple[tuple[int, object], ...]:
    return tuple((0, 0) if part is None or part == () else (1, part) for part in value)


def _resolves(slots: list[list[Instance]], fields: Fields) -> bool:
    """Return whether the key tells apart all that lies at any one position."""
    return all(
        len({_value(instance, fields) for instance in slot}) == len(slot)
        for slot in slots
    )


def _spans(slots: list[list[Instance]], fields: Fields) -> bool:
    """Return whether each value is found at every position.

    A key that grows from slice to slice does not, and would shatter the volume.
    """
    n_values = len(_values(slots, fields))
    return all(
        len({_value(instance, fields) for instance in slot}) == n_values
        for slot in slots
    )


def _where(
    slots: list[list[Instance]], fields: Fields, value: tuple[object, ...]
) -> list[list[Instance]]:
    """Return the slots with only the instances whose key has this value."""
    kept = ([one for one in slot if _value(one, fields) == value] for slot in slots)
    return [slot for slot in kept if slot]


def _by_key(
    slots: list[list[Instance]], fields: Fields, split: tuple[str, ...]
) -> list[Stack | Refusal]:
    values = _values(slots, fields)
    rows = [tuple(slot[0] for slot in _where(slots, fields, value)) for value in values]
    whole = all(len(row) == len(slots) for row in rows)
    apart = fields in APART_KEYS
    if whole and not apart and _lie_alike(rows):
        stack = Stack(
            tuple(rows), split, _keyword(fields[-1]), tuple(map(_text, values))
        )
        return [stack]
    stacks = [
        Stack((row,), (*split, *fields, repr(value)))
        for row, value in zip(rows, values, strict=True)
    ]
    quiet = whole and apart
    return [stack if quiet else stack.warn("ragged-grid") for stack in stacks]


def _lie_alike(rows: Sequence[Sequence[Instance]]) -> bool:
    """Return whether all rows lie where the first does, within the plane too."""
    positions = np.array(
        [[instance.image_position_patient for instance in row] for row in rows]
    )
    return bool(np.abs(positions - positions[0]).max() <= SAME_POSITION_MM)


def _recurse(
    slots: list[list[Instance]], fields: Fields, split: tuple[str, ...]
) -> list[Stack | Refusal]:
    results: list[Stack | Refusal] = []
    for value in _values(slots, fields):
        inner = _where(slots, fields, value)
        results.extend(_split_repeats(inner, (*split, *fields, repr(value))))
    return results


def _by_rank(
    slots: list[list[Instance]], split: tuple[str, ...]
) -> list[Stack | Refusal]:
    field = next(key for key in RANK_KEYS if _resolves(slots, (key,)))
    ranked = [
        sorted(slot, key=lambda i: _sort_key(_value(i, (field,)))) for slot in slots
    ]
    n_whole = min(len(slot) for slot in ranked)
    rows = tuple(tuple(slot[rank] for slot in ranked) for rank in range(n_whole))
    ranks = tuple(str(rank) for rank in range(n_whole))
    if not _lie_alike(rows):
        return [Refusal(_everything(slots), "not-a-volume")]
    if n_whole > 1:
        whole = Stack(rows, split, _keyword(field), ranks)
    else:
        whole = Stack(rows, split)
    rest = [slot[n_whole:] for slot in ranked if len(slot) > n_whole]
    if not rest:
        return [whole]
    left = _split_repeats(rest, (*split, "rest"))
    return [
        whole.warn("incomplete"),
        *(one.warn("incomplete") if isinstance(one, Stack) else one for one in left),
    ]


def _text(value: tuple[object, ...]) -> str:
    parts = [part for part in value if part is not None]
    return " ".join(
        f"{number:g}"
        for part in parts
        for number in (part if isinstance(part, tuple) else (part,))
    )


def _keyword(field: str) -> str:
    return "".join(word[0].upper() + word[1:] for word in field.split("_"))


# --- spacing ------------------------------------------------------------------


def _split_irregular(stack: Stack, on_irregular: Irregular) -> list[Stack | Refusal]:
    """Cut a stack whose slices are not evenly spaced, or refuse it."""
    slices = stack.grid[0]
    positions = np.array([item.image_position_patient for item in slices])
    normal = geometry.slice_normal(slices[0].image_orientation_patient)
    distances = geometry.project(positions, normal)
    if geometry.is_uniform(distances):
        if len(slices) < 3 or geometry.lies_on_line(positions, distances):
            return [_warn_of_ends(stack)]
        return [Refusal(stack.instances, "not-a-volume")]
    gaps = geometry.find_gaps(distances)
    thicknesses = {item.slice_thickness for item in slices}
    speaks = len(thicknesses) == 1 and None not in thicknesses
    holes = gaps.holes and speaks and gaps.n_missing <= len(slices)
    runs = gaps.runs if holes else gaps.pieces
    if on_irregular == "reject":
        code = "missing-slices" if holes else "nonuniform-spacing"
        return [Refusal(stack.instances, code)]
    too_many = not holes and len(runs) > max(2, len(slices) // MIN_MEAN_PIECE)
    if too_many or len(runs) == 1:
        return [Refusal(stack.instances, "nonuniform-spacing")]
    warning = "gap" if holes else "nonuniform"
    pieces = [_piece(stack, run).warn(warning) for run in runs]
    return [part for piece in pieces for part in _split_irregular(piece, on_irregular)]


def _piece(stack: Stack, run: tuple[int, int]) -> Stack:
    start, stop = run
    grid = tuple(row[start:stop] for row in stack.grid)
    return replace(stack, grid=grid, split=(*stack.split, f"piece {start}"))


def _warn_of_ends(stack: Stack) -> Stack:
    """Warn where numbers say that slices are missing at an end: positions cannot."""
    slices = stack.grid[0]
    numbers = [item.instance_number for item in slices]
    claimed = max((item.images_in_acquisition or 0 for item in slices), default=0)
    if stack.axis_keyword is None and claimed > len(slices):
        return stack.warn("fewer-than-images-in-acquisition")
    known = [number for number in numbers if number is not None]
    if stack.axis_keyword is None and len(known) == len(slices) > 1:
        steps = np.diff(np.sort(known))
        if len(set(steps.tolist())) > 1 and not stack.warnings:
            return stack.warn("instance-numbers-missing")
    return stack
