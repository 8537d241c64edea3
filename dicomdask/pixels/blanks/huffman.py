"""Huffman tables of JPEG, looked up by the next 16 bits (ISO/IEC 10918-1 annex C)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np

from dicomdask.errors import InputError

Array = np.ndarray[Any, np.dtype[Any]]

NO_CODE: Final = 255
"""A number of coefficients that ends every block: no code starts with these bits."""
END_OF_BLOCK: Final = 128
_WINDOW: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Table:
    """One Huffman table.

    Attributes
    ----------
    counts
        How many codes have 1, 2, … 16 bits.
    symbols
        What they stand for, in the order of the codes.
    """

    counts: tuple[int, ...]
    symbols: tuple[int, ...]

    def with_symbols(self, wanted: Sequence[int]) -> "Table":
        """Return a table with more symbols, whose present codes stay as they are.

        New codes have 16 bits: they stand behind all others (section C.2).

        Raises
        ------
        InputError
            With the code ``unclean-pixels`` where there is no room.
        """
        missing = [symbol for symbol in wanted if symbol not in self.symbols]
        used = sum(n << 15 - i for i, n in enumerate(self.counts))
        if missing and used + len(missing) >= _WINDOW:  # all ones is no code
            raise InputError("unclean-pixels")
        counts = (*self.counts[:15], self.counts[15] + len(missing))
        return Table(counts, (*self.symbols, *missing))

    def to_bytes(self, place: int) -> bytes:
        """Return a marker segment that defines the table (section B.2.4.2)."""
        body = bytes([place, *self.counts, *self.symbols])
        return b"\xff\xc4" + (len(body) + 2).to_bytes(2, "big") + body


def codes_of(table: Table) -> dict[int, str]:
    """Return the bits of each symbol's code, as text."""
    code, at, codes = 0, 0, {}
    for length, n in enumerate(table.counts, 1):
        for symbol in table.symbols[at : at + n]:
            codes[symbol] = f"{code:0{length}b}"
            code += 1
        at += n
        code <<= 1
    return codes


@lru_cache(maxsize=32)
def lookup(table: Table) -> tuple[bytes, bytes]:
    """Return, for each 16 bits, the length of the code they start with and its symbol.

    The length is 0 where no code starts so.

    Raises
    ------
    InputError
        With the code ``bad-pixels`` where there are more codes than bits allow.
    """
    lengths = np.zeros(_WINDOW, np.uint8)
    symbols = np.zeros(_WINDOW, np.uint8)
    start = at = 0
    for length, n in enumerate(table.counts, 1):
        for symbol in table.symbols[at : at + n]:
            stop = start + (_WINDOW >> length)
            if stop > _WINDOW:
                raise InputError("bad-pixels")
            lengths[start:stop], symbols[start:stop] = length, symbol
            start = stop
        at += n
    return lengths.tobytes(), symbols.tobytes()


@lru_cache(maxsize=32)
def _steps(table: Table) -> tuple[Array, Array]:
    """Return, for each 16 bits, the bits to skip and the coefficients they are of.

    Section F.1.2.2: a symbol is a run of zeros and the bits of the value behind it.
    """
    lengths, symbols = (np.frombuffer(part, np.uint8) for part in lookup(table))
    runs, sizes = symbols >> 4, symbols & 15
    advance = runs + 1
    advance[(sizes == 0) & (runs != 15)] = NO_CODE
    advance[symbols == 0] = END_OF_BLOCK
    advance[lengths == 0] = NO_CODE
    return lengths + sizes, advance


def steps_at(windows: Array, table: Table) -> tuple[bytes, bytes]:
    """Return what `_steps` says at every bit of a scan.

    Parameters
    ----------
    windows
        The 16 bits from each bit on.
    """
    bits, advance = _steps(table)
    return bits[windows].tobytes(), advance[windows].tobytes()


def windows_of(data: bytes) -> Array:
    """Return the 16 bits from each bit of the data on; ones follow the last."""
    octets = np.frombuffer(data + b"\xff\xff", np.uint8).astype(np.uint32)
    words = octets[:-2] << 16 | octets[1:-1] << 8 | octets[2:]
    shifts = np.arange(8, 0, -1, dtype=np.uint32)
    return (words[:, np.newaxis] >> shifts).astype(np.uint16).reshape(-1)


def coded(value: int) -> tuple[int, str]:
    """Return the category of a difference, and its bits (section F.1.2.1.1).

    >>> coded(5), coded(-5), coded(0)
    ((3, '101'), (3, '010'), (0, ''))
    """
    if value == 0:
        return 0, ""
    size = abs(value).bit_length()
    return size, f"{value if value > 0 else value + (1 << size) - 1:0{size}b}"
