"""Where compressed frames lie, and what a stream says of itself."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dicomdask.errors import InputError

_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
# ISO/IEC 10918-1 table B.1, and FFF7 of JPEG-LS: they start a frame header.
_FRAME_MARKERS: Final = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL: Final = frozenset({0xC0, 0xC1})
_APP0, _APP14, _SCAN = 0xE0, 0xEE, 0xDA
_JPEG: Final = b"\xff\xd8"
_J2K: Final = b"\xff\x4f\xff\x51"

Fragment = tuple[int, int]
"""Where a fragment's bytes start, and how many there are."""


def split_frames(value: bytes, n: int, tables: Any = None) -> list[list[Fragment]]:
    """Return the fragments of each of the first `n` frames (PS3.5 section A.4).

    An offset table counts where it agrees with the fragments; one that does not is
    passed over, as is an empty one. Then each fragment is a frame, or all make one, or
    a frame ends where a fragment ends with the marker that JPEGs end with.

    Parameters
    ----------
    value
        Encapsulated pixel data.
    n
        How many frames the header claims.
    tables
        Extended Offset Table and its lengths, or None.

    Raises
    ------
    InputError
        With the code ``truncated``.
    """
    fragments = _fragments(value)
    if len(fragments) < n + 1:
        raise InputError("truncated")
    (start, length), *fragments = fragments
    if n == 1 and length <= 4:
        return [fragments]
    if len(fragments) == n:
        return [[fragment] for fragment in fragments]
    origin = start + length
    offsets: Sequence[int] = struct.unpack_from(f"<{length // 4}I", value, start)
    if tables:
        offsets = struct.unpack(f"<{len(tables[0]) // 8}Q", tables[0])
    frames = _by_offsets(fragments, [origin + offset + 8 for offset in offsets])
    if frames is None or len(frames) < n:
        frames = _by_ends(value, fragments) if n > 1 else [fragments]
    if len(frames) < n:
        raise InputError("truncated")
    return frames[:n]


def join(value: bytes, fragments: Sequence[Fragment]) -> bytes:
    """Return the stream that fragments make."""
    parts = [value[start : start + length] for start, length in fragments]
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _fragments(value: bytes) -> list[Fragment]:
    """Return all items of encapsulated pixel data, the offset table first."""
    found, position = [], 0
    while value[position : position + 4] == _ITEM:
        (length,) = struct.unpack_from("<I", value, position + 4)
        position += 8
        if position + length > len(value):
            raise InputError("truncated")
        found.append((position, length))
        position += length
    if value[position : position + 4] not in {_END, b""}:
        raise InputError("truncated")
    return found


def _by_offsets(
    fragments: Sequence[Fragment], starts: Sequence[int]
) -> list[list[Fragment]] | None:
    """Return the fragments by frame; None where starts are none of fragments."""
    places = {start: number for number, (start, _) in enumerate(fragments)}
    numbers = [places.get(start, -1) for start in starts]
    if not numbers or numbers[0] != 0 or sorted(set(numbers)) != numbers:
        return None
    stops = [*numbers[1:], len(fragments)]
    pairs = zip(numbers, stops, strict=True)
    return [list(fragments[start:stop]) for start, stop in pairs]


def _by_ends(value: bytes, fragments: Sequence[Fragment]) -> list[list[Fragment]]:
    frames: list[list[Fragment]] = [[]]
    for start, length in fragments:
        frames[-1].append((start, length))
        if has_end(value[start : start + length]):
            frames.append([])
    return [frame for frame in frames if frame]


def has_end(stream: bytes) -> bool:
    """Tell whether a JPEG of any kind ends: with FFD9, then padding of 00 or FF."""
    padded = stream.rstrip(b"\0\xff")
    return b"\xff\xd9" in stream[-10:] or padded.endswith(b"\xff\xd9")


