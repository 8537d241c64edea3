"""The plain values of an element: parsed when they are harmless, or None."""

import struct
from typing import Any, Final

from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag

MAX_VALUES: Final = 65536
FORMATS: Final = dict(
    zip("US SS UL SL UV SV FL FD AT".split(), "HhIiQqfdH", strict=True)  # noqa: SIM905
)
TEXT_VRS: Final = frozenset(
    "AE AS CS DA DS DT IS LO LT PN SH ST TM UC UI UR UT".split()  # noqa: SIM905
)
SINGLE_VRS: Final = frozenset({"LT", "ST", "UT", "UR"})
PADDING: Final = "\0 \t\r\n"

Values = list[Any]


def read_values(element: Any, vr: str, *, signed: bool) -> tuple[str, Values] | None:
    """Return the VR and the plain values of an element; None if they are damaged.

    `vr` is the dictionary's; the file's own counts among numbers only.
    """
    if vr == "US or SS":
        vr = "SS" if signed else "US"
    found = element.VR if element.VR in FORMATS or element.VR in TEXT_VRS else vr
    if (found in FORMATS) != (vr in FORMATS) or vr not in _KNOWN_VRS:
        return None
    used = found if vr in FORMATS and "AT" not in {vr, found} else vr
    if isinstance(element.value, bytes):
        if element.VR == "UN" and used in FORMATS and element.value.isalnum():
            return None  # letters and digits where a number should be
        little = element.VR == "UN" or getattr(element, "is_little_endian", True)
        values = _parse(element.value, used, "<" if little else ">")
    else:
        values = _listed(element.value, used)
    return None if values is None or len(values) > MAX_VALUES else (used, values)


def _parse(data: bytes, vr: str, order: str) -> Values | None:
    """Return the values in raw bytes; None where they are not what the VR says."""
    if vr in FORMATS:
        code = FORMATS[vr]
        count, rest = divmod(len(data), struct.calcsize(f"={code}"))
        if rest:
            return None
        numbers = list(struct.unpack(f"{order}{count}{code}", data))
        return _tags(numbers) if vr == "AT" else numbers
    if not data.isascii():
        return None
    return _split(data.decode("ascii"), vr)


def _tags(numbers: list[int]) -> Values | None:
    if len(numbers) % 2:
        return None
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    return [Tag(group, element) for group, element in pairs]


def _split(text: str, vr: str) -> Values:
    parts = [text] if vr in SINGLE_VRS else text.split("\\")
    values = [part.strip(PADDING) for part in parts]
    return values if any(values) else []


def _listed(value: Any, vr: str) -> Values | None:
    """Return the plain values of a converted element; None if of the wrong type."""
    if value is None:
        return []
    parts = list(value) if isinstance(value, MultiValue | list | tuple) else [value]
    if vr in FORMATS:
        return parts if all(type(part) in _NUMBERS for part in parts) else None
    if any(isinstance(part, bytes | Sequence | Dataset) for part in parts):
        return None
    texts = ["" if part is None else str(part).strip(PADDING) for part in parts]
    return texts if any(texts) else []


_NUMBERS: Final = frozenset({int, float, BaseTag})
_KNOWN_VRS: Final = TEXT_VRS.union(FORMATS)
