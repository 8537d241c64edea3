"""What becomes of the values of a kept element, by VR; None where they must go."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import cache, lru_cache
from typing import Final

from pydicom._uid_dict import UID_dictionary
from pydicom.datadict import dictionary_VM, dictionary_VR, keyword_for_tag
from pydicom.valuerep import format_number_as_ds

from dicomdask.deid.values import FORMATS, MAX_VALUES, PADDING, Values
from dicomdask.deid.words import clean_text
from dicomdask.policy import (
    PSEUDONYMS,
    TEXT_VRS,
    TIME_ZONE,
    UIDS,
    Decision,
    Policy,
    reference_tags,
    vocabulary,
)
from dicomdask.pseudonym import Key

NUMBER: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?", re.A)
INTEGER: Final = re.compile(r"[+-]?\d{1,12}", re.A)
AGE: Final = re.compile(r"(\d{3})([DWMY])", re.A)
DATE: Final = re.compile(r"(\d{4})(\.?)(\d{2})\2(\d{2})", re.A)
_TIME: Final = r"(?:[01]\d|2[0-3])(?:[0-5]\d(?:(?:[0-5]\d|60)(?:\.\d{1,6})?)?)?"
TIME: Final = re.compile(_TIME, re.A)
UID: Final = re.compile(r"[0-2](?:\.(?:0|[1-9]\d*))+", re.A)
DATE_TIME: Final = re.compile(rf"(\d{{8}})({_TIME})?([+-][01]\d[0-5]\d)?", re.A)


@dataclass(frozen=True, slots=True)
class Context:
    """What the cleaning of one instance needs to know; identified.

    `stand_ins` are the types of what a file may not lack; `uids` collects old and new
    ones; `is_required` tells that the sequence around needs its items.
    """

    key: Key
    rules: Mapping[int, "Rule"]
    identity: str
    issuer: str
    study: str
    shift_days: int
    signed: bool
    private: Mapping[tuple[str, int, int | None], "Rule"]
    names: frozenset[str]
    stand_ins: Mapping[int, str] = field(default_factory=dict)
    uids: dict[str, str] | None = None
    is_required: bool = False
    depth: int = 0

    @property
    def is_for_files(self) -> bool:
        """Return whether what comes out is a DICOM file, not rows of a table."""
        return bool(self.stand_ins)


Clean = Callable[["Rule", Values, Context], Values | None]
Private = tuple[str, int, int | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """What to do with one tag; `clean` returns None where the value must go.

    `is_text` tells that it has to be read in the character set of its header;
    `is_bulk` that it is a table of pixel values. `max_values` is the multiplicity.
    """

    keyword: str
    vr: str
    action: str
    clean: Clean
    is_text: bool = False
    is_bulk: bool = False
    max_values: int = MAX_VALUES


def patient_pseudonym(identity: str, key: Key) -> str:
    """Return what stands in PatientID and PatientName for a `patient_identity`."""
    return key.digest("PatientID", identity)


def accession_pseudonym(accession_number: str, key: Key) -> str:
    """Return what stands in AccessionNumber, which has room for 16 characters."""
    return key.digest("AccessionNumber", accession_number.strip(PADDING), nbytes=8)


def replace_uid(uid: str, key: Key) -> str:
    """Return a well-known UID as it is, and another one's replacement."""
    text = uid.strip(PADDING)
    return text if text in UID_dictionary else key.uid(text)


def _keep_terms(rule: Rule, values: Values, context: Context) -> Values | None:
    """Keep the values that are in the vocabulary, each in its place."""
    kept = [text if _allows(rule.keyword, rule.vr, text) else "" for text in values]
    return kept if any(kept) else None


@lru_cache(maxsize=4096)
def _allows(keyword: str, vr: str, text: str) -> bool:
    return vocabulary().allows(keyword, vr, text)


def _keep_numbers(rule: Rule, values: Values, context: Context) -> Values | None:
    """Keep numbers, no more than there may be: text spells many small ones."""
    return values if len(values) <= rule.max_values else None


def _keep_plain(rule: Rule, values: Values, context: Context) -> Values | None:
    """Keep numbers where nobody told what an element holds."""
    is_number = all(isinstance(one, int | float) for one in values)
    return _keep_numbers(rule, values, context) if is_number else None


