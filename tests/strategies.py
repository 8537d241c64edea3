"""Hypothesis strategies, and instances made as values: no files, no patient."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRLittleEndian

from dicomdask.model import Instance
from tests.builders import AXIAL, CT_IMAGE, ROOT

Vectors = np.ndarray[Any, np.dtype[np.float64]]

CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
OBLIQUE = (0.6, 0.8, 0.0, 0.0, 0.0, -1.0)
PLANES = {"axial": AXIAL, "coronal": CORONAL, "sagittal": SAGITTAL, "oblique": OBLIQUE}


def make_planned_instance(instance: int = 1, **fields: Any) -> Instance:
    """Return an axial CT slice as its header would be read; `fields` replace values."""
    values: dict[str, Any] = {
        "url": f"/in/{instance:04d}.dcm",
        "size": 100_000,
        "token": "",
        "header_digest": f"{instance:032x}",
        "patient_id": "PAT0001",
        "issuer_of_patient_id": None,
        "study_instance_uid": f"{ROOT}.1.1",
        "series_instance_uid": f"{ROOT}.1.1.1",
        "sop_instance_uid": f"{ROOT}.1.1.1.{instance}",
        "sop_class_uid": CT_IMAGE,
        "transfer_syntax_uid": str(ExplicitVRLittleEndian),
        "modality": "CT",
        "image_type": ("ORIGINAL", "PRIMARY", "AXIAL"),
        "conversion_type": None,
        "burned_in_annotation": None,
        "instance_number": instance,
        "acquisition_number": 1,
        "images_in_acquisition": None,
        "frame_of_reference_uid": f"{ROOT}.1.1.1.0",
        "number_of_frames": 1,
        "rows": 16,
        "columns": 12,
        "samples_per_pixel": 1,
        "photometric_interpretation": "MONOCHROME2",
        "bits_allocated": 16,
        "bits_stored": 16,
        "high_bit": 15,
        "pixel_representation": 1,
        "pixel_keyword": "PixelData",
        "pixel_spacing": (0.5, 0.75),
        "imager_pixel_spacing": (),
        "image_position_patient": (-10.0, -20.0, 2.5 * (instance - 1)),
        "image_orientation_patient": AXIAL,
        "slice_thickness": 2.5,
        "spacing_between_slices": None,
        "gantry_detector_tilt": None,
        "convolution_kernel": ("STANDARD",),
        "echo_numbers": None,
        "echo_time": None,
        "repetition_time": None,
        "inversion_time": None,
        "flip_angle": None,
        "diffusion_b_value": None,
        "diffusion_gradient_orientation": (),
        "temporal_position_identifier": None,
        "acquisition_time": None,
        "content_time": None,
        "trigger_time": None,
        "stack_id": None,
        "rescale_slope": 1.0,
        "rescale_intercept": -1024.0,
        "rescale_type": "HU",
        "units": None,
        "pixel_padding_value": None,
        "pixel_padding_range_limit": None,
        "has_modality_lut": False,
        "is_mosaic": False,
    }
    return Instance(**{**values, **fields})


def normal_of(cosines: Sequence[float]) -> Vectors:
    """Return the direction in which slices are ordered."""
    row, column = np.reshape(cosines, (2, 3))
    return np.cross(row, column)


def place(
    cosines: Sequence[float],
    distances: Sequence[float],
    *,
    origin: Sequence[float] = (-10.0, -20.0, 30.0),
    shear: Sequence[float] = (0.0, 0.0),
) -> list[tuple[float, ...]]:
    """Return the positions of slices at `distances` mm along the normal.

    `shear` is how far each mm along the normal moves a slice along the row and the
    column direction.
    """
    row, column = np.reshape(cosines, (2, 3))
    step = normal_of(cosines) + shear[0] * row + shear[1] * column
    return [tuple((np.asarray(origin) + d * step).tolist()) for d in distances]


def make_stack(
    n: int,
    *,
    gap_mm: float = 2.5,
    cosines: Sequence[float] = AXIAL,
    first: int = 1,
    **fields: Any,
) -> list[Instance]:
    """Return `n` evenly spaced slices, numbered from `first`."""
    positions = place(cosines, [gap_mm * number for number in range(n)])
    placed = {"image_orientation_patient": tuple(cosines), **fields}
    return [
        make_planned_instance(
            first + number, **{"image_position_patient": position, **placed}
        )
        for number, position in enumerate(positions)
    ]


def axis_angle(axis: Sequence[float], degrees: float) -> Vectors:
    """Return the matrix of a rotation (Rodrigues)."""
    x, y, z = np.asarray(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def _orientation_of(quaternion: Sequence[float]) -> tuple[float, ...]:
    w, x, y, z = np.asarray(quaternion) / np.linalg.norm(quaternion)
    row = (1 - 2 * (y * y + z * z), 2 * (x * y + z * w), 2 * (x * z - y * w))
    column = (2 * (x * y - z * w), 1 - 2 * (x * x + z * z), 2 * (y * z + x * w))
    return tuple(float(value) for value in (*row, *column))


def orientations() -> st.SearchStrategy[tuple[float, ...]]:
    """Any two orthogonal unit vectors, those of the main planes often."""
    part = st.floats(-1, 1, allow_subnormal=False)
    quaternions = st.tuples(part, part, part, part).filter(
        lambda q: np.linalg.norm(q) > 0.1
    )
    main = st.sampled_from(list(PLANES.values()))
    return st.one_of(main, quaternions.map(_orientation_of))


def spacings() -> st.SearchStrategy[float]:
    """A distance between slices or pixels in mm."""
    return st.floats(0.1, 12.0)


def origins() -> st.SearchStrategy[tuple[float, ...]]:
    """A position in mm."""
    part = st.floats(-500, 500)
    return st.tuples(part, part, part)


def shears() -> st.SearchStrategy[tuple[float, float]]:
    """Often none; else the tilt of a gantry, up to 30 degrees either way."""
    part = st.floats(-0.57, 0.57)
    return st.one_of(st.just((0.0, 0.0)), st.tuples(st.just(0.0), part))


@dataclass(frozen=True)
class Scene:
    """A stack as it truly is, and its instances in a random order."""

    instances: tuple[Instance, ...]
    positions: dict[str, tuple[float, ...]]
    gap_mm: float
    cosines: tuple[float, ...]


@st.composite
def scenes(draw: st.DrawFn, *, max_slices: int = 14) -> Scene:
    """Evenly spaced slices anywhere in space, a few missing, shuffled."""
    cosines, gap = draw(orientations()), draw(spacings())
    kept = draw(kept_slices(max_slices=max_slices))
    positions = place(
        cosines, [gap * k for k in kept], origin=draw(origins()), shear=draw(shears())
    )
    spacing = (draw(spacings()), draw(spacings()))
    instances = [
        make_planned_instance(
            number + 1,
            image_orientation_patient=cosines,
            image_position_patient=position,
            pixel_spacing=spacing,
        )
        for number, position in zip(kept, positions, strict=True)
    ]
    return Scene(
        tuple(draw(st.permutations(instances))),
        {i.url: i.image_position_patient for i in instances},
        gap,
        cosines,
    )


def kept_slices(*, max_slices: int = 14) -> st.SearchStrategy[list[int]]:
    """The numbers of the slices that are there: all, or some missing inside."""
    whole = st.integers(1, max_slices).map(lambda n: list(range(n)))

    def without(pair: tuple[list[int], set[int]]) -> list[int]:
        numbers, gone = pair
        inside = [k for k in numbers[1:-1] if k not in gone]
        return [*numbers[:1], *inside, *numbers[1:][-1:]]

    gone = st.sets(st.integers(1, max_slices), max_size=3)
    return st.one_of(whole, st.tuples(whole, gone).map(without))


_ODD_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "rows": st.sampled_from([16, 16, 8, None]),
    "modality": st.sampled_from(["CT", "MR", "DX", None]),
    "pixel_spacing": st.sampled_from([(0.5, 0.75), (), (0.0, 1.0), (1.0,)]),
    "image_position_patient": st.sampled_from([(), (1.0, 2.0), (0.0, 0.0, 7.0)]),
    "image_orientation_patient": st.sampled_from(
        [(), AXIAL, CORONAL, (1.0, 0.0, 0.0), (2.0, 0.0, 0.0, 0.0, 1.0, 0.0)]
    ),
    "image_type": st.sampled_from(
        [("ORIGINAL", "PRIMARY", "LOCALIZER"), ("DERIVED", "SECONDARY"), ()]
    ),
    "photometric_interpretation": st.sampled_from(["RGB", "MONOCHROME1", None]),
    "bits_allocated": st.sampled_from([16, 12, None]),
    "number_of_frames": st.sampled_from([1, 7]),
    "patient_id": st.sampled_from([None, "PAT0002"]),
    "study_instance_uid": st.just(f"{ROOT}.1.2"),
    "slice_thickness": st.sampled_from([None, 2.5, 5.0]),
    "transfer_syntax_uid": st.just("1.2.3"),
    "has_modality_lut": st.booleans(),
    "burned_in_annotation": st.sampled_from(["YES", "NO", None]),
}

_SOFT_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "echo_numbers": st.sampled_from([None, 1, 2]),
    "echo_time": st.sampled_from([None, 10.0, 80.0]),
    "flip_angle": st.sampled_from([5.0, 15.0]),
    "trigger_time": st.sampled_from([None, 0.0, 20.0, 40.0]),
    "temporal_position_identifier": st.sampled_from([None, 1, 2, 3]),
    "image_type": st.sampled_from(
        [("ORIGINAL", "PRIMARY", "M"), ("ORIGINAL", "PRIMARY", "P")]
    ),
    "stack_id": st.sampled_from([None, "1", "2"]),
    "diffusion_b_value": st.sampled_from([None, 0.0, 1000.0]),
    "diffusion_gradient_orientation": st.sampled_from(
        [(), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)]
    ),
    "acquisition_number": st.sampled_from([None, 1, 2]),
    "instance_number": st.sampled_from([None, 1, 2, 3]),
}


@st.composite
def messy_series(draw: st.DrawFn, *, max_size: int = 14) -> list[Instance]:
    """Instances whose headers are any mixture of good, odd and damaged."""
    soft = draw(st.lists(st.sampled_from(sorted(_SOFT_FIELDS)), max_size=3))
    instances = []
    for number in range(draw(st.integers(0, max_size))):
        distance = draw(st.sampled_from([0.0, 2.5, 5.0, 7.5, 15.0, 15.1]))
        fields = {name: draw(_SOFT_FIELDS[name]) for name in soft}
        if draw(st.integers(0, 3)) == 0:
            odd = draw(st.sampled_from(sorted(_ODD_FIELDS)))
            fields[odd] = draw(_ODD_FIELDS[odd])
        fields.setdefault("image_position_patient", (-10.0, -20.0, distance))
        instances.append(make_planned_instance(number + 1, **fields))
    return instances
