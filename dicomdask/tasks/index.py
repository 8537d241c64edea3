"""List and index: from files to instances in buckets, or to outcomes."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

from dicomdask import header, plan, storage
from dicomdask.errors import CODES, InputError
from dicomdask.model import Instance, Outcome, PlannedFrame, SourceFile, Stage
from dicomdask.pseudonym import Key, resolve_key
from dicomdask.tasks.barrier import guard, quiet
from dicomdask.work import Work

SKIPPED: Final = frozenset({"dicomdir", "no-pixels", "filtered", "not-selected"})
NOT_DICOM: Final = frozenset({"not-dicom", "empty-file", "archive", "unreadable"})


def list_sources(
    sources: Sequence[str], *, exclude: tuple[str, ...]
) -> list[SourceFile]:
    """Return the files of all sources, each once, in order of their URLs."""
    found = {
        file.url: file
        for source in sources
        for file in storage.list_files(source, exclude=exclude)
    }
    return sorted(found.values(), key=lambda file: file.url)


def unreadable_before(
    work: Work, files: Sequence[SourceFile], key: Key
) -> list[SourceFile]:
    """Return files to try again: a permission changes neither size nor time."""
    newest = {one.source_key: one.code for one in work.read_outcomes()}
    locked = {name for name, code in newest.items() if code == "unreadable"}
    if not locked:
        return []
    changed = work.read_changed()
    return [
        changed.get(file.url, SourceFile(file.url, file.size, file.etag))
        for file in files
        if file.size >= 0
        and plan.source_key(file.url, key) in locked
        and changed.get(file.url, file).etag == file.etag
        and storage.is_openable(file.url)
    ]


def extend_manifest(
    work: Work,
    files: Sequence[SourceFile],
    *,
    part_files: int,
    again: Sequence[SourceFile] = (),
) -> int:
    """Add files that are new or changed to the manifest; return how many.

    A file that is no longer listed stays in the manifest.
    """
    parts = work.manifest_parts()
    known = {file.url: file.etag for part in parts for file in work.read_manifest(part)}
    changed = work.read_changed()
    known |= {url: file.etag for url, file in changed.items()}
    fresh = [file for file in files if file.url not in known]
    altered = [
        SourceFile(file.url, file.size, file.etag, token=file.etag)
        for file in files
        if known.get(file.url, file.etag) != file.etag
    ]
    if altered:
        newest = changed | {file.url: file for file in altered}
        work.write_changed([newest[url] for url in sorted(newest)])
    seen = {file.url for file in (*fresh, *altered)}
    added = [*fresh, *altered, *(file for file in again if file.url not in seen)]
    for start in range(0, len(added), part_files):
        name = f"{len(parts) + start // part_files:06d}"
        work.write_manifest(name, added[start : start + part_files])
    return len(added)


def index_part(part: str, *, work_url: str) -> dict[str, int]:
    """Index one part of the manifest into buckets; return counts."""
    work = Work(work_url)
    job = work.require_job()
    key = resolve_key(job.key)
    buckets: dict[str, list[Instance]] = defaultdict(list)
    outcomes: list[Outcome] = []
    with quiet():
        files = work.read_manifest(part)
        for file, found in storage.ahead(_try_instance, files, is_remote=_is_remote):
            result = _outcome_of(file, found(), key)
            if isinstance(result, Outcome):
                outcomes.append(result)
            else:
                buckets[bucket_name(result, key, job.n_buckets)].append(result)
    for bucket, instances in buckets.items():
        work.write_bucket(bucket, part, instances)
    work.write_outcomes(part, outcomes)
    counts = {
        "instances": sum(map(len, buckets.values())),
        "outcomes": len(outcomes),
        "not_dicom": sum(outcome.code in NOT_DICOM for outcome in outcomes),
    }
    work.write_note(counts, "index", f"{part}.json")
    return counts


def _is_remote(file: SourceFile) -> bool:
    return not storage.is_local(file.url)


def _try_instance(file: SourceFile) -> Instance | InputError:
    """Index one file. A bad file is a value, not a crash."""
    try:
        return guard(read_instance, file)
    except InputError as error:
        return error


def _outcome_of(
    file: SourceFile, found: Instance | InputError, key: Key
) -> Instance | Outcome:
    if isinstance(found, Instance):
        return found
    return make_outcome(file, "index", found.code, found.reason, key)


def read_instance(file: SourceFile) -> Instance:
    """Return the instance of one listed file, or raise InputError."""
    if file.size == storage.NOT_A_FILE:
        raise InputError("unreadable")
    if file.size == 0:
        raise InputError("empty-file")
    with storage.open_blocks(file.url, file.size) as stream:
        return header.read_instance(stream, file)


def make_outcome(
    file: SourceFile | Instance | PlannedFrame,
    stage: Stage,
    code: str,
    reason: str,
    key: Key,
) -> Outcome:
    """Return the outcome of an input that is not stored."""
    kind = "skipped" if code in SKIPPED else "rejected"
    return Outcome(
        source_key=plan.source_key(file.url, key),
        outcome="duplicate" if code == "duplicate" else kind,  # type: ignore[arg-type]
        stage=stage,
        code=code,
        reason=reason,
        source_bytes=max(file.size, 0),
    )


def stored_outcome(source_key: str, size: int) -> Outcome:
    """Return the outcome of an input that is stored."""
    return Outcome(source_key, "stored", "encode", "stored", CODES["stored"], size)


def bucket_name(instance: Instance, key: Key, n_buckets: int) -> str:
    """Return the bucket of an instance's series."""
    return f"{int(plan.series_key(instance, key)[:8], 16) % n_buckets:05d}"


def read_instances(files: Iterable[SourceFile]) -> list[Instance]:
    """Return the instances among some files."""
    found: list[Instance] = []
    with quiet():
        for _, result in storage.ahead(_try_instance, files, is_remote=_is_remote):
            one = result()
            if isinstance(one, Instance):
                found.append(one)
    return found
