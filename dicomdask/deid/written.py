"""A cleaned dataset as the bytes of a file: explicit VR little endian (PS3.5 annex A).

What is cleaned holds plain values only, so writing them takes no more than this.
"""

import struct
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydicom import DataElement, Dataset
from pydicom.multival import MultiValue
from pydicom.uid import UID

from dicomdask.deid.values import FORMATS

LONG_VRS: Final = frozenset(
    "OB OD OF OL OV OW SQ SV UC UN UR UT UV".split()  # noqa: SIM905
)
BINARY_VRS: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
PACKERS: Final = {vr: code for vr, code in FORMATS.items() if vr != "AT"}
ITEM: Final = b"\xfe\xff\x00\xe0"
DELIMITER: Final = b"\xfe\xff\xdd\xe0\0\0\0\0"
UNDEFINED: Final = 0xFFFFFFFF
IMPLEMENTATION_UID: Final = "2.25.141842913702873416853107104711432471621"
IMPLEMENTATION_NAME: Final = "DICOMDASK"


def write_file(cleaned: Dataset, syntax: UID) -> bytes:
    """Return a whole file: preamble of zeros, file meta made anew, the dataset."""
    meta = {
        0x00020001: ("OB", b"\0\1"),
        0x00020002: ("UI", cleaned.SOPClassUID),
        0x00020003: ("UI", cleaned.SOPInstanceUID),
        0x00020010: ("UI", syntax),
        0x00020012: ("UI", IMPLEMENTATION_UID),
        0x00020013: ("SH", IMPLEMENTATION_NAME),
    }
    group = b"".join(_element(tag, vr, _bytes(vr, v)) for tag, (vr, v) in meta.items())
    length = _element(0x00020000, "UL", struct.pack("<I", len(group)))
    return b"".join([bytes(128), b"DICM", length, group, *_elements(cleaned)])


def _elements(dataset: Dataset) -> Iterator[bytes]:
    found: Mapping[Any, Any] = dict(dataset.items())
    for tag in sorted(found, key=int):
        yield _encoded(int(tag), found[tag])


def _encoded(tag: int, element: DataElement) -> bytes:
    vr, value = element.VR, element.value
    if vr == "SQ":
        data = b"".join(_item(item) for item in value)
    elif element.is_undefined_length:
        return b"".join([_head(tag, vr, UNDEFINED), value, DELIMITER])
    else:
        data = _bytes(vr, value)
    return _element(tag, vr, data)


def _item(item: Dataset) -> bytes:
    data = b"".join(_elements(item))
    return ITEM + struct.pack("<I", len(data)) + data


def _bytes(vr: str, value: Any) -> bytes:
    """Return a value as it is written, of even length."""
    if value is None:
        return b""
    if vr in BINARY_VRS:
        return bytes(value)
    parts = value if isinstance(value, list | tuple | MultiValue) else [value]
    if vr in PACKERS:
        return struct.pack(f"<{len(parts)}{PACKERS[vr]}", *parts)
    if vr == "AT":
        return b"".join(
            struct.pack("<HH", int(p) >> 16, int(p) & 0xFFFF) for p in parts
        )
    text = "\\".join("" if part is None else str(part) for part in parts)
    data = text.encode("utf-8")
    return data + (b"\0" if vr == "UI" else b" ") * (len(data) % 2)


def _element(tag: int, vr: str, data: bytes) -> bytes:
    return _head(tag, vr, len(data)) + data


def _head(tag: int, vr: str, length: int) -> bytes:
    code = vr.encode()
    if vr in LONG_VRS:
        return struct.pack("<HH2sxxI", tag >> 16, tag & 0xFFFF, code, length)
    if length > 0xFFFF:  # PS3.5 section 6.2.2, note 2
        return struct.pack("<HH2sxxI", tag >> 16, tag & 0xFFFF, b"UN", length)
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, code, length)
