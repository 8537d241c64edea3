"""Take what is no pixel out of compressed frames; entropy-coded bytes stay untouched.

Comments, application data and whatever follows the image go. What the decoding needs of
an application segment (the colour transform) is written anew, so that no other byte of
it passes. Nothing is decoded.
"""

import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Final

from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    JPEG2000MC,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEG2000MCLossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from dicomdask.errors import InputError

DEFLATED_FRAMES: Final = "1.2.840.10008.1.2.8.1"
SPECTRAL_SELECTION: Final = "1.2.840.10008.1.2.4.53"
FULL_PROGRESSION: Final = "1.2.840.10008.1.2.4.55"
"""Retired JPEGs that can be decoded."""
EOI, SOS, COM = 0xD9, 0xDA, 0xFE
APP0, APP8, APP14, APP15 = 0xE0, 0xE8, 0xEE, 0xEF
JFIF: Final = b"JFIF\0\1\1\0\0\1\0\1\0\0"
"""Version 1.1, no unit, square pixels, no thumbnail."""
J2K_START, J2K_SOT, J2K_SOD, J2K_EOC = 0xFF4F, 0xFF90, 0xFF93, 0xFFD9
J2K_TLM, J2K_PLM = 0xFF55, 0xFF57
J2K_CODING: Final = frozenset(
    {
        *(0xFF50, 0xFF51, 0xFF52, 0xFF53, 0xFF55, 0xFF56, 0xFF57, 0xFF58, 0xFF59),
        *(0xFF5C, 0xFF5D, 0xFF5E, 0xFF5F, 0xFF60, 0xFF61, 0xFF63),
        *range(0xFF70, 0xFF7A),
    }
)
"""Marker segments of ISO/IEC 15444-1, -2 and -15 that say how to decode; of any other
a decoder knows no more than to skip it."""
JP2_SIGNATURE: Final = b"\0\0\0\x0cjP  \r\n\x87\n"

Clean = Callable[[bytes, int], bytes]


def clean_frame(frame: bytes, transfer_syntax: str, plane_bytes: int) -> bytes:
    """Return a compressed frame without comments and without what follows it.

    Parameters
    ----------
    frame
        The bytes of one frame.
    transfer_syntax
        Its Transfer Syntax UID.
    plane_bytes
        The bytes of one RLE segment once it is decoded: a byte a pixel, or its bit.

    Raises
    ------
    InputError
        With the code ``unclean-stream`` where the transfer syntax is not known here,
        ``bad-pixels`` where the frame is damaged.
    """
    clean = CLEANERS.get(transfer_syntax)
    if clean is None:
        raise InputError("unclean-stream")
    try:
        return clean(frame, plane_bytes)
    except (IndexError, struct.error, zlib.error):
        raise InputError("bad-pixels") from None


def is_cleanable(transfer_syntax: str) -> bool:
    """Return whether frames of a compressed transfer syntax can be cleaned."""
    return transfer_syntax in CLEANERS


def _clean_jpeg(data: bytes, _: int) -> bytes:
    """Clean JPEG and JPEG-LS (ISO/IEC 10918-1 annex B, 14495-1 annex C)."""
    if data[:2] != b"\xff\xd8":
        raise InputError("bad-pixels")
    out, at = [data[:2]], 2
    has_scan = False
    while True:
        while data[at] == 0xFF and data[at + 1] == 0xFF:  # fill bytes
            at += 1
        if data[at] != 0xFF:
            raise InputError("bad-pixels")
        marker = data[at + 1]
        if marker == EOI:
            break
        length = struct.unpack_from(">H", data, at + 2)[0]
        if length < 2 or at + 2 + length > len(data):
            raise InputError("bad-pixels")
        segment = data[at : at + 2 + length]
        at += 2 + length
        out.append(_kept_segment(marker, segment))
        if marker == SOS:
            stop = _scan_end(data, at)
            out.append(data[at:stop])
            at, has_scan = stop, True
    if not has_scan:
        raise InputError("bad-pixels")
    return b"".join([*out, b"\xff\xd9"])


_CODING: Final = {*range(0xC0, 0xD0), 0xDA, 0xDB, 0xDC, 0xDD, 0xF7, 0xF8} - {0xC8}


def _kept_segment(marker: int, segment: bytes) -> bytes:
    """Return what stays of a marker segment: tables, and how colours are coded."""
    if marker in _CODING:
        return segment
    body = segment[4:]
    if marker == APP0 and body.startswith(b"JFIF\0"):
        return b"\xff\xe0" + struct.pack(">H", len(JFIF) + 2) + JFIF
    if marker == APP14 and body.startswith(b"Adobe") and len(body) >= 12:
        transform = body[11:12] if body[11] < 3 else b"\0"
        return b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + transform
    if marker == APP8 and body.startswith(b"mrfx") and len(body) >= 5:
        transform = body[4:5] if body[4] < 4 else b"\0"
        return b"\xff\xe8\0\x07mrfx" + transform
    if APP0 <= marker <= APP15 or marker == COM:
        return b""
    raise InputError("bad-pixels")


def _scan_end(data: bytes, at: int) -> int:
    """Return where the marker behind entropy-coded bytes is.

    Stuffed bytes (FF00; in JPEG-LS a bit, so FF and less than 80) and restart markers
    belong to the scan.
    """
    while True:
        at = data.find(b"\xff", at)
        if at < 0:
            raise InputError("truncated")
        following = data[at + 1]
        if following >= 0x80 and not 0xD0 <= following <= 0xD7:
            return at
        at += 2 if following != 0xFF else 1


