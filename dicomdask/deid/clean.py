"""The walk over a header: removed elements are not even looked at.

A kept element has to prove that it is harmless: numbers are numbers, UIDs are replaced,
dates are shifted, and text is in the vocabulary. What cannot prove it, damaged values
included, is removed. No message holds a value, and no exception carries another.
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Any, Final

from pydicom import DataElement, Dataset
from pydicom.charset import default_encoding
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag
from pydicom.values import convert_SQ

from dicomdask.deid.codes import is_public_code, meaning
from dicomdask.deid.document import BULK_VRS
from dicomdask.deid.dummies import code_stand_in, stand_in
from dicomdask.deid.elements import decoded, decoded_values, make_element
from dicomdask.deid.icc import clean_profile
from dicomdask.deid.lookup import clean_table
from dicomdask.deid.private import clean_private
from dicomdask.deid.rules import (
    Context,
    Rule,
    cleans_text,
    patient_pseudonym,
    private_rules,
    rules_of,
)
from dicomdask.deid.values import Values, read_values
from dicomdask.deid.words import identity_words
from dicomdask.errors import InputError
from dicomdask.policy import FULL_DATES, MODIFIED_DATES, Policy, patient_identity
from dicomdask.pseudonym import Key

MAX_DEPTH: Final = 16

PATIENT_ID: Final = 0x00100020
ISSUER: Final = 0x00100021
STUDY_UID: Final = 0x0020000D
PIXEL_REPRESENTATION: Final = 0x00280103
PER_FRAME: Final = 0x52009230
"""Its items are those of frames, by their order, so none of them is dropped."""
CODE_VALUE, CODE_SCHEME, CODE_MEANING = 0x00080100, 0x00080102, 0x00080104
LONG_CODE_VALUE: Final = 0x00080119
CODE_TAGS: Final = frozenset({CODE_VALUE, LONG_CODE_VALUE, CODE_SCHEME, CODE_MEANING})
NAMING: Final = tuple(
    tag_for_keyword(keyword) or 0
    for keyword in (
        *("PatientName", "PatientID", "OtherPatientIDs", "OtherPatientNames"),
        *("PatientBirthName", "PatientMotherBirthName", "ResponsiblePerson"),
        *("PatientAddress", "PatientTelephoneNumbers", "MedicalRecordLocator"),
        *("ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName"),
        *("NameOfPhysiciansReadingStudy", "PhysiciansOfRecord", "StationName"),
        *("RequestingPhysician", "ConsultingPhysicianName", "AccessionNumber"),
        *("InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName"),
        *("StudyID", "ReferringPhysicianAddress", "CurrentPatientLocation"),
    )
)
"""Whose words go from every text that is cleaned."""
PIXEL_GROUPS: Final = frozenset({0x7FE0, 0x7F00, 0x7FE1})

_Elements = dict[BaseTag, DataElement | RawDataElement]


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


def _clean_or_none(dataset: Dataset, policy: Policy, key: Key) -> Dataset | None:
    try:
        if policy.name == "none":
            return _copy(dataset)
        context = context_of(dataset, policy, key)
        return mark(clean_level(dataset, context), policy, context)
    except Exception:  # noqa: BLE001 -- hostile bytes raise anything, with values in it
        return None


def context_of(dataset: Dataset, policy: Policy, key: Key) -> Context:
    """Return what the cleaning of one instance needs to know."""
    issuer, study = (decoded(dataset, tag) for tag in (ISSUER, STUDY_UID))
    identity = patient_identity(decoded(dataset, PATIENT_ID), issuer, study)
    shift = 0 if FULL_DATES in policy.options else key.shift_days(identity)
    signed = _is_signed(dataset)
    names = _names(dataset) if cleans_text(policy) else frozenset[str]()
    return Context(
        *(key, rules_of(policy), identity, issuer, study, shift, signed),
        private=private_rules(policy),
        names=names,
    )


def _names(dataset: Dataset) -> frozenset[str]:
    """Return the words that name people, places and numbers at the top of a header."""
    return identity_words(decoded(dataset, tag) for tag in NAMING if tag in dataset)


def _is_signed(dataset: Dataset) -> bool:
    element = dataset.get_item(PIXEL_REPRESENTATION)
    return bool(element) and read_values(element, "US", signed=False) == ("US", [1])


def clean_level(dataset: Dataset, context: Context) -> Dataset:
    """Return the elements of one level that stay."""
    kept: _Elements = {}
    rules = context.rules
    for tag in sorted(dataset.keys(), key=int):
        rule = rules.get(int(tag))
        element = None
        if rule is not None and int(tag) not in CODE_TAGS:
            element = clean_element(dataset, tag, rule, context)
        if element is None and int(tag) in context.stand_ins:
            element = stand_in(tag, is_empty=context.stand_ins[int(tag)] == "2")
        if element is not None:
            kept[tag] = element
    if context.private:
        for element in clean_private(dataset, context, clean_sequence):
            kept[element.tag] = element
    if context.depth and (CODE_VALUE in dataset or LONG_CODE_VALUE in dataset):
        kept = _with_code(dataset, kept, is_required=context.is_required)
    return Dataset(kept)


def clean_element(
    dataset: Dataset, tag: BaseTag, rule: Rule, context: Context
) -> DataElement | None:
    """Return what stays of one element, by its rule; None if nothing does."""
    if rule.action == "Z":
        return None if rule.vr == "SQ" else make_element(tag, rule.vr, [])
    if rule.vr == "SQ":
        return clean_sequence(dataset, tag, context)
    if rule.is_bulk:
        is_profile = rule.keyword == "ICCProfile"
        clean = clean_profile if is_profile else clean_table
        return clean(dataset, tag, rule.keyword)
    if rule.action == "D":
        return _pseudonym(dataset, tag, rule, context)
    read = _read(dataset, tag, rule, context)
    if read is None:
        return None
    vr, values = read
    cleaned = rule.clean(rule, values, context) if values else values
    return None if cleaned is None else make_element(tag, vr, cleaned)


def _read(
    dataset: Dataset, tag: BaseTag, rule: Rule, context: Context
) -> tuple[str, Values] | None:
    if not rule.is_text:
        return read_values(dataset.get_item(tag), rule.vr, signed=context.signed)
    texts = decoded_values(dataset, tag, rule.vr)
    return None if texts is None else (rule.vr, texts)


def _pseudonym(
    dataset: Dataset, tag: BaseTag, rule: Rule, context: Context
) -> DataElement:
    if context.depth and int(tag) == PATIENT_ID:
        issuer = decoded(dataset, ISSUER) or context.issuer
        identity = patient_identity(decoded(dataset, tag), issuer, context.study)
        context = replace(context, identity=identity)
    text = decoded(dataset, tag) if rule.keyword == "AccessionNumber" else ""
    return make_element(tag, rule.vr, rule.clean(rule, [text], context) or [])


def clean_sequence(
    dataset: Dataset, tag: BaseTag, context: Context
) -> DataElement | None:
    """Return a sequence with its items cleaned; None if nothing of it remains."""
    if context.depth >= MAX_DEPTH:
        return None
    is_required = context.stand_ins.get(int(tag)) == "1"
    inner = replace(context, depth=context.depth + 1, is_required=is_required)
    items = list(items_of(dataset.get_item(tag), dataset))
    if context.is_for_files and not items:
        return DataElement(tag, "SQ", Sequence())
    pairs = [(item, clean_level(item, inner)) for item in items]
    keeps_all = is_required or int(tag) == PER_FRAME
    if not keeps_all and not any(len(cleaned) for _, cleaned in pairs):
        return None
    kept = [
        cleaned
        for item, cleaned in pairs
        if len(cleaned)
        or keeps_all
        or (context.is_for_files and CODE_VALUE not in item)
    ]
    return DataElement(tag, "SQ", Sequence(kept)) if kept else None


def items_of(element: Any, dataset: Dataset) -> Iterable[Dataset]:
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


def _with_code(dataset: Dataset, kept: _Elements, *, is_required: bool) -> _Elements:
    """Return `kept` with the code of an item if it is public; else nothing.

    The meaning is looked up in pydicom's dictionaries of codes, never copied. Where an
    item is required, a code that says nothing stands in.
    """
    tag = CODE_VALUE if CODE_VALUE in dataset else LONG_CODE_VALUE
    read = [read_values(e, "SH", signed=False) for e in _code_elements(dataset, tag)]
    texts = [pair[1][0] for pair in read if pair and len(pair[1]) == 1]
    if len(texts) != 2 or not is_public_code(*texts):
        return {**code_stand_in()} if is_required else {}
    added = {tag: texts[0], CODE_SCHEME: texts[1], CODE_MEANING: meaning(*texts)}
    vrs = {CODE_VALUE: "SH", LONG_CODE_VALUE: "UC", CODE_SCHEME: "SH"}
    codes = {
        t: make_element(Tag(t), vrs.get(t, "LO"), [v]) for t, v in added.items() if v
    }
    return {**kept, **{Tag(t): element for t, element in codes.items()}}


def _code_elements(dataset: Dataset, tag: int) -> list[Any]:
    tags = (tag, CODE_SCHEME)
    return [dataset.get_item(tag) for tag in tags if tag in dataset]


def mark(cleaned: Dataset, policy: Policy, context: Context) -> Dataset:
    """Say what was done (PS3.15 E.1.1, PS3.3 C.7.1.1 and C.12.1)."""
    for tag in (PATIENT_ID, 0x00100010):
        vr = "LO" if tag == PATIENT_ID else "PN"
        cleaned[tag] = make_element(
            Tag(tag), vr, [patient_pseudonym(context.identity, context.key)]
        )
    for element in _marks(policy):
        cleaned[element.tag] = element
    return cleaned


@cache
def _marks(policy: Policy) -> tuple[DataElement, ...]:
    """Return the elements that say by which policy a header was cleaned."""
    marks = Dataset()
    marks.PatientIdentityRemoved = "YES"
    marks.DeidentificationMethod = f"dicomdask, policy {policy.name}"
    marks.DeidentificationMethodCodeSequence = [_code(*c) for c in policy.codes]
    marks.LongitudinalTemporalInformationModified = _temporal(policy)
    return tuple(marks)


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