def mend_scan(stream: bytes) -> bytes:
    """Return a sequential JPEG with the spectral selection that all of them have.

    ISO/IEC 10918-1 section B.2.3 has it go from 0 to 63. Writers are known that leave
    it empty, and strict decoders refuse their streams.
    """
    is_sequential = False
    for marker, _, stop in _segments(stream if stream[:2] == _JPEG else b""):
        is_sequential = is_sequential or marker in _SEQUENTIAL
        if marker == _SCAN and is_sequential and stream[stop - 3 : stop] == b"\0\0\0":
            return stream[: stop - 2] + b"\x3f" + stream[stop - 1 :]
    return stream


@dataclass(frozen=True, slots=True)
class Stream:
    """What a JPEG of any kind says of itself.

    Attributes
    ----------
    rows
        0 where a later marker tells.
    subsampled
        Whether some components have fewer samples than others.
    signed, reversible, transformed
        Of JPEG 2000: two's complement; the reversible wavelet; a transform of the
        components that decoders undo. Of others None.
    identifiers, adobe, jfif
        Of JPEG: names of the components, the colour transform of an Adobe marker, and
        whether there is a JFIF marker.
    """

    rows: int
    columns: int
    components: int
    precision: int
    subsampled: bool = False
    signed: bool | None = None
    reversible: bool | None = None
    transformed: bool | None = None
    identifiers: bytes = b""
    adobe: int | None = None
    jfif: bool = False


def read_stream(stream: bytes) -> Stream | None:
    """Return what a JPEG of any kind says of itself; None if it does not."""
    return _read_j2k(stream) if stream[:4] == _J2K else _read_jpeg(stream)


def _read_j2k(stream: bytes) -> Stream:
    """Read SIZ and COD (ISO/IEC 15444-1 sections A.5.1 and A.6.1)."""
    x, y, left, top = struct.unpack_from(">4I", stream, 8)
    (n,) = struct.unpack_from(">H", stream, 40)
    parts = [struct.unpack_from("3B", stream, 42 + 3 * i) for i in range(min(n, 4))]
    depth = parts[0][0]
    transformed = reversible = None
    position = 4 + struct.unpack_from(">H", stream, 4)[0]
    while stream[position : position + 1] == b"\xff":
        marker = stream[position + 1]
        if marker in {0x90, 0xD9}:  # start of a tile: the main header is over
            break
        if marker == 0x52:
            transformed = bool(stream[position + 8])
            reversible = stream[position + 13] == 1
        position += 2 + struct.unpack_from(">H", stream, position + 2)[0]
    return Stream(
        rows=y - top,
        columns=x - left,
        components=n,
        precision=(depth & 0x7F) + 1,
        subsampled=len(set(parts)) > 1,
        signed=bool(depth & 0x80),
        reversible=reversible,
        transformed=transformed,
    )


def _read_jpeg(stream: bytes) -> Stream | None:
    """Read markers up to the frame header (ISO/IEC 10918-1 annex B)."""
    adobe, jfif = None, False
    for marker, start, stop in _segments(stream):
        content = stream[start:stop]
        if marker in _FRAME_MARKERS:
            return _read_frame_header(content, adobe, jfif)
        if marker == _APP0:
            jfif = jfif or content.startswith(b"JFIF")
        if marker == _APP14 and content.startswith(b"Adobe") and len(content) >= 12:
            adobe = content[11]
    return None


def _segments(stream: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the marker of each segment, and where its content starts and stops.

    The last one is the header of the first scan.
    """
    position, marker = 2, 0
    while marker != _SCAN and stream[position : position + 1] == b"\xff":
        marker = stream[position + 1]
        if marker == 0xFF:  # section B.1.1.2: fill bytes
            position += 1
            continue
        start = position + 4
        position += 2 + struct.unpack_from(">H", stream, position + 2)[0]
        yield marker, start, position


def _read_frame_header(content: bytes, adobe: int | None, jfif: bool) -> Stream:
    precision, rows, columns, n = struct.unpack_from(">BHHB", content)
    parts = [content[6 + 3 * i : 9 + 3 * i] for i in range(n)]
    return Stream(
        rows=rows,
        columns=columns,
        components=n,
        precision=precision,
        subsampled=len({part[1:2] for part in parts}) > 1,
        identifiers=b"".join(part[:1] for part in parts),
        adobe=adobe,
        jfif=jfif,
    )
