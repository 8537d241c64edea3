"""The pixels of a file without what is hidden beside them: values stay as they are."""

from typing import Any, Final

import numpy as np
from pydicom import DataElement, Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicomdask.deid.streams import clean_frame, is_cleanable
from dicomdask.errors import InputError

PIXEL_DATA: Final = Tag(0x7FE00010)
FLOATS: Final = {Tag(0x7FE00008): 4, Tag(0x7FE00009): 8}
VRS: Final = {Tag(0x7FE00008): "OF", Tag(0x7FE00009): "OD"}
NATIVE: Final = frozenset(
    {
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    }
)
ENCAPSULATED_NATIVE: Final = "1.2.840.10008.1.2.1.98"
YBR_422: Final = "YBR_FULL_422"


def clean_pixels(dataset: Dataset) -> tuple[DataElement | None, UID]:
    """Return the pixel element as it is written, and the Transfer Syntax UID for it.

    Uncompressed pixels are trimmed to their image, and every bit outside Bits Stored is
    replaced: by the sign of signed values, by zero otherwise (PS3.5 section 8.1.1).
    They are written in little endian, encapsulated ones (PS3.5 section A.4.11) as if
    they were not. Compressed frames keep their entropy-coded bytes; comments,
    application data and what follows an image go.

    Raises
    ------
    InputError
        With the code ``truncated``, ``bad-image``, ``bad-pixels`` or
        ``unclean-stream``.
    """
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    found = [tag for tag in (PIXEL_DATA, *FLOATS) if tag in dataset]
    if not found:
        return None, ExplicitVRLittleEndian
    if len(found) > 1:
        raise InputError("bad-image")
    data = _bytes_of(dataset, found[0])
    if found[0] in FLOATS:
        size = FLOATS[found[0]]
        n_values = _n_values(dataset)
        cut = _native(data, n_values * size, size, swap=syntax == ExplicitVRBigEndian)
        return _element(found[0], VRS[found[0]], cut), ExplicitVRLittleEndian
    if syntax in NATIVE:
        return _clean_native(dataset, data, syntax), ExplicitVRLittleEndian
    if syntax == ENCAPSULATED_NATIVE:
        joined = _unwrapped(dataset, data)
        return _clean_native(dataset, joined, syntax), ExplicitVRLittleEndian
    if not is_cleanable(syntax):
        raise InputError("unclean-stream")
    element = _element(PIXEL_DATA, "OB", _clean_frames(dataset, data, syntax))
    element.is_undefined_length = True
    return element, syntax


def _bytes_of(dataset: Dataset, tag: Any) -> bytes:
    value = dataset.get_item(tag).value
    if not isinstance(value, bytes):
        raise InputError("missing-pixels")
    return value


def _element(tag: Any, vr: str, data: bytes) -> DataElement:
    padded = data + b"\0" if len(data) % 2 else data
    return DataElement(tag, vr, padded, already_converted=True)


def _integer(dataset: Dataset, keyword: str, default: int | None = None) -> int:
    value = dataset.get(keyword, default)
    if value is None or value == "":
        value = default
    if value is None or int(value) < 0:
        raise InputError("bad-image")
    return int(value)


def n_frames(dataset: Dataset) -> int:
    """Return the number of frames; 1 where the header does not say."""
    return max(1, _integer(dataset, "NumberOfFrames", 1))


def _n_values(dataset: Dataset) -> int:
    plane = _integer(dataset, "Rows") * _integer(dataset, "Columns")
    samples = _integer(dataset, "SamplesPerPixel", 1)
    if str(dataset.get("PhotometricInterpretation", "")) == YBR_422:
        samples = 2  # PS3.3 section C.7.6.3.1.2: two pixels share their colours
    return plane * samples * n_frames(dataset)


def _native(data: bytes, nbytes: int, size: int, *, swap: bool) -> bytes:
    if len(data) < nbytes:
        raise InputError("truncated")
    cut = data[:nbytes]
    if not swap or size == 1:
        return cut
    return np.frombuffer(cut, f">u{size}").astype(f"<u{size}").tobytes()


