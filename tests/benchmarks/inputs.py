"""What benchmarks read: a CT series, and datasets made of it.

Where DICOMDASK_TEST_DATA names a folder of DICOM, a 512² CT slice found there is
repeated into a series (its rows rolled by the number of the slice). Otherwise, and for
tests, the series is generated: a smooth field plus noise, 12 bits.
"""

import os
import warnings
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pydicom

from tests.builders import ROOT, make_instance, write_series

GAP_MM = 2.5
USUAL_ELEMENTS = 128
"""How many elements a header of a clinical scanner has; the nearest is taken."""

UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")


@dataclass(frozen=True, slots=True)
class Scale:
    """How much a benchmark does: `full` for numbers, `tiny` so that code cannot rot."""

    name: str
    n_slices: int
    width: int
    patch: int
    n_reads: int
    n_slow_reads: int
    rounds: int
    few_rounds: int
    n_deep: int
    n_layout_reads: int
    n_series: int
    n_far_reads: int
    n_headers: int
    n_loaded: int


SCALES = {
    "tiny": Scale("tiny", 12, 32, 8, 4, 2, 1, 1, 16, 4, 4, 3, 8, 16),
    "full": Scale("full", 96, 512, 64, 96, 12, 5, 3, 128, 32, 20, 32, 768, 512),
}


@dataclass(frozen=True, slots=True)
class Series:
    """A series on disk, in the order of its slices, and what its pixels are."""

    paths: tuple[Path, ...]
    stored: np.ndarray
    told: str


def write_inputs(folder: Path, scale: Scale) -> Series:
    """Write a series of the scale below a folder."""
    source = find_real_slice() if scale.name == "full" else None
    if source is None:
        told = f"generated CT, {scale.n_slices} slices of {scale.width}²"
        datasets = _generated(scale)
    else:
        name = "/".join(source.parts[-2:])
        told = f"one real CT slice ({name}) repeated {scale.n_slices} times"
        datasets = _repeated(source, scale.n_slices)
    kept = list(datasets)
    paths = write_series(folder, iter(kept))
    stored = np.stack([np.array(ds.pixel_array) for ds in kept])
    return Series(tuple(paths), stored, told)


@cache
def find_real_slice() -> Path | None:
    """Return the 512² CT slice whose header is nearest to a usual one, if any."""
    root = os.environ.get("DICOMDASK_TEST_DATA")
    if not root:
        return None
    files = sorted(path for path in Path(root).rglob("*") if path.is_file())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [
            (abs(n - USUAL_ELEMENTS), path)
            for path in files
            # 512² at 2 bytes, and a header
            if 1 << 19 < path.stat().st_size < 3 << 18 and (n := _n_elements(path))
        ]
    return min(found)[1] if found else None


def _n_elements(path: Path) -> int:
    """Return how many elements an uncompressed 512² CT slice has; 0 for all else."""
    try:
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        kind = ds.Modality, ds.Rows, ds.Columns, ds.BitsAllocated
        is_fit = ds.file_meta.TransferSyntaxUID in UNCOMPRESSED
        placed = len(ds.ImagePositionPatient) == 3
    except (pydicom.errors.InvalidDicomError, AttributeError, TypeError):
        return 0
    return len(ds) if is_fit and placed and kind == ("CT", 512, 512, 16) else 0


def _repeated(source: Path, n: int) -> Iterator[pydicom.Dataset]:
    original = pydicom.dcmread(source)
    pixels = np.array(original.pixel_array)
    orientation = np.array(original.ImageOrientationPatient, float)
    normal = np.cross(orientation[:3], orientation[3:])
    for number in range(n):
        ds = deepcopy(original)
        uid = f"{ROOT}.9.{number + 1}"
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid
        ds.SeriesInstanceUID, ds.StudyInstanceUID = f"{ROOT}.9", f"{ROOT}.8"
        ds.InstanceNumber = number + 1
        place = np.round(normal * GAP_MM * number, 6)
        ds.ImagePositionPatient = [float(value) for value in place]
        ds.SliceLocation = GAP_MM * number
        ds.SliceThickness = ds.SpacingBetweenSlices = GAP_MM
        ds.PixelData = np.roll(pixels, number, axis=0).tobytes()
        yield ds


def _generated(scale: Scale) -> Iterator[pydicom.Dataset]:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: scale.width, : scale.width] / scale.width
    for number in range(scale.n_slices):
        smooth = 1200 + 1000 * np.sin(6 * x + number / 9) * np.cos(5 * y)
        noise = rng.normal(0, 12, smooth.shape)
        pixels = np.clip(smooth + noise, 0, 4095).astype(np.uint16)
        ds = make_instance(instance=number + 1, pixels=pixels)
        ds.BitsStored, ds.HighBit = 12, 11
        ds.ImagePositionPatient = [-10.0, -20.0, GAP_MM * number]
        yield with_usual_elements(ds)


def with_usual_elements(ds: pydicom.Dataset) -> pydicom.Dataset:
    """Add what scanners write besides: public, private, and a nested sequence."""
    ds.Manufacturer, ds.StationName, ds.SoftwareVersions = "Maker", "CT1", "1.2"
    ds.InstitutionName, ds.ReferringPhysicianName = "Somewhere", "Some^One"
    ds.StudyDescription, ds.SeriesDescription = "Chest", "Thin"
    ds.AcquisitionDate = ds.ContentDate = ds.SeriesDate = "20200229"
    ds.AcquisitionTime = ds.ContentTime = ds.SeriesTime = "101112.5"
    ds.KVP, ds.XRayTubeCurrent, ds.ExposureTime, ds.Exposure = "120", "300", "500", "9"
    ds.ConvolutionKernel, ds.FilterType, ds.PatientPosition = "B", "BODY", "HFS"
    ds.TableHeight, ds.GantryDetectorTilt, ds.ReconstructionDiameter = "120", "0", "380"
    ds.WindowCenter, ds.WindowWidth = ["40", "400"], ["400", "1500"]
    item = pydicom.Dataset()
    item.ReferencedSOPClassUID = ds.SOPClassUID
    item.ReferencedSOPInstanceUID = f"{ROOT}.77"
    ds.ReferencedImageSequence = [item] * 3
    block = ds.private_block(0x0019, "MAKER", create=True)
    for number in range(60):
        block.add_new(number, "LO", f"private value number {number}")
    block.add_new(0xF0, "OB", bytes(4000))
    return ds
