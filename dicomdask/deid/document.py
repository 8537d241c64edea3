"""A cleaned header in the DICOM JSON model (PS3.18 F)."""

import math
from typing import Any, Final

from pydicom import Dataset
from pydicom.multival import MultiValue

BULK_VRS: Final = frozenset({"OB", "OW", "OD", "OF", "OL", "OV", "UN", "OB or OW"})


def header_json(dataset: Dataset) -> dict[str, dict[str, Any]]:
    """Return a cleaned dataset in the DICOM JSON model (PS3.18 F), in tag order.

    Numbers that JSON lacks (NaN, infinities) are dropped; bulk binary is left out.
    """
    elements = ((int(tag), dataset.get_item(tag)) for tag in sorted(dataset.keys()))
    pairs = ((f"{tag:08X}", _json_element(element)) for tag, element in elements)
    return {tag: element for tag, element in pairs if element is not None}


def _json_element(element: Any) -> dict[str, Any] | None:
    vr, value = element.VR, element.value
    if vr in BULK_VRS or isinstance(value, bytes):
        return None
    if vr == "SQ":
        return {"vr": vr, "Value": [header_json(item) for item in value]}
    parts = value if isinstance(value, MultiValue | list | tuple) else [value]
    try:
        values = [_json_value(vr, part) for part in parts]
    except (TypeError, ValueError, OverflowError):  # only with policy none
        return None
    return {"vr": vr} if values in ([], [None]) else {"vr": vr, "Value": values}


def _json_value(vr: str, value: Any) -> Any:
    if value is None or value == "":
        return None
    if vr in {"DS", "FL", "FD"}:
        number = float(value)
        return number if math.isfinite(number) else None
    if vr == "PN":
        return _json_name(str(value))
    if vr == "AT":
        return f"{int(value):08X}"
    return int(value) if isinstance(value, int) or vr == "IS" else str(value)


def _json_name(text: str) -> dict[str, str]:
    names = ("Alphabetic", "Ideographic", "Phonetic")
    return {n: part for n, part in zip(names, text.split("="), strict=False) if part}
