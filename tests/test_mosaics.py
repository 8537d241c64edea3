"""Siemens mosaics: untiled, each slice where it lies.

A line number in a name is that of the list of what right means for pixels and volumes.
"""

import json
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset

import dicomdask
from dicomdask.header.mosaic import parse_csa
from dicomdask.pseudonym import Key
from dicomdask.verify import verify
from dicomdask.work import Work
from tests.builders import make_instance, to_bytes
from tests.conftest import SECRET, Convert

REAL = "nipy__nibabel/nibabel/nicom/tests/data"
MR = {"Modality": "MR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}
MOSAIC = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]


def csa_header(**elements: Sequence[float]) -> bytes:
    """Return a CSA header of the form SV10 with some numbers."""
    parts = [b"SV10\4\3\2\1", struct.pack("<II", len(elements), 77)]
    for name, numbers in elements.items():
        texts = [f"{number:.8f}\0".encode() for number in numbers]
        head = (
            name.encode().ljust(64, b"\0"),
            len(texts),
            b"FD\0\0",
            4,
            len(texts),
            77,
        )
        parts.append(struct.pack("<64si4siii", *head))
        for text in texts:
            sizes = (len(text),) * 2
            parts.append(struct.pack("<4i", len(text), sizes[0], 77, sizes[1]))
            parts.append(text + bytes(-len(text) % 4))
    return b"".join(parts)


def make_mosaic(
    slices: np.ndarray, *, normal: Sequence[float] = (0, 0, 1), **elements: Any
) -> Dataset:
    """Return slices as the tiles of one image, the first of them at (0, 0, 0)."""
    n, height, width = slices.shape
    side = int(np.ceil(np.sqrt(n)))
    image = np.zeros((side * height, side * width), np.int16)
    for k, plane in enumerate(slices):
        down, right = k // side * height, k % side * width
        image[down : down + height, right : right + width] = plane
    spacing = (0.5, 0.75)
    off_y = -(side - 1) * height * spacing[0] / 2
    off_x = -(side - 1) * width * spacing[1] / 2
    ds = make_instance(
        pixels=image,
        ImageType=MOSAIC,
        ImagePositionPatient=[off_x, off_y, 0.0],
        SpacingBetweenSlices=3.0,
        **{**MR, **elements},
    )
    block = ds.private_block(0x29, "SIEMENS CSA HEADER", create=True)
    told = {"NumberOfImagesInMosaic": [n], "SliceNormalVector": normal}
    block.add_new(0x10, "OB", csa_header(**told))
    return ds


def stored(convert: Convert, folder: Path, *datasets: Dataset) -> Any:
    (folder / "in").mkdir()
    for number, ds in enumerate(datasets):
        (folder / "in" / f"{number}.dcm").write_bytes(to_bytes(ds))
    store = folder / "o.zarr"
    convert(folder / "in", store)
    report = verify(str(store), work=Work(f"{store}.work"), key=Key(SECRET.encode()))
    assert not report.problems
    return dicomdask.open_dataset(str(store))


def some_slices(n: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 900, (n, 8, 6)).astype(np.int16)


@pytest.mark.parametrize("n", [2, 4, 5, 9, 10])
@pytest.mark.parametrize("sign", [1, -1])
def test_line_14_a_mosaic_is_a_volume(
    tmp_path: Path, convert: Convert, n: int, sign: int
):
    slices = some_slices(n)
    ds = make_mosaic(slices, normal=(0, 0, sign))
    dataset = stored(convert, tmp_path, ds)
    [row] = dataset.volumes.to_dict("records")
    assert list(row["shape"]) == [n, 8, 6]
    assert list(row["spacing_mm"]) == [3.0, 0.5, 0.75]
    affine = np.reshape(row["affine"], (4, 4))
    array = dataset.read(row["volume_id"])
    np.testing.assert_array_equal(array, slices[::sign])
    for frame in dataset.frames.to_dict("records"):
        z = sign * 3.0 * (frame["tile"] - 1)
        assert list(frame["ImagePositionPatient"]) == pytest.approx([0, 0, z])
        found = affine @ (frame["z"], 0, 0, 1)
        assert found[:3] == pytest.approx(frame["ImagePositionPatient"])
        assert frame["frame_number"] == 1
    assert len(dataset.instances) == 1


def test_line_13_mosaics_of_one_series_are_a_time_axis(
    tmp_path: Path, convert: Convert
):
    times = [some_slices(4) + t for t in range(3)]
    series = [
        make_mosaic(slices, instance=t + 1, AcquisitionNumber=t + 1)
        for t, slices in enumerate(times)
    ]
    dataset = stored(convert, tmp_path, *series[::-1])
    [row] = dataset.volumes.to_dict("records")
    assert list(row["dimensions"]) == ["t", "z", "y", "x"]
    assert row["axis_keyword"] == "AcquisitionNumber"
    np.testing.assert_array_equal(dataset.read(row["volume_id"]), np.stack(times))


