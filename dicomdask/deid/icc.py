"""Colour profiles without words: who made one, when and on what goes.

ISO 15076-1: a header of 128 bytes, a table of tags, and their data. Numbers stay;
descriptions and copyright are written anew; every other text goes.
"""

import struct
from typing import Final

from pydicom import DataElement, Dataset
from pydicom.tag import BaseTag

NUMERIC: Final = frozenset(
    {b"XYZ ", b"curv", b"para", b"mft1", b"mft2", b"mAB ", b"mBA ", b"sf32", b"uf32"}
    | {b"sig ", b"view", b"meas", b"ui08", b"ui16", b"ui32", b"ui64"}
)
TEXT: Final = b"text\0\0\0\0none\0"
DESCRIPTION: Final = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"none\0" + bytes(78)
TAGS: Final = frozenset(
    b"A2B0 A2B1 A2B2 A2B3 B2A0 B2A1 B2A2 B2A3 D2B0 D2B1 D2B2 D2B3 B2D0 B2D1 B2D2 B2D3 "
    b"rXYZ gXYZ bXYZ rTRC gTRC bTRC kTRC wtpt bkpt lumi chad chrm meas view tech gamt "
    b"pre0 pre1 pre2 cicp".split()
)
"""Signatures of tags that say how to compute; four free letters spell a name."""
REQUIRED: Final = {b"desc": DESCRIPTION, b"cprt": TEXT}
KEPT_HEADER: Final = ((8, 24), (36, 40), (64, 80))
"""Version, class, colour spaces; the signature; intent and illuminant."""
MAX_TAGS: Final = 100


def clean_profile(dataset: Dataset, tag: BaseTag, _: str) -> DataElement | None:
    """Return a colour profile of numbers only; None if it is damaged."""
    value = dataset.get_item(tag).value
    made = _clean(value) if isinstance(value, bytes) else None
    if made is None:
        return None
    return DataElement(tag, "OB", made, already_converted=True)


def _clean(data: bytes) -> bytes | None:
    if len(data) < 132 or data[36:40] != b"acsp":
        return None
    count = struct.unpack_from(">I", data, 128)[0]
    if count > MAX_TAGS or 132 + 12 * count > len(data):
        return None
    tags: list[tuple[bytes, bytes]] = []
    for number in range(count):
        name, start, length = struct.unpack_from(">4sII", data, 132 + 12 * number)
        body = data[start : start + length]
        if name in REQUIRED:
            tags.append((name, REQUIRED[name]))
        elif name in TAGS and len(body) == length and body[:4] in NUMERIC:
            tags.append((name, body))
    return _joined(data, tags)


def _joined(data: bytes, tags: list[tuple[bytes, bytes]]) -> bytes:
    head = bytearray(128)
    for start, stop in KEPT_HEADER:
        head[start:stop] = data[start:stop]
    at = 132 + 12 * len(tags)
    table, bodies = [], []
    for name, body in tags:
        padded = body + b"\0" * (-len(body) % 4)
        table.append(struct.pack(">4sII", name, at, len(body)))
        bodies.append(padded)
        at += len(padded)
    head[:4] = struct.pack(">I", at)
    count = struct.pack(">I", len(tags))
    return b"".join([bytes(head), count, *table, *bodies])
