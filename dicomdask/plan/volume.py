"""From a stack to a planned volume: geometry, layout, names."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, prod
from typing import Final

import numpy as np

from dicomdask import geometry
from dicomdask.errors import InputError
from dicomdask.frames import Frame
from dicomdask.layout import choose_layout
from dicomdask.model import (
    FORMAT,
    Instance,
    Kind,
    PlannedFrame,
    PlannedVolume,
    Settings,
)
from dicomdask.pixels import stored_dtype, stored_samples
from dicomdask.plan.stack import PROJECTIONS, Stack, is_cross_sectional
from dicomdask.policy import patient_identity
from dicomdask.pseudonym import Key

UNCOMPRESSED: Final = frozenset(
    {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"}
)
"""Transfer syntaxes in which pixels lie in the file as they are (PS3.5 section A)."""


def series_key(instance: Instance, key: Key) -> str:
    """Return the keyed name of an instance's series, patient and study included."""
    return key.digest(
        "series",
        patient_identity(
            instance.patient_id,
            instance.issuer_of_patient_id,
            instance.study_instance_uid,
        ),
        instance.study_instance_uid,
        instance.series_instance_uid,
    )


def source_key(url: str, key: Key) -> str:
    """Return the keyed name of a source file."""
    return key.digest("source", url)


def plan_volume(
    stack: Stack,
    settings: Settings,
    *,
    policy_digest: str,
    key: Key,
    duplicates: Mapping[str, int],
) -> PlannedVolume:
    """Return the volume that a stack becomes.

    Parameters
    ----------
    stack
        Frames on a grid of (t, z).
    settings, policy_digest, key
        What decides the output; all of it goes into the revision.
    duplicates
        How many further copies each SOP Instance UID has.

    Raises
    ------
    InputError
        `bad-geometry` if spacing or orientation is damaged.
    """
    frame = stack.grid[0][0]
    first = frame.instance
    axes = _axes(stack)
    shape = (*(extent for _, extent in axes), *frame.shape)
    dimensions = (*(name for name, _ in axes), "y", "x")
    kind = _kind(stack)
    dtype = stored_dtype(first)
    layout = choose_layout(
        shape,
        dtype,
        settings.profile,
        samples_axis=dimensions.index("c") if "c" in dimensions else None,
        framewise=kind not in ("volume", "timeseries"),
        codec=settings.codec,
        patch_size=settings.patch_size,
    )
    identity = series_key(first, key)
    volume_id = key.digest("volume", identity, *stack.split)
    placed = _place(stack)
    return PlannedVolume(
        volume_id=volume_id,
        revision=_revision(volume_id, stack, repr(layout), policy_digest, key),
        series_key=identity,
        kind=kind,
        shape=shape,
        dimensions=dimensions,
        dtype=dtype,
        layout=layout,
        affine=placed.affine,
        spacing_mm=placed.spacing_mm,
        uniform_spacing=stack.uniform,
        tilt_degrees=placed.tilt_degrees,
        axis_keyword=stack.axis_keyword,
        axis_values=stack.axis_values,
        padding=_padding(first),
        n_missing=len(stack.missing),
        missing=stack.missing,
        n_duplicates=sum(
            duplicates.get(one.sop_instance_uid, 0) for one in stack.instances
        ),
        warnings=(*stack.warnings, *placed.warnings),
        frames=_frames(stack, key),
        header_bytes=max(one.header_bytes for one in stack.instances),
    )


def _axes(stack: Stack) -> list[tuple[str, int]]:
    """Return the axes before (y, x): those of t, c and z that are longer than 1."""
    n_samples = stored_samples(stack.grid[0][0].instance)
    sizes = [("t", len(stack.grid)), ("c", n_samples), ("z", stack.n_slices)]
    return [(name, extent) for name, extent in sizes if extent > 1]


MOMENTS: Final = frozenset(
    {"PhaseVector", "RRIntervalVector", "TimeSlotVector", "TimeSliceVector"}
)
"""Vectors of nuclear medicine that count moments, not views."""


def _kind(stack: Stack) -> Kind:
    first = stack.grid[0][0]
    is_many = len(stack.grid) > 1
    if not is_cross_sectional(first.instance):
        if "SECONDARY" in first.facts.image_type[1:2]:
            return "secondary"
        is_cine = is_many and first.instance.sop_class_uid not in PROJECTIONS
        return "cine" if is_cine else "projection"
    if first.facts.vector_keywords and not stack.placed:
        return "cine" if stack.axis_keyword in MOMENTS else "projection"
    if is_many and not stack.placed:
        return "cine"
    return "timeseries" if len(stack.grid) > 1 else "volume"


def _revision(
    volume_id: str, stack: Stack, layout: str, policy_digest: str, key: Key
) -> str:
    states = [_state(frame) for frame in stack.frames]
    grid = f"{len(stack.grid)}x{len(stack.grid[0])}"
    if stack.missing:
        grid += " without " + ",".join(map(str, stack.missing))
    return key.digest(
        "revision",
        str(FORMAT),
        volume_id,
        policy_digest,
        layout,
        grid,
        *states,
        nbytes=8,
    )


def state_of(instance: Instance) -> str:
    """Return what tells one state of an instance apart, wherever its file lies."""
    one = instance
    return f"{one.sop_instance_uid} {one.size} {one.header_digest} {one.token}"


