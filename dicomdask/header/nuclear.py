"""What tells apart the frames of a nuclear medicine object (PS3.3 section C.8.4.8).

Frame Increment Pointer names vectors, each with a number for each frame: its energy
window, detector, view, time slot, slice and so on. Together they name a frame.
"""

from math import isfinite
from typing import Any, Final

import numpy as np
from pydicom.datadict import tag_for_keyword

from dicomdask.header import groups
from dicomdask.header.values import Header
from dicomdask.limits import MAX_FRAMES

POINTER, DETECTORS = 0x00280009, 0x00540022
SLICES: Final = "SliceVector"
VECTORS: Final = {
    tag: keyword
    for keyword in (
        *("EnergyWindowVector", "DetectorVector", "PhaseVector", "RotationVector"),
        *("RRIntervalVector", "TimeSlotVector", SLICES, "AngularViewVector"),
        "TimeSliceVector",
    )
    if (tag := tag_for_keyword(keyword)) is not None
}
WANTED: Final = (POINTER, DETECTORS, *VECTORS)

Columns = dict[str, list[Any]]


def read_vectors(header: Header, values: dict[str, Any], n: int) -> Columns:
    """Return what tells each frame apart, as columns of facts; {} if nothing does.

    Those are the vectors whose numbers differ, and of reconstructed slices the
    positions instead of their numbers.

    Parameters
    ----------
    header
        A header that was parsed up to the pixels.
    values
        The fields of its instance.
    n
        How many frames it claims.
    """
    if values["modality"] != "NM" or not 1 < n <= MAX_FRAMES:
        return {}
    vectors = _vectors(header, n)
    if len(set(zip(*vectors.values(), strict=True))) != n:
        return {}
    columns: Columns = {}
    if SLICES in vectors:
        columns = _places(header, values, vectors.pop(SLICES))
        if not columns:
            return {}
    varying = {name: one for name, one in vectors.items() if len(set(one)) > 1}
    if varying:
        columns["vectors"] = list(zip(*varying.values(), strict=True))
        columns["vector_keywords"] = [tuple(varying)] * n
    return columns


def _vectors(header: Header, n: int) -> dict[str, tuple[int, ...]]:
    """Return the numbers of vectors by keyword; {} unless all are as they should."""
    found: dict[str, tuple[int, ...]] = {}
    for tag in _pointers(header):
        numbers = header.numbers_at(tag, "US") if tag in VECTORS else ()
        if len(numbers) != n or not all(float(one).is_integer() for one in numbers):
            return {}
        found[VECTORS[tag]] = tuple(map(int, numbers))
    return found


def _pointers(header: Header) -> list[int]:
    raw = header.raw(POINTER) or b""
    order = "little" if header.endian == "<" else "big"
    parts = [int.from_bytes(raw[i : i + 2], order) for i in range(0, len(raw) - 1, 2)]  # type: ignore[arg-type]
    return [
        group << 16 | element
        for group, element in zip(parts[::2], parts[1::2], strict=False)
    ]


def _places(
    header: Header, values: dict[str, Any], numbers: tuple[int, ...]
) -> Columns:
    """Return where reconstructed slices lie (PS3.3 sections C.8.4.11 and C.8.4.15).

    The detector tells where the first one does. The sign of Spacing Between Slices says
    on which side of it the others are: behind it along the normal, or in front of it.
    """
    told = {_place(header, one) for one in groups.items(header, DETECTORS)}
    spacing = values["spacing_between_slices"]
    if len(told) != 1 or not spacing or not isfinite(spacing):
        return {}
    [(position, cosines)] = told
    sizes = len(position), len(cosines), len(values["pixel_spacing"])
    if sizes != (3, 6, 2) or not all(map(isfinite, (*position, *cosines))):
        return {}
    row, column = np.reshape(cosines, (2, 3))
    step = np.cross(row, column) * spacing
    first = numbers[0]
    places = [tuple((position + (k - first) * step).tolist()) for k in numbers]
    return {
        "image_position_patient": places,
        "image_orientation_patient": [cosines] * len(numbers),
    }


def _place(
    header: Header, item: groups.Elements
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    view = header.view(item)
    position, cosines = (
        tuple(map(float, view.numbers(field)))
        for field in ("image_position_patient", "image_orientation_patient")
    )
    return position, cosines
