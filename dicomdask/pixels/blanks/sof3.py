"""Encode JPEG lossless, first-order prediction (ISO/IEC 10918-1 annex H)."""

import heapq
from itertools import count
from typing import Any, Final

import numpy as np

from dicomdask.pixels.blanks.huffman import Table, codes_of

Array = np.ndarray[Any, np.dtype[Any]]

_NO_CODE_IS_ALL_ONES: Final = 256
"""A symbol that only takes the last code, and is not written (section K.2)."""


def encode_sof3(samples: Array, precision: int, names: bytes) -> bytes:
    """Return a JPEG of process 14, selection value 1, all components in one scan.

    Parameters
    ----------
    samples
        Unsigned, shape (rows, columns) or (rows, columns, components).
    precision
        Bits of a sample, 2 to 16.
    names
        The identifiers of the components.
    """
    planes = samples.reshape(*samples.shape[:2], -1).astype(np.int32)
    differences = _differences(planes, 1 << precision - 1).reshape(-1)
    sizes = _sizes(differences)
    table = _table(np.bincount(sizes, minlength=17).tolist())
    rows, columns, n = planes.shape
    header = bytes([precision]) + rows.to_bytes(2, "big") + columns.to_bytes(2, "big")
    parts = b"".join(bytes([name, 0x11, 0]) for name in names[:n])
    return b"".join(
        [
            b"\xff\xd8",
            _segment(0xC3, header + bytes([n]) + parts),
            table.to_bytes(0),
            _segment(0xDA, bytes([n]) + _scan_parts(names[:n]) + b"\1\0\0"),
            _packed(differences, sizes, table),
            b"\xff\xd9",
        ]
    )


def _segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body


def _scan_parts(names: bytes) -> bytes:
    return b"".join(bytes([name, 0]) for name in names)


def _differences(planes: Array, first: int) -> Array:
    """Return what is coded (section H.1.2.1): -32767 to 32768, modulo 65536.

    A sample is predicted by its left neighbour, the first of a row by the one above.
    """
    predicted = np.empty_like(planes)
    predicted[:, 1:] = planes[:, :-1]
    predicted[1:, 0] = planes[:-1, 0]
    predicted[0, 0] = first
    difference = (planes - predicted) & 0xFFFF
    found: Array = np.where(difference > 32768, difference - 65536, difference)
    return found


def _sizes(differences: Array) -> Array:
    """Return how many bits each difference has (table H.2)."""
    powers = 1 << np.arange(17)
    found: Array = np.searchsorted(powers, np.abs(differences), side="right")
    return np.where(differences == 32768, 16, found)


def _table(numbers: list[int]) -> Table:
    """Return a Huffman table for symbols that occur so many times.

    Every symbol counts at least as a 4096th of all, so no code gets long.
    """
    least = 1 + sum(numbers) // 4096
    order = count()
    heap: list[tuple[int, int, list[int]]] = [
        (max(n, least), next(order), [symbol]) for symbol, n in enumerate(numbers) if n
    ]
    heap.append((0, next(order), [_NO_CODE_IS_ALL_ONES]))
    heapq.heapify(heap)
    lengths = dict.fromkeys([part[2][0] for part in heap], 0)
    while len(heap) > 1:
        first, second = heapq.heappop(heap), heapq.heappop(heap)
        symbols = first[2] + second[2]
        for symbol in symbols:
            lengths[symbol] += 1
        heapq.heappush(heap, (first[0] + second[0], next(order), symbols))
    del lengths[_NO_CODE_IS_ALL_ONES]
    counts = tuple(sum(n == i for n in lengths.values()) for i in range(1, 17))
    return Table(counts, tuple(sorted(lengths, key=lambda s: (lengths[s], s))))


def _packed(differences: Array, sizes: Array, table: Table) -> bytes:
    """Return the entropy-coded bytes: each code, then the bits of the difference."""
    codes, lengths = np.zeros(17, np.int64), np.zeros(17, np.int64)
    for symbol, code in codes_of(table).items():
        codes[symbol], lengths[symbol] = int(code, 2), len(code)
    extra = np.where(sizes == 16, 0, sizes)  # section H.1.2.2: 32768 has no more bits
    low = np.where(differences < 0, differences - 1, differences) & (1 << extra) - 1
    words, widths = codes[sizes] << extra | low, lengths[sizes] + extra
    ends = np.cumsum(widths)
    bits = np.ones(-(-int(ends[-1]) // 8) * 8, np.uint8)
    for place in range(int(widths.max())):  # the bits of that place, of all words
        has = widths > place
        bits[ends[has] - 1 - place] = words[has] >> place & 1
    return np.packbits(bits).tobytes().replace(b"\xff", b"\xff\x00")