def _state(frame: Frame) -> str:
    state = state_of(frame.instance)
    return state if frame.is_only else f"{state} {frame.facts.frame_number - 1}"


PADDING: Final = {"FloatPixelData": "float_", "DoubleFloatPixelData": "double_float_"}
"""What the padding of floats is named by (PS3.3 sections C.7.6.24 and C.7.6.25)."""


def _padding(instance: Instance) -> tuple[float, ...]:
    """Return the padding value, or its range (PS3.3 C.7.5.1.1.2).

    NaN and infinities are no values anyway.
    """
    kind = PADDING.get(instance.pixel_keyword or "", "")
    value = getattr(instance, f"{kind}pixel_padding_value")
    limit = getattr(instance, f"{kind}pixel_padding_range_limit")
    if value is None or not isfinite(value):
        return ()
    if limit is not None and not isfinite(limit):
        limit = None
    return (value,) if limit is None else (min(value, limit), max(value, limit))


def _frames(stack: Stack, key: Key) -> tuple[PlannedFrame, ...]:
    n_t, n_z = len(stack.grid), stack.n_slices
    there = [z for z in range(n_z) if z not in {*stack.missing}]
    keys = {one.url: source_key(one.url, key) for one in stack.instances}
    return tuple(
        PlannedFrame(
            url=frame.instance.url,
            size=frame.instance.size,
            token=frame.instance.token,
            frame=frame.number,
            index=(*((t,) if n_t > 1 else ()), *((z,) if n_z > 1 else ())),
            position=frame.facts.image_position_patient,
            source_key=keys[frame.instance.url],
            etag=frame.instance.etag,
            offset=_offset(frame),
            tile=frame.tile,
        )
        for t, row in enumerate(stack.grid)
        for z, frame in zip(there, row, strict=True)
    )


def _offset(frame: Frame) -> int | None:
    """Return where the frame's pixels start in its file, where it is one of many.

    Compressed frames, and frames that share a byte, cannot be told by arithmetic.
    """
    one = frame.instance
    bits = prod(frame.shape) * (one.samples_per_pixel or 1) * (one.bits_allocated or 0)
    is_plain = (
        one.transfer_syntax_uid in UNCOMPRESSED
        and one.pixel_keyword == "PixelData"
        and not (one.photometric_interpretation or "").endswith("_422")
        and stored_samples(one) == (one.samples_per_pixel or 1)
        and one.bits_allocated in {8, 16, 32}
    )
    if frame.is_only or frame.tile is not None or not is_plain or not one.header_bytes:
        return None
    return one.header_bytes + frame.number * bits // 8


@dataclass(frozen=True, slots=True)
class _Placement:
    """Affine (16 values), spacing and tilt of a stack; empty where unknown."""

    affine: tuple[float, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    tilt_degrees: float = 0.0
    warnings: tuple[str, ...] = ()


def _place(stack: Stack) -> _Placement:
    slices = stack.grid[0]
    in_plane = _pixel_spacing(slices[0])
    if not stack.placed or len(in_plane) != 2:
        warnings = () if in_plane else ("no-pixel-spacing",)
        if in_plane and not _is_calibrated(slices[0]):
            warnings = ("uncalibrated-spacing",)
        return _Placement(spacing_mm=in_plane, warnings=warnings)
    cosines = slices[0].facts.image_orientation_patient
    positions = np.array([one.facts.image_position_patient for one in slices])
    matrix = geometry.affine(positions, cosines, in_plane, n=stack.n_slices)
    is_off = geometry.parse_orientation(cosines)[2] > geometry.COSINE_WARN
    tilt = 0.0
    between: tuple[float, ...] = ()
    if len(slices) > 1:
        distances = geometry.project(positions, geometry.slice_normal(cosines))
        tilt = geometry.tilt_degrees(positions, cosines)
        between = (geometry.slice_spacing(distances, stack.n_slices),)
    return _Placement(
        affine=tuple(matrix.ravel().tolist()),
        spacing_mm=(*between, *in_plane),
        tilt_degrees=tilt,
        warnings=(
            *(("orientation-off",) if is_off else ()),
            *(("tilt",) if tilt else ()),
            *(("told-spacing",) if _is_told_spacing(slices[0]) else ()),
        ),
    )


def _is_told_spacing(frame: Frame) -> bool:
    """Return whether slices lie where Spacing Between Slices alone says that they do.

    In nuclear medicine nothing else does (PS3.3 section C.8.4.15).
    """
    return frame.instance.modality == "NM" and not frame.is_only


def _is_calibrated(frame: Frame) -> bool:
    """Return whether the spacing is that in the patient, not at the detector.

    PS3.3 section 10.7.1.3: Pixel Spacing that equals Imager Pixel Spacing was not
    calibrated.
    """
    spacing = frame.facts.pixel_spacing
    return bool(spacing) and spacing != frame.instance.imager_pixel_spacing


def _pixel_spacing(frame: Frame) -> tuple[float, ...]:
    spacing = frame.facts.pixel_spacing
    if not is_cross_sectional(frame.instance):
        spacing = spacing or frame.instance.imager_pixel_spacing
    if not spacing:
        return ()
    if len(spacing) != 2 or not all(np.isfinite(spacing)) or min(spacing) <= 0:
        raise InputError("bad-geometry", "PixelSpacing is not two positive numbers.")
    return spacing
