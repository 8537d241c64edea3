"""List and index: from files to instances in buckets, or to outcomes."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import BinaryIO, Final

from dicomdask import header, plan, storage
from dicomdask.errors import CODES, InputError
from dicomdask.limits import MAX_HEADER_BYTES, SMALL_HEADER_BYTES
from dicomdask.model import Instance, Outcome, PlannedFrame, SourceFile, Stage
from dicomdask.pseudonym import Key, resolve_key
from dicomdask.tasks import places
from dicomdask.tasks.barrier import guard, kind_of, quiet
from dicomdask.tasks.forgotten import (
    Forgotten,
    leave_out,
    person_of,
    read_forgotten,
    read_person,
)
from dicomdask.tasks.known import Known
from dicomdask.tasks.measure import Counts, measured
from dicomdask.work import Work

LISTED_AT_ONCE: Final = 1 << 16
"""How many listed files are held at a time."""
SKIPPED: Final = frozenset(
    {"dicomdir", "no-pixels", "filtered", "not-selected", "forgotten"}
)
NOT_DICOM: Final = frozenset(
    {"not-dicom", "empty-file", "archive", "unreadable", "outside-source"}
)
OUTSIDE_NAME: Final = "The name leads out of the source, so it was not opened."


def list_sources(
    sources: Sequence[str], *, exclude: tuple[str, ...]
) -> Iterator[SourceFile]:
    """Yield the files of all sources as they are listed; some may come twice."""
    others = tuple(sources)
    for source in sources:
        yield from storage.list_files(source, exclude=exclude, within=others)


def extend_manifest(
    work: Work, files: Iterable[SourceFile], *, progress: Callable[[int], None]
) -> int:
    """Add files that are new, changed or to be tried again to the manifest.

    A file that is no longer listed stays in the manifest. The listing is read once and
    never held; returns how many files it holds.
    """
    parts = work.manifest_parts()
    changed: dict[str, SourceFile] = {}

    def read_parts() -> Iterator[list[SourceFile]]:
        for part in parts:
            listed = work.read_manifest(part)
            changed.update({file.url: file for file in listed if file.token})
            yield listed

    known, n_listed = Known(read_parts()), 0
    locked = {file.url: file for file in work.read_locked()}
    waiting: list[SourceFile] = []
    n_parts = len(parts)
    for batch in _batches(files, LISTED_AT_ONCE):
        n_listed += len(batch)
        fresh, altered = known.compare(batch)
        altered += [one for one in batch if _is_open_again(one, locked, changed)]
        again = {one.url: replace(one, token=one.etag) for one in altered}
        changed |= again
        waiting += [*fresh, *again.values()]
        while len(waiting) >= part_files(n_parts):
            size = part_files(n_parts)
            work.create_manifest(f"{n_parts:06d}", waiting[:size])
            n_parts, waiting = n_parts + 1, waiting[size:]
        if len(batch) == LISTED_AT_ONCE:
            progress(n_listed)
    if waiting:
        work.create_manifest(f"{n_parts:06d}", waiting)
    if changed != work.read_changed():
        work.write_changed([changed[url] for url in sorted(changed)])
    return n_listed


def part_files(n_parts: int) -> int:
    """Return how many files the next part of a manifest holds.

    Parts grow, so that a hundred million files are some twenty-five thousand parts, and
    a small pile is cut into as many pieces as there are workers.

    >>> part_files(0), part_files(64), part_files(1000)
    (256, 1024, 4096)
    """
    return 256 << 2 * min(2, n_parts // 64)


def _batches(files: Iterable[SourceFile], size: int) -> Iterator[list[SourceFile]]:
    listed = iter(files)
    while batch := list(islice(listed, size)):
        yield batch


def _is_open_again(
    file: SourceFile,
    locked: Mapping[str, SourceFile],
    changed: Mapping[str, SourceFile],
) -> bool:
    """Tell what was locked and can be read: a permission changes no size or time."""
    before = locked.get(file.url)
    if before is None or before.etag != file.etag or file.size < 0:
        return False
    if changed.get(file.url, before).token != before.token:
        return False
    return storage.is_openable(file.url)


@measured
def index_part(part: str, *, work_url: str) -> Counts:
    """Index one part of the manifest into buckets; return counts."""
    work = Work(work_url)
    job = work.require_job()
    key = resolve_key(job.key)
    forgotten = read_forgotten(job.store, key)
    left_out: list[SourceFile] = []
    buckets: dict[str, list[Instance]] = defaultdict(list)
    outcomes: list[Outcome] = []
    locked: list[SourceFile] = []
    with quiet():
        files = work.read_manifest(part)
        for file, found in _index(files):
            result = _outcome_of(file, found, key)
            if _is_forgotten(file, result, forgotten):
                left_out.append(file)
                reason = CODES["forgotten"]
                result = make_outcome(file, "index", "forgotten", reason, key)
            if isinstance(result, Outcome):
                outcomes.append(result)
                locked += [file] if result.code == "unreadable" else []
            else:
                buckets[places.bucket_of(result, key)].append(result)
    for bucket, instances in buckets.items():
        work.write_bucket(bucket, part, instances)
    work.write_outcomes(part, outcomes)
    work.write_locked(part, locked)
    leave_out(work, part, left_out, key)
    every = [one for instances in buckets.values() for one in instances]
    others = [outcome.source_key for outcome in outcomes]
    places.write(work, part, places.records_of(every, others, key))
    counts = {
        "instances": len(every),
        "outcomes": len(outcomes),
        "not_dicom": sum(outcome.code in NOT_DICOM for outcome in outcomes),
    }
    work.write_note(counts, "index", f"{part}.json")
    codes = Counter(kind_of(outcome.code, outcome.reason) for outcome in outcomes)
    return {
        **counts,
        "files": counts["instances"] + counts["outcomes"],
        "found": {"instances": counts["instances"], **codes},
    }


def _is_forgotten(
    file: SourceFile, result: Instance | Outcome, forgotten: Forgotten
) -> bool:
    if isinstance(result, Instance):
        return forgotten.has(person_of(result))
    return bool(forgotten) and forgotten.has(read_person(file))


def _index(
    files: Sequence[SourceFile],
) -> Iterator[tuple[SourceFile, Instance | InputError]]:
    """Yield each file and what became of it, in order."""
    found = dict(storage.parse_starts(_try_instance, files))
    for number, file in enumerate(files):
        yield file, _at_length(file, found.pop(number))


def _try_instance(
    file: SourceFile, start: BinaryIO | None, limit: int = SMALL_HEADER_BYTES
) -> Instance | InputError:
    """Index one file. A bad file is a value, not a crash."""
    try:
        return guard(read_instance, file, limit, start)
    except InputError as error:
        return error


def _at_length(file: SourceFile, found: Instance | InputError) -> Instance | InputError:
    """Read a long header after all, now that no other is read at the same time."""
    if isinstance(found, InputError) and found.code == "too-large":
        return _try_instance(file, None, MAX_HEADER_BYTES)
    return found


def _outcome_of(
    file: SourceFile, found: Instance | InputError, key: Key
) -> Instance | Outcome:
    if isinstance(found, Instance):
        return found
    return make_outcome(file, "index", found.code, found.reason, key)


def read_instance(
    file: SourceFile, limit: int = MAX_HEADER_BYTES, start: BinaryIO | None = None
) -> Instance:
    """Return the instance of one listed file, or raise InputError.

    Parameters
    ----------
    limit
        The most bytes that the header may have.
    start
        A stream over the file; by default it is opened.
    """
    if file.size == storage.OUTSIDE:
        reason = None if storage.is_local(file.url) else OUTSIDE_NAME
        raise InputError("outside-source", reason)
    if file.size == storage.NOT_A_FILE:
        raise InputError("unreadable")
    if file.size == 0:
        raise InputError("empty-file")
    if start is not None:
        return header.read_instance(start, file, limit=limit)
    with storage.open_blocks(file.url, file.size) as stream:
        return header.read_instance(stream, file, limit=limit)


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
    with quiet():
        return [one for _, one in _index([*files]) if isinstance(one, Instance)]
