"""Say by its header whether an instance can be stored, and decode its pixels.

pydicom and its plug-ins decode; what is added here is that damaged data never become
pixels: not zeros where bytes are missing, not one image in the shape of another.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from math import isfinite
from typing import Any, Final

import numpy as np
import pydicom
from pydicom.encaps import generate_frames
from pydicom.errors import InvalidDicomError
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from dicomdask.errors import InputError
from dicomdask.model import Instance

_STORAGE: Final = "1.2.840.10008.5.1.4.1.1."
_SEGMENTATIONS: Final = {_STORAGE + end for end in ("66.4", "66.7")}
# Those of PS3.4 table B.5-1 whose frames are described by functional groups.
_ENHANCED: Final = {
    _STORAGE + end
    for end in (
        *("2.1", "2.2", "4.1", "4.3", "4.4", "130", "128.1", "6.2", "6.3", "30"),
        *("12.1.1", "12.2.1", "13.1.1", "13.1.2", "13.1.3", "13.1.4", "13.1.5"),
        *("14.1", "14.2", "77.1.5.4", "77.1.5.8", "77.1.6", "77.1.8", "77.1.9"),
        *("481.23", "481.24", "481.25"),
    )
}
_UNCOMPRESSED: Final = {
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
}
_MONOCHROME: Final = {"MONOCHROME1", "MONOCHROME2"}
_FLOATS: Final = {"FloatPixelData": "float32", "DoubleFloatPixelData": "float64"}
_BITS: Final = {8, 16, 32}
# ISO/IEC 10918-1 table B.1, and FFF7 of JPEG-LS: they start a frame header.
_FRAME_MARKERS: Final = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_HOSTILE: Final = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, ImportError),
    *(LookupError, OSError, RuntimeError, TypeError, ValueError, struct.error),
    *(zlib.error, InvalidDicomError),
)


def check_pixels(instance: Instance, *, limit: int | None = None) -> None:
    """Refuse, by the header alone, what cannot be stored.

    Parameters
    ----------
    instance
        The instance.
    limit
        The most bytes that its decoded frames may take; by default any number.

    Raises
    ------
    InputError
        With the code ``segmentation``, ``enhanced-multiframe``, ``float-pixels``,
        ``bad-image``, ``colour``, ``mosaic``, ``modality-lut``, ``bit-depth``,
        ``multiframe``, ``no-decoder``, ``too-large`` or ``truncated``.
    """
    code = _kind_code(instance) or _image_code(instance) or _bytes_code(instance, limit)
    if code:
        raise InputError(code)


def stored_dtype(instance: Instance) -> str:
    """Return the dtype, such as ``int16``, that `decode_frames` will give.

    It depends on Bits Allocated and Pixel Representation (PS3.5 section 8.1.1), not on
    Bits Stored nor on what a compressed stream says.

    Raises
    ------
    InputError
        With the code ``bad-image`` where the header does not tell.
    """
    if instance.pixel_keyword in _FLOATS:
        return _FLOATS[instance.pixel_keyword]
    sign = {0: "uint", 1: "int"}.get(_or(instance.pixel_representation, -1))
    if sign is None or instance.bits_allocated not in {*_BITS, 64}:
        raise InputError("bad-image")
    return f"{sign}{instance.bits_allocated}"


def decode_frames(dataset: pydicom.Dataset) -> np.ndarray:
    """Decode the stored values of all frames; they equal pydicom's `pixel_array`.

    Unused high bits are replaced by the sign (PS3.5 section 8.1.1), and a JPEG 2000 or
    JPEG-LS stream whose sign is not the header's is corrected, as pydicom does both.
    Bytes behind the last frame that the header claims are left alone.

    Parameters
    ----------
    dataset
        A data set with its file meta and one sample per pixel.

    Returns
    -------
    frames : ndarray, shape (frames, rows, columns)
        Stored values in the machine's byte order.

    Raises
    ------
    InputError
        With the code ``no-decoder``, ``truncated``, ``bad-image``, ``bad-pixels``,
        ``colour`` or ``too-large``.
    """
    try:
        return _decode(dataset)
    except InputError:
        raise
    except MemoryError:
        raise InputError("too-large") from None
    except _HOSTILE:
        raise InputError("bad-pixels") from None


def modality_parameters(dataset: pydicom.Dataset) -> tuple[float, float]:
    """Return slope and intercept as pydicom's `apply_rescale` uses them.

    Without both there is no rescale, so slope 1 and intercept 0 are returned; a slope
    of 0 is returned as it is (PS3.3 section C.11.1.1.2).

    Raises
    ------
    InputError
        With the code ``bad-image`` where one of them cannot be read.
    """
    try:
        values = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
        if None in values or "" in values:
            return 1.0, 0.0
        slope, intercept = (float(value) for value in values)
    except _HOSTILE:
        raise InputError("bad-image") from None
    if not (isfinite(slope) and isfinite(intercept)):
        raise InputError("bad-image")
    return slope, intercept


def reference_frame(data: bytes, frame: int) -> np.ndarray:
    """Decode one frame by pydicom alone, for `verify` to compare with.

    Parameters
    ----------
    data
        The bytes of the file.
    frame
        Which frame, from 0.

    Returns
    -------
    pixels : ndarray, shape (rows, columns)
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
        pixels = dataset.pixel_array
        frames: np.ndarray = pixels.reshape(-1, *pixels.shape[-2:])
        return np.asarray(frames[frame])
    except (*_HOSTILE, MemoryError):
        raise InputError("bad-pixels") from None


