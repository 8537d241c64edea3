"""Nuclear medicine of many frames: ordered by its vectors, or refused by name.

A line number in a name is that of the list of what right means for pixels and volumes.
"""

import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

from tests.builders import make_instance
from tests.conftest import Convert
from tests.test_multiframe import item
from tests.test_projections import STORAGE, stored

AXIAL = (1, 0, 0, 0, 1, 0)
OBLIQUE = (0.6, 0.8, 0, 0, 0, -1)
POSITION = (-10.5, 20.25, 300.0)
Vectors = dict[str, list[int]]


def make_nuclear(
    vectors: Vectors, kind: str, *, detectors: Any = None, **elements: Any
) -> Dataset:
    """Return an object whose frame k is all k; `vectors` are those of the pointer."""
    n = len(next(iter(vectors.values())))
    pixels = (
        np.zeros((n, 4, 6), np.uint16)
        + np.arange(n, dtype=np.uint16)[:, np.newaxis, np.newaxis]
    )
    pixels[:, 1, 2] = 900
    pointers = [tag_for_keyword(keyword) for keyword in vectors]
    gone = dict.fromkeys(
        (
            *("ImagePositionPatient", "ImageOrientationPatient"),
            *("RescaleSlope", "RescaleIntercept"),
        )
    )
    told = {
        "Modality": "NM",
        "SOPClassUID": STORAGE + "20",
        "ImageType": ["ORIGINAL", "PRIMARY", kind, "EMISSION"],
        "FrameIncrementPointer": pointers,
        "DetectorInformationSequence": Sequence(
            [item()] if detectors is None else detectors
        ),
    }
    ds = make_instance(pixels=pixels, **{**told, **vectors, **gone})
    for keyword, value in elements.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def shuffled(**ranges: int) -> Vectors:
    """Return vectors over a grid, from 1, its frames in no order."""
    every = list(itertools.product(*(range(1, n + 1) for n in ranges.values())))
    random.Random(0).shuffle(every)
    return {
        name: list(column)
        for name, column in zip(ranges, zip(*every, strict=True), strict=True)
    }


def detector(cosines: Any = AXIAL, position: Any = POSITION) -> Dataset:
    return item(
        ImagePositionPatient=list(position), ImageOrientationPatient=list(cosines)
    )


def frames_at(vectors: Vectors, **wanted: int) -> list[int]:
    """Return which frames have these numbers, in the order of the others."""
    names = [name for name in vectors if name not in wanted]
    found = [
        (tuple(vectors[name][k] for name in names), k)
        for k in range(len(next(iter(vectors.values()))))
        if all(vectors[name][k] == value for name, value in wanted.items())
    ]
    return [k for _, k in sorted(found)]


def planes(array: Any) -> list[int]:
    """Return which frame each plane is, by its first pixel."""
    return array[..., 0, 0].ravel().tolist()


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("cosines", [AXIAL, OBLIQUE])
@pytest.mark.parametrize("spacing", [4.5, -4.5])
def test_line_04_reconstructed_slices_lie_where_the_sign_says(
    tmp_path: Path, convert: Convert, cosines: Any, spacing: float, syntax: str
) -> None:
    """PS3.3 C.8.4.15: behind the first along the normal, or in front of it."""
    vectors = shuffled(SliceVector=7)
    first = vectors["SliceVector"][0]
    ds = make_nuclear(
        vectors,
        "RECON TOMO",
        detectors=[detector(cosines)],
        SpacingBetweenSlices=spacing,
    )
    ds.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    dataset = stored(convert, tmp_path, ds, trust="NM")
    [row] = dataset.volumes.to_dict("records")
    assert (row["kind"], list(row["dimensions"])) == ("volume", ["z", "y", "x"])
    assert list(row["warnings"]) == ["told-spacing"]
    assert list(row["spacing_mm"]) == pytest.approx([4.5, 0.5, 0.75])
    affine = np.reshape(row["affine"], (4, 4))
    normal = np.cross(cosines[:3], cosines[3:])
    array = dataset.read(row["volume_id"])
    order = planes(array)
    assert sorted(order) == list(range(7))
    for z, k in enumerate(order):
        number = vectors["SliceVector"][k]
        wanted = np.array(POSITION) + (number - first) * spacing * normal
        np.testing.assert_allclose((affine @ (z, 0, 0, 1))[:3], wanted, atol=1e-6)
        told = dataset.frames.set_index("z").loc[z]
        assert told["frame_number"] == k + 1
        np.testing.assert_allclose(told["ImagePositionPatient"], wanted, atol=1e-6)


