"""Soft keys: what tells apart slices that lie at one position.

Trigger time, say, may well differ from slice to slice of one volume; so soft keys split
only where positions repeat.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from dicomdask import geometry
from dicomdask.errors import InputError
from dicomdask.frames import Frame
from dicomdask.plan.stack import Refusal, Stack, refuse

SAME_POSITION_MM: Final = 1e-3

GRID_KEYS: Final = (
    ("echo_numbers",),
    ("echo_time",),
    ("diffusion_b_value",),
    ("diffusion_b_value", "diffusion_gradient_orientation"),
    ("temporal_position_identifier",),
    ("inversion_time",),
    ("flip_angle",),
    ("repetition_time",),
    ("dimension_index_values",),
    ("vectors",),
)
"""Soft keys whose values are those of a fourth axis."""

APART_KEYS: Final = (("image_type",), ("stack_id",))
"""Soft keys whose values make volumes of their own."""

RANK_KEYS: Final = (
    ("trigger_time",),
    ("acquisition_number",),
    ("acquisition_time",),
    ("content_time",),
    ("instance_number",),
    ("instance_number", "frame_number"),
)
"""Soft keys that grow from slice to slice: their rank at a position is the axis."""


def find_slots(group: list[Frame]) -> list[list[Frame]]:
    """Return the frames by position along the normal; several may share one."""
    normal = geometry.slice_normal(group[0].facts.image_orientation_patient)
    for frame in group:
        position = frame.facts.image_position_patient
        if len(position) != 3 or not np.all(np.isfinite(position)):
            raise InputError(
                "bad-geometry", "ImagePositionPatient is not three finite numbers."
            )
    positions = np.array([frame.facts.image_position_patient for frame in group])
    distances = geometry.project(positions, normal)
    order = np.argsort(distances, kind="stable")
    slots: list[list[Frame]] = []
    last = -np.inf
    for index in order:
        if distances[index] - last > SAME_POSITION_MM:
            slots.append([])
        slots[-1].append(group[index])
        last = distances[index]
    return slots


def split_repeats(
    slots: list[list[Frame]], split: tuple[str, ...]
) -> list[Stack | Refusal]:
    """Return the stacks of slots, of which some may hold several frames.

    Parameters
    ----------
    slots
        The frames at each position, along the normal.
    split
        The values that set them apart from the rest of their series.
    """
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
    if any(_resolves(slots, fields) for fields in RANK_KEYS):
        return _by_rank(slots, split)
    if varying:
        return _recurse(slots, varying[0], split)
    return [refuse(_everything(slots), "repeated-positions")]


def _everything(slots: list[list[Frame]]) -> tuple[Frame, ...]:
    return tuple(frame for slot in slots for frame in slot)


Fields = tuple[str, ...]


def _value(frame: Frame, fields: Fields) -> tuple[object, ...]:
    values = (getattr(frame.facts, field) for field in fields)
    return tuple(None if value != value else value for value in values)


def _values(slots: list[list[Frame]], fields: Fields) -> list[tuple[object, ...]]:
    found = {_value(frame, fields) for slot in slots for frame in slot}
    return sorted(found, key=_sort_key)


def _sort_key(value: tuple[object, ...]) -> tuple[tuple[int, object], ...]:
    return tuple((0, 0) if part is None or part == () else (1, part) for part in value)


def _resolves(slots: list[list[Frame]], fields: Fields) -> bool:
    """Return whether the key tells apart all that lies at any one position."""
    return all(
        len({_value(frame, fields) for frame in slot}) == len(slot) for slot in slots
    )


def _spans(slots: list[list[Frame]], fields: Fields) -> bool:
    """Return whether each value is found at every position.

    A key that grows from slice to slice does not, and would shatter the volume.
    """
    n_values = len(_values(slots, fields))
    return all(
        len({_value(frame, fields) for frame in slot}) == n_values for slot in slots
    )


def _where(
    slots: list[list[Frame]], fields: Fields, value: tuple[object, ...]
) -> list[list[Frame]]:
    """Return the slots with only the frames whose key has this value."""
    kept = ([one for one in slot if _value(one, fields) == value] for slot in slots)
    return [slot for slot in kept if slot]


def _by_key(
    slots: list[list[Frame]], fields: Fields, split: tuple[str, ...]
) -> list[Stack | Refusal]:
    values = _values(slots, fields)
    rows = [tuple(slot[0] for slot in _where(slots, fields, value)) for value in values]
    whole = all(len(row) == len(slots) for row in rows)
    apart = fields in APART_KEYS
    if whole and not apart and _lie_alike(rows):
        stack = Stack(
            tuple(rows), split, _axis(rows[0][0], fields), tuple(map(_text, values))
        )
        return [stack]
    stacks = [
        Stack((row,), (*split, *fields, repr(value)))
        for row, value in zip(rows, values, strict=True)
    ]
    quiet = whole and apart
    return [stack if quiet else stack.warn("ragged-grid") for stack in stacks]


def _lie_alike(rows: Sequence[Sequence[Frame]]) -> bool:
    """Return whether all rows lie where the first does, within the plane too."""
    positions = np.array(
        [[frame.facts.image_position_patient for frame in row] for row in rows]
    )
    return bool(np.abs(positions - positions[0]).max() <= SAME_POSITION_MM)


def _recurse(
    slots: list[list[Frame]], fields: Fields, split: tuple[str, ...]
) -> list[Stack | Refusal]:
    results: list[Stack | Refusal] = []
    for value in _values(slots, fields):
        inner = _where(slots, fields, value)
        results.extend(split_repeats(inner, (*split, *fields, repr(value))))
    return results


def _by_rank(slots: list[list[Frame]], split: tuple[str, ...]) -> list[Stack | Refusal]:
    fields = next(one for one in RANK_KEYS if _resolves(slots, one))
    ranked = [
        sorted(slot, key=lambda i: _sort_key(_value(i, fields))) for slot in slots
    ]
    n_whole = min(len(slot) for slot in ranked)
    rows = tuple(tuple(slot[rank] for slot in ranked) for rank in range(n_whole))
    ranks = tuple(str(rank) for rank in range(n_whole))
    if not _lie_alike(rows):
        return [refuse(_everything(slots), "not-a-volume")]
    if n_whole > 1:
        whole = Stack(rows, split, _keyword(fields[-1]), ranks)
    else:
        whole = Stack(rows, split)
    rest = [slot[n_whole:] for slot in ranked if len(slot) > n_whole]
    if not rest:
        return [whole]
    left = split_repeats(rest, (*split, "rest"))
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


def _axis(frame: Frame, fields: Fields) -> str:
    """Return the keyword of an axis along which some fields differ."""
    keywords = frame.facts.vector_keywords
    return keywords[-1] if fields == ("vectors",) and keywords else _keyword(fields[-1])


def _keyword(field: str) -> str:
    return "".join(word[0].upper() + word[1:] for word in field.split("_"))
