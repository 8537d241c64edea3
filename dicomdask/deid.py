"""Apply a policy to a header: identified in, de-identified out, or nothing.

`clean_header` looks at the tag first, so a removed element is never even converted. A
kept element has to prove that it is harmless: numbers are numbers, UIDs are replaced,
dates are shifted, and text is in the vocabulary. What cannot prove it, damaged values
included, is removed. No message holds a value, and no exception carries another.
"""

import math
import re
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cache, lru_cache
from typing import Any, Final

from pydicom import DataElement, Dataset
from pydicom._uid_dict import UID_dictionary
from pydicom.charset import default_encoding
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.sr._concepts_dict import concepts
from pydicom.sr._snomed_dict import mapping as snomed
from pydicom.tag import BaseTag, Tag
from pydicom.values import convert_SQ

from dicomdask.errors import InputError
from dicomdask.policy import (
    FULL_DATES,
    MODIFIED_DATES,
    PSEUDONYMS,
    Policy,
    patient_identity,
    vocabulary,
)
from dicomdask.pseudonym import Key

MAX_DEPTH: Final = 16
MAX_VALUES: Final = 65536
BULK_VRS: Final = frozenset({"OB", "OW", "OD", "OF", "OL", "OV", "UN", "OB or OW"})
FORMATS: Final = dict(
    zip("US SS UL SL UV SV FL FD AT".split(), "HhIiQqfdH", strict=True)  # noqa: SIM905
)
TEXT_VRS: Final = frozenset(
    "AE AS CS DA DS DT IS LO LT PN SH ST TM UC UI UR UT".split()  # noqa: SIM905
)
SINGLE_VRS: Final = frozenset({"LT", "ST", "UT", "UR"})
PADDING: Final = "\0 \t\r\n"

PATIENT_ID: Final = 0x00100020
ISSUER: Final = 0x00100021
STUDY_UID: Final = 0x0020000D
PIXEL_REPRESENTATION: Final = 0x00280103
CODE_VALUE, CODE_SCHEME, CODE_MEANING = 0x00080100, 0x00080102, 0x00080104
LONG_CODE_VALUE: Final = 0x00080119
CODE_TAGS: Final = frozenset({CODE_VALUE, LONG_CODE_VALUE, CODE_SCHEME, CODE_MEANING})
SNOMED_RT: Final = frozenset({"SRT", "SNM3", "99SDM"})
PIXEL_GROUPS: Final = frozenset({0x7FE0, 0x7F00, 0x7FE1})

NUMBER: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?", re.A)
INTEGER: Final = re.compile(r"[+-]?\d{1,12}", re.A)
AGE: Final = re.compile(r"(\d{3})([DWMY])", re.A)
DATE: Final = re.compile(r"(\d{4})(\.?)(\d{2})\2(\d{2})", re.A)
_TIME: Final = r"(?:[01]\d|2[0-3])(?:[0-5]\d(?:(?:[0-5]\d|60)(?:\.\d{1,6})?)?)?"
TIME: Final = re.compile(_TIME, re.A)
DATE_TIME: Final = re.compile(rf"(\d{{8}})({_TIME})?([+-][01]\d[0-5]\d)?", re.A)

Values = list[Any]
_Elements = dict[BaseTag, DataElement | RawDataElement]


@dataclass(frozen=True, slots=True)
class _Context:
    """What the cleaning of one instance needs to know; identified."""

    key: Key
    rules: Mapping[int, "_Rule"]
    identity: str
    issuer: str
    study: str
    shift_days: int
    signed: bool
    depth: int = 0


@dataclass(frozen=True, slots=True)
class _Rule:
    """What to do with one tag; `clean` returns None where the value must go."""

    keyword: str
    vr: str
    action: str
    clean: Callable[["_Rule", Values, _Context], Values | None]


def clean_header(dataset: Dataset, policy: Policy, key: Key) -> Dataset:
    """Return the de-identified header of a dataset; the dataset is not changed.

    Parameters
    ----------
    dataset
        One instance as read by pydicom, with or without pixels.
    policy
        What to remove, replace and keep.
    key
        The key of pseudonyms, UIDs and date shifts.

    Returns
    -------
    pydicom.Dataset
        Without pixels, private elements, file meta and bulk binary. Numbers are plain
        `int` and `float`, more than one value is a `list`.

    Raises
    ------
    InputError
        With code `deid-failed`, and nothing else, if anything goes wrong.
    """
    cleaned = _clean_or_none(dataset, policy, key)
    if cleaned is None:  # raised here so that it has no context: those hold values
        raise InputError("deid-failed")
    return cleaned


