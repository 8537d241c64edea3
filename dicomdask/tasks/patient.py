"""Find what belongs to a patient, in the tables of a store and in a work directory.

Everything here is identified. Nothing of it leaves the process but counts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from dicomdask import plan, storage, tables
from dicomdask.deid import patient_pseudonym
from dicomdask.deid.values import PADDING
from dicomdask.errors import ReadError
from dicomdask.model import Instance, SourceFile
from dicomdask.policy import patient_identity
from dicomdask.pseudonym import Key
from dicomdask.tasks.barrier import quiet
from dicomdask.tasks.forgotten import (
    Person,
    number_digest,
    person_of,
    pseudonym_digest,
    read_person,
)
from dicomdask.work import Work

NO_PATIENT: Final = frozenset({"not-dicom", "empty-file", "archive"})
"""Codes of files in whose header nobody is named."""

COLUMNS: Final = {
    "volumes": (
        *("volume_id", "series_key", "PatientID"),
        *("StudyInstanceUID", "SeriesInstanceUID"),
    ),
    "instances": ("volume_id", "series_key", "source_key", "PatientID"),
    "frames": ("volume_id", "series_key", "source_key"),
    "inputs": ("source_key",),
    "fingerprints": ("volume_id", "series_key"),
}

Row = Mapping[str, Any]


@dataclass(slots=True)
class Patient:
    """One patient as the user named them, and all that was found of them.

    Parameters
    ----------
    value
        A PatientID, or what stands in PatientID of the tables.
    issuer
        Whose PatientID; None: anybody's.
    """

    value: str
    issuer: str | None
    key: Key
    by_number: bool = False
    by_pseudonym: bool = False
    pseudonyms: set[str] = field(default_factory=set)
    series: set[str] = field(default_factory=set)
    sources: set[str] = field(default_factory=set)
    volumes: set[str] = field(default_factory=set)
    tasks: set[str] = field(default_factory=set)
    urls: set[str] = field(default_factory=set)
    instance_uids: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.value = self.value.strip(PADDING)
        identity = patient_identity(self.value, self.issuer, "")
        self.pseudonyms.add(patient_pseudonym(identity, self.key))

    @property
    def digests(self) -> set[str]:
        """Return what later runs are to know the patient by."""
        found: set[str] = set()
        if self.by_pseudonym:
            found.add(pseudonym_digest(self.value, self.key))
        if self.by_number or not self.by_pseudonym:
            found.add(self._own_digest())
        return found

    def _own_digest(self) -> str:
        if self.issuer is None:
            return number_digest(self.value, self.key)
        identity = patient_identity(self.value, self.issuer, "")
        return pseudonym_digest(patient_pseudonym(identity, self.key), self.key)

    @property
    def all_digests(self) -> set[str]:
        """Return all that the patient may have been forgotten under."""
        of_value = pseudonym_digest(self.value, self.key)
        of_number = {pseudonym_digest(one, self.key) for one in self.pseudonyms}
        return {self._own_digest(), of_value} | of_number

    def is_person(self, person: Person) -> bool:
        """Return whether a header names this patient, and remember by what."""
        number = (person.patient_id or "").strip(PADDING)
        issuer = (person.issuer_of_patient_id or "").strip("\0 ")
        wanted = self.issuer if self.issuer is None else self.issuer.strip("\0 ")
        same_number = bool(number) and number == self.value
        by_number = same_number and wanted in (None, issuer)
        pseudonym = person.pseudonym(self.key)
        by_pseudonym = pseudonym == self.value
        self.by_number |= by_number
        self.by_pseudonym |= by_pseudonym
        if by_number or by_pseudonym:
            self.pseudonyms.add(pseudonym)
        return by_number or by_pseudonym

    def is_row(self, row: Row, *, is_identified: bool) -> bool:
        """Return whether a row of a table is this patient's, and remember by what.

        Parameters
        ----------
        is_identified
            Whether the tables hold what the headers said: policy none.
        """
        if row["series_key"] in self.series:
            return True
        found = (row["PatientID"] or "").strip(PADDING)
        if is_identified:
            by_number = found == self.value and self._is_issuer(row)
            self.by_number |= by_number
            return by_number
        is_own = found == self.value
        self.by_pseudonym |= is_own
        self.by_number |= not is_own and found in self.pseudonyms
        return is_own or found in self.pseudonyms

    def _is_issuer(self, row: Row) -> bool:
        """Return whether a row's patient has the issuer, which it does not hold."""
        if self.issuer is None:
            return True
        if "StudyInstanceUID" not in row:
            return False
        study, series = row["StudyInstanceUID"], row["SeriesInstanceUID"]
        identity = patient_identity(self.value, self.issuer, study)
        return bool(
            row["series_key"] == self.key.digest("series", identity, study, series)
        )


# --- in a work directory ------------------------------------------------------


