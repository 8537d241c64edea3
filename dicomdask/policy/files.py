"""A policy file: a shipped policy, and rules of one's own on top of it.

    extends = "research"
    name = "our-hospital"
    options = ["retain-device-identity"]

    [[rule]]
    keyword = "StudyDescription"
    action = "C"
    reason = "needed to tell protocols apart"

A rule names elements by exactly one of `keyword`, `tag` (`(0008,1030)`, `60xx0022`),
`private` (a private creator, with `element` such as `"0019,xx0C"`), `vr` or `regex`
(over keywords). Later rules win over earlier ones and over the table. What `[[pixels]]`
and `[look]` say, `pixels` tells.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydicom._dicom_dict import DicomDictionary, RepeatersDictionary
from pydicom.datadict import tag_for_keyword

from dicomdask.errors import PolicyError
from dicomdask.policy.lines import Lines
from dicomdask.policy.options import POLICIES, check_options
from dicomdask.policy.pixels import (
    DeviceRule,
    LookRules,
    look_rules,
    parse_devices,
    parse_look,
)

ACTIONS: Final = ("X", "Z", "D", "U", "C", "K")
SELECTORS: Final = ("keyword", "tag", "private", "vr", "regex")
KEYS: Final = frozenset({"extends", "name", "options", "rule", "pixels", "look"})
RULE_KEYS: Final = frozenset({*SELECTORS, "element", "action", "reason"})
OWN: Final = frozenset({"PatientID", "PatientName"})
"""Always the patient's pseudonym, whatever a file says."""

NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")
TAG: Final = re.compile(r"\(?([0-9a-fx]{4}),?([0-9a-fx]{4})\)?", re.IGNORECASE)
ELEMENT: Final = re.compile(r"\(?([0-9a-f]{4}),?(?:xx)?([0-9a-f]{2})\)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class FileRule:
    """One rule of a policy file: the tags it names, or private elements."""

    action: str
    told: str
    tags: tuple[int, ...] = ()
    private: tuple[str, int, int | None] | None = None


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """What a policy file says."""

    name: str
    extends: str
    options: tuple[str, ...]
    rules: tuple[FileRule, ...]
    devices: tuple[DeviceRule, ...]
    looks: LookRules


def parse_policy(text: str) -> PolicyFile:
    """Return what the text of a policy file says.

    Raises
    ------
    PolicyError
        If it is damaged: which line, what is wrong with it, and what would be right.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"the policy file is not TOML: {error}") from None
    lines = Lines(text)
    for key in sorted(set(document) - KEYS):
        raise lines.error(f"{key} is unknown; use {', '.join(sorted(KEYS))}", key)
    name, extends = document.get("name", "custom"), document.get("extends")
    if not isinstance(extends, str) or extends not in {*POLICIES} - {"none"}:
        raise lines.error('extends is "research" or "basic"', "extends")
    if not isinstance(name, str) or not NAME.fullmatch(name) or name in POLICIES:
        raise lines.error(
            "name is up to 32 of a-z, 0-9, ._- and no shipped policy's", "name"
        )
    options = _options(document.get("options", []), extends, lines)
    tables = document.get("rule", [])
    if not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
        raise lines.error("write each rule under [[rule]]", "rule")
    rules = tuple(_rule(table, lines, number) for number, table in enumerate(tables))
    devices = parse_devices(document.get("pixels", []), lines)
    looks = look_rules().stricter(parse_look(document.get("look", {}), lines))
    return PolicyFile(name, extends, options, rules, devices, looks)


def _options(found: Any, extends: str, lines: Lines) -> tuple[str, ...]:
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise lines.error("options is a list of names", "options")
    try:
        check_options(extends, {*POLICIES[extends], *found})
    except PolicyError as error:
        raise lines.error(str(error), "options") from None
    return tuple(found)


def _rule(table: Mapping[str, Any], lines: Lines, number: int) -> FileRule:
    for key, value in table.items():
        if key not in RULE_KEYS or not isinstance(value, str):
            names = ", ".join(sorted(RULE_KEYS))
            raise lines.error(f"{key} is unknown or no text; use {names}", key, number)
    action = table.get("action", "")
    if action not in ACTIONS:
        raise lines.error(f"action is one of {', '.join(ACTIONS)}", "action", number)
    chosen = [name for name in SELECTORS if name in table]
    if len(chosen) != 1 or ("element" in table and chosen != ["private"]):
        raise lines.error(
            f"a rule has one of {', '.join(SELECTORS)}; element goes with private",
            "[[rule]]",
            number,
        )
    [selector] = chosen
    told = f"policy file, line {lines.find(selector, number)}"
    if table.get("reason"):
        told = f"{told}: {table['reason']}"
    try:
        if selector == "private":
            return FileRule(action, told, private=_private(table, action))
        return FileRule(action, told, tags=_tags(selector, table[selector]))
    except ValueError as error:
        raise lines.error(str(error), selector, number) from None


def _private(table: Mapping[str, Any], action: str) -> tuple[str, int, int | None]:
    if action not in {"K", "X"}:
        raise ValueError("the action for private elements is K or X")
    if "element" not in table:
        return table["private"], 0, None
    match = ELEMENT.fullmatch(table["element"])
    if match is None or int(match[1], 16) % 2 == 0:
        raise ValueError('element is written like "0019,xx0C", with an odd group')
    return table["private"], int(match[1], 16), int(match[2], 16)


def _tags(selector: str, text: str) -> tuple[int, ...]:
    found = {
        "keyword": _by_keyword,
        "tag": _by_tag,
        "vr": _by_vr,
        "regex": _by_regex,
    }[selector](text)
    tags = tuple(sorted(tag for tag in found if _may_be_ruled(tag)))
    if not tags:
        raise ValueError(
            f"no element that a rule may change is {text!r}; pixels, file meta, "
            "PatientID and PatientName have rules of their own"
        )
    return tags


def _may_be_ruled(tag: int) -> bool:
    keyword = DicomDictionary[tag][4] if tag in DicomDictionary else ""
    return tag >> 16 >= 8 and tag >> 16 not in {0x7FE0, 0xFFFE} and keyword not in OWN


def _by_keyword(text: str) -> Iterable[int]:
    tag = tag_for_keyword(text)
    if tag is None:
        raise ValueError(f"DICOM knows no keyword {text}; check its spelling")
    return [tag]


def _by_tag(text: str) -> Iterable[int]:
    match = TAG.fullmatch(text)
    if match is None:
        raise ValueError('a tag is written like "(0008,1030)", or "60xx0022"')
    digits = (match[1] + match[2]).lower()
    if "x" not in digits:
        return [int(digits, 16)] if int(digits, 16) in DicomDictionary else []
    pattern = re.compile(digits.replace("x", "."))
    return [tag for tag in known_tags() if pattern.fullmatch(f"{tag:08x}")]


def _by_vr(text: str) -> Iterable[int]:
    return [tag for tag in known_tags() if DicomDictionary.get(tag, ("",))[0] == text]


def _by_regex(text: str) -> Iterable[int]:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise ValueError(f"the regex does not compile: {error}") from None
    words = ((tag, row[4]) for tag, row in DicomDictionary.items())
    return [tag for tag, word in words if word and pattern.fullmatch(word)]


def known_tags() -> tuple[int, ...]:
    """Return all tags of the dictionary, repeating groups written out."""
    return _KNOWN


def _written_out(mask: str) -> Iterable[int]:
    for number in range(0, 0x20, 2):
        digits = mask[:2] + f"{number:02x}" + mask[4:]
        if "x" not in digits:
            yield int(digits, 16)


_KNOWN: Final = (
    *DicomDictionary,
    *(
        tag
        for mask in RepeatersDictionary
        if mask[2:4] == "xx"
        for tag in _written_out(mask)
    ),
)
