"""A whole DICOM file: identified in, de-identified out, or nothing."""

import hashlib
import io
from dataclasses import dataclass, replace
from typing import Any, Final

from pydicom import Dataset, FileMetaDataset, dcmwrite
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileDataset
from pydicom.uid import UID

from dicomdask.deid.clean import PATIENT_ID, clean_level, context_of, mark
from dicomdask.deid.dummies import stand_ins
from dicomdask.deid.elements import decoded
from dicomdask.deid.pixeldata import clean_pixels
from dicomdask.deid.rules import file_rules
from dicomdask.errors import InputError
from dicomdask.policy import Policy
from dicomdask.pseudonym import Key

IMPLEMENTATION_UID: Final = UID("2.25.141842913702873416853107104711432471621")
IMPLEMENTATION_NAME: Final = "DICOMDASK"
UNDEFINED: Final = 0xFFFFFFFF
UIDS: Final = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


@dataclass(frozen=True, slots=True)
class CleanedFile:
    """A de-identified file; `path` is made of its pseudonym and its new UIDs.

    `pixel_digest` is that of the pixels as they are written; empty where there are
    none. `patient_id` and the keys of `uids` are identified; `uids` is empty where it
    was not asked for.
    """

    data: bytes
    path: str
    pixel_digest: str
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
    if any(map(_is_cut, map(dataset.get_item, dataset.keys()))):
        raise InputError("truncated")
    context = replace(
        context_of(dataset, policy, key),
        rules=file_rules(policy),
        stand_ins=stand_ins(policy),
        uids={} if crosswalk else None,
    )
    cleaned = mark(clean_level(dataset, context), policy, context)
    cleaned.SpecificCharacterSet = "ISO_IR 192"
    path = _path(cleaned)
    pixels, syntax = clean_pixels(dataset)
    digest = ""
    if pixels is not None:
        cleaned[pixels.tag] = pixels
        digest = hashlib.blake2b(pixels.value, digest_size=16).hexdigest()
    return CleanedFile(
        data=_written(cleaned, syntax),
        path=path,
        pixel_digest=digest,
        patient_id=decoded(dataset, PATIENT_ID),
        pseudonym=str(cleaned.PatientID),
        uids=context.uids or {},
    )


def _is_cut(element: Any) -> bool:
    """Tell whether a value is shorter than its length says: the file is cut off."""
    length = getattr(element, "length", UNDEFINED)
    value = element.value
    return (
        isinstance(element, RawDataElement)
        and length != UNDEFINED
        and isinstance(value, bytes)
        and len(value) < length
    )


def _path(cleaned: Dataset) -> str:
    """Return where a file goes: below its patient, study and series."""
    uids = [str(cleaned.get(keyword) or "") for keyword in UIDS]
    if not all(UID(uid).is_valid for uid in uids) or not cleaned.get("SOPClassUID"):
        raise InputError("missing-uid")
    study, series, instance = uids
    return f"{cleaned.PatientID}/{study}/{series}/{instance}.dcm"


def _written(cleaned: Dataset, syntax: UID) -> bytes:
    cleaned.file_meta = FileMetaDataset()
    cleaned.file_meta.MediaStorageSOPClassUID = cleaned.SOPClassUID
    cleaned.file_meta.MediaStorageSOPInstanceUID = cleaned.SOPInstanceUID
    cleaned.file_meta.TransferSyntaxUID = syntax
    cleaned.file_meta.ImplementationClassUID = IMPLEMENTATION_UID
    cleaned.file_meta.ImplementationVersionName = IMPLEMENTATION_NAME
    cleaned.preamble = bytes(128)
    buffer = io.BytesIO()
    dcmwrite(buffer, cleaned, enforce_file_format=True)
    return buffer.getvalue()
