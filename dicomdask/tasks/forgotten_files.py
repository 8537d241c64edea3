"""Forget patients of a destination of `deidentify`: their files, rows and records.

What names them goes last: the manifest, by which the rest is found again when this is
cut off.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from dicomdask import plan, storage, tables
from dicomdask.model import Outcome, SourceFile
from dicomdask.pseudonym import Key
from dicomdask.tasks import again, files
from dicomdask.tasks.barrier import quiet
from dicomdask.tasks.files import FileRow, Mapped
from dicomdask.tasks.forgotten import (
    ASKED,
    LEFT_OUT,
    drop,
    file_state,
    read_person,
)
from dicomdask.tasks.masks import masks_work
from dicomdask.tasks.patient import NO_PATIENT, Patient
from dicomdask.tasks.record import (
    FORGOTTEN,
    INPUTS,
    LOOKS,
    RECORD,
    REDACTIONS,
    FileLook,
    FileRedaction,
    read_record,
    uid_of,
    write_record,
    write_rows,
)
from dicomdask.work import Work

PSEUDONYM: Final = re.compile("[0-9a-f]{32}")
MAPPING: Final = "_mapping.csv"


def search_files(dest: str, work: Work | None, patients: Sequence[Patient]) -> int:
    """Look for the patients in a destination and in the headers of its sources.

    Returns
    -------
    int
        How many files there are of which nobody can tell whose they are: they have no
        de-identified file, and cannot be read any more.
    """
    found = {row.url: row for row in _rows(work)} if work else {}
    n_unknown = _search_sources(work, patients, found) if work else 0
    for row in found.values():
        for patient in patients:
            if _is_own(patient, row.path.split("/")[0]):
                _note(patient, row.url)
                patient.instance_uids.add(uid_of(row.path))
    for name in storage.list_names(dest):
        for patient in patients:
            if PSEUDONYM.fullmatch(name) and _is_own(patient, name):
                names = [
                    one.name for one in storage.list_below(storage.join(dest, name))
                ]
                patient.series |= {one.rsplit("/", 1)[0] for one in names}
                patient.instance_uids |= set(map(uid_of, names))
    return n_unknown


def _is_own(patient: Patient, pseudonym: str) -> bool:
    """Return whether a pseudonym is a patient's, and remember by what."""
    is_value = pseudonym == patient.value
    patient.by_pseudonym |= is_value
    is_own = is_value or pseudonym in patient.pseudonyms
    patient.by_number |= is_own and not is_value
    if is_own:
        patient.pseudonyms.add(pseudonym)
    return is_own


def _note(patient: Patient, url: str) -> None:
    patient.urls.add(url)
    patient.sources.add(plan.source_key(url, patient.key))


def _search_sources(
    work: Work, patients: Sequence[Patient], found: Mapping[str, FileRow]
) -> int:
    n_unknown = 0
    with quiet():
        for file in newest_files(work):
            row = found.get(file.url)
            if row is not None and row.code in NO_PATIENT:
                continue
            person = read_person(file)
            n_unknown += person is None and not (row and row.path) and file.size > 0
            for patient in patients:
                if person is not None and patient.is_person(person):
                    _note(patient, file.url)
    return n_unknown


def newest_files(work: Work) -> Iterator[SourceFile]:
    """Yield all listed files, as they were listed last."""
    changed = work.read_changed()
    for part in work.manifest_parts():
        for file in work.read_manifest(part):
            yield changed.get(file.url, file)


def _rows(work: Work) -> Iterator[FileRow]:
    for path in _tables(work, "rows"):
        yield from tables.records_from_parquet(FileRow, storage.read(work.path(*path)))


def _tables(work: Work, kind: str) -> Iterator[tuple[str, ...]]:
    """Yield the names of the tables of one kind, of all targets of a work directory."""
    for target in storage.list_names(work.path(files.FOLDER)):
        names = (files.FOLDER, target, kind)
        for one in storage.list_below(work.path(*names)):
            if one.name.endswith(".parquet"):
                yield (*names, *one.name.split("/"))


# --- removing -----------------------------------------------------------------


def remove_files(dest: str, patients: Sequence[Patient]) -> int:
    """Remove what a destination holds of some patients; return how many objects.

    They are noted as kept out first.
    """
    record = read_record(dest) or {}
    digests = {digest for one in patients for digest in one.digests}
    known = sorted(digests.union(record.get(FORGOTTEN, ())))
    write_record(dest, record | {FORGOTTEN: known})
    count = 0
    for name in sorted({name for one in patients for name in one.pseudonyms}):
        folder = storage.join(dest, name)
        there = [one.name for one in storage.list_below(folder)]
        count += len(there)
        _clean_looks(dest, {uid_of(path) for path in there})
        storage.remove_tree(folder)
    sources = {name for one in patients for name in one.sources}
    write_record(dest, (read_record(dest) or {}) | _clean_inputs(dest, sources))
    return count