def header_json(dataset: Dataset) -> dict[str, dict[str, Any]]:
    """Return a cleaned dataset in the DICOM JSON model (PS3.18 F), in tag order.

    Numbers that JSON lacks (NaN, infinities) are dropped; bulk binary is left out.
    """
    elements = ((int(tag), dataset.get_item(tag)) for tag in sorted(dataset.keys()))
    pairs = ((f"{tag:08X}", _json_element(element)) for tag, element in elements)
    return {tag: element for tag, element in pairs if element is not None}


def patient_pseudonym(identity: str, key: Key) -> str:
    """Return what stands in PatientID and PatientName for a `patient_identity`."""
    return key.digest("PatientID", identity)


def accession_pseudonym(accession_number: str, key: Key) -> str:
    """Return what stands in AccessionNumber."""
    return key.digest("AccessionNumber", accession_number.strip(PADDING))


def replace_uid(uid: str, key: Key) -> str:
    """Return a well-known UID as it is, and another one's replacement."""
    text = uid.strip(PADDING)
    return text if text in UID_dictionary else key.uid(text)


def _clean_or_none(dataset: Dataset, policy: Policy, key: Key) -> Dataset | None:
    try:
        if policy.name == "none":
            return _copy(dataset)
        context = _context(dataset, policy, key)
        return _mark(_clean(dataset, context), policy, context)
    except Exception:  # noqa: BLE001 -- hostile bytes raise anything, with values in it
        return None


def _context(dataset: Dataset, policy: Policy, key: Key) -> _Context:
    issuer, study = (_decoded(dataset, tag) for tag in (ISSUER, STUDY_UID))
    identity = patient_identity(_decoded(dataset, PATIENT_ID), issuer, study)
    shift = 0 if FULL_DATES in policy.options else key.shift_days(identity)
    signed = _is_signed(dataset)
    rules = _rules(policy)
    return _Context(key, rules, identity, issuer, study, shift, signed)


def _is_signed(dataset: Dataset) -> bool:
    element = dataset.get_item(PIXEL_REPRESENTATION)
    return bool(element) and _values(element, "US", signed=False) == ("US", [1])


def _decoded(dataset: Dataset, tag: int) -> str:
    """Return the text of an element, in its character set; empty if there is none."""
    element = dataset.get_item(tag)
    if element is None:
        return ""
    if isinstance(element, RawDataElement):
        encoding = dataset.original_character_set or default_encoding
        element = convert_raw_data_element(element, encoding=encoding, ds=dataset)
    value = element.value
    parts = value if isinstance(value, MultiValue | list | tuple) else [value]
    return "\\".join("" if part is None else str(part) for part in parts).strip(PADDING)


@cache
def _rules(policy: Policy) -> Mapping[int, _Rule]:
    return {tag: _rule(tag, action) for tag, action in policy.actions.items()}


def _rule(tag: int, action: str) -> _Rule:
    keyword, vr = keyword_for_tag(tag), dictionary_VR(tag)
    if action == "D":
        return _Rule(keyword, vr, action, _PSEUDONYM_RULES[keyword])
    return _Rule(keyword, vr, action, _VALUE_RULES.get(vr, _keep_terms))


def _clean(dataset: Dataset, context: _Context) -> Dataset:
    """Return the elements of one level that stay."""
    kept: _Elements = {}
    rules = context.rules
    for tag in sorted(dataset.keys()):
        rule = rules.get(int(tag))
        if rule is not None and int(tag) not in CODE_TAGS:
            element = _clean_element(dataset, tag, rule, context)
            if element is not None:
                kept[tag] = element
    if context.depth and (CODE_VALUE in dataset or LONG_CODE_VALUE in dataset):
        kept = _with_code(dataset, kept)
    return Dataset(kept)


