"""Blank parts of a JPEG without decoding it: ISO/IEC 10918-1, sequential, Huffman.

Only the units (MCUs: 8 to 32 pixels wide and high) that a box touches are coded anew.
All other coefficients are kept, and their bits are copied: what a decoder makes of
pixels outside of touched units stays the same, but for colours that have fewer samples
than pixels, where a decoder that smooths them may take in the blank ones next to the
border.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import ceil, floor
from typing import Any, Final

import numpy as np

from dicomdask.errors import InputError
from dicomdask.pixels.blanks.huffman import Table
from dicomdask.pixels.blanks.rule import widened
from dicomdask.pixels.blanks.scan import Block, blank_units

Array = np.ndarray[Any, np.dtype[Any]]

_SEQUENTIAL: Final = (0xC0, 0xC1)
_DHT, SCAN, _DQT, _DNL, _DRI, _EOI = 0xC4, 0xDA, 0xDB, 0xDC, 0xDD, 0xD9
_FRAMES: Final = {*range(0xC0, 0xD0)} - {_DHT, 0xC8, 0xCC}
_RESTARTS: Final = range(0xD0, 0xD8)


@dataclass(frozen=True, slots=True)
class Component:
    """A component of a frame: its samples a unit across and down, and its table."""

    identifier: int
    across: int
    down: int
    quantization: int


@dataclass(frozen=True, slots=True)
class Jpeg:
    """What the markers before a scan have said.

    Attributes
    ----------
    steps
        By table, the step of DC coefficients.
    tables
        By the byte that defines them: 0 to 3 of DC, 16 to 19 of AC.
    restart
        Units between restarts, 0 for none.
    """

    rows: int = 0
    columns: int = 0
    precision: int = 0
    components: tuple[Component, ...] = ()
    steps: dict[int, int] = field(default_factory=dict)
    tables: dict[int, Table] = field(default_factory=dict)
    restart: int = 0

    @property
    def unit(self) -> tuple[int, int]:
        """Return how many rows and columns of pixels a unit has."""
        return (
            8 * max(component.down for component in self.components),
            8 * max(component.across for component in self.components),
        )


def read_frame(data: bytes) -> Jpeg:
    """Return what the markers up to the first scan say.

    Raises
    ------
    InputError
        With the code ``unclean-pixels`` where it is no JPEG that can be edited.
    """
    jpeg = Jpeg()
    for marker, segment, _ in segments_of(data):
        if marker == SCAN:
            return jpeg
        jpeg = _read(jpeg, marker, segment)
    raise InputError("unclean-pixels")


def touched_units(jpeg: Jpeg, inside: Array) -> Array:
    """Return which units any pixel of a mask lies in, shape (down, across)."""
    height, width = jpeg.unit
    down, across = -(-jpeg.rows // height), -(-jpeg.columns // width)
    padded = np.zeros((down * height, across * width), bool)
    padded[: jpeg.rows, : jpeg.columns] = inside
    units = padded.reshape(down, height, across, width)
    return np.asarray(units.any(axis=(1, 3)))


def pixels_of(jpeg: Jpeg, touched: Array) -> Array:
    """Return the pixels of some units as a mask, shape (rows, columns)."""
    height, width = jpeg.unit
    spread = touched.repeat(height, axis=0).repeat(width, axis=1)
    return spread[: jpeg.rows, : jpeg.columns]


def coefficients(jpeg: Jpeg, values: Sequence[int], *, up: bool) -> list[int]:
    """Return the quantized DC coefficient of each component that gives its value.

    Section A.3.3: DC is 8 times the mean, less the middle of the range. What lies
    between two steps is rounded up or down.
    """
    middle, rounded = 1 << jpeg.precision - 1, ceil if up else floor
    return [
        rounded(Fraction(8 * (value - middle), step))
        for value, step in zip(values, _steps(jpeg), strict=True)
    ]


def levels(jpeg: Jpeg, dc: Sequence[int]) -> list[float]:
    """Return what is decoded from such coefficients, before it is rounded."""
    middle = 1 << jpeg.precision - 1
    values = [middle + n * step / 8 for n, step in zip(dc, _steps(jpeg), strict=True)]
    return [min(max(value, 0), 2 * middle - 1) for value in values]


def _steps(jpeg: Jpeg) -> list[int]:
    steps = [jpeg.steps.get(part.quantization, 0) for part in jpeg.components]
    if not all(steps):
        raise InputError("bad-pixels")
    return steps


def smoothed(jpeg: Jpeg, pixels: Array) -> Array:
    """Return where decoders may mix blank and other samples, by component.

    Those that have fewer samples than others are spread to all pixels, and smoothed by
    some decoders: next to a border, on both sides of it.
    """
    height, width = jpeg.unit
    reach = [
        max(height // 8 // part.down, width // 8 // part.across) - 1
        for part in jpeg.components
    ]
    border = [widened(pixels, n) & widened(~pixels, n) for n in reach]
    return np.stack(border, axis=-1)


def blank_jpeg(data: bytes, touched: Array, dc: Sequence[int]) -> bytes:
    """Return a JPEG with some units blank.

    Parameters
    ----------
    data
        The stream.
    touched
        The units, as `touched_units` returns them.
    dc
        What the DC coefficient of each component becomes; the others become 0.

    Raises
    ------
    InputError
        With the code ``unclean-pixels`` where the JPEG is none that can be edited,
        ``bad-pixels`` or ``truncated`` where it is damaged.
    """
    jpeg, out = Jpeg(), [b"\xff\xd8"]
    scanned: set[int] = set()
    for marker, segment, scan in segments_of(data):
        if marker != SCAN:
            jpeg = _read(jpeg, marker, segment)
            out.append(segment)
            continue
        parts = _scan_components(jpeg, segment)
        numbers = {number for number, _, _ in parts}
        if not numbers or scanned & numbers:
            raise InputError("unclean-pixels")
        scanned |= numbers
        jpeg, added = _with_room(jpeg, parts)
        out += [added, segment, _blank_scan(jpeg, scan, parts, touched, dc)]
    if scanned != set(range(len(jpeg.components))):
        raise InputError("truncated")
    return b"".join([*out, b"\xff\xd9"])


def segments_of(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield marker, segment and, behind a scan's, its entropy-coded bytes."""
    at = 2
    while True:
        while data[at : at + 2] == b"\xff\xff":  # section B.1.1.2: fill bytes
            at += 1
        if data[at : at + 1] != b"\xff" or at + 1 >= len(data):
            raise InputError("bad-pixels")
        marker = data[at + 1]
        if marker == _EOI:
            return
        stop = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if stop > len(data) or stop < at + 4:
            raise InputError("truncated")
        end = _scan_end(data, stop) if marker == SCAN else stop
        yield marker, data[at:stop], data[stop:end]
        at = end