def _clean_looks(dest: str, uids: Collection[str]) -> None:
    """Take out what was looked at and blanked in some files."""
    for table, record in ((LOOKS, FileLook), (REDACTIONS, FileRedaction)):
        folder = storage.join(dest, RECORD, table)
        for name in storage.list_names(folder):
            data = storage.read(storage.join(folder, name))
            rows: list[Any] = tables.records_from_parquet(record, data)
            kept = [row for row in rows if row.SOPInstanceUID not in uids]
            if len(kept) < len(rows):
                bucket = name.removesuffix(".parquet")
                write_rows(dest, table, bucket, record, kept)


def bring_back_files(dest: str, patients: Sequence[Patient]) -> None:
    """Let patients into later runs again."""
    record = read_record(dest) or {}
    out = {digest for one in patients for digest in one.all_digests}
    left = sorted(set(record.get(FORGOTTEN, ())) - out)
    write_record(dest, record | {FORGOTTEN: left})


def _clean_inputs(dest: str, sources: Collection[str]) -> dict[str, Any]:
    """Take outcomes out; return what the record says of those that are left."""
    left: list[Outcome] = []
    folder = storage.join(dest, RECORD, INPUTS)
    for name in storage.list_names(folder):
        url = storage.join(folder, name)
        rows = tables.records_from_parquet(Outcome, storage.read(url))
        kept = [row for row in rows if row.source_key not in sources]
        if len(kept) < len(rows):
            with storage.room_at(dest):
                storage.write(url, tables.records_to_parquet(Outcome, kept))
        left += kept
    return {
        "outcomes": dict(sorted(Counter(one.outcome for one in left).items())),
        "codes_found": dict(sorted(Counter(one.code for one in left).items())),
    }


def clean_files_work(dest: str, work: Work, patients: Sequence[Patient]) -> int:
    """Remove what the work directory of files holds of some patients; count records."""
    storage.remove_tree(work.path("review"))  # pictures of whomever; soon made again
    work.write_note((read_record(dest) or {})[FORGOTTEN], ASKED)
    names = {name for one in patients for name in one.pseudonyms}
    urls = {url for one in patients for url in one.urls}
    count = 0
    for path in list(_tables(work, "crosswalk")):
        count += drop(work, Mapped, lambda one: one.pseudonym in names, *path)
    for target in storage.list_names(work.path(files.FOLDER)):
        for name in storage.list_names(work.path(files.FOLDER, target)):
            if name.endswith(MAPPING):  # the next run writes it again
                storage.remove(work.path(files.FOLDER, target, name))
    for path in list(_tables(work, "rows")):
        count += drop(work, FileRow, lambda one: one.url in urls, *path)
    for path in list(_tables(work, again.FOLDER)):
        drop(work, SourceFile, lambda one: one.url in urls, *path)
    return count + drop_files(work, urls, patients[0].key)


def leave_out_files(target: files.Target) -> None:
    """Take the files of forgotten patients that a run came upon out of the manifest."""
    work = target.work
    found = list(_tables(work, files.LEFT))
    urls = {
        file.url
        for path in found
        for file in tables.records_from_parquet(
            SourceFile, storage.read(work.path(*path))
        )
    }
    if urls:
        drop_files(work, urls, target.key)
    for path in found:
        storage.remove(work.path(*path))


def drop_files(work: Work, urls: Collection[str], key: Key) -> int:
    """Take files out of the manifest; keyed digests of their states stay.

    A batch is a range of the manifest: what was done of a part counts as done after it.
    """
    storage.remove_tree(masks_work(work).url)  # the next run makes it again
    changed = work.read_changed()
    count = 0
    for part in work.manifest_parts():
        listed = work.read_manifest(part)
        left = [file for file in listed if file.url not in urls]
        if len(left) == len(listed):
            continue
        gone = [changed.get(one.url, one) for one in listed if one.url in urls]
        note = (LEFT_OUT, f"files-{part}.json")
        known = set(work.read_note(*note) or ())
        states = known.union(file_state(file, key) for file in gone)
        work.write_note(sorted(states), *note)
        _keep_receipts(work, part, listed, left)
        names = ("manifest", f"{part}.parquet")
        count += drop(work, SourceFile, lambda one: one.url in urls, *names)
    return count + drop(
        work, SourceFile, lambda one: one.url in urls, "changed.parquet"
    )


def _keep_receipts(
    work: Work, part: str, before: Sequence[SourceFile], after: Sequence[SourceFile]
) -> None:
    def receipt(target: str, batch: files.Batch) -> str:
        name = f"{files.batch_name(batch)}.json"
        return work.path(files.FOLDER, target, "receipts", name)

    for target in storage.list_names(work.path(files.FOLDER)):
        old = [receipt(target, batch) for batch in files.cut(part, before)]
        if all(map(storage.exists, old)):
            for batch in files.cut(part, after):
                with storage.room_at(work.url):
                    storage.write(receipt(target, batch), b"{}\n")
