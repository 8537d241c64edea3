"""Real series: order, spacing, affine and voxels against ITK, and what no ITK says.

The files are those of other projects' tests; DICOMDASK_TEST_DATA names their folder.
"""

import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
import SimpleITK

import dicomdask
from dicomdask.dataset import Dataset

TOLERANCE_MM = 1e-3
NIFTI = "icometrix__dicom2nifti/tests/data"

REGULAR = {
    "head": "Slicer__Slicer/Testing/Data/Input/CTHeadAxialDicom",
    "pacsman": "TranslationalML__PACSMAN_data/pacsman_data/data/dicomseries",
    "slicecount": f"{NIFTI}/failing/slicecount/001",
    **{
        name: f"{NIFTI}/{name}"
        for name in (
            "anatomical/001",
            "ge/anatomical/001",
            "ge/anatomical/001_single_slice",
            "generic/anatomical/001",
            "generic/anatomical/002_non_isotropic",
            "generic/compressed/001",
            "generic/compressed_jpeg/001",
            "generic/compressed_jpegls/001",
            "generic/compressed_rle/001",
            "hitachi/anatomical/001",
            "philips/anatomical/001",
            "siemens/anatomical/001",
        )
    },
}

REPEATED = {"ge/dti/001": (2, 4), "ge/dti/002": (4, 4), "ge/fmri/001": (2, 4)}

NOT_STORED = {
    "generic/rgb/001": "burned-in-risk",
}


@dataclass
class Converted:
    """A folder of files, and the dataset of it."""

    folder: Path
    dataset: Dataset

    @property
    def outcomes(self) -> Counter[tuple[str, str]]:
        inputs = self.dataset.inputs
        return Counter(zip(inputs["outcome"], inputs["code"], strict=True))

    @property
    def volume(self) -> "pd.Series[Any]":
        """The only volume."""
        assert len(self.dataset.volumes) == 1
        return self.dataset.volumes.iloc[0]

    def sources(self) -> list[pydicom.Dataset]:
        """Return the files of the folder as pydicom reads them."""
        paths = [path for path in self.folder.iterdir() if path.is_file()]
        return [pydicom.dcmread(path) for path in sorted(paths)]


@pytest.fixture(scope="module")
def convert_folder(data, convert, tmp_path_factory):
    """Return a function from a folder of the test data to its dataset, made once."""
    root = tmp_path_factory.mktemp("converted")

    @cache
    def run(name, **options):
        folder = data / name
        if not folder.is_dir():
            pytest.skip(f"DICOMDASK_TEST_DATA has no folder {name}")
        store = root / re.sub(r"\W", "-", f"{name}{options}.zarr")
        convert(folder, store, **options)
        converted = Converted(folder, dicomdask.open_dataset(str(store)))
        n_files = sum(path.is_file() for path in folder.iterdir())
        assert converted.outcomes.total() == n_files
        return converted

    return run


def read_with_itk(folder):
    """Return ITK's 4x4 matrix of (x, y, z, 1), spacing (x, y, z) and values."""
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    image = SimpleITK.ReadImage(names)
    matrix = np.eye(4)
    direction = np.reshape(image.GetDirection(), (3, 3))
    matrix[:3, :3] = direction * image.GetSpacing()
    matrix[:3, 3] = image.GetOrigin()
    return matrix, image.GetSpacing(), SimpleITK.GetArrayFromImage(image)


def affine_of(volume):
    return np.array(volume["affine"], float).reshape(4, 4)


def vector(ds, keyword):
    return np.array(ds[keyword].value, float)


def place_of(ds):
    """Return how far along its normal a slice lies."""
    row, column = vector(ds, "ImageOrientationPatient").reshape(2, 3)
    return float(vector(ds, "ImagePositionPatient") @ np.cross(row, column))


