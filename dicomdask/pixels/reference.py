"""Decode by pydicom alone: what `verify` compares with."""

import io
from typing import Any

import numpy as np
import pydicom
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicomdask.errors import InputError
from dicomdask.pixels.codecs import plugin_of
from dicomdask.pixels.form import PALETTE
from dicomdask.pixels.frames import HOSTILE
from dicomdask.pixels.streams import mend_scan


def reference_frame(data: bytes, frame: int) -> np.ndarray[Any, np.dtype[Any]]:
    """Decode one frame by pydicom alone; see `reference_frames`."""
    try:
        return np.asarray(reference_frames(data)[frame])
    except IndexError:
        raise InputError("bad-pixels") from None


def reference_frames(data: bytes) -> np.ndarray[Any, np.dtype[Any]]:
    """Decode all frames by pydicom alone, for `verify` to compare with.

    Parameters
    ----------
    data
        The bytes of the file.

    Returns
    -------
    pixels : ndarray, shape (frames, rows, columns), or (frames, rows, columns, 3)
        Stored values.

    Raises
    ------
    InputError
        With the code ``bad-pixels``.
    """
    try:
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        if not dataset.file_meta.get("TransferSyntaxUID"):
            dataset.file_meta.TransferSyntaxUID = _written_in(dataset)
        plugin = plugin_of(dataset.file_meta.TransferSyntaxUID)
        dataset.pixel_array_options(decoding_plugin=plugin)
        pixels = _pixel_array(dataset)
        is_palette = dataset.PhotometricInterpretation == PALETTE
        if is_palette:
            pixels = apply_color_lut(pixels, _native_palette(dataset))
        plane = 3 if is_palette or dataset.SamplesPerPixel > 1 else 2
        frames: np.ndarray[Any, Any] = pixels.reshape(-1, *pixels.shape[-plane:])
        return frames
    except (*HOSTILE, MemoryError):
        raise InputError("bad-pixels") from None


def _pixel_array(dataset: pydicom.Dataset) -> np.ndarray[Any, np.dtype[Any]]:
    """Return the pixels, of JPEGs with mended scans where there is no other way."""
    try:
        return dataset.pixel_array
    except HOSTILE:
        n = int(dataset.get("NumberOfFrames") or 1)
        frames = generate_frames(dataset.PixelData, number_of_frames=n)
        dataset.PixelData = encapsulate([mend_scan(frame) for frame in frames])
        return dataset.pixel_array


def _native_palette(dataset: pydicom.Dataset) -> pydicom.Dataset:
    """Return a data set whose palette is little endian: pydicom takes it for that."""
    if dataset.file_meta.TransferSyntaxUID.is_little_endian:
        return dataset
    for colour in ("Red", "Green", "Blue"):
        element = dataset.get(f"{colour}PaletteColorLookupTableData")
        if element is not None:
            swapped = np.frombuffer(element, np.uint16).byteswap().tobytes()
            setattr(dataset, f"{colour}PaletteColorLookupTableData", swapped)
    return dataset


def _written_in(dataset: pydicom.FileDataset) -> UID:
    """Return the uncompressed transfer syntax of what has been read."""
    implicit, little = dataset.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little else ExplicitVRBigEndian
