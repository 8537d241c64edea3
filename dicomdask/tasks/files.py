"""Deidentify: one listed file becomes one de-identified file, or an outcome."""

import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from dicomdask import header, plan, storage, tables
from dicomdask.errors import CODES, InputError
from dicomdask.model import SourceFile
from dicomdask.policy import Policy
from dicomdask.pseudonym import Key
from dicomdask.tasks.again import parts_again, read_again
from dicomdask.tasks.barrier import guard, kind_of, quiet
from dicomdask.tasks.clean_file import FILE_FACTOR, clean
from dicomdask.tasks.encode import Context, open_context, warm_context
from dicomdask.tasks.forgotten import Forgotten, Person, read_forgotten
from dicomdask.tasks.index import make_outcome
from dicomdask.tasks.isolate import Cell, lent_cell
from dicomdask.tasks.looks import to_texts
from dicomdask.tasks.measure import Counts, measured
from dicomdask.tasks.references import Neighbours
from dicomdask.tasks.resolve import fetch_ahead, read_source
from dicomdask.work import Job, Work

Record = TypeVar("Record")

FOLDER: Final = "files"
LEFT: Final = "left"
FORGOTTEN: Final = "forgotten"
"""The code of a file whose patient is kept out; no outcome has it."""
BATCH_BYTES: Final = 64 << 20
BATCH_FILES: Final = 256


@dataclass(frozen=True, slots=True)
class FileRow:
    """What became of one state of one file (identified: holds its URL).

    `path` is where its de-identified file lies below the destination; empty where
    there is none, and `pixel_digest` what its pixels are known by. `text_look` says who
    looked for text in its pixels; `redactions` are texts, see `looks.to_texts`, and so
    is `device`: fields of `FileLook`, where somebody looked. What `is_past` was so
    before the file was cleaned anew.
    """

    url: str
    size: int
    token: str
    etag: str
    source_key: str
    path: str
    pixel_digest: str
    outcome: str
    stage: str
    code: str
    reason: str
    text_look: str = "none"
    redactions: tuple[str, ...] = ()
    is_past: bool = False
    device: str = "{}"


@dataclass(frozen=True, slots=True)
class Mapped:
    """One line of the crosswalk (identified): a UID, or a patient's number.

    `pseudonym` is the patient's in whose files it stands.
    """

    kind: str
    old: str
    new: str
    pseudonym: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """Where de-identified files go, and how."""

    context: Context
    name: str
    job: Job
    crosswalk: bool
    forgotten: Forgotten

    @property
    def work(self) -> Work:
        """Return the work directory."""
        return self.context.work

    @property
    def url(self) -> str:
        """Return the destination."""
        return self.context.store

    @property
    def policy(self) -> Policy:
        """Return what becomes of each element."""
        return self.context.policy

    @property
    def key(self) -> Key:
        """Return the key of pseudonyms and names."""
        return self.context.key

    def path(self, *names: str) -> str:
        """Return the URL of what the work directory holds of this target."""
        return self.work.path(FOLDER, self.name, *names)


def target_of(work: Work, job: Job, *, crosswalk: bool) -> Target:
    """Return the target of a job; its name changes with all that changes files."""
    context = open_context(work, job)
    parts = (context.store, context.policy.digest, str(crosswalk))
    name = hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]
    forgotten = read_forgotten(job.store, context.key)
    return Target(context, name, job, crosswalk, forgotten)


def lent(target: Target) -> AbstractContextManager[Cell]:
    """Lend what decodes and encodes pixels apart."""
    return lent_cell(warm_context, target.job)


Batch = tuple[str, int, int]


def cut(part: str, files: Sequence[SourceFile]) -> Iterator[Batch]:
    """Cut one part of a manifest into batches, always the same."""
    start = nbytes = 0
    for number, file in enumerate(files):
        full = number - start >= BATCH_FILES or nbytes + file.size > BATCH_BYTES
        if number > start and full:
            yield part, start, number
            start, nbytes = number, 0
        nbytes += max(0, file.size)
    if len(files) > start:
        yield part, start, len(files)