def assert_every_frame(dataset, volume, sources):
    """Each plane holds the pixels of a source, and lies where the source says.

    Pairs are made by position and pixels, so that no order is taken for granted.
    """
    n_leading = len(volume["shape"]) - 2
    array = dataset.read(volume["volume_id"])
    frames = dataset.frames
    frames = frames[frames["volume_id"] == volume["volume_id"]]
    assert len(frames) == int(np.prod(volume["shape"][:n_leading])) == len(sources)
    left = list(sources)
    for _, frame in frames.iterrows():
        axes = volume["dimensions"][:n_leading]
        plane = array[tuple(int(frame[axis]) for axis in axes)]
        index = (int(frame["z"]) if "z" in axes else 0, 0, 0, 1)
        position = (affine_of(volume) @ index)[:3]
        assert position == pytest.approx(frame["ImagePositionPatient"], abs=1e-3)
        source = next(
            ds
            for ds in left
            if np.allclose(vector(ds, "ImagePositionPatient"), position, atol=1e-3)
            and np.array_equal(ds.pixel_array, plane)
        )
        left.remove(source)
    assert not left


@pytest.mark.parametrize("name", REGULAR)
def test_a_regular_series_is_as_itk_reads_it(convert_folder, name):
    converted = convert_folder(REGULAR[name])
    dataset, volume = converted.dataset, converted.volume
    sources = converted.sources()
    assert converted.outcomes == {("stored", "stored"): len(sources)}
    assert list(volume["warnings"]) == []
    assert volume["kind"] == "volume"

    matrix, spacing, values = read_with_itk(converted.folder)
    found = affine_of(volume)
    assert found[:3, 3] == pytest.approx(matrix[:3, 3], abs=TOLERANCE_MM)
    assert found[:3, 1] == pytest.approx(matrix[:3, 1], abs=TOLERANCE_MM)
    assert found[:3, 2] == pytest.approx(matrix[:3, 0], abs=TOLERANCE_MM)
    array = dataset.read(volume["volume_id"], values="modality")
    if len(sources) == 1:
        assert list(volume["dimensions"]) == ["y", "x"]
        assert volume["spacing_mm"] == pytest.approx(spacing[1::-1], abs=TOLERANCE_MM)
        np.testing.assert_allclose(array, values[0], atol=1e-6)
        return
    assert found[:3, 0] == pytest.approx(matrix[:3, 2], abs=TOLERANCE_MM)
    last = (found @ (len(sources) - 1, 0, 0, 1))[:3]
    expected = (matrix @ (0, 0, len(sources) - 1, 1))[:3]
    assert last == pytest.approx(expected, abs=TOLERANCE_MM)
    assert volume["spacing_mm"] == pytest.approx(spacing[::-1], abs=TOLERANCE_MM)
    assert array.shape == values.shape
    np.testing.assert_allclose(array, values, atol=1e-6)


@pytest.mark.parametrize("name", REGULAR)
def test_each_plane_lies_where_its_file_says(convert_folder, name):
    converted = convert_folder(REGULAR[name])
    assert_every_frame(converted.dataset, converted.volume, converted.sources())


@pytest.mark.parametrize("name", REPEATED)
def test_repeated_stacks_are_a_fourth_axis(convert_folder, name):
    converted = convert_folder(f"{NIFTI}/{name}")
    volume, sources = converted.volume, converted.sources()
    assert list(volume["dimensions"]) == ["t", "z", "y", "x"]
    assert tuple(volume["shape"][:2]) == REPEATED[name]
    assert volume["kind"] == "timeseries"
    assert volume["axis_keyword"] == "InstanceNumber"
    assert_every_frame(converted.dataset, volume, sources)
    n_t, n_z = REPEATED[name]
    array = converted.dataset.read(volume["volume_id"])
    by_number = sorted(sources, key=lambda ds: ds.InstanceNumber)
    for t in range(n_t):
        stack = sorted(by_number[t * n_z : (t + 1) * n_z], key=place_of)
        for z, source in enumerate(stack):
            np.testing.assert_array_equal(array[t, z], source.pixel_array)