def _keep_decimals(rule: Rule, values: Values, context: Context) -> Values | None:
    if not all(text == "" or NUMBER.fullmatch(text) for text in values):
        return None
    numbers = [float(text) if text else None for text in values]
    return numbers if all(n is None or math.isfinite(n) for n in numbers) else None


def _keep_integers(rule: Rule, values: Values, context: Context) -> Values | None:
    if not all(text == "" or INTEGER.fullmatch(text) for text in values):
        return None
    numbers = [int(text) if text else None for text in values]
    return numbers if all(n is None or abs(n) <= 2**31 for n in numbers) else None


def _keep_decimal_texts(rule: Rule, values: Values, context: Context) -> Values | None:
    """Keep decimals as written, in the 16 characters that they may have.

    Many writers take more (PS3.5 section 6.2); the last digits of these are rounded.
    """
    if _keep_decimals(rule, values, context) is None:
        return None
    return [t if len(t) <= 16 else format_number_as_ds(float(t)) for t in values]


def _keep_integer_texts(rule: Rule, values: Values, context: Context) -> Values | None:
    return None if _keep_integers(rule, values, context) is None else values


def _replace_uids(rule: Rule, values: Values, context: Context) -> Values | None:
    replaced = [replace_uid(text, context.key) if text else "" for text in values]
    if context.uids is not None:
        context.uids.update(zip(values, replaced, strict=True))
    return replaced


def _shift_dates(rule: Rule, values: Values, context: Context) -> Values | None:
    shifted = [_shift_date(text, context.shift_days) for text in values]
    return None if None in shifted else shifted


def _shift_date(text: str, days: int) -> str | None:
    match = DATE.fullmatch(text)
    if match is None:
        return None
    year, _, month, day = match.groups()
    try:
        moved = date(int(year), int(month), int(day)) + timedelta(days)
    except (ValueError, OverflowError):
        return None
    return f"{moved.year:04d}{moved.month:02d}{moved.day:02d}"


def _shift_datetimes(rule: Rule, values: Values, context: Context) -> Values | None:
    shifted = [_shift_datetime(text, context.shift_days) for text in values]
    return None if None in shifted else shifted


def _shift_datetime(text: str, days: int) -> str | None:
    """Shift by whole days; the time, its fraction and the UTC offset stay as written.

    The offset may bring the instant to another day, not the interval to another length.
    """
    match = DATE_TIME.fullmatch(text)
    moved = _shift_date(match[1], days) if match else None
    return None if match is None or moved is None else moved + text[8:]


def _keep_times(rule: Rule, values: Values, context: Context) -> Values | None:
    return values if all(TIME.fullmatch(text) for text in values) else None


def _cap_ages(rule: Rule, values: Values, context: Context) -> Values | None:
    """Keep ages up to 89 years; older ones become 89."""
    matches = [AGE.fullmatch(text) for text in values]
    if not all(matches):
        return None
    years = {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}
    old = [match and int(match[1]) / years[match[2]] > 89 for match in matches]
    return ["089Y" if o else t for o, t in zip(old, values, strict=True)]


def _as_it_is(rule: Rule, values: Values, context: Context) -> Values | None:
    return values


def _keep_uids(rule: Rule, values: Values, context: Context) -> Values | None:
    return values if all(UID.fullmatch(text) for text in values if text) else None


def _keep_dates(rule: Rule, values: Values, context: Context) -> Values | None:
    return _VALUE_RULES[rule.vr](rule, values, replace(context, shift_days=0))


def _clean_words(rule: Rule, values: Values, context: Context) -> Values | None:
    """Keep what is in the vocabulary, and else the words that name nobody."""
    kept = [
        text
        if _allows(rule.keyword, rule.vr, text)
        else clean_text(text, context.names)
        for text in values
    ]
    return kept if any(kept) else None


def _patient(rule: Rule, values: Values, context: Context) -> Values | None:
    return [patient_pseudonym(context.identity, context.key)]


def _accession(rule: Rule, values: Values, context: Context) -> Values | None:
    return [accession_pseudonym(text, context.key) for text in values if text]


