"""What becomes of each element: table E.1-1 of PS3.15, and what is listed beside it.

A policy is an allow-list. An element stays only if the table or `standard/retain.toml`
says so; everything else, known or not, is removed. The actions are the standard's
codes: `X` remove, `Z` empty, `D` replace by a keyed pseudonym, `U` replace UIDs (in a
sequence: look inside), `C` clean (here: shift the date), `K` keep what the vocabulary
allows.
"""

import csv
import hashlib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Final

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from dicomdask.errors import PolicyError

MODIFIED_DATES: Final = "retain-longitudinal-modified-dates"
FULL_DATES: Final = "retain-longitudinal-full-dates"
CHARACTERISTICS: Final = "retain-patient-characteristics"
OPTION_CODES: Final = MappingProxyType(
    {
        MODIFIED_DATES: (
            "113107",
            "Retain Longitudinal Temporal Information Modified Dates Option",
        ),
        FULL_DATES: (
            "113106",
            "Retain Longitudinal Temporal Information Full Dates Option",
        ),
        CHARACTERISTICS: ("113108", "Retain Patient Characteristics Option"),
    }
)
"""The options of this version, with their codes (PS3.16 CID 7050)."""

BASIC_CODE: Final = ("113100", "Basic Application Confidentiality Profile")
POLICIES: Final = MappingProxyType(
    {"research": (MODIFIED_DATES,), "basic": (), "none": ()}
)
PSEUDONYMS: Final = frozenset({"PatientID", "PatientName", "AccessionNumber"})
BINARY_VRS: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
DATE_VRS: Final = frozenset({"DA", "DT", "TM"})
RULES_VERSION: Final = 1
"""Raised when the code changes what a policy does."""

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
class TableRow:
    """One row of table E.1-1; `options` maps an option's name to its code."""

    tag: str
    keyword: str
    basic: str
    options: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Which text may stay: terms in upper case, and patterns, by keyword."""

    common: frozenset[str]
    terms: Mapping[str, frozenset[str]]
    patterns: Mapping[str, re.Pattern[str]]

    def allows(self, keyword: str, vr: str, text: str) -> bool:
        """Return whether `text` may stay as a value of `keyword`."""
        term = text.upper()
        if term in self.terms.get(keyword, ()) or (vr == "CS" and term in self.common):
            return True
        pattern = self.patterns.get(keyword)
        return pattern is not None and pattern.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy as it is applied.

    Parameters
    ----------
    name
        One of `POLICIES`.
    options
        The options of PS3.15 that are in force, sorted.
    trusted_pixels
        The modalities whose pixels the user has looked at, and lets pass.
    """

    name: str
    options: tuple[str, ...]
    trusted_pixels: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Return a digest of all that changes what comes out."""
        texts = (_text(name) for name in _FILES)
        parts = (self.name, *self.options, "", *self.trusted_pixels, "", *texts)
        data = "\x1f".join((str(RULES_VERSION), *parts)).encode()
        return hashlib.sha256(data).hexdigest()[:32]

    @property
    def codes(self) -> tuple[tuple[str, str], ...]:
        """Return what was applied as codes of CID 7050: (value, meaning)."""
        if self.name == "none":
            return ()
        return (BASIC_CODE, *(OPTION_CODES[option] for option in self.options))

    @property
    def actions(self) -> Mapping[int, str]:
        """Return the action of every tag that is not removed."""
        return _actions(self.options)

    def action(self, tag: int, vr: str, private: bool) -> str:
        """Return the action for an element.

        Parameters
        ----------
        tag
            Group and element as one number.
        vr
            The value representation in the file; dates that claim another one, and
            sequences that are none, do not come through.
        private
            Whether the element is private.
        """
        if self.name == "none":
            return "K"
        if private or tag >> 16 & 1:
            return "X"
        action = self.actions.get(tag, "X")
        return "X" if action == "C" and vr not in {*DATE_VRS, "SH", "UN"} else action


def load_policy(
    name: str, *, options: Iterable[str] = (), trusted_pixels: Iterable[str] = ()
) -> Policy:
    """Return the policy of a name, with further options.

    Parameters
    ----------
    name
        `research` (Basic Profile, dates shifted), `basic` (dates go) or `none`
        (nothing is removed).
    options
        More options of PS3.15, such as `retain-patient-characteristics`.
    trusted_pixels
        Modalities whose pixels pass without a look.

    Raises
    ------
    PolicyError
        If the policy or an option is not supported.
    """
    if name not in POLICIES:
        raise PolicyError(
            f"the policy {name!r} is not supported yet (policy files come later); "
            f"choose one of {', '.join(POLICIES)}"
        )
    chosen = tuple(sorted({*POLICIES[name], *options}))
    _check_options(name, chosen)
    return Policy(name, chosen, tuple(sorted({m.upper() for m in trusted_pixels})))


def describe(policy: Policy) -> list[tuple[str, str, str]]:
    """Return (keyword or tag, action, reason) of each row of the table and the list."""
    if policy.name == "none":
        return [("*", "K", "policy none keeps everything but pixels")]
    table = [(row, _resolve(row, policy.options)) for row in table_rows()]
    rows = [(row.keyword, action, _reason(row)) for row, action in table]
    kept = [(word, "K", f"retain.toml [{group}]") for word, group in _retained()]
    return [*rows, *kept, ("*", "X", "not listed")]


def patient_identity(
    patient_id: str | None, issuer: str | None, study_instance_uid: str
) -> str:
    """Return the text that stands for one patient in keyed digests and date shifts.

    A patient is (IssuerOfPatientID, PatientID); without a PatientID, the study is all
    that is known. Only ever hand the result to a `Key`: it is identified.
    """
    number = (patient_id or "").strip("\0 \t\r\n")
    if not number:
        return f"study\x1f{study_instance_uid.strip(chr(0) + ' ')}"
    return f"patient\x1f{(issuer or '').strip(chr(0) + ' ')}\x1f{number}"


@cache
def vocabulary() -> Vocabulary:
    """Return the vocabularies of `standard/terms.toml`."""
    data = tomllib.loads(_text("terms.toml"))
    terms = {word: _upper(values) for word, values in data["terms"].items()}
    patterns = {word: re.compile(text) for word, text in data["patterns"].items()}
    return Vocabulary(_upper(data["common"]["terms"]), terms, patterns)


@cache
def table_rows() -> tuple[TableRow, ...]:
    """Return table E.1-1."""
    lines = [line for line in _text("table_e1_1.csv").splitlines() if line[:1] != "#"]
    return tuple(_parse_row(row) for row in csv.DictReader(lines))


_FILES: Final = ("table_e1_1.csv", "retain.toml", "terms.toml")


@cache
def _text(name: str) -> str:
    return files("dicomdask.standard").joinpath(name).read_text(encoding="utf-8")


def _upper(values: Iterable[str]) -> frozenset[str]:
    return frozenset(value.upper() for value in values)


def _parse_row(row: Mapping[str, Any]) -> TableRow:
    names = [name for name in row if name.startswith(("retain_", "clean_"))]
    options = {name.replace("_", "-"): row[name] for name in names if row[name]}
    return TableRow(row["tag"], row["keyword"], row["basic"], options)


def _retained() -> Iterator[tuple[str, str]]:
    for group, content in tomllib.loads(_text("retain.toml")).items():
        for keyword in content["keywords"]:
            yield keyword, group


def _check_options(name: str, options: tuple[str, ...]) -> None:
    unknown = [option for option in options if option not in OPTION_CODES]
    if unknown or (name == "none" and options):
        raise PolicyError(
            f"the options {', '.join(unknown or options)} are not supported with policy"
            f" {name}; research and basic support {', '.join(OPTION_CODES)}"
        )
    if {MODIFIED_DATES, FULL_DATES} <= set(options):
        raise PolicyError(
            f"dates are either modified or full: use --policy basic with {FULL_DATES}"
        )


@cache
def _actions(options: tuple[str, ...]) -> Mapping[int, str]:
    actions = {_tag(keyword): "K" for keyword, _ in _retained()}
    for row in table_rows():
        if row.tag.isalnum() and "x" not in row.tag and row.tag != "private":
            actions[int(row.tag, 16)] = _resolve(row, options)
    return MappingProxyType({t: a for t, a in actions.items() if _stays(t, a)})


def _stays(tag: int, action: str) -> bool:
    return action != "X" and tag >> 16 >= 8  # PS3.15: no commands, no file meta


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise PolicyError(f"retain.toml lists {keyword}, which DICOM does not know")
    return tag


def _vr(tag: str) -> str:
    number = int(tag, 16) if "x" not in tag and tag != "private" else 0
    return dictionary_VR(number) if keyword_for_tag(number) else "UN"


def _resolve(row: TableRow, options: tuple[str, ...]) -> str:
    """Return the one action for a row.

    An option wins over the basic column: `K` stays `K`, and `C` is done for dates and
    time zones and is `X` otherwise, since text is not cleaned yet. Of combined codes
    the safest is taken (X before Z before D): what comes out are rows of a table, in
    which no attribute is mandatory, and a made-up value would look like data. So a
    plain `D` becomes `Z`, except for the keyed pseudonyms and for UIDs. Sequences with
    `U*` or a plain `D` are looked into (`U`), and go if nothing remains. Binary
    blobs (encapsulated documents, certificates) always go.
    """
    vr = _vr(row.tag)
    for option in options:
        if row.options.get(option):
            return _resolve_option(row, vr, row.options[option])
    if row.keyword in PSEUDONYMS:
        return "D"
    codes = row.basic.split("/")
    if "U*" in codes or (vr in {"SQ", "UI"} and codes == ["D"]):
        return "U"
    if vr in BINARY_VRS:
        return "X"
    return "Z" if codes[0] == "D" else codes[0]


def _resolve_option(row: TableRow, vr: str, code: str) -> str:
    if code == "C":
        shiftable = vr in DATE_VRS and row.keyword not in SHARED_DATES
        return "C" if shiftable or row.keyword == "TimezoneOffsetFromUTC" else "X"
    return code


def _reason(row: TableRow) -> str:
    options = (f"{name} {code}" for name, code in row.options.items())
    return "; ".join((f"table E.1-1: {row.basic}", *options))