def _clean_element(
    dataset: Dataset, tag: BaseTag, rule: _Rule, context: _Context
) -> DataElement | None:
    if rule.action == "Z":
        return None if rule.vr == "SQ" else _element(tag, rule.vr, [])
    if rule.vr == "SQ":
        return _clean_sequence(dataset, tag, context)
    if rule.action == "D":
        return _pseudonym(dataset, tag, rule, context)
    read = _values(dataset.get_item(tag), rule.vr, signed=context.signed)
    if read is None:
        return None
    vr, values = read
    cleaned = rule.clean(rule, values, context) if values else values
    return None if cleaned is None else _element(tag, vr, cleaned)


def _element(tag: BaseTag, vr: str, values: Values) -> DataElement:
    value = values if len(values) > 1 else values[0] if values else None
    return DataElement(tag, vr, value, already_converted=True)


def _pseudonym(
    dataset: Dataset, tag: BaseTag, rule: _Rule, context: _Context
) -> DataElement:
    if context.depth and int(tag) == PATIENT_ID:
        issuer = _decoded(dataset, ISSUER) or context.issuer
        identity = patient_identity(_decoded(dataset, tag), issuer, context.study)
        context = replace(context, identity=identity)
    text = _decoded(dataset, tag) if rule.keyword == "AccessionNumber" else ""
    return _element(tag, rule.vr, rule.clean(rule, [text], context) or [])


def _clean_sequence(
    dataset: Dataset, tag: BaseTag, context: _Context
) -> DataElement | None:
    """Return a sequence with its items cleaned; None if nothing of it remains."""
    if context.depth >= MAX_DEPTH:
        return None
    inner = replace(context, depth=context.depth + 1)
    items = _items(dataset.get_item(tag), dataset)
    cleaned = [item for item in (_clean(item, inner) for item in items) if len(item)]
    return DataElement(tag, "SQ", Sequence(cleaned)) if cleaned else None


def _items(element: Any, dataset: Dataset) -> Iterable[Dataset]:
    """Return the items of a sequence; none if it is damaged, or is no sequence."""
    value = element.value
    try:
        if isinstance(value, bytes):
            # PS3.5 6.2.2: a sequence in UN is implicit VR little endian
            hidden = element.VR == "UN" or getattr(element, "is_implicit_VR", True)
            little = element.VR == "UN" or getattr(element, "is_little_endian", True)
            encoding = dataset.original_character_set or default_encoding
            names = [encoding] if isinstance(encoding, str) else list(encoding)
            value = convert_SQ(value, hidden, little, names)
        return list(value) if isinstance(value, Sequence) else ()
    except Exception:  # noqa: BLE001 -- hostile bytes raise anything, with values in it
        return ()


def _values(element: Any, vr: str, *, signed: bool) -> tuple[str, Values] | None:
    """Return the VR and the plain values of an element; None if they are damaged.

    `vr` is the dictionary's; the file's own counts among numbers only.
    """
    if vr == "US or SS":
        vr = "SS" if signed else "US"
    found = element.VR if element.VR in FORMATS or element.VR in TEXT_VRS else vr
    if (found in FORMATS) != (vr in FORMATS) or vr not in _KNOWN_VRS:
        return None
    used = found if vr in FORMATS and "AT" not in {vr, found} else vr
    if isinstance(element.value, bytes):
        little = element.VR == "UN" or getattr(element, "is_little_endian", True)
        values = _parse(element.value, used, "<" if little else ">")
    else:
        values = _listed(element.value, used)
    return None if values is None or len(values) > MAX_VALUES else (used, values)


def _parse(data: bytes, vr: str, order: str) -> Values | None:
    """Return the values in raw bytes; None where they are not what the VR says."""
    if vr in FORMATS:
        code = FORMATS[vr]
        count, rest = divmod(len(data), struct.calcsize(f"={code}"))
        if rest:
            return None
        numbers = list(struct.unpack(f"{order}{count}{code}", data))
        return _tags(numbers) if vr == "AT" else numbers
    if not data.isascii():
        return None
    return _split(data.decode("ascii"), vr)


def _tags(numbers: list[int]) -> Values | None:
    if len(numbers) % 2:
        return None
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    return [Tag(group, element) for group, element in pairs]


def _split(text: str, vr: str) -> Values:
    parts = [text] if vr in SINGLE_VRS else text.split("\\")
    values = [part.strip(PADDING) for part in parts]
    return values if any(values) else []


