"""Deidentify: one listed file becomes one de-identified file, or an outcome."""

import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pydicom.dataset import FileDataset

from dicomdask import deid, header, plan, storage, tables
from dicomdask.errors import CODES, InputError
from dicomdask.model import SourceFile
from dicomdask.policy import GRAPHICS, Policy
from dicomdask.pseudonym import Key, resolve_key
from dicomdask.tasks.barrier import guard, kind_of, quiet
from dicomdask.tasks.forgotten import Forgotten, Person, read_forgotten
from dicomdask.tasks.index import make_outcome
from dicomdask.tasks.looks import Looked, look_at_file, need, to_texts
from dicomdask.tasks.masks import remove_face
from dicomdask.tasks.measure import Counts, measured
from dicomdask.tasks.policies import job_policy
from dicomdask.tasks.resolve import fetch_ahead, read_source
from dicomdask.work import Job, Work

FOLDER: Final = "files"
LEFT: Final = "left"
FORGOTTEN: Final = "forgotten"
"""The code of a file whose patient is kept out; no outcome has it."""
BATCH_BYTES: Final = 64 << 20
BATCH_FILES: Final = 256
MEMORY_FACTOR: Final = 6
"""How many times its size a file takes at most while it is cleaned."""

_SR: Final = "1.2.840.10008.5.1.4.1.1.88."
_RT: Final = "1.2.840.10008.5.1.4.1.1.481."
_WITHOUT_PIXELS: Final = frozenset(
    {
        *(_RT + end for end in ("3", "5")),  # structure sets and plans
        "1.2.840.10008.5.1.4.1.1.66.1",  # spatial registration
        "1.2.840.10008.5.1.4.1.1.67",  # real world value mapping
    }
)
"""What has no pixels and is cleaned by the policy; all structured reports besides."""
_PRESENTATIONS: Final = frozenset(
    "1.2.840.10008.5.1.4.1.1.11." + end for end in ("1", "2")
)
"""Softcopy presentation states in grey and in colour: with `clean-graphics` only."""


@dataclass(frozen=True, slots=True)
class FileRow:
    """What became of one state of one file (identified: holds its URL).

    `path` is where its de-identified file lies below the destination; empty where
    there is none, and `pixel_digest` what its pixels are known by. `text_look` says who
    looked for text in its pixels; `redactions` are texts, see `looks.to_texts`.
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

    work: Work
    url: str
    name: str
    policy: Policy
    key: Key
    crosswalk: bool
    forgotten: Forgotten

    def path(self, *names: str) -> str:
        """Return the URL of what the work directory holds of this target."""
        return self.work.path(FOLDER, self.name, *names)


def target_of(work: Work, job: Job, *, crosswalk: bool) -> Target:
    """Return the target of a job; its name changes with all that changes files."""
    policy, key = job_policy(job), resolve_key(job.key)
    parts = (str(job.store), policy.digest, str(crosswalk))
    name = hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]
    forgotten = read_forgotten(job.store, key)
    return Target(work, str(job.store), name, policy, key, crosswalk, forgotten)


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


@measured
def deidentify_batch(
    batch: Batch, *, work_url: str, crosswalk: bool = False, memory: int | None = None
) -> Counts:
    """De-identify the files [start, stop) of one manifest part; return counts."""
    part, start, stop = batch
    work = Work(work_url)
    target = target_of(work, work.require_job(), crosswalk=crosswalk)
    files = work.read_manifest(part)[start:stop]
    rows: list[FileRow] = []
    left: list[SourceFile] = []
    mapped: set[Mapped] = set()
    with quiet():
        for file, fetched in fetch_ahead(files):
            row, pairs = clean_one(file, fetched, target, memory=memory)
            if row.code == FORGOTTEN:
                left.append(file)
                continue
            rows.append(row)
            mapped |= pairs
    if left:
        data = tables.records_to_parquet(SourceFile, left)
        with storage.room_at(work.url):
            storage.write(target.path(LEFT, f"{batch_name(batch)}.parquet"), data)
    _write_rows(target, batch_name(batch), rows, mapped)
    found = Counter(kind_of(row.code, row.reason) for row in rows)
    return {
        "files": len(rows),
        "piece_bytes": sum(max(0, file.size) for file in files),
        "found": dict(found),
    }


def clean_one(
    file: SourceFile, fetched: Any, target: Target, *, memory: int | None = None
) -> tuple[FileRow, set[Mapped]]:
    """Write the de-identified file of one listed file; say what became of it."""
    try:
        if memory is not None and file.size * MEMORY_FACTOR > memory:
            raise InputError("too-large")
        _require_file(file)
        data = guard(read_source, file, fetched)
        if target.forgotten.has(_person(data) if target.forgotten else None):
            return replace(_row_of(file, "stored", "", target), code=FORGOTTEN), set()
        cleaned, looked = guard(_clean, data, file, target)
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


def _clean(
    data: bytes, file: SourceFile, target: Target
) -> tuple[deid.CleanedFile, Looked]:
    looked = Looked("none")
    try:
        instance = header.read_instance(io.BytesIO(data), file)
        by = need(instance, target.policy)
        dataset = header.read_dataset(data)
        looked, dataset = look_at_file(dataset, instance, target.policy, by)
        dataset = remove_face(
            *(dataset, instance, file, target.policy), work=target.work, key=target.key
        )
    except InputError as error:
        if error.code != "no-pixels":
            raise
        dataset = header.read_dataset(data)
        require_cleanable(dataset, target.policy)
    cleaned = deid.clean_file(
        dataset, target.policy, target.key, crosswalk=target.crosswalk
    )
    return cleaned, looked


def require_cleanable(dataset: FileDataset, policy: Policy) -> None:
    """Let pass what has no pixels only where the policy knows what is in it."""
    uid = str(dataset.get("SOPClassUID") or "")
    is_drawn = uid in _PRESENTATIONS and GRAPHICS in policy.options
    if not (uid.startswith(_SR) or uid in _WITHOUT_PIXELS or is_drawn):
        raise InputError("unsupported-object")
    if 0x7FE00010 in dataset:
        raise InputError("unsupported-object")


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


def bucket_of(row: FileRow, key: Key) -> str:
    """Return the bucket of a row: copies of one instance lie in one."""
    return key.digest("file bucket", row.path or row.source_key)[0]


def _write_rows(
    target: Target, name: str, rows: Sequence[FileRow], mapped: set[Mapped]
) -> None:
    """Write what became of a batch, by bucket, and its receipt last."""
    buckets: dict[str, list[FileRow]] = {}
    for row in rows:
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