def batch_name(batch: Batch) -> str:
    """Return the name under which the work directory keeps a batch."""
    return f"{batch[0]}-{batch[1]:06d}"


def is_done(target: Target, batch: Batch) -> bool:
    """Return whether a batch has its receipt."""
    return storage.exists(target.path("receipts", f"{batch_name(batch)}.json"))


def left_batches(target: Target) -> list[Batch]:
    """Return the batches that are not done, and those with files to clean anew."""
    work, parts = target.work, parts_again(target.path())
    left: list[Batch] = []
    for part in work.manifest_parts():
        files = work.read_manifest(part)
        again = read_again(target.path(), part) if part in parts else set()
        for batch in cut(part, files):
            some = {file.url for file in files[batch[1] : batch[2]]} if again else set()
            if some & again or not is_done(target, batch):
                left.append(batch)
    return left


@measured
def deidentify_batch(
    batch: Batch, *, work_url: str, crosswalk: bool = False, memory: int | None = None
) -> Counts:
    """De-identify the files [start, stop) of one manifest part; return counts."""
    part, start, stop = batch
    work = Work(work_url)
    target = target_of(work, work.require_job(), crosswalk=crosswalk)
    files = work.read_manifest(part)[start:stop]
    before = _read_before(target, batch)
    kept = {file.url: before.row(file) for file in files}
    rows = [row for row in kept.values() if row is not None]
    left: list[SourceFile] = []
    mapped = set(before.mapped)
    neighbours = Neighbours()
    with quiet(), lent(target) as cell:
        for file, fetched in fetch_ahead([f for f in files if kept[f.url] is None]):
            told = (file, fetched, target, cell)
            row, pairs = clean_one(*told, neighbours, memory=memory)
            if row.code == FORGOTTEN:
                left.append(file)
                continue
            rows.append(row)
            mapped |= pairs
    if left:
        data = tables.records_to_parquet(SourceFile, left)
        with storage.room_at(work.url):
            storage.write(target.path(LEFT, f"{batch_name(batch)}.parquet"), data)
    _write_rows(target, batch_name(batch), before, rows, mapped)
    found = Counter(kind_of(row.code, row.reason) for row in rows)
    return {
        "files": len(rows),
        "piece_bytes": sum(max(0, file.size) for file in files),
        "found": dict(found),
    }


def clean_one(
    file: SourceFile,
    fetched: Any,
    target: Target,
    cell: Cell,
    neighbours: Neighbours,
    *,
    memory: int | None = None,
) -> tuple[FileRow, set[Mapped]]:
    """Write the de-identified file of one listed file; say what became of it.

    `neighbours` are files of the same batch that were looked at before.
    """
    try:
        if memory is not None and file.size * FILE_FACTOR > memory:
            raise InputError("too-large")
        _require_file(file)
        data = guard(read_source, file, fetched)
        if target.forgotten.has(_person(data) if target.forgotten else None):
            return replace(_row_of(file, "stored", "", target), code=FORGOTTEN), set()
        cleaned, looked, device = clean(
            *(data, file, target.context, target.job, cell, neighbours),
            crosswalk=target.crosswalk,
            memory=memory,
        )
    except InputError as error:
        return _row_of(file, error.code, error.reason, target), set()
    url = storage.join(target.url, *cleaned.path.split("/"))
    with storage.room_at(target.url):
        storage.write(url, cleaned.data)
    row = replace(
        _row_of(file, "stored", CODES["stored"], target),
        path=cleaned.path,
        pixel_digest=hashlib.blake2b(cleaned.pixels, digest_size=16).hexdigest(),
        text_look=looked.by,
        redactions=to_texts(looked.redactions),
        device=device,
    )
    own = cleaned.pseudonym
    pairs = {Mapped("uid", old, new, own) for old, new in cleaned.uids.items() if old}
    if target.crosswalk:
        pairs.add(Mapped("patient", cleaned.patient_id, own, own))
    return row, pairs


def _person(data: bytes) -> Person | None:
    try:
        return Person(*guard(header.read_patient, io.BytesIO(data)))
    except InputError:
        return None