@pytest.mark.parametrize("name", NOT_STORED)
def test_what_is_not_stored_is_rejected_by_name(convert_folder, name):
    converted = convert_folder(f"{NIFTI}/{name}")
    n_files = len(converted.sources())
    assert converted.outcomes == {("rejected", NOT_STORED[name]): n_files}
    assert len(converted.dataset) == 0


class TestFailing:
    """Series that dicom2nifti refuses: never wrong in silence."""

    def test_gantry_tilt_is_one_volume_that_keeps_its_shear(self, convert_folder):
        converted = convert_folder(f"{NIFTI}/failing/gantrytilting/001")
        volume = converted.volume
        assert tuple(volume["shape"]) == (4, 512, 512)
        assert volume["tilt_degrees"] == pytest.approx(-14, abs=0.01)
        assert "tilt" in list(volume["warnings"])
        assert affine_of(volume)[:3, 0] == pytest.approx((0, 0, 5), abs=TOLERANCE_MM)
        along_the_normal = 5 * np.cos(np.radians(14))
        assert volume["spacing_mm"][0] == pytest.approx(along_the_normal, abs=1e-3)
        assert_every_frame(converted.dataset, volume, converted.sources())

    def test_a_captured_series_is_not_stored_untrusted(self, convert_folder):
        """ImageType says SECONDARY: nothing has looked at the pixels."""
        converted = convert_folder(f"{NIFTI}/failing/sliceincrement/001")
        assert converted.outcomes == {("rejected", "burned-in-risk"): 4}

    def test_uneven_slices_split_where_the_gap_changes(self, convert_folder):
        """5, 5, 10 mm without SliceThickness: a gap or thicker slices, who knows."""
        converted = convert_folder(
            f"{NIFTI}/failing/sliceincrement/001", trust_pixels=("CT",)
        )
        volumes = converted.dataset.volumes
        assert sorted(map(tuple, volumes["shape"])) == [(3, 512, 512), (512, 512)]
        sources = sorted(converted.sources(), key=place_of)
        assert not any("SliceThickness" in ds for ds in sources)
        for _, volume in volumes.iterrows():
            mine = sources[:3] if len(volume["shape"]) == 3 else sources[3:]
            assert_every_frame(converted.dataset, volume, mine)
            assert "nonuniform" in list(volume["warnings"])
            assert "gap" not in list(volume["warnings"])

    def test_or_are_rejected(self, convert_folder):
        converted = convert_folder(
            f"{NIFTI}/failing/sliceincrement/001",
            trust_pixels=("CT",),
            on_irregular="reject",
        )
        assert converted.outcomes == {("rejected", "nonuniform-spacing"): 4}

    def test_two_orientations_are_two_volumes(self, convert_folder):
        converted = convert_folder(f"{NIFTI}/failing/sliceorientation/001")
        volumes = converted.dataset.volumes
        assert sorted(map(tuple, volumes["shape"])) == [(2, 288, 288)] * 2
        sources = converted.sources()
        for _, volume in volumes.iterrows():
            spacing = list(volume["PixelSpacing"])
            mine = [ds for ds in sources if np.allclose(ds.PixelSpacing, spacing, 1e-6)]
            assert len(mine) == 2
            assert_every_frame(converted.dataset, volume, mine)

    def test_one_place_at_four_times_is_no_volume(self, convert_folder):
        """A monitoring series: the axis is time, and nothing invents a z."""
        converted = convert_folder(f"{NIFTI}/failing/notavolume/001")
        volume = converted.volume
        assert list(volume["dimensions"]) == ["t", "y", "x"]
        assert volume["kind"] == "timeseries"
        assert volume["axis_keyword"] == "AcquisitionNumber"
        assert len(volume["spacing_mm"]) == 2
        sources = sorted(converted.sources(), key=lambda ds: ds.AcquisitionNumber)
        assert_every_frame(converted.dataset, volume, sources)
        array = converted.dataset.read(volume["volume_id"])
        for plane, source in zip(array, sources, strict=True):
            np.testing.assert_array_equal(plane, source.pixel_array)
