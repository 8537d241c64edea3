"""One action, and the reason for it, for every element that has one."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import MappingProxyType
from typing import Final

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from dicomdask.errors import PolicyError
from dicomdask.policy.data import (
    MANY,
    SAFE_PRIVATE_EDITION,
    TableRow,
    retained,
    safe_private,
    table_rows,
)
from dicomdask.policy.files import FileRule
from dicomdask.policy.options import GRAPHICS, SAFE_PRIVATE, STRUCTURED, UIDS

PSEUDONYMS: Final = frozenset({"PatientID", "PatientName", "AccessionNumber"})
BINARY_VRS: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
DATE_VRS: Final = frozenset({"DA", "DT", "TM"})
TEXT_VRS: Final = frozenset(
    {"AE", "AS", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"}
)
TIME_ZONE: Final = "TimezoneOffsetFromUTC"

# A date shared by many patients tells the difference of their shifts, and a published
# one tells the shift itself: these go, although PS3.15 would let them be modified.
SHARED_DATES: Final = frozenset(
    {
        "CalibrationDate",
        "CalibrationDateTime",
        "CalibrationTime",
        "ContextGroupLocalVersion",
        "ContextGroupVersion",
        "DateOfInstallation",
        "DateOfLastCalibration",
        "DateOfLastDetectorCalibration",
        "DateOfManufacture",
        "DateTimeOfLastCalibration",
        "EffectiveDateTime",
        "EthicsCommitteeApprovalEffectivenessEndDate",
        "EthicsCommitteeApprovalEffectivenessStartDate",
        "HangingProtocolCreationDateTime",
        "InformationIssueDateTime",
        "ProductExpirationDateTime",
        "SourceStrengthReferenceDate",
        "SourceStrengthReferenceTime",
        "TemplateLocalVersion",
        "TemplateVersion",
        "TimeOfLastCalibration",
        "TimeOfLastDetectorCalibration",
    }
)


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of one element.

    `is_proved` tells that a kept value has to be harmless by what it is; otherwise an
    option or a policy file keeps it as it stands. `code` is what the table says.
    """

    action: str
    reason: str
    is_proved: bool = True
    code: str = ""


GONE: Final = Decision("X", "not listed")
PRIVATE: Final = Decision("X", "private, and not on the safe list", code="X")
REPEATED: Final = Decision("X", "table E.1-1: curves and overlays", code="X")
Private = tuple[str, int, int | None]
"""Creator, group, and the last two digits of the element; None stands for all."""


@cache
def decisions(
    options: tuple[str, ...], rules: tuple[FileRule, ...] = ()
) -> Mapping[int, Decision]:
    """Return the decision on every tag that the table, a list or a rule names."""
    found = {
        _tag(one.keyword): Decision("K", f"retain.toml [{one.group}]")
        for one in retained()
        if one.option is None or one.option in options
    }
    for row in table_rows():
        if row.tag.isalnum() and "x" not in row.tag and row.tag != "private":
            found[int(row.tag, 16)] = decide(row, options)
    if STRUCTURED in options:
        made = Decision("C", f"{STRUCTURED}: text of content items", is_proved=False)
        found[_tag("TextValue")] = made
    if GRAPHICS in options:  # PS3.3 section C.10.5 wants both, so something stands in
        told = f"{GRAPHICS}: text and names of layers"
        text = Decision("C", told, is_proved=False, code="D")
        found[_tag("UnformattedTextValue")] = text
        found[_tag("GraphicLayer")] = Decision("K", told, code="D")
    for rule in rules:
        made = Decision(rule.action, rule.told, is_proved=rule.action != "K")
        found.update((tag, _for_vr(tag, made)) for tag in rule.tags)
    return MappingProxyType(found)


