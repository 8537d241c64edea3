"""Make DICOM whose identity and content are in the arguments: no patient, no files."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

ROOT = "1.2.826.0.1.3680043.8.498.7"
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def make_instance(
    patient: int = 1,
    study: int = 1,
    series: int = 1,
    instance: int = 1,
    *,
    pixels: np.ndarray | None = None,
    transfer_syntax: str = ExplicitVRLittleEndian,
    **elements: Any,
) -> Dataset:
    """Return an axial CT slice; `elements` are set by keyword, None removes one."""
    if pixels is None:
        pixels = np.full((16, 12), instance, np.int16)
    prefix = f"{ROOT}.{patient}.{study}"
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID = CT_IMAGE
    ds.SOPInstanceUID = f"{prefix}.{series}.{instance}"
    ds.StudyInstanceUID = prefix
    ds.SeriesInstanceUID = f"{prefix}.{series}"
    ds.FrameOfReferenceUID = f"{prefix}.{series}.0"
    ds.PatientID = f"PAT{patient:04d}"
    ds.PatientName = f"Family{patient}^Given"
    ds.PatientBirthDate = "19700102"
    ds.StudyDate = "20200229"
    ds.StudyTime = "101112.5"
    ds.Modality = "CT"
    ds.InstanceNumber = instance
    ds.PixelSpacing = [0.5, 0.75]
    ds.SliceThickness = 2.5
    ds.ImagePositionPatient = [-10.0, -20.0, 2.5 * (instance - 1)]
    ds.ImageOrientationPatient = list(AXIAL)
    ds.RescaleSlope = 1
    ds.RescaleIntercept = -1024
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape[-2:]
    ds.BitsAllocated = 8 * pixels.itemsize
    ds.BitsStored = 8 * pixels.itemsize
    ds.HighBit = 8 * pixels.itemsize - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    if pixels.ndim == 3:
        ds.NumberOfFrames = len(pixels)
    ds.PixelData = pixels.tobytes()
    ds["PixelData"].VR = "OW" if pixels.itemsize > 1 else "OB"
    for keyword, value in elements.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = transfer_syntax
    ds.file_meta.MediaStorageSOPClassUID = ds.get("SOPClassUID", CT_IMAGE)
    ds.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID", ROOT)
    return ds


def to_bytes(ds: Dataset) -> bytes:
    """Return the DICOM file of a dataset."""
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def make_series(
    n: int, *, gap_mm: float = 2.5, origin_mm: float = 0.0, **elements: Any
) -> Iterator[Dataset]:
    """Yield `n` axial slices, `gap_mm` apart, in which pixel (0, 0) is the number."""
    for number in range(1, n + 1):
        rng = np.random.default_rng(number)
        pixels = rng.integers(-1000, 2000, (16, 12)).astype(np.int16)
        pixels[0, 0] = number
        place = [-10.0, -20.0, origin_mm + gap_mm * (number - 1)]
        yield make_instance(
            instance=number,
            pixels=pixels,
            **{"ImagePositionPatient": place, **elements},
        )


def other_series(n: int, number: int) -> Iterator[Dataset]:
    """Yield a series of another patient, told apart by a number."""
    root = f"1.2.826.0.1.3680043.8.498.8.{number}"
    for ds in make_series(n, PatientID=f"OTHER{number}", StudyInstanceUID=root):
        ds.SeriesInstanceUID = f"{root}.1"
        ds.SOPInstanceUID = f"{root}.1.{ds.InstanceNumber}"
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        yield ds


def write_series(folder: Path, datasets: Iterator[Dataset]) -> list[Path]:
    """Write datasets as `0001.dcm`, … in the order given; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, ds in enumerate(datasets, 1):
        path = folder / f"{number:04d}.dcm"
        path.write_bytes(to_bytes(ds))
        paths.append(path)
    return paths