def _require_file(file: SourceFile) -> None:
    codes = {storage.OUTSIDE: "outside-source", storage.NOT_A_FILE: "unreadable"}
    code = codes.get(file.size, "empty-file" if file.size == 0 else "")
    if code:
        raise InputError(code)


def _row_of(file: SourceFile, code: str, reason: str, target: Target) -> FileRow:
    kind = "stored"
    if code != "stored":
        kind = make_outcome(file, "encode", code, reason, target.key).outcome
    return FileRow(
        *(file.url, file.size, file.token, file.etag),
        source_key=plan.source_key(file.url, target.key),
        path="",
        pixel_digest="",
        outcome=kind,
        stage="encode",
        code=code,
        reason=reason,
    )


# --- rows in the work directory -------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Before:
    """What a batch came to before some of its files are cleaned anew."""

    rows: tuple[FileRow, ...] = ()
    mapped: tuple[Mapped, ...] = ()
    again: frozenset[str] = frozenset()

    def row(self, file: SourceFile) -> FileRow | None:
        """Return the row of a file that is not cleaned anew."""
        if file.url in self.again:
            return None
        state = file.url, file.token
        found = (row for row in self.rows if (row.url, row.token) == state)
        return next((row for row in found if not row.is_past), None)


def _read_before(target: Target, batch: Batch) -> _Before:
    again = read_again(target.path(), batch[0]) if target.policy.cleans_faces else set()
    if not again:
        return _Before()
    name = f"{batch_name(batch)}.parquet"
    buckets = storage.list_names(target.path("rows"))
    rows = [row for bucket in buckets for row in _rows_of(target, bucket, name)]
    mapped = _records(Mapped, target.path("crosswalk", name))
    return _Before(tuple(rows), tuple(mapped), frozenset(again))


def _rows_of(target: Target, bucket: str, name: str) -> list[FileRow]:
    return _records(FileRow, target.path("rows", bucket, name))


def _records(record: type[Record], url: str) -> list[Record]:
    try:
        return tables.records_from_parquet(record, storage.read(url))
    except FileNotFoundError:
        return []


def bucket_of(row: FileRow, key: Key) -> str:
    """Return the bucket of a row: copies of one instance lie in one."""
    return key.digest("file bucket", row.path or row.source_key)[0]


def _write_rows(
    target: Target,
    name: str,
    before: _Before,
    rows: Sequence[FileRow],
    mapped: set[Mapped],
) -> None:
    """Write what became of a batch, by bucket, and its receipt last.

    What was so before stays as well: the file that it tells of may have to go.
    """
    new = set(rows)
    past = [replace(row, is_past=True) for row in before.rows if row not in new]
    buckets: dict[str, list[FileRow]] = {}
    for row in (*rows, *past):
        buckets.setdefault(bucket_of(row, target.key), []).append(row)
    with storage.room_at(target.work.url):
        for bucket, found in buckets.items():
            data = tables.records_to_parquet(FileRow, found)
            storage.write(target.path("rows", bucket, f"{name}.parquet"), data)
        if mapped:
            pairs = sorted(mapped, key=lambda one: (one.kind, one.old))
            data = tables.records_to_parquet(Mapped, pairs)
            storage.write(target.path("crosswalk", f"{name}.parquet"), data)
        storage.write(target.path("receipts", f"{name}.json"), b"{}\n")


def read_rows(target: Target, bucket: str) -> list[FileRow]:
    """Return all rows of one bucket in the order in which they were listed."""
    folder = target.path("rows", bucket)
    names = [name for name in storage.list_names(folder) if name.endswith(".parquet")]
    return [
        row
        for name in names
        for row in tables.records_from_parquet(
            FileRow, storage.read(storage.join(folder, name))
        )
    ]


def read_crosswalk(target: Target) -> Iterator[Mapped]:
    """Yield all lines of the crosswalk; some come twice."""
    folder = target.path("crosswalk")
    for name in storage.list_names(folder):
        data = storage.read(storage.join(folder, name))
        yield from tables.records_from_parquet(Mapped, data)


def source_of(row: FileRow) -> SourceFile:
    """Return the listed file of a row."""
    return SourceFile(row.url, row.size, row.etag, row.token)
