"""Lookup tables of pixel values: kept whole where their descriptor fits, else gone."""

import struct
from functools import lru_cache
from typing import Any

from pydicom import DataElement, Dataset
from pydicom.tag import BaseTag

from dicomdask.deid.values import read_values


def clean_table(dataset: Dataset, tag: BaseTag, keyword: str) -> DataElement | None:
    """Return a lookup table, cut to the entries that its descriptor names.

    PS3.3 sections C.7.6.3.1.5, C.11.1.1.1 and C.11.2.1.1; a segmented one has to be
    made of its segments (C.7.9.2).
    """
    plain = keyword.removeprefix("Segmented")
    descriptor = dataset.get_item(plain.replace("Data", "Descriptor"))
    if descriptor is None:
        return None
    read = read_values(descriptor, "US or SS", signed=False)
    if read is None or len(read[1]) != 3:
        return None
    n_entries, _, bits = (int(value) & 0xFFFF for value in read[1])
    data = _little(dataset.get_item(tag), dataset)
    size = 1 if bits <= 8 and data is not None and len(data) < 2 * n_entries else 2
    if data is None:
        return None
    nbytes = (n_entries or 1 << 16) * size
    if keyword != plain:
        nbytes = _segmented_bytes(data, n_entries or 1 << 16)
    if not 0 < nbytes <= len(data):
        return None
    cut = data[:nbytes] + b"\0" * (nbytes % 2)
    return DataElement(tag, "OW", cut, already_converted=True)


@lru_cache(maxsize=16)  # a series has one
def _segmented_bytes(data: bytes, n_entries: int) -> int:
    """Return how many bytes of segments make so many entries; 0 if none do."""
    words = struct.unpack(f"<{len(data) // 2}H", data[: len(data) // 2 * 2])
    at, made, end = 0, 0, len(words) - 1
    while made < n_entries and at < end:
        kind, length = words[at], words[at + 1]
        if kind > 1 or length == 0:  # indirect segments are not followed
            return 0
        at += 2 + (length if kind == 0 else 1)
        made += length
    return at * 2 if made == n_entries else 0


def _little(element: Any, dataset: Dataset) -> bytes | None:
    """Return the 16-bit words of a table in little endian.

    An element that has been looked at no longer says in which order its bytes are.
    """
    value = element.value
    if isinstance(value, bytes):
        order = dataset.original_encoding[1]
        if getattr(element, "is_little_endian", order) is not False:
            return value
        pairs = zip(value[1::2], value[::2], strict=False)
        return bytes(one for pair in pairs for one in pair)
    try:
        return b"".join(int(word).to_bytes(2, "little") for word in value)
    except (TypeError, ValueError, OverflowError):
        return None
