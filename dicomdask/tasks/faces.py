"""Tell which volumes may show a face, and take it out of the pixels of a shard."""

from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

import numpy as np

from dicomdask import faces, pixels, rows
from dicomdask.errors import InputError
from dicomdask.model import (
    Faces,
    Meaning,
    PlannedFrame,
    PlannedVolume,
    Task,
    Verdict,
)
from dicomdask.policy import Policy
from dicomdask.pseudonym import Key
from dicomdask.tasks.barrier import guard, guard_as
from dicomdask.tasks.decode import Plane, Reader, place
from dicomdask.tasks.resolve import make_verdict
from dicomdask.tasks.sources import fetch, portions, take
from dicomdask.values import Transform

RECOGNIZABLE: Final = "00280302"
"""Recognizable Visual Features (PS3.3 section C.7.6.1)."""


def whole_volume(volume: PlannedVolume, error: InputError) -> list[Verdict]:
    """Return the verdicts that refuse all of a volume."""
    files = {frame.url: frame for frame in volume.frames}
    return [
        make_verdict(one, "encode", error.code, error.reason) for one in files.values()
    ]


def clean_faces(
    volume: PlannedVolume,
    task: Task,
    array: Plane,
    frames: rows.Frames,
    *,
    policy: Policy,
    key: Key,
    read: Reader,
) -> Faces:
    """Tell whether a shard may show a face; blank it where the policy wants that.

    Parameters
    ----------
    array
        The decoded shard, which is changed.
    frames
        What is known of its frames: what was done is said in their headers.
    read
        Reads frames of other shards: a face is found in the whole volume.

    Raises
    ------
    InputError
        `unclean-faces` where a face may be seen and cannot be removed; or what reading
        the other shards raises.
    """
    modality = rows.attribute(frames.first.header, "Modality")
    shape = dict(zip(volume.dimensions, volume.shape, strict=True))
    extents = tuple(shape.get(axis, 1) for axis in "zyx")
    may = faces.may_show_face(modality, frames.regions, volume.affine, extents)
    if not policy.cleans_faces:
        return "possible" if may else "none"
    if not may and not _is_looked_at_anyway(modality, volume, extents):
        return "none"
    if not volume.affine or "c" in volume.dimensions:
        raise InputError("unclean-faces")
    seed = int(key.digest("face", volume.volume_id), 16)
    planes = _values(volume, task, array, frames, read)
    affine = np.asarray(volume.affine).reshape(4, 4)
    face = blame_faces(faces.find_face, planes, affine, extents[0], str(modality), seed)
    if face is None and may:
        raise InputError("unclean-faces")
    if face is None:
        return "none"
    blame_faces(_blank, volume, task, array, frames, affine, face)
    frames.say(RECOGNIZABLE, {"vr": "CS", "Value": ["NO"]})
    return "cleaned"


def _is_looked_at_anyway(
    modality: str | None, volume: PlannedVolume, extents: tuple[int, ...]
) -> bool:
    """Tell whether pixels decide although the header says that this is no head.

    In CT a skull is told from everything else; in MR a liver may look like a brain.
    """
    is_large = faces.may_show_face(modality, ["unknown"], volume.affine, extents)
    return is_large and modality == "CT" and bool(volume.affine)


def _values(
    volume: PlannedVolume, task: Task, array: Plane, frames: rows.Frames, read: Reader
) -> Iterator[tuple[int, Plane]]:
    """Yield the modality values of what a face is found by, slice by slice.

    Of a time series the first volume is taken.
    """
    affine = np.asarray(volume.affine).reshape(4, 4)
    n = dict(zip(volume.dimensions, volume.shape, strict=True)).get("z", 1)
    wanted = {*faces.sampled(affine, n)}
    own = {frame.planned.index: frame for frame, _ in frames}
    others: list[PlannedFrame] = []
    for planned in volume.frames:
        if height(volume, planned) not in wanted or _time(volume, planned):
            continue
        if planned.index not in own:
            others.append(planned)
            continue
        plane = array[place(volume, task, planned)]
        meaning = own[planned.index].meaning
        yield height(volume, planned), _modality_values(plane, meaning)
    yield from _read(volume, others, read)


def read_values(
    volume: PlannedVolume, wanted: Container[int], read: Reader
) -> Iterator[tuple[int, Plane]]:
    """Yield the modality values of some slices; of a time series of its first time."""
    found = [
        one
        for one in volume.frames
        if height(volume, one) in wanted and not _time(volume, one)
    ]
    return _read(volume, found, read)


def _read(
    volume: PlannedVolume, frames: Iterable[PlannedFrame], read: Reader
) -> Iterator[tuple[int, Plane]]:
    for portion, fetched in fetch(portions(volume, frames)):
        with suppress(InputError):  # its own task tells; its neighbour stands in here
            data = guard(take, portion, fetched)
            for batch in portion.batches():
                decoded, (_, told) = read(replace(portion, frames=batch), data, volume)
                for plane, frame in zip(decoded, told, strict=True):
                    number = height(volume, frame.planned)
                    yield number, _modality_values(plane, frame.meaning)


def _modality_values(plane: Plane, meaning: Meaning) -> Plane:
    slope, intercept = meaning.slope or 0, meaning.intercept or 0
    transform = Transform.of(slope, intercept, meaning.modality_lut)
    return np.asarray(transform.to_modality(plane), np.float32)


def _axis(volume: PlannedVolume, planned: PlannedFrame, name: str) -> int:
    axes = (volume.dimensions[axis] for axis in volume.frame_axes)
    return dict(zip(axes, planned.index, strict=True)).get(name, 0)


def height(volume: PlannedVolume, planned: PlannedFrame) -> int:
    """Return the number of a frame along z."""
    return _axis(volume, planned, "z")


def _time(volume: PlannedVolume, planned: PlannedFrame) -> int:
    return _axis(volume, planned, "t")


def _blank(
    volume: PlannedVolume,
    task: Task,
    array: Plane,
    frames: rows.Frames,
    affine: Any,
    face: faces.Face,
) -> None:
    photometric = str(rows.attribute(frames.first.header, "PhotometricInterpretation"))
    for frame, _ in frames:
        index = place(volume, task, frame.planned)
        plane = array[index]
        number = height(volume, frame.planned)
        mask = faces.face_mask(plane.shape, number, affine, face)
        if mask is not None:
            array[index] = pixels.blank_mask(plane, mask, photometric)


def blame_faces(function: Any, *args: Any) -> Any:
    """Call what removes faces; what is unforeseen is that a face may be left."""
    told = "The face could not be removed"
    return guard_as("unclean-faces", told, function, *args)