def _listed(value: Any, vr: str) -> Values | None:
    """Return the plain values of a converted element; None if of the wrong type."""
    if value is None:
        return []
    parts = list(value) if isinstance(value, MultiValue | list | tuple) else [value]
    if vr in FORMATS:
        return parts if all(type(part) in _NUMBERS for part in parts) else None
    if any(isinstance(part, bytes | Sequence | Dataset) for part in parts):
        return None
    texts = ["" if part is None else str(part).strip(PADDING) for part in parts]
    return texts if any(texts) else []


_NUMBERS: Final = frozenset({int, float, BaseTag})
_KNOWN_VRS: Final = TEXT_VRS.union(FORMATS)


def _keep_terms(rule: _Rule, values: Values, context: _Context) -> Values | None:
    """Keep the values that are in the vocabulary, each in its place."""
    kept = [text if _allows(rule.keyword, rule.vr, text) else "" for text in values]
    return kept if any(kept) else None


@lru_cache(maxsize=4096)
def _allows(keyword: str, vr: str, text: str) -> bool:
    return vocabulary().allows(keyword, vr, text)


def _keep_numbers(rule: _Rule, values: Values, context: _Context) -> Values | None:
    return values


def _keep_decimals(rule: _Rule, values: Values, context: _Context) -> Values | None:
    if not all(text == "" or NUMBER.fullmatch(text) for text in values):
        return None
    numbers = [float(text) if text else None for text in values]
    return numbers if all(n is None or math.isfinite(n) for n in numbers) else None


def _keep_integers(rule: _Rule, values: Values, context: _Context) -> Values | None:
    if not all(text == "" or INTEGER.fullmatch(text) for text in values):
        return None
    numbers = [int(text) if text else None for text in values]
    return numbers if all(n is None or abs(n) <= 2**31 for n in numbers) else None


def _replace_uids(rule: _Rule, values: Values, context: _Context) -> Values | None:
    return [replace_uid(text, context.key) if text else "" for text in values]


def _shift_dates(rule: _Rule, values: Values, context: _Context) -> Values | None:
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


def _shift_datetimes(rule: _Rule, values: Values, context: _Context) -> Values | None:
    shifted = [_shift_datetime(text, context.shift_days) for text in values]
    return None if None in shifted else shifted


def _shift_datetime(text: str, days: int) -> str | None:
    """Shift by whole days; the time, its fraction and the UTC offset stay as written.

    The offset may bring the instant to another day, not the interval to another length.
    """
    match = DATE_TIME.fullmatch(text)
    moved = _shift_date(match[1], days) if match else None
    return None if match is None or moved is None else moved + text[8:]


def _keep_times(rule: _Rule, values: Values, context: _Context) -> Values | None:
    return values if all(TIME.fullmatch(text) for text in values) else None


def _cap_ages(rule: _Rule, values: Values, context: _Context) -> Values | None:
    """Keep ages up to 89 years; older ones become 89."""
    matches = [AGE.fullmatch(text) for text in values]
    if not all(matches):
        return None
    years = {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}
    old = [match and int(match[1]) / years[match[2]] > 89 for match in matches]
    return ["089Y" if o else t for o, t in zip(old, values, strict=True)]


def _patient(rule: _Rule, values: Values, context: _Context) -> Values | None:
    return [patient_pseudonym(context.identity, context.key)]


def _accession(rule: _Rule, values: Values, context: _Context) -> Values | None:
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


def _with_code(dataset: Dataset, kept: _Elements) -> _Elements:
    """Return `kept` with the code of an item if it is public; else nothing.

    The meaning is looked up in pydicom's dictionaries of codes, never copied.
    """
    tag = CODE_VALUE if CODE_VALUE in dataset else LONG_CODE_VALUE
    read = [_values(e, "SH", signed=False) for e in _code_elements(dataset, tag)]
    texts = [pair[1][0] for pair in read if pair and len(pair[1]) == 1]
    if len(texts) != 2 or not _is_public_code(*texts):
        return {}
    added = {tag: texts[0], CODE_SCHEME: texts[1], CODE_MEANING: _meaning(*texts)}
    vrs = {CODE_VALUE: "SH", LONG_CODE_VALUE: "UC", CODE_SCHEME: "SH"}
    codes = {t: _element(Tag(t), vrs.get(t, "LO"), [v]) for t, v in added.items() if v}
    return {**kept, **{Tag(t): element for t, element in codes.items()}}