def _clean_j2k(data: bytes, _: int) -> bytes:
    """Clean a JPEG 2000 codestream (ISO/IEC 15444-1 annex A); a JP2 file loses its box.

    Lengths of tile-parts are corrected; an index of them is left out where it would be
    wrong.
    """
    data = _codestream(data)
    if data[:2] != b"\xff\x4f":
        raise InputError("bad-pixels")
    header, at, index = [data[:2]], 2, []
    while (marker := _marker(data, at)) != J2K_SOT:
        at, segment = _segment(data, at)
        if marker in (J2K_TLM, J2K_PLM):
            index.append(segment)
        elif marker in J2K_CODING:
            header.append(segment)
    tiles, has_changed = [], False
    while at < len(data) and _marker(data, at) == J2K_SOT:
        at, tile, changed = _tile_part(data, at)
        tiles.append(tile)
        has_changed |= changed
    kept = [] if has_changed else index
    return b"".join([*header, *kept, *tiles, b"\xff\xd9"])


def _marker(data: bytes, at: int) -> int:
    marker: int = struct.unpack_from(">H", data, at)[0]
    return marker


def _segment(data: bytes, at: int) -> tuple[int, bytes]:
    stop = at + 2 + struct.unpack_from(">H", data, at + 2)[0]
    if _marker(data, at) < 0xFF30 or stop > len(data):
        raise InputError("bad-pixels")
    return stop, data[at:stop]


def _tile_part(data: bytes, at: int) -> tuple[int, bytes, bool]:
    """Return where a tile-part ends, what stays of it, and whether something went."""
    start = at
    _, _, tile, length, part, parts = struct.unpack_from(">HHHIBB", data, at)
    if length == 0:  # the last one, up to the end of the codestream
        end = data.rfind(b"\xff\xd9")
        stop = end if end > at else len(data)
    else:
        stop = at + length
    if stop > len(data):
        raise InputError("truncated")
    at += 12
    kept = []
    while _marker(data, at) != J2K_SOD:
        marker = _marker(data, at)
        at, segment = _segment(data, at)
        kept.append(segment if marker in J2K_CODING else b"")
    body = b"".join(kept) + data[at:stop]
    new = 12 + len(body) if length else 0
    head = struct.pack(">HHHIBB", J2K_SOT, 10, tile, new, part, parts)
    return stop, head + body, 12 + len(body) != stop - start


def _codestream(data: bytes) -> bytes:
    """Return the codestream inside the boxes of a JP2 file, or the data themselves."""
    if not data.startswith(JP2_SIGNATURE):
        return data
    at = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if length == 1:
            length, head = struct.unpack_from(">Q", data, at + 8)[0], 16
        stop = at + length if length else len(data)
        if kind == b"jp2c":
            return data[at + head : stop]
        at = max(stop, at + 8)
    raise InputError("bad-pixels")


def _clean_rle(data: bytes, plane_bytes: int) -> bytes:
    """Clean an RLE frame (PS3.5 annex G): segments end where their plane is full."""
    count, *offsets = struct.unpack_from("<16I", data)
    if not 1 <= count <= 15:
        raise InputError("bad-pixels")
    stops = [*offsets[1:count], len(data)]
    segments = []
    for start, stop in zip(offsets[:count], stops, strict=True):
        if not 64 <= start < stop <= len(data):
            raise InputError("bad-pixels")
        end = start + _packed_length(data[start:stop], plane_bytes)
        segments.append(data[start:end] + b"\0" * ((end - start) % 2))
    places = [64 + sum(map(len, segments[:n])) for n in range(count)]
    head = struct.pack("<16I", count, *places, *[0] * (15 - count))
    return head + b"".join(segments)


def _packed_length(segment: bytes, wanted: int) -> int:
    """Return how many bytes of a PackBits segment make `wanted` bytes."""
    at = made = 0
    while made < wanted:
        code = segment[at]
        if code < 128:
            at, made = at + code + 2, made + code + 1
        elif code > 128:
            at, made = at + 2, made + 257 - code
        else:
            at += 1
    if at > len(segment) or made > wanted + wanted % 2:  # one byte of padding
        raise InputError("bad-pixels")
    return at


def _clean_deflated(data: bytes, _: int) -> bytes:
    """Clean a deflated frame: what follows the end of the stream goes."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    left = data
    while left and not inflater.eof:
        inflater.decompress(left, 1 << 20)
        left = inflater.unconsumed_tail
    if not inflater.eof:
        raise InputError("truncated")
    return data[: len(data) - len(inflater.unused_data)]


CLEANERS: Final[Mapping[str, Clean]] = {
    **dict.fromkeys(
        (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1),
        _clean_jpeg,
    ),
    **dict.fromkeys((SPECTRAL_SELECTION, FULL_PROGRESSION), _clean_jpeg),
    **dict.fromkeys((JPEGLSLossless, JPEGLSNearLossless), _clean_jpeg),
    **dict.fromkeys(
        (JPEG2000Lossless, JPEG2000, JPEG2000MCLossless, JPEG2000MC), _clean_j2k
    ),
    **dict.fromkeys((HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K), _clean_j2k),
    RLELossless: _clean_rle,
    DEFLATED_FRAMES: _clean_deflated,
}
