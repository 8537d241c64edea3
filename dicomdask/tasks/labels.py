"""Labels: a cell becomes what a header's element of its keyword becomes.

The values go through the very functions that a header goes through; nothing here knows
what a pseudonym is. What stays open is which patient a row means: pseudonyms depend on
IssuerOfPatientID, which tables of labels rarely have, so it is looked up in the index.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from pydicom.datadict import dictionary_VR, tag_for_keyword

from dicomdask import deid, rows, tables
from dicomdask.deid.values import PADDING
from dicomdask.errors import InputError, OptionError
from dicomdask.policy import DATE_VRS, MODIFIED_DATES, Policy
from dicomdask.pseudonym import Key
from dicomdask.tasks.barrier import guard
from dicomdask.work import Work

PATIENT: Final = "PatientID"
ISSUER: Final = "IssuerOfPatientID"
STUDY: Final = "StudyInstanceUID"
ISO_DATE: Final = re.compile(r"(\d{4})-(\d{2})-(\d{2})", re.A)
JOINABLE: Final = tuple(sorted(name for name in rows.TAGS if tables.is_text(name)))
"""The DICOM attributes that are columns of text in the dataset's tables."""


def check_keywords(keywords: Iterable[str], policy: Policy) -> None:
    """Check that each keyword can be joined on under a policy, or raise OptionError."""
    found = list(keywords)
    for keyword in found:
        _check_keyword(keyword, policy)
    if ISSUER in found and PATIENT not in found:
        raise OptionError(f"{ISSUER} says whose {PATIENT} it is; name that column too")
    moving = [keyword for keyword in found if is_shifted(keyword, policy)]
    if moving and PATIENT not in found:
        raise OptionError(
            f"{', '.join(moving)}: dates are shifted per patient under the policy "
            f"{policy.name}, so --columns must name {PATIENT} too"
        )


def _check_keyword(keyword: str, policy: Policy) -> None:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise OptionError(
            f"{keyword} is no keyword of DICOM; write the keyword first, as in "
            f"--columns {PATIENT}=NAME, and choose among {', '.join(JOINABLE)}"
        )
    if keyword == ISSUER:
        return
    action = policy.action(tag, dictionary_VR(tag), private=False)
    if action in {"X", "Z"}:
        raise OptionError(
            f"the policy {policy.name} removes {keyword}, so nothing can be joined on "
            "it; leave it out of --columns"
        )
    if keyword not in JOINABLE:
        raise OptionError(
            f"{keyword} is no column of text in the dataset's tables; choose among "
            f"{', '.join(JOINABLE)}"
        )


def is_shifted(keyword: str, policy: Policy) -> bool:
    """Return whether what becomes of a keyword depends on the patient."""
    is_date = dictionary_VR(keyword) in DATE_VRS
    return is_date and policy.name != "none" and MODIFIED_DATES in policy.options


@dataclass(frozen=True, slots=True)
class Issuers:
    """Which issuers the index knows for a PatientID, and in which study; identified."""

    of_patient: Mapping[str, frozenset[str]]
    of_study: Mapping[tuple[str, str], frozenset[str]]

    def find(self, patient_id: str, study_instance_uid: str) -> str | None:
        """Return the issuer of a PatientID, empty without one; None where unclear."""
        patient = _plain(patient_id)
        found = self.of_patient.get(patient, frozenset({""}))
        if len(found) > 1:
            found = self.of_study.get((patient, _plain(study_instance_uid)), found)
        return next(iter(found)) if len(found) == 1 else None


def read_issuers(work: Work) -> Issuers:
    """Return the issuers that stand in the index of a work directory."""
    patients: dict[str, set[str]] = defaultdict(set)
    for one in work.read_patients():
        patients[_plain(one.patient_id)].add(_plain(one.issuer_of_patient_id))
    studies: dict[tuple[str, str], set[str]] = defaultdict(set)
    several = {patient for patient, found in patients.items() if len(found) > 1}
    for one in work.read_patients() if several else ():
        patient = _plain(one.patient_id)
        if patient in several:
            study = (patient, _plain(one.study_instance_uid))
            studies[study].add(_plain(one.issuer_of_patient_id))
    return Issuers(
        {patient: frozenset(found) for patient, found in patients.items()},
        {study: frozenset(found) for study, found in studies.items()},
    )


def _plain(text: str | None) -> str:
    return "\\".join(part.strip(PADDING) for part in (text or "").split("\\"))


@dataclass(frozen=True, slots=True)
class Cleaner:
    """What the cleaning of rows needs to know.

    Parameters
    ----------
    policy, key
        Those of the dataset.
    issuers
        Where the issuer of a PatientID is looked up; None if rows say it, or if it
        does not matter.
    """

    policy: Policy
    key: Key
    issuers: Issuers | None = None

    def clean(self, cells: Mapping[str, str]) -> dict[str, str | None]:
        """Return what stands in the dataset's tables for the cells of one row.

        Parameters
        ----------
        cells
            Text by DICOM keyword; identified.

        Returns
        -------
        dict
            Text by keyword, without the issuer. An empty cell stays empty; None is
            what was left out: a value that the policy does not let pass, or of which
            it is unclear what patient it belongs to.
        """
        wanted = [keyword for keyword in cells if keyword != ISSUER]
        values = self._with_issuer(
            {keyword: _dicom_date(keyword, cell) for keyword, cell in cells.items()}
        )
        try:
            header = guard(self._header, values)
        except InputError:
            header = {}
        return {
            keyword: (keyword in values and rows.attribute(header, keyword)) or None
            if _plain(cells[keyword])
            else ""
            for keyword in wanted
        }

    def _header(self, values: Mapping[str, str]) -> rows.Header:
        header = deid.to_header(values)
        return deid.header_json(deid.clean_header(header, self.policy, self.key))

    def _with_issuer(self, cells: dict[str, str]) -> dict[str, str]:
        """Add the issuer; leave out what depends on a patient who is not known."""
        known = bool(_plain(cells.get(PATIENT)))
        if known and self.issuers is not None:
            issuer = self.issuers.find(cells[PATIENT], cells.get(STUDY, ""))
            if issuer is not None:
                return cells | {ISSUER: issuer}
            known = False
        if known:
            return cells
        return {
            keyword: cell
            for keyword, cell in cells.items()
            if keyword != PATIENT and not is_shifted(keyword, self.policy)
        }


def _dicom_date(keyword: str, cell: str) -> str:
    """Write 2024-05-31, as other tools do, the way DICOM does."""
    if dictionary_VR(keyword) != "DA":
        return cell
    return ISO_DATE.sub(r"\1\2\3", cell)
