"""Whole data sets whose elements plainly follow each other, parsed by ourselves.

What pydicom makes of them, several times as fast. Whatever is not plain is left to it:
values of undefined length, other byte orders, unknown VRs, and what is cut.
"""

import io
import struct
from functools import lru_cache
from typing import Any, Final

from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataelem import DataElement, RawDataElement, empty_value_for_VR
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.tag import BaseTag

from dicomdask.header.elements import (
    EXPLICIT,
    IMPLICIT,
    LONG_VRS,
    SHORT_VRS,
    UNDEFINED,
    is_implicit,
)

_START: Final = 132
_CHARSET: Final = BaseTag(0x00080005)
_HEAD: Final = struct.Struct("<HH2sH").unpack_from
_BARE_HEAD: Final = struct.Struct("<HHI").unpack_from
_LENGTH: Final = struct.Struct("<I").unpack_from
_GROUPS: Final = range(4, 0xFFFE)
"""Of commands, file meta and items there is nothing in a plain data set."""
_VRS: Final = {vr: vr.decode() for vr in (*SHORT_VRS, *LONG_VRS)}

Elements = dict[BaseTag, DataElement | RawDataElement]

_tag = lru_cache(1 << 12)(BaseTag)


def read_plain(data: bytes) -> FileDataset | None:
    """Return the data set of a file as `pydicom.dcmread` does; None if it is not plain.

    Parameters
    ----------
    data
        The bytes of the file.
    """
    if data[_START - 4 : _START] != b"DICM":
        return None
    meta: Elements = {}
    start = _read_explicit(data, _START, range(2, 3), meta)
    if start is None or not meta:
        return None
    file_meta = FileMetaDataset(meta)
    file_meta.set_original_encoding(
        is_implicit_vr=False,
        is_little_endian=True,
        character_encoding=default_encoding,
    )
    syntax = file_meta.get("TransferSyntaxUID")
    is_bare = syntax == IMPLICIT
    if syntax not in (IMPLICIT, EXPLICIT) or is_implicit(data, start) != is_bare:
        return None
    elements: Elements = {}
    read = _read_implicit if is_bare else _read_explicit
    stop = read(data, start, _GROUPS, elements)
    if not elements or stop is None or stop + 8 <= len(data):
        return None
    return _dataset(data, elements, file_meta, is_bare=is_bare)


def _dataset(
    data: bytes, elements: Elements, file_meta: FileMetaDataset, *, is_bare: bool
) -> FileDataset:
    stream = io.BytesIO(data)
    preamble = data[: _START - 4]
    dataset = FileDataset(stream, elements, preamble, file_meta, is_bare, True)
    encoding: Any = default_encoding
    if _CHARSET in dataset:
        encoding = convert_encodings(dataset[_CHARSET].value)
    dataset.set_original_encoding(is_bare, True, encoding)
    return dataset


def _read_explicit(
    data: bytes, position: int, groups: range, into: Elements
) -> int | None:
    """Add the elements of some groups; return where they end, or None."""
    size, new = len(data), tuple.__new__
    while position + 8 <= size:
        group, number, vr, length = _HEAD(data, position)
        if group not in groups:
            return position
        start = position + 8
        if vr not in SHORT_VRS:
            if vr not in LONG_VRS or position + 12 > size:
                return None
            (length,) = _LENGTH(data, start)
            start += 4
        position = start + length
        if length == UNDEFINED or position > size:
            return None
        name = _VRS[vr]
        value = data[start:position] if length else empty_value_for_VR(name, raw=True)
        tag = _tag(group << 16 | number)
        parts = (tag, name, length, value, start, False, True, True, False)
        into[tag] = new(RawDataElement, parts)
    return position


def _read_implicit(
    data: bytes, position: int, groups: range, into: Elements
) -> int | None:
    """Do what `_read_explicit` does of elements without a VR."""
    size, new = len(data), tuple.__new__
    while position + 8 <= size:
        group, number, length = _BARE_HEAD(data, position)
        if group not in groups:
            return position
        start = position + 8
        position = start + length
        if length == UNDEFINED or position > size:
            return None
        value = data[start:position] if length else empty_value_for_VR(None, raw=True)
        tag = _tag(group << 16 | number)
        parts = (tag, None, length, value, start, True, True, True, False)
        into[tag] = new(RawDataElement, parts)
    return position