def _code_elements(dataset: Dataset, tag: int) -> list[Any]:
    tags = (tag, CODE_SCHEME)
    return [dataset.get_item(tag) for tag in tags if tag in dataset]


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


def _meaning(value: str, scheme: str) -> str:
    known = _meanings()
    if scheme in SNOMED_RT:
        return known.get(("SCT", snomed["SRT"].get(value, "")), "")
    return known.get((scheme, value), "")


def _is_public_code(value: str, scheme: str) -> bool:
    if scheme in SNOMED_RT:
        return value in snomed["SRT"]
    return (scheme, value) in _meanings()


def _mark(cleaned: Dataset, policy: Policy, context: _Context) -> Dataset:
    """Say what was done (PS3.15 E.1.1, PS3.3 C.7.1.1 and C.12.1)."""
    for tag in (PATIENT_ID, 0x00100010):
        vr = "LO" if tag == PATIENT_ID else "PN"
        cleaned[tag] = _element(
            Tag(tag), vr, [patient_pseudonym(context.identity, context.key)]
        )
    cleaned.PatientIdentityRemoved = "YES"
    cleaned.DeidentificationMethod = f"dicomdask, policy {policy.name}"
    cleaned.DeidentificationMethodCodeSequence = [_code(*c) for c in policy.codes]
    cleaned.LongitudinalTemporalInformationModified = _temporal(policy)
    return cleaned


def _temporal(policy: Policy) -> str:
    if MODIFIED_DATES in policy.options:
        return "MODIFIED"
    return "UNMODIFIED" if FULL_DATES in policy.options else "REMOVED"


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = value, "DCM"
    item.CodeMeaning = meaning
    return item


def _copy(dataset: Dataset) -> Dataset:
    """Return everything but pixels and bulk binary, as it is (policy `none`)."""
    kept: _Elements = {}
    encoding = dataset.original_character_set or default_encoding
    for tag in sorted(dataset.keys()):
        if tag.group in PIXEL_GROUPS or tag.group < 8 or tag.element == 0:
            continue
        element: Any = _copy_element(dataset, tag, encoding)
        if element is not None:
            kept[tag] = element
    return Dataset(kept)


def _copy_element(dataset: Dataset, tag: BaseTag, encoding: Any) -> DataElement | None:
    element: Any = dataset.get_item(tag)
    try:
        if isinstance(element, RawDataElement):
            element = convert_raw_data_element(element, encoding=encoding, ds=dataset)
        if element.VR == "SQ":
            return DataElement(tag, "SQ", Sequence(_copy(i) for i in element.value))
        bulk = element.VR in BULK_VRS or isinstance(element.value, bytes)
        return None if bulk else _element_as_is(tag, element)
    except Exception:  # noqa: BLE001 -- hostile bytes raise anything, with values in it
        return None


def _element_as_is(tag: BaseTag, element: DataElement) -> DataElement:
    return DataElement(tag, element.VR, element.value, already_converted=True)


def _json_element(element: Any) -> dict[str, Any] | None:
    vr, value = element.VR, element.value
    if vr in BULK_VRS or isinstance(value, bytes):
        return None
    if vr == "SQ":
        return {"vr": vr, "Value": [header_json(item) for item in value]}
    parts = value if isinstance(value, MultiValue | list | tuple) else [value]
    try:
        values = [_json_value(vr, part) for part in parts]
    except (TypeError, ValueError, OverflowError):  # only with policy none
        return None
    return {"vr": vr} if values in ([], [None]) else {"vr": vr, "Value": values}


def _json_value(vr: str, value: Any) -> Any:
    if value is None or value == "":
        return None
    if vr in {"DS", "FL", "FD"}:
        number = float(value)
        return number if math.isfinite(number) else None
    if vr == "PN":
        return _json_name(str(value))
    if vr == "AT":
        return f"{int(value):08X}"
    return int(value) if isinstance(value, int) or vr == "IS" else str(value)


def _json_name(text: str) -> dict[str, str]:
    names = ("Alphabetic", "Ideographic", "Phonetic")
    return {n: part for n, part in zip(names, text.split("="), strict=False) if part}