def _scan_end(data: bytes, at: int) -> int:
    """Return where the first marker is that is no restart."""
    while True:
        at = data.find(b"\xff", at)
        if at < 0 or at + 1 >= len(data):
            raise InputError("truncated")
        if data[at + 1] == 0xFF:
            at += 1
        elif data[at + 1] == 0 or data[at + 1] in _RESTARTS:
            at += 2
        else:
            return at


def _read(jpeg: Jpeg, marker: int, segment: bytes) -> Jpeg:
    body = segment[4:]
    if marker in _SEQUENTIAL and not jpeg.components:
        return _read_frame_header(jpeg, body)
    if marker in _FRAMES or marker == _DNL or 0xDE <= marker <= 0xDF:
        raise InputError("unclean-pixels")  # progressive, arithmetic, hierarchical, …
    if marker == _DQT:
        return replace(jpeg, steps={**jpeg.steps, **dict(_read_steps(body))})
    if marker == _DHT:
        return replace(jpeg, tables={**jpeg.tables, **dict(_read_tables(body))})
    if marker == _DRI:
        return replace(jpeg, restart=int.from_bytes(body[:2], "big"))
    return jpeg


def _read_frame_header(jpeg: Jpeg, body: bytes) -> Jpeg:
    precision, rows, columns, n = struct.unpack_from(">BHHB", body)
    parts = [struct.unpack_from("3B", body, 6 + 3 * i) for i in range(n)]
    components = [Component(c, hv >> 4, hv & 15, q) for c, hv, q in parts]
    if n == 1:  # section A.2.2: its units are single blocks, whatever it says
        components = [replace(components[0], across=1, down=1)]
    sides = [side for part in components for side in (part.across, part.down)]
    if not rows or not columns or n not in {1, 3} or not set(sides) <= {1, 2, 3, 4}:
        raise InputError("unclean-pixels")
    return replace(
        jpeg,
        rows=rows,
        columns=columns,
        precision=precision,
        components=tuple(components),
    )


def _read_steps(body: bytes) -> Iterator[tuple[int, int]]:
    at = 0
    while at < len(body):
        wide, place = body[at] >> 4, body[at] & 15
        size = 2 if wide else 1
        yield place, int.from_bytes(body[at + 1 : at + 1 + size], "big")
        at += 1 + 64 * size