def _kind_code(instance: Instance) -> str | None:
    """Return the code of a kind of object that is not stored yet."""
    if instance.sop_class_uid in _SEGMENTATIONS:
        return "segmentation"
    if instance.sop_class_uid in _ENHANCED:
        return "enhanced-multiframe"
    if instance.pixel_keyword in _FLOATS:
        return "float-pixels"
    if instance.is_mosaic:
        return "mosaic"
    return "modality-lut" if instance.has_modality_lut else None


def _image_code(instance: Instance) -> str | None:
    """Return the code of an Image Pixel Module (PS3.3 section C.7.6.3) not stored."""
    photometric, samples = (
        instance.photometric_interpretation,
        instance.samples_per_pixel,
    )
    if not all(instance.shape) or photometric is None or samples not in {1, 3, 4}:
        return "bad-image"
    if samples > 1 or photometric.startswith(("PALETTE", "YBR")):
        return "colour"
    if photometric not in _MONOCHROME or instance.pixel_representation not in {0, 1}:
        return "bad-image"
    allocated, stored = instance.bits_allocated, instance.bits_stored
    if allocated is None or stored is None or instance.number_of_frames < 1:
        return "bad-image"
    if allocated not in _BITS or not 1 <= stored <= allocated:
        return "bit-depth"
    rescale = instance.rescale_slope, instance.rescale_intercept
    if not all(value is None or isfinite(value) for value in rescale):
        return "bad-image"
    return "multiframe" if instance.number_of_frames > 1 else None


def _bytes_code(instance: Instance, limit: int | None) -> str | None:
    """Return the code of pixels that cannot be decoded, or not here."""
    decoder = _decoder(instance.transfer_syntax_uid)
    if decoder is None:
        return "no-decoder"
    rows, columns = instance.shape
    frames = instance.number_of_frames
    n = rows * columns * frames * _or(instance.bits_allocated, 0) // 8
    if limit is not None and n > limit:
        return "too-large"
    short = decoder.UID in _UNCOMPRESSED and instance.size < n
    return "truncated" if short or instance.pixel_keyword is None else None


