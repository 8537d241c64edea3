"""What stands where the standard wants a value that may not stay (PS3.15 code D)."""

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, Final

from pydicom import DataElement
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag

from dicomdask.deid.elements import make_element
from dicomdask.policy import Policy, strictest_types, table_rows

TEXT: Final = "REMOVED"
SCHEME: Final = "99DICOMDASK"
CHARACTER_SET: Final = 0x00080005
DUMMIES: Final[Mapping[str, Any]] = MappingProxyType(
    {
        **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"), TEXT),
        "UR": "urn:removed",
        "AS": "000Y",
        "DA": "19000101",
        "TM": "000000",
        "DT": "19000101000000",
        **dict.fromkeys(("DS", "IS"), "0"),
        **dict.fromkeys(("US", "SS", "UL", "SL", "UV", "SV", "FL", "FD"), 0),
        "US or SS": 0,
    }
)


@cache
def required_types() -> Mapping[int, str]:
    """Return the types of the tags that some module requires: `1`, or `2`."""
    types = strictest_types().items()
    found = ((tag_for_keyword(keyword), kind) for keyword, kind in types if kind < "3")
    return MappingProxyType({tag: kind for tag, kind in found if tag is not None})


def stand_in(tag: BaseTag, *, is_empty: bool) -> DataElement | None:
    """Return an element in the place of one that may not stay.

    An empty one, or one with a value that is the same in every file; None where there
    is no such value.
    """
    vr = dictionary_VR(tag)
    if vr == "SQ":
        return DataElement(tag, vr, Sequence()) if is_empty else None
    used = "US" if vr == "US or SS" else vr
    if is_empty:
        return make_element(tag, used, [])
    return make_element(tag, used, [DUMMIES[vr]]) if vr in DUMMIES else None


def code_stand_in() -> dict[BaseTag, DataElement]:
    """Return the elements of a code in the place of one that is not public."""
    values = {0x00080100: ("SH", TEXT), 0x00080102: ("SH", SCHEME)}
    values[0x00080104] = ("LO", TEXT)
    return {
        Tag(tag): make_element(Tag(tag), vr, [text])
        for tag, (vr, text) in values.items()
    }


@cache
def stand_ins(policy: Policy) -> Mapping[int, str]:
    """Return what stands in for an element that may not stay: `1` a value, `2` nothing.

    Of the codes of table E.1-1 the last counts here: it fits every type that the
    attribute has. Outside the table the strictest type of PS3.3 decides.
    """
    found = dict(required_types())
    table = {row.keyword for row in table_rows()}
    found = {t: kind for t, kind in found.items() if keyword_for_tag(t) not in table}
    for tag, decision in policy.all_decisions.items():
        last = decision.code.split("/")[-1] if decision.code else decision.action
        if last in {"D", "Z"}:
            found[tag] = {"D": "1", "Z": "2"}[last]
        elif decision.code == "X" or (decision.action == "X" and not decision.code):
            found.pop(tag, None)
    found.pop(CHARACTER_SET, None)  # every item is written in that of the file
    return MappingProxyType({t: kind for t, kind in found.items() if t >> 16 >= 8})