def _read_tables(body: bytes) -> Iterator[tuple[int, Table]]:
    at = 0
    while at < len(body):
        counts = tuple(body[at + 1 : at + 17])
        symbols = tuple(body[at + 17 : at + 17 + sum(counts)])
        if len(counts) < 16 or len(symbols) < sum(counts):
            raise InputError("bad-pixels")
        yield body[at], Table(counts, symbols)
        at += 17 + sum(counts)


def _scan_components(jpeg: Jpeg, segment: bytes) -> list[tuple[int, int, int]]:
    """Return the components of a scan: number, and the places of its tables."""
    n = segment[4]
    numbers = {part.identifier: i for i, part in enumerate(jpeg.components)}
    pairs = [segment[5 + 2 * i : 7 + 2 * i] for i in range(n)]
    if segment[5 + 2 * n :][:3] != b"\0\x3f\0" or len(numbers) < len(jpeg.components):
        raise InputError("unclean-pixels")
    if not all(pair[0] in numbers for pair in pairs):
        raise InputError("bad-pixels")
    return [(numbers[c], table >> 4, 16 + (table & 15)) for c, table in pairs]


def _with_room(jpeg: Jpeg, parts: Sequence[tuple[int, int, int]]) -> tuple[Jpeg, bytes]:
    """Return tables that can code any blank unit, and segments that define them.

    Table F.1: differences of 8 bits have 12 categories, of 12 bits 16.
    """
    added, tables = b"", dict(jpeg.tables)
    categories = range(12 if jpeg.precision == 8 else 16)
    wanted = {dc: tuple(categories) for _, dc, _ in parts}
    wanted |= {ac: (0,) for _, _, ac in parts}
    for place, symbols in wanted.items():
        if place not in tables:
            raise InputError("bad-pixels")
        table = tables[place].with_symbols(symbols)
        if table != tables[place]:
            added += table.to_bytes(place)
            tables[place] = table
    return replace(jpeg, tables=tables), added


def _blank_scan(
    jpeg: Jpeg,
    scan: bytes,
    parts: Sequence[tuple[int, int, int]],
    touched: Array,
    dc: Sequence[int],
) -> bytes:
    """Return the entropy-coded bytes of a scan with some units blank."""
    unit, order = _unit_of(jpeg, parts, touched, dc)
    size = jpeg.restart or len(order)
    runs = [order[at : at + size] for at in range(0, len(order), size)]
    pieces = list(_intervals(scan))
    if len(pieces) != len(runs):
        raise InputError("bad-pixels")
    return b"".join(
        (blank_units(piece, run, unit) if any(run) else piece) + marker
        for (piece, marker), run in zip(pieces, runs, strict=True)
    )


def _unit_of(
    jpeg: Jpeg,
    parts: Sequence[tuple[int, int, int]],
    touched: Array,
    dc: Sequence[int],
) -> tuple[list[Block], list[bool]]:
    """Return the blocks of a unit of a scan, and for each unit whether it is blank.

    A scan of one component has its blocks row by row (section A.2.2); there a unit
    is one of them.
    """
    unit = []
    for place, (number, *tables) in enumerate(parts):
        part = jpeg.components[number]
        of_dc, of_ac = (jpeg.tables[table] for table in tables)
        block = Block(place, of_dc, of_ac, dc[number])
        n = part.across * part.down if len(parts) > 1 else 1
        unit += [block] * n
    if len(parts) == 1:
        touched = _blocks_of(jpeg, jpeg.components[parts[0][0]], touched)
    return unit, touched.reshape(-1).tolist()


def _blocks_of(jpeg: Jpeg, part: Component, touched: Array) -> Array:
    """Return which blocks of a component lie in touched units (section A.1.1)."""
    height, width = jpeg.unit
    down = -(-jpeg.rows * part.down // height)
    across = -(-jpeg.columns * part.across // width)
    spread = touched.repeat(part.down, axis=0).repeat(part.across, axis=1)
    return spread[:down, :across]


def _intervals(scan: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield what is between restarts, each with the marker behind it."""
    start = at = 0
    while (at := scan.find(b"\xff", at)) >= 0:
        if scan[at + 1 : at + 2] and scan[at + 1] in _RESTARTS:
            yield scan[start:at], scan[at : at + 2]
            start = at + 2
        at += 2 if scan[at + 1 : at + 2] != b"\xff" else 1
    yield scan[start:], b""
