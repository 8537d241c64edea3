"""Blank units of one entropy-coded scan of a JPEG; other bits are copied as they are.

ISO/IEC 10918-1 annex F, sequential coding. A unit is what the standard calls an MCU.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from dicomdask.errors import InputError
from dicomdask.pixels.blanks.huffman import (
    END_OF_BLOCK,
    Table,
    coded,
    codes_of,
    lookup,
    steps_at,
    windows_of,
)

Array = np.ndarray[Any, np.dtype[Any]]

_LAST_END: Final = END_OF_BLOCK + 63
_AHEAD: Final = 1 << 15
_LONGEST: Final = 256
"""No block is longer, in bytes: 64 codes of 16 bits, with 15 bits of value each."""


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a unit.

    Attributes
    ----------
    component
        Which component of the scan it is of: each has a prediction of its own.
    dc, ac
        Its tables.
    blank
        Its DC coefficient, quantized, once it is blank; the others are 0.
    """

    component: int
    dc: Table
    ac: Table
    blank: int


def blank_units(data: bytes, touched: Sequence[bool], unit: Sequence[Block]) -> bytes:
    """Return entropy-coded bytes up to a restart with some units blank.

    Parameters
    ----------
    data
        The bytes, FF stuffed. What follows the last unit is left out.
    touched
        Of each unit, whether it is to be blank.
    unit
        The blocks of each unit, in order.

    Raises
    ------
    InputError
        With the code ``bad-pixels`` where the bytes are not these units.
    """
    plain = data.rstrip(b"\xff").replace(b"\xff\x00", b"\xff")  # fill goes
    try:
        pieces = _Editor(plain, unit).edit(touched)
    except IndexError:
        raise InputError("bad-pixels") from None
    bits = np.concatenate(pieces)
    padded = np.concatenate([bits, np.ones(-len(bits) % 8, np.uint8)])
    return np.packbits(padded).tobytes().replace(b"\xff", b"\xff\x00")


@dataclass(frozen=True, slots=True)
class _Part:
    """A block of a unit as the editor needs it: its tables, looked up once."""

    component: int
    dc: tuple[bytes, bytes]
    ac: int
    codes: dict[int, str]
    end: str
    blank: int


class _Editor:
    """Walk over the blocks of a scan and collect the bits that it becomes.

    What the bits are is looked up for some bytes ahead, so that a long scan takes no
    more memory than a short one.
    """

    def __init__(self, plain: bytes, unit: Sequence[Block]) -> None:
        self._plain = plain
        self._bits = np.unpackbits(np.frombuffer(plain, np.uint8))
        self._tables = tables = list(dict.fromkeys(block.ac for block in unit))
        self._unit = [
            _Part(
                component=block.component,
                dc=lookup(block.dc),
                ac=tables.index(block.ac),
                codes=codes_of(block.dc),
                end=codes_of(block.ac)[0],
                blank=block.blank,
            )
            for block in unit
        ]
        n = 1 + max(block.component for block in unit)
        self._old, self._new = [0] * n, [0] * n
        self._pieces: list[Array] = []
        self._copied = 0  # what stands before this bit is among the pieces
        self._look_ahead(0)

    def edit(self, touched: Sequence[bool]) -> list[Array]:
        at = 0
        for blank in touched:
            at = self._blank(at) if blank else self._keep(at)
        if at > len(self._bits):
            raise InputError("truncated")
        return [*self._pieces, self._bits[self._copied : at]]

    def _look_ahead(self, at: int) -> None:
        """Look up what starts at each bit from one on."""
        first = at >> 3
        windows = windows_of(self._plain[first : first + _AHEAD + _LONGEST])
        self._base, self._limit = 8 * first, 8 * (first + _AHEAD)
        self._windows = windows.data
        self._steps = [steps_at(windows, table) for table in self._tables]

    def _keep(self, at: int) -> int:
        old, new = self._old, self._new
        for part in self._unit:
            start, component = at, part.component
            at, difference = self._difference(at, part.dc)
            before = old[component]
            old[component] = now = before + difference
            if new[component] != before:
                self._replace(start, at, _dc(now - new[component], part.codes))
            new[component] = now
            at = self._skip(at, part.ac)
        return at

    def _blank(self, at: int) -> int:
        start, text = at, []
        for part in self._unit:
            at, difference = self._difference(at, part.dc)
            self._old[part.component] += difference
            new = part.blank - self._new[part.component]
            text.append(_dc(new, part.codes) + part.end)
            self._new[part.component] = part.blank
            at = self._skip(at, part.ac)
        self._replace(start, at, "".join(text))
        return at

    def _difference(self, at: int, dc: tuple[bytes, bytes]) -> tuple[int, int]:
        """Return where the DC difference at a bit ends, and its value."""
        if at >= self._limit:
            self._look_ahead(at)
        window = self._windows[at - self._base]
        length, size = dc[0][window], dc[1][window]
        if not length or size > 15:
            raise InputError("bad-pixels")
        if not size:
            return at + length, 0
        first, at = at + length, at + length + size
        octets = int.from_bytes(self._plain[first >> 3 : (at + 7) >> 3], "big")
        value = octets >> (-at & 7) & (1 << size) - 1
        return at, value if value >> size - 1 else value - (1 << size) + 1

    def _skip(self, at: int, table: int) -> int:
        base = self._base
        return base + skip_coefficients(at - base, self._steps[table])

    def _replace(self, start: int, stop: int, text: str) -> None:
        """Put bits in the place of those from one to another."""
        self._pieces.append(self._bits[self._copied : start])
        self._pieces.append(np.frombuffer(text.encode(), np.uint8) & 1)
        self._copied = stop


def _dc(difference: int, codes: dict[int, str]) -> str:
    size, bits = coded(difference)
    return codes[size] + bits


def skip_coefficients(at: int, steps: tuple[bytes, bytes]) -> int:
    """Return where the 63 AC coefficients that start at a bit end."""
    bits, advance = steps
    k = 1
    while k < 64:
        k += advance[at]
        at += bits[at]
    if k != 64 and not END_OF_BLOCK < k <= _LAST_END:
        raise InputError("bad-pixels")
    return at