def _clean_native(dataset: Dataset, data: bytes, syntax: UID) -> DataElement:
    allocated = _integer(dataset, "BitsAllocated")
    n_values = _n_values(dataset)
    if n_values == 0:
        raise InputError("bad-image")
    if allocated == 1:
        cut = _native(data, (n_values + 7) // 8, 1, swap=False)
        return _element(PIXEL_DATA, "OB", _clear_tail(cut, n_values))
    if allocated not in {8, 16, 32, 64}:
        raise InputError("bad-image")
    size = allocated // 8
    is_big = syntax == ExplicitVRBigEndian
    if is_big and size == 1 and dataset.get_item(PIXEL_DATA).VR == "OW":
        even = data[: len(data) // 2 * 2]  # PS3.5 annex D: bytes lie in words
        data = np.frombuffer(even, ">u2").astype("<u2").tobytes()
    cut = _native(data, n_values * size, size, swap=is_big)
    values = np.frombuffer(cut, f"<u{size}")
    cleared = _clear_bits(dataset, values, allocated)
    if cleared is not values and not np.array_equal(cleared, values):
        cut = cleared.tobytes()
    return _element(PIXEL_DATA, "OB" if size == 1 else "OW", cut)


def _clear_tail(data: bytes, n_bits: int) -> bytes:
    if n_bits % 8 == 0:
        return data
    return data[:-1] + bytes([data[-1] & ((1 << n_bits % 8) - 1)])


def _clear_bits(
    dataset: Dataset, values: "np.ndarray[Any, Any]", allocated: int
) -> "np.ndarray[Any, Any]":
    """Return the values with nothing in the bits that are not stored."""
    stored = _integer(dataset, "BitsStored", allocated)
    high = _integer(dataset, "HighBit", stored - 1)
    shift = high + 1 - stored
    if not 1 <= stored <= allocated or shift < 0 or high >= allocated:
        raise InputError("bad-image")
    if stored == allocated:
        return values
    kind = values.dtype.type
    mask = kind(((1 << stored) - 1) << shift)
    cleared = values & mask
    if _integer(dataset, "PixelRepresentation", 0) == 1:
        above = kind(((1 << allocated) - 1) ^ ((1 << (high + 1)) - 1))
        is_negative = (values & kind(1 << high)) != 0
        cleared = np.where(is_negative, cleared | above, cleared)
    return np.asarray(cleared, values.dtype)


def _clean_frames(dataset: Dataset, data: bytes, syntax: UID) -> bytes:
    plane = _integer(dataset, "Rows") * _integer(dataset, "Columns")
    if _integer(dataset, "BitsAllocated") == 1:
        plane = -(-plane // 8)
    frames = _frames(dataset, data)
    cleaned = [clean_frame(frame, syntax, plane) for frame in frames]
    return encapsulate(cleaned, has_bot=True)


def _frames(dataset: Dataset, data: bytes) -> list[bytes]:
    wanted = n_frames(dataset)
    try:
        frames = list(generate_frames(data, number_of_frames=wanted))[:wanted]
    except (ValueError, IndexError, EOFError):
        raise InputError("bad-pixels") from None
    if len(frames) < wanted:
        raise InputError("truncated")
    return frames


def _unwrapped(dataset: Dataset, data: bytes) -> bytes:
    """Return encapsulated frames that are not compressed without what pads each."""
    n_bits = _n_values(dataset) * _integer(dataset, "BitsAllocated")
    nbytes, rest = divmod(n_bits, 8 * n_frames(dataset))
    if rest and n_frames(dataset) > 1:  # frames of bits would have to be shifted
        raise InputError("unclean-stream")
    nbytes += bool(rest)
    frames = _frames(dataset, data)
    if any(len(frame) < nbytes for frame in frames):
        raise InputError("truncated")
    return b"".join(frame[:nbytes] for frame in frames)
