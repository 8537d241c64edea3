"""Palettes: indices become RGB (PS3.3 sections C.7.6.3.1.5, C.7.6.3.1.6 and C.7.9)."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pydicom

from dicomdask.errors import InputError

Array = np.ndarray[Any, np.dtype[Any]]

_COLOURS: Final = ("Red", "Green", "Blue")
_ALPHA: Final = "AlphaPaletteColorLookupTableDescriptor"


def palette_dtype(bits: float | None) -> np.dtype[Any]:
    """Return the dtype of a palette's entries, by the descriptor's third value.

    Raises
    ------
    InputError
        With the code ``colour``.
    """
    if bits not in {8, 16}:
        raise InputError("colour")
    return np.dtype(f"u{int(bits or 0) // 8}")


def apply_palette(values: Array, dataset: pydicom.Dataset) -> Array:
    """Return RGB from indices; those beyond an end of the palette are its end.

    Parameters
    ----------
    values
        Indices, shape (rows, columns).
    dataset
        Holds the palette.

    Returns
    -------
    rgb : ndarray of uint8 or uint16, shape (rows, columns, 3)
        Entries keep the 8 or 16 bits that the descriptor says.

    Raises
    ------
    InputError
        With the code ``colour`` where there is no palette of one of these kinds.
    """
    n, first, table = read_palette(dataset)
    places = values.astype(np.int64) - first
    found: Array = table[np.clip(places, 0, n - 1, out=places)]
    return found


def read_palette(dataset: pydicom.Dataset) -> tuple[int, int, Array]:
    """Return a palette: its length, the first value mapped, and its RGB entries.

    Raises
    ------
    InputError
        With the code ``colour``.
    """
    if _ALPHA in dataset:
        raise InputError("colour")
    little = dataset.file_meta.TransferSyntaxUID.is_little_endian
    name = "{}PaletteColorLookupTable"
    told = {tuple(dataset[f"{name}Descriptor".format(c)].value) for c in _COLOURS}
    if len(told) != 1:
        raise InputError("colour")
    n, first, bits = map(int, told.pop())
    n = n or 1 << 16
    columns = []
    for colour in _COLOURS:
        keyword = name.format(colour) + "Data"
        if keyword in dataset:
            data = dataset[keyword].value
            columns.append(_entries(data, n, palette_dtype(bits), little=little))
        else:
            words = _segments(dataset[f"Segmented{keyword}"].value, bits, little=little)
            columns.append(_expanded(words, n, palette_dtype(bits)))
    return n, first, np.stack(columns, axis=-1)


def _entries(data: bytes, n: int, dtype: np.dtype[Any], *, little: bool) -> Array:
    """Return the entries; those of 8 bits may lie in words of 16 (C.7.6.3.1.6)."""
    if dtype.itemsize == 1 and len(data) in {n, n + 1}:
        return _bytes_of(data, little=little)[:n]
    if len(data) != 2 * n:
        raise InputError("colour")
    words = np.frombuffer(data, "<u2" if little else ">u2")
    if dtype.itemsize == 1 and words.max() > 255:
        raise InputError("colour")
    return words.astype(dtype)


def _bytes_of(data: bytes, *, little: bool) -> Array:
    """Return bytes in the order of the words they lie in (PS3.5 section 8.1.1)."""
    found = np.frombuffer(data, np.uint8)
    if little or len(data) % 2:
        return found
    return found.reshape(-1, 2)[:, ::-1].reshape(-1)


def _segments(data: bytes, bits: int, *, little: bool) -> list[int]:
    if bits == 8:
        return list(map(int, _bytes_of(data, little=little)))
    return list(map(int, np.frombuffer(data, "<u2" if little else ">u2")))


def _expanded(words: Sequence[int], n: int, dtype: np.dtype[Any]) -> Array:
    entries: list[int] = []
    _expand(words, 0, None, entries, n, indirect=dtype.itemsize == 1)
    if len(entries) != n:
        raise InputError("colour")
    return np.array(entries, dtype)


def _expand(
    words: Sequence[int],
    position: int,
    n_segments: int | None,
    entries: list[int],
    limit: int,
    *,
    indirect: bool,
) -> None:
    """Append what segments say: discrete, linear or, of 8 bits, indirect ones.

    Indirect segments of 16 bits are refused: readers disagree whether their offsets
    count bytes or words.
    """
    done = 0
    while position + 1 < len(words) and len(entries) < limit and done != n_segments:
        kind, length = words[position], words[position + 1]
        position += 2
        done += 1
        if kind == 0:
            entries += words[position : position + length]
            position += length
        elif kind == 1 and entries:
            entries += _ramp(entries[-1], words[position], length)
            position += 1
        elif kind == 2 and indirect:
            offset = int.from_bytes(bytes(words[position : position + 4]), "little")
            position += 4
            _expand(words, offset, length, entries, limit, indirect=False)
        else:
            raise InputError("colour")


def _ramp(start: int, stop: int, length: int) -> list[int]:
    """Return a linear segment, which leaves out its start (C.7.9.2.2)."""
    first = start + (stop - start) / max(1, length)
    return list(map(int, np.around(np.linspace(first, stop, length))))