_VALUE_RULES: Final = {
    **dict.fromkeys((*FORMATS, "US or SS"), _keep_numbers),
    "DS": _keep_decimals,
    "IS": _keep_integers,
    "UI": _replace_uids,
    "DA": _shift_dates,
    "DT": _shift_datetimes,
    "TM": _keep_times,
    "AS": _cap_ages,
}
_PSEUDONYM_RULES: Final = {
    **dict.fromkeys(PSEUDONYMS, _patient),
    "AccessionNumber": _accession,
}


_AS_IS_RULES: Final = {
    "UI": _keep_uids,
    **dict.fromkeys(("DA", "DT", "TM"), _keep_dates),
    **{vr: _VALUE_RULES[vr] for vr in ("DS", "IS", "AS")},
    **dict.fromkeys((*FORMATS, "US or SS"), _keep_numbers),
}
"""For what an option or a policy file keeps; any other text stays as it is."""


@cache
def rules_of(policy: Policy) -> Mapping[int, Rule]:
    """Return the rule of each tag that a policy does not remove."""
    return {tag: _rule(tag, one, policy) for tag, one in policy.decisions.items()}


@cache
def file_rules(policy: Policy) -> Mapping[int, Rule]:
    """Return the rule of each tag that stays in files: numbers keep their text.

    What is emptied or replaced by a value that says nothing is left to the stand-ins.
    """
    rules = {t: rule for t, rule in rules_of(policy).items() if rule.action != "Z"}
    rules |= {tag: _rule(tag, REFERENCES, policy) for tag in reference_tags()}
    return {tag: _for_files(rule) for tag, rule in rules.items()}


REFERENCES: Final = Decision("U", "references: UIDs replaced")


def _for_files(rule: Rule) -> Rule:
    if rule.keyword.endswith(("ColorLookupTableData", "LUTData", "ICCProfile")):
        return replace(rule, is_bulk=True)
    return replace(rule, clean=_FILE_CLEANS.get(rule.clean, rule.clean))


_FILE_CLEANS: Final[Mapping[Clean, Clean]] = {
    _keep_decimals: _keep_decimal_texts,
    _keep_integers: _keep_integer_texts,
}


@cache
def private_rules(policy: Policy) -> Mapping[Private, Rule]:
    """Return the rule of each private element that a policy does not remove."""
    return {
        name: Rule(
            f"{name[0]}:{name[2] or 0:02X}",
            vr,
            one.action,
            _keep_private(vr, one),
            max_values=most,
        )
        for name, (one, vr, most) in policy.private.items()
        if one.action == "K"
    }


@cache
def cleans_text(policy: Policy) -> bool:
    """Return whether a policy keeps words of texts."""
    return any(rule.clean is _clean_words for rule in rules_of(policy).values())


def _keep_private(vr: str, decision: Decision) -> Clean:
    if decision.is_proved:
        return _VALUE_RULES.get(vr, _keep_terms) if vr else _keep_plain
    return _AS_IS_RULES.get(vr, _as_it_is)


def _rule(tag: int, decision: Decision, policy: Policy) -> Rule:
    keyword, vr, action = keyword_for_tag(tag), dictionary_VR(tag), decision.action
    is_text = vr in TEXT_VRS
    if action == "D":
        return Rule(keyword, vr, action, _PSEUDONYM_RULES[keyword])
    if action == "C" and is_text and keyword != TIME_ZONE:
        return Rule(keyword, vr, action, _clean_words, is_text=True)
    if action == "K" and not decision.is_proved:
        clean = _AS_IS_RULES.get(vr, _as_it_is)
        return Rule(keyword, vr, action, clean, is_text=is_text and vr != "AS")
    if action == "K" and vr == "UI" and UIDS in policy.options:
        return Rule(keyword, vr, action, _keep_uids)
    clean = _VALUE_RULES.get(vr, _keep_terms)
    return Rule(keyword, vr, action, clean, max_values=_max_values(tag))


def _max_values(tag: int) -> int:
    """Return how many values an element has at most (PS3.6, column VM)."""
    last = dictionary_VM(tag).split("-")[-1]
    return int(last) if last.isdigit() else MAX_VALUES
