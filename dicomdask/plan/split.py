"""From the frames of one series to stacks: frames that belong on one grid.

Hard keys always split. Soft keys split only where they tell apart slices that lie at
one position (`repeats`); then what is not evenly spaced is cut (`spacing`).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from dicomdask.errors import InputError
from dicomdask.frames import Frame, frames_of
from dicomdask.model import Instance, Irregular
from dicomdask.plan.repeats import find_slots, split_repeats
from dicomdask.plan.spacing import split_irregular
from dicomdask.plan.stack import Refusal, Stack, is_cross_sectional, refuse

SAME_COSINE: Final = 1e-4
MIN_LONE: Final = 3
"""Fewer slices with a frame of reference each may well lie in spaces of their own."""


def split_series(
    instances: Sequence[Instance], on_irregular: Irregular
) -> list[Stack | Refusal]:
    """Return the stacks of one series, in a stable order whatever the input's."""
    ordered = sorted(instances, key=_stable_order)
    frames = [frame for instance in ordered for frame in frames_of(instance)]
    results: list[Stack | Refusal] = []
    for split, group in _hard_groups(frames):
        for result in _split_group(group, split):
            if isinstance(result, Refusal) or not result.placed:
                results.append(result)
            else:
                parts = split_irregular(result, on_irregular)
                results.extend(_warn_of_reference(part) for part in parts)
    return results


def _warn_of_reference(part: Stack | Refusal) -> Stack | Refusal:
    """Warn where slices were put together whose frames of reference differ."""
    uids = {one.frame_of_reference_uid for one in part.instances}
    if isinstance(part, Stack) and len(uids) > 1:
        return part.warn("frames-of-reference")
    return part


def _stable_order(instance: Instance) -> tuple[str, int, str]:
    return (instance.sop_instance_uid, instance.size, instance.header_digest)


def _hard_groups(
    frames: Iterable[Frame],
) -> list[tuple[tuple[str, ...], list[Frame]]]:
    groups: dict[tuple[str, ...], list[Frame]] = defaultdict(list)
    directions = _cluster_orientations(frames)
    for frame in frames:
        direction = directions[frame.facts.image_orientation_patient]
        groups[(direction, *_hard_key(frame))].append(frame)
    return sorted(_join_lone_slices(groups).items())


_REFERENCE: Final = 3
"""Where the frame of reference stands in the key of a group."""
Groups = Mapping[tuple[str, ...], list[Frame]]


def _join_lone_slices(groups: Groups) -> Groups:
    """Put slices together of which each has a frame of reference of its own.

    A series has one (PS3.3 section C.7.4.1). Where no two slices share any, UIDs were
    replaced slice by slice, as in LIDC-IDRI, and tell nothing; positions then do.
    """
    alike: dict[tuple[str, ...], list[tuple[str, ...]]] = defaultdict(list)
    for key in groups:
        alike[(*key[:_REFERENCE], "", *key[_REFERENCE + 1 :])].append(key)
    joined = dict(groups)
    for name, keys in alike.items():
        frames = [frame for key in keys for frame in groups[key]]
        places = {frame.facts.image_position_patient for frame in frames}
        if MIN_LONE <= len(keys) == len(frames) == len(places):
            joined[name] = [joined.pop(key)[0] for key in keys]
    return joined


def _hard_key(frame: Frame) -> tuple[str, ...]:
    instance, facts = frame.instance, frame.facts
    rows, columns = frame.shape
    values = (
        instance.modality,
        instance.sop_class_uid,
        instance.frame_of_reference_uid,
        rows,
        columns,
        tuple(round(spacing, 6) for spacing in facts.pixel_spacing),
        instance.bits_allocated,
        instance.bits_stored,
        instance.pixel_representation,
        instance.samples_per_pixel,
        instance.photometric_interpretation,
        facts.convolution_kernel,
        "LOCALIZER" in facts.image_type,
        len(facts.image_position_patient),
    )
    return tuple(str(value) for value in values)


def _cluster_orientations(
    frames: Iterable[Frame],
) -> dict[tuple[float, ...], str]:
    """Name each orientation by the first within 1e-4 of it."""
    names: dict[tuple[float, ...], str] = {}
    leaders: list[tuple[float, ...]] = []
    for cosines in sorted(
        {one.facts.image_orientation_patient for one in frames}, key=repr
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


def _split_group(group: list[Frame], split: tuple[str, ...]) -> list[Stack | Refusal]:
    if not all(_is_placed(frame) for frame in group):
        return [
            one for frames in _by_instance(group) for one in _unplaced(frames, split)
        ]
    try:
        slots = find_slots(group)
    except InputError as error:
        return [refuse(group, error.code, error.reason)]
    return split_repeats(slots, split)


def _is_placed(frame: Frame) -> bool:
    facts = frame.facts
    told = facts.image_position_patient or facts.image_orientation_patient
    return is_cross_sectional(frame.instance) and frame.is_told and bool(told)


def _by_instance(frames: list[Frame]) -> list[list[Frame]]:
    found: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        found[frame.instance.url].append(frame)
    return list(found.values())


APART: Final = frozenset({"EnergyWindowVector", "DetectorVector"})
"""Vectors of nuclear medicine whose frames show different things."""


def _unplaced(frames: list[Frame], split: tuple[str, ...]) -> list[Stack]:
    """Return the stacks of an object whose frames nothing places in space.

    Nuclear medicine: one for each energy window and detector, in the order of the other
    vectors, the last of which names the axis.
    """
    keywords = frames[0].facts.vector_keywords
    if not keywords:
        return [_lone(frames, split)]
    along = [k for k, keyword in enumerate(keywords) if keyword not in APART]
    groups: dict[tuple[int, ...], dict[tuple[int, ...], Frame]] = defaultdict(dict)
    for frame in frames:
        numbers = frame.facts.vectors
        apart = tuple(n for k, n in enumerate(numbers) if k not in along)
        groups[apart][tuple(numbers[k] for k in along)] = frame
    return [
        Stack(
            tuple((frame,) for _, frame in sorted(some.items())),
            (*split, frames[0].instance.sop_instance_uid, repr(apart)),
            axis_keyword=keywords[along[-1]] if along else None,
            axis_values=tuple(" ".join(map(str, one)) for one in sorted(some) if one),
            placed=False,
        )
        for apart, some in sorted(groups.items())
    ]


def _lone(frames: list[Frame], split: tuple[str, ...]) -> Stack:
    """Return an image or a cine that nothing places in space as a stack of its own."""
    first = frames[0].instance
    own = (*split, first.sop_instance_uid)
    keyword = "FrameTime" if first.frame_time and len(frames) > 1 else None
    grid = tuple((frame,) for frame in frames)
    stack = Stack(grid, own, axis_keyword=keyword, placed=False)
    return stack.warn("no-position") if is_cross_sectional(first) else stack
