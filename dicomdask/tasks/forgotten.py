"""Patients that were forgotten: how later runs know them without a list of them.

A commit holds keyed digests. One stands for a PatientID whatever its issuer, another
for the pseudonym of one patient, which is made of PatientID and issuer.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from dicomdask import commits, header, storage, tables
from dicomdask.deid import patient_pseudonym
from dicomdask.deid.values import PADDING
from dicomdask.errors import InputError
from dicomdask.model import Instance, SourceFile
from dicomdask.policy import patient_identity
from dicomdask.pseudonym import Key
from dicomdask.tasks.barrier import guard
from dicomdask.tasks.record import FORGOTTEN, read_record
from dicomdask.work import Work


def pseudonym_digest(pseudonym: str, key: Key) -> str:
    """Return the digest that stands for the patient of a pseudonym."""
    return key.digest("forgotten patient", pseudonym)


def number_digest(patient_id: str, key: Key) -> str:
    """Return the digest that stands for a PatientID, whoever issued it."""
    return key.digest("forgotten PatientID", patient_id.strip(PADDING))


Record = TypeVar("Record")

LEFT_OUT: Final = "left_out"
"""Notes of files that are in no manifest, by keyed digest of their state."""
ASKED: Final = "forgotten.json"
"""A note of whom the store kept out when files were last listed."""


@dataclass(frozen=True, slots=True)
class Person:
    """Whose a file is, as its header says (identified)."""

    patient_id: str | None
    issuer_of_patient_id: str | None
    study_instance_uid: str

    def pseudonym(self, key: Key) -> str:
        """Return what stands in PatientID of the tables."""
        identity = patient_identity(
            self.patient_id, self.issuer_of_patient_id, self.study_instance_uid
        )
        return patient_pseudonym(identity, key)


def person_of(instance: Instance) -> Person:
    """Return whose an instance is."""
    return Person(
        instance.patient_id,
        instance.issuer_of_patient_id,
        instance.study_instance_uid,
    )


def read_person(file: SourceFile) -> Person | None:
    """Return whose a listed file is; None where that cannot be read.

    Files that hold no image have a patient too.
    """
    if file.size <= 0:
        return None
    try:
        return Person(*guard(_read_patient, file))
    except InputError:
        return None


def _read_patient(file: SourceFile) -> tuple[str | None, str | None, str]:
    with storage.open_blocks(file.url, file.size) as stream:
        return header.read_patient(stream)


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The patients that a store keeps out."""

    digests: frozenset[str]
    key: Key
    _seen: dict[Person, bool] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.digests)

    def has(self, person: Person | None) -> bool:
        """Return whether a patient is kept out."""
        if person is None or not self.digests:
            return False
        if person not in self._seen:
            self._seen[person] = bool(self.digests & set(digests_of(person, self.key)))
        return self._seen[person]

    def split(
        self, instances: Iterable[Instance]
    ) -> tuple[list[Instance], list[Instance]]:
        """Return the instances that may be stored, and those of forgotten patients."""
        kept: list[Instance] = []
        gone: list[Instance] = []
        for one in instances:
            (gone if self.has(person_of(one)) else kept).append(one)
        return kept, gone


def digests_of(person: Person, key: Key) -> list[str]:
    """Return all digests under which a patient may have been forgotten."""
    found = [pseudonym_digest(person.pseudonym(key), key)]
    if (person.patient_id or "").strip(PADDING):
        found.append(number_digest(str(person.patient_id), key))
    return found


def read_forgotten(store: str | None, key: Key) -> Forgotten:
    """Return whom a store keeps out: by its newest commit, or its record of files."""
    newest = commits.read_commit(store) if store else None
    if newest is not None:
        return Forgotten(frozenset(newest.forgotten), key)
    record = read_record(store) if store else None
    return Forgotten(frozenset((record or {}).get(FORGOTTEN, ())), key)


def file_state(file: SourceFile, key: Key) -> str:
    """Return the keyed name of one state of a file."""
    return key.digest("file state", file.url, file.etag)


# --- files that were left out ------------------------------------------------


def leave_out(work: Work, part: str, files: Sequence[SourceFile], key: Key) -> None:
    """Keep of files of forgotten patients keyed digests only: paths may hold names."""
    if not files:
        return
    work.write_note([file_state(file, key) for file in files], LEFT_OUT, f"{part}.json")
    urls = {file.url for file in files}
    drop(work, SourceFile, lambda one: one.url in urls, "manifest", f"{part}.parquet")


def drop(
    work: Work, record: type[Record], is_gone: Callable[[Record], bool], *names: str
) -> int:
    """Take records out of a table, or all tables of a folder; return how many.

    A table stays where none of its records does: names of others count tables.
    """
    if not names[-1].endswith(".parquet"):
        below = storage.list_names(work.path(*names))
        return sum(drop(work, record, is_gone, *names, name) for name in below)
    url = work.path(*names)
    try:
        rows = tables.records_from_parquet(record, storage.read(url))
    except FileNotFoundError:
        return 0
    kept = [row for row in rows if not is_gone(row)]
    if len(kept) < len(rows):
        with storage.room_at(work.url):
            storage.write(url, tables.records_to_parquet(record, kept))
    return len(rows) - len(kept)


def without_left_out(
    work: Work, files: Iterable[SourceFile], *, store: str | None, key: Key
) -> Iterable[SourceFile]:
    """Return the listed files but those that were left out as a forgotten patient's.

    All are looked at again when a patient may come back.
    """
    digests = read_forgotten(store, key).digests
    before = set(work.read_note(ASKED) or ())
    if before - digests:
        storage.remove_tree(work.path("receipts", LEFT_OUT))
    if before != digests:
        work.write_note(sorted(digests), ASKED)
    names = storage.list_names(work.path("receipts", LEFT_OUT))
    known = {state for name in names for state in work.read_note(LEFT_OUT, name)}
    if not known:
        return files
    return (file for file in files if file_state(file, key) not in known)
