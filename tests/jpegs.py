"""Make and read sequential JPEGs of given coefficients (ISO/IEC 10918-1), slowly."""

import struct
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Layout:
    """How a JPEG is made: `sampling` has across and down of each component."""

    rows: int
    columns: int
    sampling: tuple[tuple[int, int], ...] = ((1, 1),)
    precision: int = 8
    restart: int = 0
    interleaved: bool = True
    tight: bool = False
    step: int = 2

    @property
    def most(self):
        return tuple(max(side) for side in zip(*self.sampling, strict=True))

    @property
    def units(self):
        across, down = self.most
        return -(-self.rows // (8 * down)), -(-self.columns // (8 * across))

    def blocks(self, component):
        """Return how many blocks of a component are coded, down and across."""
        across, down = self.sampling[component]
        if self.interleaved:
            return self.units[0] * down, self.units[1] * across
        most_across, most_down = self.most
        return (
            -(-self.rows * down // (8 * most_down)),
            -(-self.columns * across // (8 * most_across)),
        )

    def scans(self):
        """Yield the blocks of each scan, unit by unit: (component, row, column)."""
        n = range(len(self.sampling))
        if self.interleaved and len(n) > 1:
            yield [
                [
                    (c, y * self.sampling[c][1] + v, x * self.sampling[c][0] + h)
                    for c in n
                    for v in range(self.sampling[c][1])
                    for h in range(self.sampling[c][0])
                ]
                for y in range(self.units[0])
                for x in range(self.units[1])
            ]
            return
        for c in n:
            down, across = self.blocks(c)
            yield [[(c, y, x)] for y in range(down) for x in range(across)]


def random_blocks(layout, seed, largest=200):
    """Return coefficients by component, shape (down, across, 64), most of them 0."""
    rng = np.random.default_rng(seed)
    blocks = []
    for c in range(len(layout.sampling)):
        shape = (*layout.blocks(c), 64)
        values = rng.integers(-30, 31, shape) * (rng.random(shape) < 0.15)
        values[..., 0] = rng.integers(-largest, largest + 1, shape[:2])
        values[rng.random(shape[:2]) < 0.2, 63] = 1  # these have no end of block
        blocks.append(values)
    return blocks


def symbols_of(block, prediction):
    """Yield what codes a block: class of table, symbol and the bits behind it."""
    difference = int(block[0]) - prediction
    size = abs(difference).bit_length()
    yield "dc", size, bits_of(difference, size)
    run = 0
    last = max(np.flatnonzero(block), default=0)
    for value in map(int, block[1 : last + 1]):
        if value == 0:
            run += 1
            continue
        while run > 15:
            yield "ac", 0xF0, ""
            run -= 16
        size = abs(value).bit_length()
        yield "ac", run << 4 | size, bits_of(value, size)
        run = 0
    if last < 63:
        yield "ac", 0, ""


def bits_of(value, size):
    return format(value if value > 0 else value + 2**size - 1, f"0{size}b") * bool(size)


def flat_codes(symbols):
    """Return codes of one length, of which the last is free (section C.2)."""
    length = len(symbols).bit_length()
    return {symbol: format(n, f"0{length}b") for n, symbol in enumerate(symbols)}


ALL_DC = tuple(range(16))
ALL_AC = (0, 0xF0, *(run << 4 | size for run in range(16) for size in range(1, 16)))


def make_jpeg(layout, blocks):
    """Return the stream of some coefficients."""
    scans = [list(coded_units(scan, blocks, layout)) for scan in layout.scans()]
    every = [part for scan in scans for unit in scan for part in unit]
    used = {
        kind: sorted({symbol for k, symbol, _ in every if k == kind}) or [0]
        for kind in ("dc", "ac")
    }
    if not layout.tight:
        top = 12 if layout.precision == 8 else 16
        used = {"dc": list(ALL_DC[:top]), "ac": list(ALL_AC)}
    codes = {kind: flat_codes(symbols) for kind, symbols in used.items()}
    out = [b"\xff\xd8", table_of_steps(layout.step), frame_header(layout)]
    out += [huffman_table(0, used["dc"]), huffman_table(16, used["ac"])]
    if layout.restart:
        out.append(b"\xff\xdd" + struct.pack(">HH", 4, layout.restart))
    places = list(layout.scans())
    for scan, units in zip(places, scans, strict=True):
        components = sorted({c for c, _, _ in scan[0]})
        parts = b"".join(bytes([c + 1, 0]) for c in components)
        body = bytes([len(components)]) + parts + b"\0\x3f\0"
        out += [b"\xff\xda", struct.pack(">H", len(body) + 2), body]
        out += scan_bytes(units, codes, layout.restart)
    return b"".join([*out, b"\xff\xd9"])


def coded_units(scan, blocks, layout):
    for number, unit in enumerate(scan):
        if number == 0 or (layout.restart and number % layout.restart == 0):
            predictions = dict.fromkeys(range(4), 0)
        parts = []
        for c, y, x in unit:
            parts += symbols_of(blocks[c][y, x], predictions[c])
            predictions[c] = int(blocks[c][y, x, 0])
        yield parts


def scan_bytes(units, codes, restart):
    size = restart or len(units)
    for number, at in enumerate(range(0, len(units), size)):
        if number:
            yield bytes([0xFF, 0xD0 + (number - 1) % 8])
        text = "".join(
            codes[kind][symbol] + bits
            for unit in units[at : at + size]
            for kind, symbol, bits in unit
        )
        text += "1" * (-len(text) % 8)
        octets = int(text, 2).to_bytes(len(text) // 8, "big")
        yield octets.replace(b"\xff", b"\xff\0")


def table_of_steps(step):
    return b"\xff\xdb\0\x43\0" + bytes([step] + [1] * 63)


def frame_header(layout):
    n = len(layout.sampling)
    body = struct.pack(">BHHB", layout.precision, layout.rows, layout.columns, n)
    for c, (across, down) in enumerate(layout.sampling):
        body += bytes([c + 1, across << 4 | down, 0])
    marker = 0xC0 if layout.precision == 8 else 0xC1
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def huffman_table(place, symbols):
    counts = [0] * 16
    counts[len(symbols).bit_length() - 1] = len(symbols)
    body = bytes([place, *counts, *symbols])
    return b"\xff\xc4" + struct.pack(">H", len(body) + 2) + body


def read_jpeg(stream, layout):
    """Return the coefficients of a stream that is laid out so."""
    blocks = [
        np.zeros((*layout.blocks(c), 64), int) for c in range(len(layout.sampling))
    ]
    codes, at = {}, 2
    scans = layout.scans()
    while stream[at + 1] != 0xD9:
        marker, length = stream[at + 1], struct.unpack_from(">H", stream, at + 2)[0]
        body, at = stream[at + 4 : at + 2 + length], at + 2 + length
        if marker == 0xC4:
            codes[body[0]] = read_codes(body)
        if marker == 0xDA:
            stop = at
            while stream[stop] != 0xFF or stream[stop + 1] in {0, *range(0xD0, 0xD8)}:
                stop += 1
            read_scan(stream[at:stop], next(scans), blocks, codes, layout.restart)
            at = stop
    assert next(scans, None) is None
    return blocks


def read_codes(body):
    codes, code, at = {}, 0, 17
    for length in range(1, 17):
        for symbol in body[at : at + body[length]]:
            codes[format(code, f"0{length}b")] = symbol
            code += 1
        at += body[length]
        code *= 2
    assert code <= 2**17 - 2  # all ones is no code
    assert at == len(body)
    return codes


def read_scan(data, scan, blocks, codes, restart):
    size = restart or len(scan)
    for number in range(0, len(scan), size):
        stop = next(
            (
                n
                for n in range(len(data) - 1)
                if data[n] == 0xFF and 0xD0 <= data[n + 1] < 0xD8
            ),
            len(data),
        )
        if stop < len(data):
            assert data[stop + 1] == 0xD0 + number // size % 8
        octets = data[:stop].replace(b"\xff\0", b"\xff")
        data = data[stop + 2 :]
        text = format(int.from_bytes(b"\1" + octets, "big"), "b")[1:]
        left = read_units(text, scan[number : number + size], blocks, codes)
        assert len(left) < 8
        assert set(left) <= {"1"}
    assert not data


def read_units(text, units, blocks, codes):
    predictions, at = dict.fromkeys(range(4), 0), 0
    for unit in units:
        for c, y, x in unit:
            block = np.zeros(64, int)
            size, at = read_symbol(text, at, codes[0])
            value, at = read_value(text, at, size)
            predictions[c] = block[0] = predictions[c] + value
            k = 1
            while k < 64:
                symbol, at = read_symbol(text, at, codes[16])
                if symbol == 0:
                    break
                k += symbol >> 4
                value, at = read_value(text, at, symbol & 15)
                block[k] = value
                k += 1
            blocks[c][y, x] = block
    return text[at:]


def read_symbol(text, at, codes):
    for length in range(1, 17):
        if text[at : at + length] in codes:
            return codes[text[at : at + length]], at + length
    raise AssertionError("no code")


def read_value(text, at, size):
    if size == 0:
        return 0, at
    value = int(text[at : at + size], 2)
    return (value if value >> (size - 1) else value - 2**size + 1), at + size


def blanked(layout, blocks, touched, dc):
    """Return coefficients with some units blank."""
    across, down = layout.most
    found = [block.copy() for block in blocks]
    for c, (h, v) in enumerate(layout.sampling):
        if len(layout.sampling) == 1:
            h, v = across, down
        for y in range(found[c].shape[0]):
            for x in range(found[c].shape[1]):
                if touched[y // v, x // h]:
                    found[c][y, x] = 0
                    found[c][y, x, 0] = dc[c]
    return found


def with_other_insides(layout, blocks, touched, seed):
    """Return coefficients that differ in some units only."""
    other = random_blocks(layout, seed)
    return [
        np.where(mask[..., np.newaxis] != 0, new, old)
        for new, old, mask in zip(
            other,
            blocks,
            [
                b[..., 0]
                for b in blanked(
                    layout, [np.zeros_like(b) for b in blocks], touched, [1] * 4
                )
            ],
            strict=True,
        )
    ]