LACKS = {
    "a CSA header": lambda ds: ds.pop(0x00291010),
    "the name of its block": lambda ds: ds.pop(0x00290010),
    "a spacing": lambda ds: ds.pop("SpacingBetweenSlices"),
    "rows that tiles divide": lambda ds: setattr(ds, "Rows", 15),
    "a normal": lambda ds: setattr(
        ds[0x00291010], "value", csa_header(NumberOfImagesInMosaic=[4])
    ),
    "an end": lambda ds: setattr(ds[0x00291010], "value", ds[0x00291010].value[:40]),
}


@pytest.mark.parametrize("name", LACKS)
def test_line_14_what_cannot_be_known_is_rejected(
    tmp_path: Path, convert: Convert, name: str
):
    ds = make_mosaic(some_slices(4))
    LACKS[name](ds)
    dataset = stored(convert, tmp_path, ds)
    assert list(dataset.inputs["code"]) == ["mosaic"]


def test_line_14_the_public_number_of_tiles_is_enough(tmp_path: Path, convert: Convert):
    slices = some_slices(3)
    ds = make_mosaic(slices)
    ds[0x00291010].value = csa_header(SliceNormalVector=(0, 0, 1))
    block = ds.private_block(0x19, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0A, "US", 3)
    dataset = stored(convert, tmp_path, ds)
    np.testing.assert_array_equal(dataset.read(dataset.volumes["volume_id"][0]), slices)


@given(st.binary(max_size=300), st.integers(0, 400))
def test_a_damaged_csa_header_gives_numbers_or_none(junk: bytes, at: int):
    whole = csa_header(NumberOfImagesInMosaic=[4], SliceNormalVector=(0, 0, 1))
    found = parse_csa(whole[:at] + junk)
    assert all(isinstance(part, float) for told in found.values() for part in told)


def test_line_14_a_real_mosaic_lies_where_dcm2niix_has_it(
    data: Path, tmp_path: Path, convert: Convert
):
    """Its pixels were taken out, so made ones stand for them."""
    if not shutil.which("dcm2niix"):
        pytest.skip("dcm2niix is not installed")
    path = data / REAL / "csa_slice_norm.dcm"
    ds = pydicom.dcmread(path)
    values = np.random.default_rng(0).integers(0, 4000, (ds.Rows, ds.Columns))
    ds.add_new(0x7FE00010, "OW", values.astype(np.uint16).tobytes())
    dataset = stored(convert, tmp_path, ds)
    [row] = dataset.volumes.to_dict("records")
    assert list(row["shape"]) == [32, 64, 64]
    affine, array = run_dcm2niix(tmp_path / "in", tmp_path)
    mine = dataset.read(row["volume_id"])
    assert_same_voxels(np.reshape(row["affine"], (4, 4)), mine, affine, array)


@pytest.mark.parametrize("name", ["0.dcm", "1.dcm"])
def test_line_14_a_mosaic_that_was_shrunk_is_none(
    data: Path, tmp_path: Path, convert: Convert, name: str
):
    """256 rows are no multiple of the 7 tiles that 48 slices take."""
    dataset = stored(convert, tmp_path, pydicom.dcmread(data / REAL / name))
    assert list(dataset.inputs["code"]) == ["mosaic"]


def run_dcm2niix(source: Path, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the LPS matrix of (z, y, x, 1) and the values that dcm2niix writes."""
    out = folder / "nii"
    out.mkdir()
    # -p n: scaled as the standard says, not by what Philips has besides.
    options = ("-z", "n", "-b", "n", "-p", "n", "-f", "o")
    command = ["dcm2niix", *options, "-o", str(out), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    return read_nifti(next(out.glob("*.nii")))


def read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the LPS matrix of (z, y, x, 1), and the values, of a NIfTI file."""
    image = SimpleITK.ReadImage(str(path))
    n = 3
    direction = np.reshape(image.GetDirection(), (image.GetDimension(),) * 2)[:n, :n]
    matrix = np.eye(4)
    matrix[:3, :3] = (direction * image.GetSpacing()[:n])[:, ::-1]
    matrix[:3, 3] = image.GetOrigin()[:n]
    return matrix, SimpleITK.GetArrayFromImage(image)


def assert_same_voxels(
    affine: np.ndarray, array: np.ndarray, other: np.ndarray, values: np.ndarray
) -> None:
    """Hold two volumes against each other, whichever way their axes run."""
    steps = np.linalg.inv(other) @ affine
    turned = np.rint(steps[:3, :3]).astype(int)
    assert np.abs(steps[:3, :3] - turned).max() < 1e-3, json.dumps(steps.tolist())
    assert (np.abs(turned).sum(0) == 1).all()
    order = [int(np.flatnonzero(turned[axis])[0]) for axis in range(3)]
    mine = array.transpose(order)
    flips = [int(turned[axis, order[axis]]) for axis in range(3)]
    mine = mine[tuple(slice(None, None, sign) for sign in flips)]
    assert mine.shape == values.shape
    np.testing.assert_allclose(mine, values, atol=1e-3)
    corner = [
        0 if sign > 0 else n - 1 for sign, n in zip(flips, values.shape, strict=True)
    ]
    first = affine @ (0, 0, 0, 1)
    assert (other @ (*corner, 1))[:3] == pytest.approx(first[:3], abs=1e-3)