def search_index(work: Work, patients: Sequence[Patient]) -> int:
    """Look for the patients in the index, and in headers that are not in it.

    Returns
    -------
    int
        How many files there are of which nobody can tell whose they are: they hold no
        image, and cannot be read any more.
    """
    seen: dict[Person, list[Patient]] = {}
    indexed: set[str] = set()
    for bucket in work.bucket_names():
        for instance in work.read_bucket(bucket):
            indexed.add(instance.url)
            person = person_of(instance)
            if person not in seen:
                seen[person] = [one for one in patients if one.is_person(person)]
            for patient in seen[person]:
                _note_instance(patient, instance)
    return _search_others(work, patients, indexed)


def _note_instance(patient: Patient, instance: Instance) -> None:
    patient.series.add(plan.series_key(instance, patient.key))
    patient.sources.add(plan.source_key(instance.url, patient.key))
    patient.urls.add(instance.url)
    patient.instance_uids.add(instance.sop_instance_uid)


def _search_others(work: Work, patients: Sequence[Patient], indexed: set[str]) -> int:
    key = patients[0].key
    codes = {
        one.source_key: one.code
        for part in work.manifest_parts()
        for one in work.read_outcomes(part)
    }
    n_unknown = 0
    with quiet():
        for file in _newest_files(work):
            if file.url in indexed:
                continue
            name = plan.source_key(file.url, key)
            if codes.get(name) in NO_PATIENT:
                continue
            person = read_person(file)
            n_unknown += person is None and file.size > 0
            for patient in patients:
                if person is not None and patient.is_person(person):
                    patient.sources.add(name)
                    patient.urls.add(file.url)
    return n_unknown


def search_tasks(work: Work, patients: Sequence[Patient]) -> None:
    """Look for what was planned or encoded of the patients, committed or not.

    Rows are read only of tasks that are in the plan no more.
    """
    key = patients[0].key
    others: set[str] = set()
    for _, part in work.read_plans():
        for volume in part.volumes:
            tasks = {
                plan.task_digest(volume, t, key) for t in plan.volume_tasks(volume)
            }
            mine = [one for one in patients if volume.series_key in one.series]
            for patient in mine:
                patient.tasks |= tasks
                patient.volumes.add(volume.volume_id)
            others |= tasks
    for listed in storage.list_below(work.path("parts")):
        task = listed.name.rsplit("/", 1)[-1].removesuffix(".parquet")
        if task[:1] != "." and task not in others:
            _search_task(work, task, patients)


def _search_task(work: Work, task: str, patients: Sequence[Patient]) -> None:
    try:
        data = storage.read(work.part_url(task))
        [part] = tables.from_parquet(data, ["volume"]).to_pylist()
    except (FileNotFoundError, ReadError, ValueError):
        return
    volume = part["volume"]
    for patient in patients:
        if volume["series_key"] in patient.series:
            patient.tasks.add(task)
            patient.volumes.add(volume["volume_id"])


def _newest_files(work: Work) -> Iterator[SourceFile]:
    changed = work.read_changed()
    for part in work.manifest_parts():
        for file in work.read_manifest(part):
            yield changed.get(file.url, file)


# --- in the tables of a store -------------------------------------------------


def list_parts(store: str) -> list[str]:
    """Return the paths of all parts of tables, named by a commit or not."""
    below = storage.list_below(storage.join(store, "tables"))
    return [f"tables/{one.name}" for one in below if one.name.endswith(".parquet")]


def search_tables(
    store: str,
    parts: Sequence[str],
    patients: Sequence[Patient],
    *,
    is_identified: bool,
) -> None:
    """Look for the patients in the tables of a store, in all of its commits."""
    for part in (*_of_table("volumes", parts), *_of_table("instances", parts)):
        for row in _read_rows(store, part) or ():
            for patient in patients:
                if patient.is_row(row, is_identified=is_identified):
                    _note_row(patient, row)


def _of_table(name: str, parts: Sequence[str]) -> list[str]:
    return [part for part in parts if part.split("/")[1] == name]


def _note_row(patient: Patient, row: Row) -> None:
    patient.series.add(row["series_key"])
    patient.volumes.add(row["volume_id"])
    if "source_key" in row:
        patient.sources.add(row["source_key"])


def names_any(store: str, part: str, patients: Sequence[Patient]) -> bool:
    """Return whether a part of a table has a row of a patient, or cannot be read."""
    rows = _read_rows(store, part)
    if rows is None:
        return True
    series = {name for patient in patients for name in patient.series}
    sources = {name for patient in patients for name in patient.sources}
    return any(
        row.get("series_key") in series or row.get("source_key") in sources
        for row in rows
    )


def _read_rows(store: str, part: str) -> list[Row] | None:
    """Return what identifies the rows of a part; None if it is gone or damaged."""
    try:
        data = storage.read(storage.join(store, part))
        found = tables.from_parquet(data, COLUMNS.get(part.split("/")[1]))
    except (FileNotFoundError, ReadError):
        return None
    rows: list[Row] = found.to_pylist()
    return rows
