"""Projections, cines and tomosynthesis: kinds that no place in space is invented for.

A line number in a name is that of the list of what right means for pixels and volumes.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence

import dicomdask
from dicomdask.pseudonym import Key
from dicomdask.verify import verify
from dicomdask.work import Work
from tests.builders import make_instance, to_bytes
from tests.conftest import SECRET, Convert
from tests.test_multiframe import frame_group, item, make_enhanced

STORAGE = "1.2.840.10008.5.1.4.1.1."
ULTRASOUND = {"Modality": "US", "SOPClassUID": STORAGE + "3.1"}
UNPLACED = dict.fromkeys(
    (
        *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
        *("SliceThickness", "RescaleSlope", "RescaleIntercept"),
    )
)


def stored(convert: Convert, folder: Path, *datasets: Dataset, trust: str) -> Any:
    source, store = folder / "in", folder / "o.zarr"
    source.mkdir()
    for number, ds in enumerate(datasets):
        (source / f"{number}.dcm").write_bytes(to_bytes(ds))
    convert(source, store, trust_pixels=(trust,))
    report = verify(str(store), work=Work(f"{store}.work"), key=Key(SECRET.encode()))
    assert not report.problems
    return dicomdask.open_dataset(str(store))


def attributes(store: Path, row: dict[str, Any]) -> dict[str, Any]:
    text = (store / row["path"] / "zarr.json").read_text()
    found: dict[str, Any] = json.loads(text)["attributes"]["dicomdask"]
    return found


def random_frames(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 255, shape).astype(np.uint8)


@pytest.mark.parametrize("coloured", [False, True])
def test_line_28_an_ultrasound_cine(tmp_path: Path, convert: Convert, coloured: bool):
    frames = random_frames(4, 8, 6, 3) if coloured else random_frames(4, 8, 6)
    colour = (
        {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "Rows": 8, "Columns": 6}
        | {"PhotometricInterpretation": "RGB", "NumberOfFrames": 4}
        if coloured
        else {}
    )
    region = item(
        RegionSpatialFormat=1,
        RegionDataType=1,
        RegionLocationMinX0=1,
        RegionLocationMinY0=2,
        RegionLocationMaxX1=5,
        RegionLocationMaxY1=7,
        PhysicalUnitsXDirection=3,
        PhysicalUnitsYDirection=3,
        PhysicalDeltaX=0.05,
        PhysicalDeltaY=0.06,
    )
    ds = make_instance(
        pixels=frames,
        **ULTRASOUND,
        **UNPLACED,
        **colour,
        FrameTime=40.0,
        SequenceOfUltrasoundRegions=Sequence([region]),
    )
    dataset = stored(convert, tmp_path, ds, trust="US")
    [row] = dataset.volumes.to_dict("records")
    assert row["kind"] == "cine"
    assert list(row["dimensions"]) == [*("tc" if coloured else "t"), "y", "x"]
    assert row["axis_keyword"] == "FrameTime"
    assert row["affine"] is None
    array = dataset.read(row["volume_id"])
    wanted = np.moveaxis(frames, -1, 1) if coloured else frames
    np.testing.assert_array_equal(array, wanted)
    rows = dataset.frames.sort_values("t")
    assert list(rows["time_ms"]) == [0, 40, 80, 120]
    assert list(rows["frame_number"]) == [1, 2, 3, 4]
    [told] = attributes(tmp_path / "o.zarr", row)["ultrasound_regions"]
    assert (told["PhysicalDeltaX"], told["PhysicalDeltaY"]) == (0.05, 0.06)
    assert told["RegionLocationMaxX1"] == 5


def test_line_28_times_of_a_vector(tmp_path: Path, convert: Convert):
    ds = make_instance(
        pixels=random_frames(3, 8, 6),
        Modality="XA",
        SOPClassUID=STORAGE + "12.1",
        **UNPLACED,
        FrameTimeVector=[0, 33.5, 70],
    )
    dataset = stored(convert, tmp_path, ds, trust="XA")
    assert list(dataset.frames.sort_values("t")["time_ms"]) == [0, 33.5, 103.5]


def test_line_28_a_cine_is_not_stored_untrusted(tmp_path: Path, convert: Convert):
    ds = make_instance(pixels=random_frames(3, 8, 6), **ULTRASOUND, **UNPLACED)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "0.dcm").write_bytes(to_bytes(ds))
    convert(tmp_path / "in", tmp_path / "o.zarr")
    inputs = dicomdask.open_dataset(str(tmp_path / "o.zarr")).inputs
    assert list(inputs["code"]) == ["burned-in-risk"]


SPACINGS = {
    "at the detector": ({"ImagerPixelSpacing": [0.1, 0.1]}, True),
    "the same twice": (
        {"ImagerPixelSpacing": [0.1, 0.1], "PixelSpacing": [0.1, 0.1]},
        True,
    ),
    "calibrated": (
        {"ImagerPixelSpacing": [0.1, 0.1], "PixelSpacing": [0.08, 0.08]},
        False,
    ),
}


@pytest.mark.parametrize("name", SPACINGS)
@pytest.mark.parametrize(
    ("modality", "sop_class"), [("DX", "1.1"), ("MG", "1.2"), ("CR", "1")]
)
def test_line_27_projections(
    tmp_path: Path, convert: Convert, name: str, modality: str, sop_class: str
):
    elements, is_flagged = SPACINGS[name]
    ds = make_instance(
        pixels=random_frames(8, 6),
        Modality=modality,
        SOPClassUID=STORAGE + sop_class,
        **{**UNPLACED, **elements},
        ImageLaterality="L",
        ViewPosition="CC",
    )
    dataset = stored(convert, tmp_path, ds, trust=modality)
    [row] = dataset.volumes.to_dict("records")
    assert row["kind"] == "projection"
    assert list(row["dimensions"]) == ["y", "x"]
    assert (row["ImageLaterality"], row["ViewPosition"]) == ("L", "CC")
    assert ("uncalibrated-spacing" in row["warnings"]) == is_flagged
    assert row["affine"] is None
    assert len(row["spacing_mm"]) == 2


def test_line_27_tomosynthesis_is_a_volume_and_its_projections_keep_their_order(
    tmp_path: Path, convert: Convert
):
    pixels = np.random.default_rng(3).integers(0, 900, (4, 16, 12)).astype(np.int16)
    frames = [frame_group((0.0, 0.0, 1.0 * z)) for z in (3, 2, 1, 0)]
    slices = make_enhanced(
        pixels, frames, sop_class=STORAGE + "13.1.3", Modality="MG", series=1
    )
    projections = make_enhanced(
        pixels,
        [item(FrameContentSequence=Sequence([item(StackID="1")])) for _ in range(4)],
        sop_class=STORAGE + "13.1.4",
        Modality="MG",
        series=2,
    )
    dataset = stored(convert, tmp_path, slices, projections, trust="MG")
    rows = {row["kind"]: row for row in dataset.volumes.to_dict("records")}
    assert list(rows["volume"]["dimensions"]) == ["z", "y", "x"]
    np.testing.assert_array_equal(
        dataset.read(rows["volume"]["volume_id"]), pixels[::-1]
    )
    assert list(rows["projection"]["dimensions"]) == ["t", "y", "x"]
    np.testing.assert_array_equal(dataset.read(rows["projection"]["volume_id"]), pixels)


@pytest.mark.parametrize(("modality", "sop_class"), [("NM", "20"), ("RTDOSE", "481.2")])
def test_line_28_vectors_that_are_not_read_are_refused_by_name(
    tmp_path: Path, convert: Convert, modality: str, sop_class: str
):
    ds = make_instance(
        pixels=random_frames(3, 8, 6),
        Modality=modality,
        SOPClassUID=STORAGE + sop_class,
    )
    dataset = stored(convert, tmp_path, ds, trust=modality)
    assert list(dataset.inputs["code"]) == ["multiframe"]


def test_line_38_a_billion_claimed_frames(tmp_path: Path, convert: Convert):
    ds = make_instance(**ULTRASOUND, **UNPLACED, NumberOfFrames=10**9)
    dataset = stored(convert, tmp_path, ds, trust="US")
    assert list(dataset.inputs["code"]) == ["too-large"]