def _decode(dataset: pydicom.Dataset) -> np.ndarray:
    """Decode after having looked for what pydicom would fill in or pass over."""
    decoder = _decoder(dataset.file_meta.TransferSyntaxUID)
    if decoder is None:
        raise InputError("no-decoder")
    if dataset.SamplesPerPixel != 1:
        raise InputError("colour")
    # pydicom leaves out pixel data that end before their delimiter.
    if not any(word in dataset for word in ("PixelData", *_FLOATS)):
        raise InputError("truncated")
    shape = _n_frames(dataset), int(dataset.Rows), int(dataset.Columns)
    if decoder.is_encapsulated:
        _check_streams(dataset, decoder.UID, shape)
    else:
        _check_length(dataset, shape)
    options: Any = {"allow_excess_frames": False}
    frames, _ = decoder.as_array(dataset, raw=True, **options)
    native = frames.astype(frames.dtype.newbyteorder("="), copy=False)
    return native.reshape(shape)


def _check_length(dataset: pydicom.Dataset, shape: tuple[int, int, int]) -> None:
    """Refuse uncompressed pixels that are fewer than the header claims."""
    keyword = next(word for word in ("PixelData", *_FLOATS) if word in dataset)
    bits = shape[0] * shape[1] * shape[2] * int(dataset.BitsAllocated)
    if len(dataset[keyword].value or b"") < -(-bits // 8):
        raise InputError("truncated")


def _check_streams(
    dataset: pydicom.Dataset, uid: UID, shape: tuple[int, int, int]
) -> None:
    """Refuse compressed frames that are missing, cut short or of another size."""
    streams = list(_streams(dataset, shape[0]))
    if len(streams) < shape[0]:
        raise InputError("truncated")
    for stream in streams[: shape[0]] if uid != RLELossless else ():
        # Decoders fill in what a stream lacks. All JPEGs end with FFD9, then padding.
        if b"\xff\xd9" not in stream[-10:] and not stream.rstrip(b"\0").endswith(
            b"\xff\xd9"
        ):
            raise InputError("truncated")
        if _stream_size(stream) not in {None, shape[1:]}:
            raise InputError("bad-image")


def _streams(dataset: pydicom.Dataset, n: int) -> Iterator[bytes]:
    """Yield the compressed frames (PS3.5 section A.4)."""
    words = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
    tables = dataset.get(words[0]), dataset.get(words[1])
    offsets = tables if all(tables) else None
    yield from generate_frames(
        dataset.PixelData, number_of_frames=n, extended_offsets=offsets
    )


def _stream_size(stream: bytes) -> tuple[int, int] | None:
    """Return rows and columns as a JPEG of any kind says; `None` if it does not."""
    if stream[:4] == b"\xff\x4f\xff\x51":  # ISO/IEC 15444-1 section A.5.1: SIZ
        x, y, left, top = struct.unpack_from(">4I", stream, 8)
        return y - top, x - left
    position = 2
    while stream[position : position + 1] == b"\xff":
        marker = stream[position + 1]
        if marker == 0xFF:  # ISO/IEC 10918-1 section B.1.1.2: fill bytes
            position += 1
        elif marker in _FRAME_MARKERS:
            return _frame_size(stream, position)
        else:
            position += 2 + struct.unpack_from(">H", stream, position + 2)[0]
    return None


def _frame_size(stream: bytes, position: int) -> tuple[int, int] | None:
    """Return rows and columns of a frame header; 0 rows are told later in a stream."""
    rows, columns = struct.unpack_from(">2H", stream, position + 5)
    return (rows, columns) if rows else None


def _decoder(uid: str) -> Decoder | None:
    """Return pydicom's decoder of a transfer syntax, if it can be used here."""
    known = UID(uid, validation_mode=pydicom.config.IGNORE)
    if not known.is_valid:
        return None
    try:
        decoder = get_decoder(known)
    except NotImplementedError:
        return None
    return decoder if decoder.is_available else None


def _n_frames(dataset: pydicom.Dataset) -> int:
    return int(dataset.get("NumberOfFrames") or 1)


def _written_in(dataset: pydicom.FileDataset) -> UID:
    """Return the uncompressed transfer syntax of what has been read."""
    implicit, little = dataset.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
