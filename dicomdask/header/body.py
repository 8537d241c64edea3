"""What a header says of the part of the body that it shows (identified)."""

from collections.abc import Iterator
from typing import Any, Final

from pydicom import Dataset

TEXTS: Final = (
    *("BodyPartExamined", "StudyDescription", "SeriesDescription", "ProtocolName"),
    *("RequestedProcedureDescription", "PerformedProcedureStepDescription"),
)
CODES: Final = (
    *("AnatomicRegionSequence", "PrimaryAnatomicStructureSequence"),
    *("ProcedureCodeSequence", "RequestedProcedureCodeSequence"),
    "PerformedProtocolCodeSequence",
)
GROUPS: Final = (
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "FrameAnatomySequence",
    "RequestAttributesSequence",
)
MOST_ITEMS: Final = 64
"""So many items of a sequence are looked at: frames of one object are of one scan."""


def body_texts(dataset: Dataset) -> list[str]:
    """Return what is said of the body part, in words; empty where it is not said.

    PS3.3 sections C.7.3.1 (Body Part Examined), 10.5 (Anatomic Region Sequence) and
    10.6 (Request Attributes), and the descriptions of study, series and protocol.
    """
    return [text for text in _texts(dataset) if text]


def _texts(dataset: Dataset, depth: int = 3) -> Iterator[str]:
    for keyword in TEXTS:
        yield _text(dataset, keyword)
    for keyword in CODES:
        for item in _items(dataset, keyword):
            yield _text(item, "CodeMeaning")
    for keyword in GROUPS if depth else ():
        for item in _items(dataset, keyword):
            yield from _texts(item, depth - 1)


def _items(dataset: Dataset, keyword: str) -> list[Dataset]:
    value: Any = _value(dataset, keyword)
    try:
        found = list(value or ())[:MOST_ITEMS]
    except TypeError:
        return []
    return [item for item in found if isinstance(item, Dataset)]


def _text(dataset: Dataset, keyword: str) -> str:
    value = _value(dataset, keyword)
    return "" if value is None else str(value)


def _value(dataset: Dataset, keyword: str) -> Any:
    """Return a value; None where it is damaged."""
    try:
        return dataset.get(keyword)
    except (ValueError, TypeError, AttributeError, LookupError, OSError):
        return None
