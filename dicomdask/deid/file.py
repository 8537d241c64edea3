"""A whole DICOM file: identified in, de-identified out, or nothing."""

from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, Final

from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileDataset
from pydicom.tag import Tag
from pydicom.uid import UID

from dicomdask.deid.clean import PATIENT_ID, clean_level, context_of, mark
from dicomdask.deid.dummies import stand_ins
from dicomdask.deid.elements import decoded, make_element
from dicomdask.deid.pixeldata import clean_pixels
from dicomdask.deid.rules import file_rules
from dicomdask.deid.written import write_file
from dicomdask.errors import InputError
from dicomdask.policy import Policy
from dicomdask.pseudonym import Key

CHARACTER_SET: Final = Tag(0x00080005)
UNDEFINED: Final = 0xFFFFFFFF
PIXEL_GROUP: Final = 0x7FE0
UIDS: Final = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


@dataclass(frozen=True, slots=True)
class CleanedFile:
    """A de-identified file; `path` is made of its pseudonym and its new UIDs.

    `pixels` are the bytes of the pixel element as it is written; empty where there is
    none. `patient_id` and the keys of `uids` are identified; `uids` is empty where it
    was not asked for.
    """

    data: bytes
    path: str
    pixels: bytes
    patient_id: str
    pseudonym: str
    uids: dict[str, str]


def clean_file(
    dataset: FileDataset, policy: Policy, key: Key, *, crosswalk: bool = False
) -> CleanedFile:
    """Return the de-identified file of a dataset; the dataset is not changed.

    The preamble is zero, the file meta is made anew, and what the standard requires
    and may not stay is empty or a value that says nothing.

    Parameters
    ----------
    dataset
        A whole file as `header.read_dataset` reads it.
    policy
        What to remove, replace and keep; not `none`.
    key
        The key of pseudonyms, UIDs and date shifts.
    crosswalk
        Whether to tell which UID was replaced by which.

    Raises
    ------
    InputError
        With the codes of `clean_pixels`, ``missing-uid``, or ``deid-failed`` if
        anything goes wrong.
    """
    found = _clean_or_code(dataset, policy, key, crosswalk)
    if not isinstance(found, CleanedFile):
        raise InputError(found)  # raised here so that it has no context
    return found


def _clean_or_code(
    dataset: FileDataset, policy: Policy, key: Key, crosswalk: bool
) -> CleanedFile | str:
    try:
        return _clean_file(dataset, policy, key, crosswalk)
    except InputError as error:
        return error.code
    except Exception:  # noqa: BLE001 -- hostile bytes raise anything, with values in it
        return "deid-failed"


def _clean_file(
    dataset: FileDataset, policy: Policy, key: Key, crosswalk: bool
) -> CleanedFile:
    if policy.name == "none":
        raise InputError("deid-failed")
    before = takewhile(_is_before_pixels, dataset.values())
    if any(map(_is_cut, before)):
        raise InputError("truncated")
    context = replace(
        context_of(dataset, policy, key),
        rules=file_rules(policy),
        stand_ins=stand_ins(policy),
        uids={} if crosswalk else None,
    )
    cleaned = mark(clean_level(dataset, context), policy, context)
    cleaned[CHARACTER_SET] = make_element(CHARACTER_SET, "CS", ["ISO_IR 192"])
    path = _path(cleaned)
    pixels, syntax = clean_pixels(dataset)
    if pixels is not None:
        cleaned[pixels.tag] = pixels
    return CleanedFile(
        data=write_file(cleaned, syntax),
        path=path,
        pixels=b"" if pixels is None else pixels.value,
        patient_id=decoded(dataset, PATIENT_ID),
        pseudonym=str(cleaned.PatientID),
        uids=context.uids or {},
    )


def _is_cut(element: Any) -> bool:
    """Tell whether a value is shorter than its length says: the file is cut off."""
    if not isinstance(element, RawDataElement) or element.length == UNDEFINED:
        return False
    return isinstance(element.value, bytes) and len(element.value) < element.length


def _is_before_pixels(element: Any) -> bool:
    """Tell what stands in front of the pixels; what follows them is dropped anyway."""
    return bool(element.tag.group != PIXEL_GROUP)


def _path(cleaned: Dataset) -> str:
    """Return where a file goes: below its patient, study and series."""
    uids = [str(cleaned.get(keyword) or "") for keyword in UIDS]
    if not all(UID(uid).is_valid for uid in uids) or not cleaned.get("SOPClassUID"):
        raise InputError("missing-uid")
    study, series, instance = uids
    return f"{cleaned.PatientID}/{study}/{series}/{instance}.dcm"
