"""Elements in and out: text in the character set of its header, plain values back."""

from typing import Any

from pydicom import DataElement, Dataset
from pydicom.charset import default_encoding
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag
from pydicom.valuerep import PersonName

from dicomdask.deid.values import PADDING, SINGLE_VRS, Values


def decoded(dataset: Dataset, tag: int) -> str:
    """Return the text of an element, in its character set; empty if there is none."""
    element: Any = dataset.get_item(tag)
    if element is None:
        return ""
    if isinstance(element, RawDataElement):
        encoding = dataset.original_character_set or default_encoding
        element = convert_raw_data_element(element, encoding=encoding, ds=dataset)
    value = element.value
    parts = value if isinstance(value, MultiValue | list | tuple) else [value]
    return "\\".join("" if part is None else str(part) for part in parts).strip(PADDING)


def decoded_values(dataset: Dataset, tag: int, vr: str) -> Values | None:
    """Return the texts of an element; None if it is none, or holds what no text has."""
    element: Any = dataset.get_item(tag)
    if element.VR == "SQ" or (element.VR in {"OB", "OW"}):
        return None
    text = decoded(dataset, tag)
    parts = [text] if vr in SINGLE_VRS else text.split("\\")
    values = [part.strip(PADDING) for part in parts]
    if not all("".join(part.splitlines()).isprintable() for part in values):
        return None
    return values if any(values) else []


def make_element(tag: BaseTag, vr: str, values: Values) -> DataElement:
    """Return an element of plain values."""
    if vr == "PN":
        values = [PersonName(text) for text in values]
    value = values if len(values) > 1 else values[0] if values else None
    return DataElement(tag, vr, value, already_converted=True)
