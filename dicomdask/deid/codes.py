"""Coded entries: kept where they are public, their meaning looked up, never copied."""

import re
from functools import cache
from typing import Any, Final

from pydicom.sr._concepts_dict import concepts
from pydicom.sr._snomed_dict import mapping as snomed

SNOMED_RT: Final = frozenset({"SRT", "SNM3", "99SDM"})
UCUM: Final = "UCUM"
# The Unified Code for Units of Measure: units with prefixes and powers. Annotations are
# free text, so that only those pass that images and their measurements use.
_UNIT: Final = (
    "(?:[TGMkhdcmunpf]?(?:g|m|s|l|L|Hz|Bq|Gy|Sv|V|A|T|Pa|N|J|W|C|F|K|Ohm|S|mol|cd|lm|lx|"
    "rad|sr|eV|Ci|R|bar|cal|dyn|B|P)|diop|deg|min|h|d|wk|mo|a|Cel|%|m?m\\[Hg\\]|"
    "\\[(?:ppth|ppm|ppb|pH|hnsf'U|arb'U|iU|in_i|lb_av|degF|PRU)\\])(?:[+-]?[1-9])?"
)
_NOTE: Final = (
    r"(?:\{(?:SUV(?:bw|bsa|ibw|lbm(?:\((?:James128|Janma)\))?)|pixels?|voxels?|px|counts|"
    r"propcounts|ratio|MU|no units|unity|stddev|beats|frames|events)\})"
)
_TIMES: Final = r"10(?:\*|\^)[+-]?[1-9]|\[?10{0,6}\]?"
_PART: Final = rf"(?:(?:{_TIMES})?{_NOTE}?{_UNIT}{_NOTE}?|{_NOTE}|(?:{_TIMES}))"
UNITS: Final = re.compile(rf"/?{_PART}(?:[./]{_PART}){{0,4}}", re.ASCII)


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
    found = known.get((scheme, value), "")
    if not found and scheme == UCUM:  # PS3.16 section 7.2.2: the code says it all
        return value
    return found


def is_public_code(value: str, scheme: str) -> bool:
    """Return whether a code stands in a dictionary that everybody has."""
    if scheme in SNOMED_RT:
        return value in snomed["SRT"]
    if scheme == UCUM and UNITS.fullmatch(value):
        return True
    return (scheme, value) in _meanings()
