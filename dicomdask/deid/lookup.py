"""Lookup tables of pixel values: kept whole where their descriptor fits, else gone."""

from typing import Any

from pydicom import DataElement, Dataset
from pydicom.tag import BaseTag

from dicomdask.deid.values import read_values


def clean_table(dataset: Dataset, tag: BaseTag, keyword: str) -> DataElement | None:
    """Return a lookup table, cut to the entries that its descriptor names.

    PS3.3 sections C.7.6.3.1.5, C.11.1.1.1 and C.11.2.1.1. Segmented tables go.
    """
    if keyword.startswith("Segmented"):
        return None
    descriptor = dataset.get_item(keyword.replace("Data", "Descriptor"))
    if descriptor is None:
        return None
    read = read_values(descriptor, "US or SS", signed=False)
    if read is None or len(read[1]) != 3:
        return None
    n_entries, _, bits = (int(value) & 0xFFFF for value in read[1])
    data = _little(dataset.get_item(tag))
    size = 1 if bits <= 8 and data is not None and len(data) < 2 * n_entries else 2
    nbytes = (n_entries or 1 << 16) * size
    if data is None or len(data) < nbytes:
        return None
    cut = data[:nbytes] + b"\0" * (nbytes % 2)
    return DataElement(tag, "OW", cut, already_converted=True)


def _little(element: Any) -> bytes | None:
    """Return the 16-bit words of a table in little endian."""
    value = element.value
    if isinstance(value, bytes):
        if getattr(element, "is_little_endian", True):
            return value
        pairs = zip(value[1::2], value[::2], strict=False)
        return bytes(one for pair in pairs for one in pair)
    try:
        return b"".join(int(word).to_bytes(2, "little") for word in value)
    except (TypeError, ValueError, OverflowError):
        return None