def test_line_13_gated_slices_are_a_grid(tmp_path: Path, convert: Convert) -> None:
    vectors = shuffled(RRIntervalVector=1, TimeSlotVector=3, SliceVector=4)
    ds = make_nuclear(
        vectors,
        "RECON GATED TOMO",
        detectors=[detector()],
        SpacingBetweenSlices=2.0,
    )
    dataset = stored(convert, tmp_path, ds, trust="NM")
    [row] = dataset.volumes.to_dict("records")
    assert (row["kind"], list(row["shape"])) == ("timeseries", [3, 4, 4, 6])
    assert row["axis_keyword"] == "TimeSlotVector"
    assert list(row["axis_values"]) == ["1", "2", "3"]
    wanted = [k for slot in (1, 2, 3) for k in frames_at(vectors, TimeSlotVector=slot)]
    assert planes(dataset.read(row["volume_id"])) == wanted


def test_line_28_a_dynamic_study_is_a_cine_of_each_detector(
    tmp_path: Path, convert: Convert
) -> None:
    vectors = shuffled(
        EnergyWindowVector=1, DetectorVector=2, PhaseVector=2, TimeSliceVector=5
    )
    dataset = stored(convert, tmp_path, make_nuclear(vectors, "DYNAMIC"), trust="NM")
    rows = dataset.volumes.to_dict("records")
    found = {tuple(planes(dataset.read(row["volume_id"]))) for row in rows}
    assert found == {tuple(frames_at(vectors, DetectorVector=d)) for d in (1, 2)}
    for row in rows:
        assert (row["kind"], list(row["dimensions"])) == ("cine", ["t", "y", "x"])
        assert row["axis_keyword"] == "TimeSliceVector"
        assert list(row["axis_values"])[4:6] == ["1 5", "2 1"]
        assert row["affine"] is None


def test_line_27_views_of_a_tomography_are_projections(
    tmp_path: Path, convert: Convert
) -> None:
    vectors = shuffled(
        EnergyWindowVector=2, DetectorVector=1, RotationVector=1, AngularViewVector=6
    )
    dataset = stored(convert, tmp_path, make_nuclear(vectors, "TOMO"), trust="NM")
    rows = dataset.volumes.to_dict("records")
    found = {tuple(planes(dataset.read(row["volume_id"]))) for row in rows}
    assert found == {tuple(frames_at(vectors, EnergyWindowVector=w)) for w in (1, 2)}
    assert {row["kind"] for row in rows} == {"projection"}
    assert {row["axis_keyword"] for row in rows} == {"AngularViewVector"}


def test_line_15_static_images_of_two_detectors_are_two(
    tmp_path: Path, convert: Convert
) -> None:
    vectors = {"EnergyWindowVector": [1, 1], "DetectorVector": [2, 1]}
    dataset = stored(convert, tmp_path, make_nuclear(vectors, "STATIC"), trust="NM")
    rows = dataset.volumes.to_dict("records")
    assert [list(row["dimensions"]) for row in rows] == [["y", "x"]] * 2
    assert {row["kind"] for row in rows} == {"projection"}
    found = [planes(dataset.read(row["volume_id"])) for row in rows]
    assert sorted(found) == [[0], [1]]
    assert len(dataset.instances) == 2, "one row for each volume"


TOMO = {"SliceVector": [1, 2, 3]}
WINDOWS = {"EnergyWindowVector": [1, 1, 1], "DetectorVector": [1, 2, 3]}
PLACED = {"detectors": [detector()], "SpacingBetweenSlices": 2.0}


@pytest.mark.parametrize(
    ("vectors", "elements"),
    [
        (WINDOWS, {"FrameIncrementPointer": None}),
        (WINDOWS, {"FrameIncrementPointer": [0x00181063]}),
        (WINDOWS, {"FrameIncrementPointer": [0x00540010, 0x00540100]}),
        (WINDOWS, {"DetectorVector": [1, 2]}),
        (WINDOWS, {"DetectorVector": [1, 2, 1]}),
        (WINDOWS, {"DetectorVector": None}),
        (TOMO, {**PLACED, "SpacingBetweenSlices": 0}),
        (TOMO, {"detectors": [detector()]}),
        (TOMO, {**PLACED, "detectors": []}),
        (TOMO, {**PLACED, "detectors": [item()]}),
        (TOMO, {**PLACED, "detectors": [detector(), detector(position=(0, 0, 0))]}),
        (TOMO, {**PLACED, "detectors": [detector(position=(0, 0))]}),
        (TOMO, {**PLACED, "PixelSpacing": None}),
        (TOMO, {**PLACED, "SliceVector": [1, 2, 2]}),
    ],
)
def test_line_28_what_cannot_be_ordered_is_refused_by_name(
    tmp_path: Path, convert: Convert, vectors: Vectors, elements: dict[str, Any]
) -> None:
    ds = make_nuclear(vectors, "STATIC", **elements)
    dataset = stored(convert, tmp_path, ds, trust="NM")
    assert list(dataset.inputs["code"]) == ["multiframe"]
