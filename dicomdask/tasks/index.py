"""List and index: from files to instances in buckets, or to outcomes."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from dicomdask import header, plan, storage
from dicomdask.errors import CODES, InputError
from dicomdask.model import Instance, Outcome, PlannedFrame, SourceFile, Stage
from dicomdask.pseudonym import Key, resolve_key
from dicomdask.tasks import places
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


def unreadable_before(work: Work, files: Sequence[SourceFile]) -> list[SourceFile]:
    """Return files to try again: a permission changes neither size nor time."""
    locked = {file.url: file for file in work.read_locked()}
    if not locked:
        return []
    changed = work.read_changed()

    def is_same(file: SourceFile) -> bool:
        before = locked.get(file.url)
        if before is None or before.etag != file.etag:
            return False
        return changed.get(file.url, before).token == before.token

    return [
        replace(file, token=file.etag)
        for file in files
        if file.size >= 0 and is_same(file) and storage.is_openable(file.url)
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
    listed = [file for part in parts for file in work.read_manifest(part)]
    known = {file.url: file.etag for file in listed}
    fresh = [file for file in files if file.url not in known]
    altered = [
        SourceFile(file.url, file.size, file.etag, token=file.etag)
        for file in files
        if known.get(file.url, file.etag) != file.etag
    ]
    seen = {file.url for file in altered}
    added = [*fresh, *altered, *(file for file in again if file.url not in seen)]
    for start in range(0, len(added), part_files):
        name = f"{len(parts) + start // part_files:06d}"
        work.create_manifest(name, added[start : start + part_files])
    changed = {file.url: file for file in (*listed, *added) if file.token}
    if changed != work.read_changed():
        work.write_changed([changed[url] for url in sorted(changed)])
    return len(added)


def index_part(part: str, *, work_url: str) -> dict[str, int]:
    """Index one part of the manifest into buckets; return counts."""
    work = Work(work_url)
    key = resolve_key(work.require_job().key)
    buckets: dict[str, list[Instance]] = defaultdict(list)
    outcomes: list[Outcome] = []
    locked: list[SourceFile] = []
    with quiet():
        files = work.read_manifest(part)
        for file, found in storage.ahead(_try_instance, files, is_remote=_is_remote):
            result = _outcome_of(file, found(), key)
            if isinstance(result, Outcome):
                outcomes.append(result)
                locked += [file] if result.code == "unreadable" else []
            else:
                buckets[places.bucket_of(result, key)].append(result)
    for bucket, instances in buckets.items():
        work.write_bucket(bucket, part, instances)
    work.write_outcomes(part, outcomes)
    work.write_locked(part, locked)
    every = [one for instances in buckets.values() for one in instances]
    others = [outcome.source_key for outcome in outcomes]
    places.write(work, part, places.records_of(every, others, key))
    counts = {
        "instances": len(every),
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


def read_instances(files: Iterable[SourceFile]) -> list[Instance]:
    """Return the instances among some files."""
    found: list[Instance] = []
    with quiet():
        for _, result in storage.ahead(_try_instance, files, is_remote=_is_remote):
            one = result()
            if isinstance(one, Instance):
                found.append(one)
    return found
