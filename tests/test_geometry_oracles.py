"""Real regular series against dcm2niix, highdicom and the references of dicom2nifti.

All three give affines of their own axes; volumes are compared after the axes are turned
the same way, so that a voxel has one place and one value whoever reads it.
"""

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

import dicomdask
from tests.conftest import Convert
from tests.test_geometry_real import NIFTI, REGULAR, REPEATED
from tests.test_mosaics import assert_same_voxels, read_nifti, run_dcm2niix

MULTIFRAME = {
    name: f"{NIFTI}/{name}/anatomical/001"
    for name in ("hyperfine", "philips_enhanced", "siemens_multiframe")
}
SERIES = REGULAR | MULTIFRAME

DIFFER = {
    ("dcm2niix", "generic/compressed_jpegls/001"): "Debian builds it without JPEG-LS",
    ("reference", "generic/anatomical/001"): "of its four slices two are here",
    ("reference", "ge/anatomical/001_single_slice"): "one slice has no third axis",
    ("dcm2niix", "ge/anatomical/001_single_slice"): "one slice has no third axis",
    ("highdicom", "ge/anatomical/001_single_slice"): "one slice has no third axis",
}
"""Where an oracle has something else, and why; see examples/volumes.md."""


@pytest.fixture(scope="module")
def stored(data: Path, convert: Convert, tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("oracles")

    @cache
    def run(name: str) -> tuple[Path, np.ndarray, np.ndarray]:
        folder = data / SERIES[name]
        if not folder.is_dir():
            pytest.skip(f"DICOMDASK_TEST_DATA has no folder {SERIES[name]}")
        store = root / name.replace("/", "-")
        convert(folder, store)
        dataset = dicomdask.open_dataset(str(store))
        [row] = dataset.volumes.to_dict("records")
        values = dataset.read(row["volume_id"], values="modality")
        return folder, np.reshape(row["affine"], (4, 4)), values

    return run


def check(oracle: str, name: str, mine: Any, affine: np.ndarray, values: np.ndarray):
    if (oracle, name) in DIFFER:
        pytest.skip(DIFFER[oracle, name])
    _, own_affine, own_values = mine
    assert_same_voxels(own_affine, own_values, affine, values)


@pytest.mark.parametrize("name", SERIES)
def test_line_03_as_dcm2niix_has_it(stored: Any, tmp_path: Path, name: str):
    if not shutil.which("dcm2niix"):
        pytest.skip("dcm2niix is not installed")
    mine = stored(name)
    if ("dcm2niix", name) in DIFFER:
        pytest.skip(DIFFER["dcm2niix", name])
    check("dcm2niix", name, mine, *run_dcm2niix(mine[0], tmp_path))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SERIES)
def test_line_03_as_highdicom_has_it(stored: Any, name: str):
    import highdicom  # noqa: PLC0415

    mine = stored(name)
    paths = sorted(path for path in mine[0].iterdir() if path.is_file())
    found = [pydicom.dcmread(path) for path in paths]
    for ds in found:  # it asks for a frame of reference, which these files lack
        ds.FrameOfReferenceUID = ds.get("FrameOfReferenceUID") or "1.2.3"
    options = {"apply_real_world_transform": False}
    if name in MULTIFRAME:
        volume = highdicom.Image.from_dataset(found[0]).get_volume(**options)
    else:
        volume = highdicom.get_volume_from_series(found, **options)
    check("highdicom", name, mine, volume.affine, volume.array)


@pytest.mark.parametrize("name", SERIES)
def test_line_03_as_the_reference_of_dicom2nifti_has_it(
    data: Path, stored: Any, name: str
):
    path = data / f"{SERIES[name]}_ground_truth.nii.gz"
    if not path.is_file():
        pytest.skip("dicom2nifti has no reference of it")
    check("reference", name, stored(name), *read_nifti(path))


@pytest.mark.parametrize("name", REPEATED)
def test_line_13_a_fourth_axis_as_the_reference_has_it(
    data: Path, tmp_path: Path, convert: Convert, name: str
):
    path = data / NIFTI / f"{name}_ground_truth.nii.gz"
    convert(data / NIFTI / name, tmp_path / "o.zarr")
    dataset = dicomdask.open_dataset(str(tmp_path / "o.zarr"))
    [row] = dataset.volumes.to_dict("records")
    mine = dataset.read(row["volume_id"], values="modality")
    affine, values = read_nifti(path)
    assert len(mine) == len(values)
    for t, wanted in enumerate(values):
        assert_same_voxels(np.reshape(row["affine"], (4, 4)), mine[t], affine, wanted)
