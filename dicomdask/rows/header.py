"""Cleaned headers: what they say of a volume, of an instance, of a frame."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydicom.datadict import keyword_for_tag, tag_for_keyword

from dicomdask import tables
from dicomdask.values import Distribution

Header = Mapping[str, Mapping[str, Any]]
"""A de-identified header in the DICOM JSON model (PS3.18 F.2)."""

Row = dict[str, Any]

INSTANCE_ATTRIBUTES: Final = (
    "PatientID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "SOPClassUID",
    "InstanceNumber",
)
TAGS: Final = {
    keyword: f"{tag_for_keyword(keyword):08X}"
    for keyword in {*tables.VOLUME_ATTRIBUTES, *INSTANCE_ATTRIBUTES}
}


PER_FRAME: Final = f"{tag_for_keyword('PerFrameFunctionalGroupsSequence'):08X}"
REGIONS: Final = f"{tag_for_keyword('SequenceOfUltrasoundRegions'):08X}"
SHARED: Final = f"{tag_for_keyword('SharedFunctionalGroupsSequence'):08X}"
COLUMNS: Final = frozenset((*(TAGS[n] for n in tables.VOLUME_ATTRIBUTES), "00281053"))


def split_header(header: Header) -> tuple[Header, list[str]]:
    """Return a header without what it says of single frames, and that as texts."""
    groups = header.get(PER_FRAME, {}).get("Value", [])
    rest = {tag: element for tag, element in header.items() if tag != PER_FRAME}
    return rest, list(map(to_text, groups))


def constant_header(headers: Sequence[Header]) -> dict[str, Any]:
    """Return the elements that all headers share, value and all."""
    first, *others = headers
    return {
        tag: element
        for tag, element in first.items()
        if all(other.get(tag) == element for other in others)
    }


def leaves(group: Header, depth: int = 3) -> dict[str, Any]:
    """Return the attributes inside the macros of a group that are columns."""
    found: dict[str, Any] = {}
    for tag, element in group.items():
        if tag in COLUMNS:
            found.setdefault(tag, element)
        elif element.get("vr") == "SQ" and depth:
            for item in element.get("Value", [])[:1]:
                found = leaves(item, depth - 1) | found
    return found


def record(found: Distribution | None) -> Row | None:
    """Return a distribution as a column holds it."""
    return None if found is None else found.to_record()


def to_text(header: Header) -> str:
    """Return a header as compact JSON in the order of its tags."""
    return json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def attribute(header: Header, keyword: str) -> Any:
    """Return the value of an attribute as its column holds it, or None."""
    value = header.get(TAGS[keyword], {}).get("Value")
    if not value:
        return None
    if tables.is_list(keyword):
        return value
    return value[0]


def ultrasound_regions(header: Header) -> list[dict[str, Any]] | None:
    """Return the regions of an ultrasound image by keyword (PS3.3 C.8.5.5), or None.

    Each has its place in pixels, its physical deltas and their units' codes.
    """
    items = header.get(REGIONS, {}).get("Value", [])
    return [_by_keyword(item) for item in items] or None


def _by_keyword(item: Header) -> dict[str, Any]:
    pairs = ((keyword_for_tag(int(t, 16)), e.get("Value")) for t, e in item.items())
    return {k: value[0] for k, value in pairs if k and value and len(value) == 1}


def units(header: Header) -> str:
    """Return the units of the modality values.

    PS3.3 C.11.1.1.2 (Rescale Type), C.8.9.1.1.3 (PET Units); CT is in HU by C.8.2.1.
    """
    if attribute(header, "Units"):
        return str(attribute(header, "Units"))
    if attribute(header, "RescaleType") not in (None, "US"):
        return str(attribute(header, "RescaleType"))
    is_scaled = "00281053" in header
    if attribute(header, "Modality") == "CT" and is_scaled:
        return "HU"
    return "unspecified" if is_scaled else "stored"
