"""Coded entries: kept where they are public, their meaning looked up, never copied."""

from functools import cache
from typing import Any, Final

from pydicom.sr._concepts_dict import concepts
from pydicom.sr._snomed_dict import mapping as snomed

SNOMED_RT: Final = frozenset({"SRT", "SNM3", "99SDM"})


@cache
def _meanings() -> dict[tuple[str, str], str]:
    """Return the meaning of each (scheme, value) that pydicom knows."""
    table: dict[str, Any] = dict(concepts)
    return {
        (scheme, value): str(meaning)
        for scheme, names in table.items()
        for codes in names.values()
        for value, (meaning, *_) in codes.items()
    }


def meaning(value: str, scheme: str) -> str:
    """Return the public meaning of a code; empty where there is none."""
    known = _meanings()
    if scheme in SNOMED_RT:
        return known.get(("SCT", snomed["SRT"].get(value, "")), "")
    return known.get((scheme, value), "")


def is_public_code(value: str, scheme: str) -> bool:
    """Return whether a code stands in a dictionary that everybody has."""
    if scheme in SNOMED_RT:
        return value in snomed["SRT"]
    return (scheme, value) in _meanings()