@cache
def private_decisions(
    options: tuple[str, ...], rules: tuple[FileRule, ...] = ()
) -> Mapping[Private, tuple[Decision, str, int]]:
    """Return the decision on private elements that may stay, with their VR."""
    found: dict[Private, tuple[Decision, str, int]] = {}
    for row in safe_private() if SAFE_PRIVATE in options else ():
        if row.vr not in BINARY_VRS:  # nobody can tell what is in there
            decision = Decision("K", f"{SAFE_PRIVATE_EDITION}: {row.creator}")
            found[row.creator, row.group, row.element] = (
                decision,
                row.vr,
                row.max_values,
            )
    for rule in rules:
        if rule.private is not None:
            made = Decision(rule.action, rule.told, is_proved=False)
            found[rule.private] = (made, "", MANY)
    return MappingProxyType(found)


def decide(row: TableRow, options: tuple[str, ...]) -> Decision:
    """Return the one decision on a row of the table.

    An option wins over the basic column: `K` keeps a value as it is, and `C` shifts a
    date, looks into a sequence and leaves of a text the words that are known to name
    nobody. Where options differ on a date, it is shifted.

    Of combined codes the safest is taken (X before Z before D): what comes out are rows
    of a table, in which no attribute is mandatory, and a made-up value would look like
    data. So a plain `D` becomes `Z`, except for the keyed pseudonyms and for UIDs.
    Sequences with `U*` or a plain `D` are looked into (`U`), and go if nothing remains.
    Binary blobs (encapsulated documents, certificates) always go.
    """
    vr = vr_of(row.tag)
    codes = {name: row.options[name] for name in options if row.options.get(name)}
    if not codes:
        return Decision(_basic(row, vr), f"table E.1-1: {row.basic}", code=row.basic)
    is_dated = vr in DATE_VRS or row.keyword == TIME_ZONE
    wins = (
        "C"
        if "C" in codes.values() and (is_dated or "K" not in codes.values())
        else "K"
    )
    names = ", ".join(name for name, code in codes.items() if code == wins)
    decision = Decision(
        _clean(row, vr) if wins == "C" else _keep(vr),
        f"{names}: {wins}",
        code=row.basic,
    )
    is_proved = decision.action != "K" or row.keyword == TIME_ZONE
    return replace(decision, is_proved=is_proved)


def reference_tags() -> tuple[int, ...]:
    """Return the sequences of table E.1-1 that hold references by UID.

    In files they are looked into, their UIDs replaced: nobody can tell from the table
    whether an object requires them.
    """
    return tuple(
        int(row.tag, 16)
        for row in table_rows()
        if vr_of(row.tag) == "SQ" and row.options.get(UIDS) == "K"
    )


def vr_of(tag: str) -> str:
    """Return the dictionary's VR of a tag of the table."""
    number = int(tag, 16) if "x" not in tag and tag != "private" else 0
    return dictionary_VR(number) if keyword_for_tag(number) else "UN"


def _basic(row: TableRow, vr: str) -> str:
    if row.keyword in PSEUDONYMS:
        return "D"
    codes = row.basic.split("/")
    if "U*" in codes or (vr in {"SQ", "UI"} and codes == ["D"]):
        return "U"
    if vr in BINARY_VRS:
        return "X"
    return "Z" if codes[0] == "D" else codes[0]


def _clean(row: TableRow, vr: str) -> str:
    if vr in DATE_VRS:
        return "X" if row.keyword in SHARED_DATES else "C"
    return "U" if vr == "SQ" else "C" if vr in TEXT_VRS else "X"


def _keep(vr: str) -> str:
    return "U" if vr == "SQ" else "X" if vr in BINARY_VRS else "K"


def _for_vr(tag: int, decision: Decision) -> Decision:
    """Return a rule's decision as it can be done to an element of its kind."""
    vr = dictionary_VR(tag)
    possible = {
        "K": _keep(vr),
        "C": "U" if vr == "SQ" else "C" if vr in {*DATE_VRS, *TEXT_VRS} else "X",
        "U": "U" if vr in {"SQ", "UI"} else "X",
        "D": "D" if keyword_for_tag(tag) in PSEUDONYMS else "U" if vr == "UI" else "Z",
    }
    action = possible.get(decision.action, decision.action)
    return replace(decision, action=action)


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise PolicyError(f"retain.toml lists {keyword}, which DICOM does not know")
    return tag
