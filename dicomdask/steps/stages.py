"""The stages: each does what has no receipt yet. Index, plan, encode, commit."""

import datetime
import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import dicomdask.tasks.commit as commit_task
import dicomdask.tasks.index as index_task
from dicomdask import arrays, commits, pipeline, plan, storage
from dicomdask.commits import Commit
from dicomdask.errors import NoDicomError, PlanError, StoreError
from dicomdask.model import PlannedVolume, Task
from dicomdask.steps.session import Session
from dicomdask.tasks import planning, resolve
from dicomdask.tasks.encode import plan_tasks
from dicomdask.work import Job, Work

LOGGER: Final = logging.getLogger("dicomdask")
MANIFEST_FILES: Final = 256
BATCH_SECONDS: Final = (1.0, 20.0)
"""A batch of tasks is at least and at most about this long."""
SECONDS_PER_HEADER: Final = 0.001
SECONDS_PER_FRAME: Final = 0.008
BYTES_PER_SECOND: Final = 60e6


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did.

    `commit` is the dataset's newest state; `is_new` says whether this run made it.
    `n_encoded` tasks were done and `n_indexed` files read by this run.
    """

    store: str
    work: str
    commit: Commit
    is_new: bool
    n_indexed: int
    n_encoded: int


# --- index ---


def index(session: Session, sources: Sequence[str], *, exclude: tuple[str, ...]) -> int:
    """List the sources and index what is new; return how many files were read.

    Raises
    ------
    SourceError
        If a source does not exist.
    NoDicomError
        If no listed file is DICOM.
    """
    work = session.work
    files = index_task.list_sources(sources, exclude=exclude)
    session.progress("list", len(files), len(files))
    again = index_task.unreadable_before(work, files, session.key)
    index_task.extend_manifest(work, files, again=again, part_files=MANIFEST_FILES)
    done = work.indexed_parts()
    left = [part for part in work.manifest_parts() if part not in done]
    bag = pipeline.index_bag(left, work_url=work.url)
    seconds = SECONDS_PER_HEADER * MANIFEST_FILES * len(left)
    run = session.run("index", bag, len(left), seconds=seconds)
    counts = list(run) if left else []
    _require_dicom(work, sources)
    return sum(one["instances"] + one["outcomes"] for one in counts)


def count_files(sources: Sequence[str], *, exclude: tuple[str, ...]) -> int:
    """Return how many files the sources hold; raise NoDicomError for none."""
    n_files = len(index_task.list_sources(sources, exclude=exclude))
    if not n_files:
        raise NoDicomError(
            f"no file in {', '.join(sources)}; name the folder that holds DICOM"
        )
    return n_files


def _require_dicom(work: Work, sources: Sequence[str]) -> None:
    notes = [work.read_counts(part) for part in work.indexed_parts()]
    is_dicom = sum(
        note["instances"] + note["outcomes"] - note["not_dicom"] for note in notes
    )
    if not is_dicom:
        n_files = sum(note["outcomes"] for note in notes)
        names = ", ".join(sources)
        raise NoDicomError(
            f"no DICOM among the {n_files} files of {names}; name the folder that "
            "holds it"
        )


# --- plan ---


def make_plan(session: Session) -> None:
    """Plan what is indexed; nothing is done where nothing changed.

    Raises
    ------
    PlanError
        If nothing is indexed, or the filter cannot be evaluated.
    """
    work = session.work
    job = work.require_job()
    if not work.bucket_names() and not work.indexed_parts():
        raise PlanError(f"{work.url} has no index; run `dicomdask index` first")
    is_same = work.read_note("planned.json") == _plan_state(work, job)
    if not resolve.reopen(work) and is_same and _is_readable(work):
        return
    batches = resolve.write_batches(work, session.key)
    if batches:
        bag = pipeline.resolve_bag(batches, work_url=work.url)
        _exhaust(session.run("resolve", bag, len(batches)))
    buckets = work.bucket_names()
    if buckets:
        bag = pipeline.plan_bag(buckets, work_url=work.url)
        n_instances = sum(
            work.read_counts(p)["instances"] for p in work.indexed_parts()
        )
        seconds = SECONDS_PER_HEADER * n_instances
        _exhaust(session.run("plan", bag, len(buckets), seconds=seconds))
    planning.prune(work, limit=job.limit, memory=None, key=session.key)
    _note_plan(work, job)


def _note_plan(work: Work, job: Job) -> None:
    commit_task.note_plan(work)
    work.write_note(_plan_state(work, job), "planned.json")


def _is_readable(work: Work) -> bool:
    """Return whether no part of the plan is gone or damaged; an edited one is kept."""
    try:
        work.read_plans()
    except PlanError:
        return False
    return not commit_task.lacks_parts(work)


def _exhaust(results: Iterator[Any]) -> None:
    for _ in results:
        pass


def _plan_state(work: Work, job: Job) -> str:
    """Return a digest of all that the plan is made from."""
    policy = planning.job_policy(job).digest
    parts = sorted(work.indexed_parts())
    state = [asdict(job), policy, parts, work.n_verdicts()]
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()


# --- encode ---


def encode(session: Session, *, task_range: tuple[int, int] | None = None) -> int:
    """Encode the tasks without receipt; return how many were done.

    Series in which frames turn out to be unfit are planned again without them.

    Parameters
    ----------
    task_range
        Only the tasks [start, stop) of the whole plan, in its order: for array jobs.

    Raises
    ------
    PlanError
        If there is no plan; or, with a range, if frames were unfit.
    """
    work = session.work
    job = _require_planned(work)
    store = str(job.store)
    storage.require_writable(store)
    if not storage.can_create_once(store):
        LOGGER.warning(
            "%s has no conditional writes: let no other run write to it meanwhile",
            store,
        )
    root = storage.join(store, "zarr.json")
    if not storage.exists(root):
        with storage.room_at(store):
            storage.write(root, arrays.root_metadata().encode())
    done = 0
    while left := _open_tasks(session, task_range):
        if _reject_too_large(session):
            continue
        batches = _batches(left, session.runner.n_workers)
        bag = pipeline.encode_bag(batches, work_url=work.url)
        counts = list(session.run("encode", bag, len(batches)))
        done += sum(one["tasks"] for one in counts)
        n_unfit = sum(one["unfit"] for one in counts)
        if n_unfit and task_range is not None:
            raise PlanError(
                f"{n_unfit} frames turned out unfit; run `dicomdask plan`, then "
                "`dicomdask encode` again"
            )
        if n_unfit:
            _replan(session, job)
        elif not any(one["tasks"] for one in counts):
            raise StoreError(
                f"tasks leave no receipt in {work.url}; remove its receipts"
            )
    return done


def _replan(session: Session, job: Job) -> None:
    """Plan again without the frames that were unfit, and nothing that was pruned."""
    work = session.work
    was_edited = commit_task.is_edited(work)
    before = work.read_plans()
    bag = pipeline.plan_bag(list(before), work_url=work.url)
    _exhaust(session.run("plan", bag, len(before)))
    for name, part in before.items():
        planning.keep_planned(work, name, part)
    if not was_edited:
        commit_task.note_plan(work)
    work.write_note(_plan_state(work, job), "planned.json")


@dataclass(frozen=True, slots=True)
class _OpenTask:
    """A task without receipt: where it stands in the plan, and its rough cost."""

    part: str
    number: int
    seconds: float


def _open_tasks(
    session: Session, task_range: tuple[int, int] | None
) -> list[_OpenTask]:
    work = session.work
    done = work.done_tasks()
    found: list[_OpenTask] = []
    position = 0
    for name, part in work.read_plans().items():
        for number, (volume, task) in enumerate(plan_tasks(part)):
            inside = task_range is None or task_range[0] <= position < task_range[1]
            position += 1
            if inside and plan.task_digest(volume, task, session.key) not in done:
                found.append(_OpenTask(name, number, _seconds(volume, task)))
    return found


def _seconds(volume: PlannedVolume, task: Task) -> float:
    share = len(task.frames) / max(1, len(volume.frames))
    raw = volume.raw_bytes * share / BYTES_PER_SECOND
    return raw + SECONDS_PER_FRAME * len(task.frames)


def _batches(left: Sequence[_OpenTask], n_workers: int) -> list[tuple[str, int, int]]:
    """Join tasks that follow one another into batches of a second or more."""
    shortest, longest = BATCH_SECONDS
    total = sum(task.seconds for task in left)
    wanted = min(max(shortest, total / (4 * n_workers)), longest)
    batches: list[tuple[str, int, int]] = []
    seconds = wanted
    for task in left:
        part, start, stop = batches[-1] if batches else ("", 0, 0)
        if seconds < wanted and part == task.part and stop == task.number:
            batches[-1] = (part, start, stop + 1)
            seconds += task.seconds
        else:
            batches.append((task.part, task.number, task.number + 1))
            seconds = task.seconds
    return batches


def _reject_too_large(session: Session) -> bool:
    """Reject what no worker can hold, before anything of it is allocated.

    The plan is made anew by the next run, which may have larger workers.
    """
    work, limit = session.work, session.runner.task_memory
    if not planning.prune(work, limit=None, memory=limit, key=session.key):
        return False
    commit_task.note_plan(work)
    work.write_note(None, "planned.json")
    return True


def _require_planned(work: Work) -> Job:
    job = work.require_job()
    if job.store is None or work.read_note("planned.json") is None:
        raise PlanError(f"{work.url} has no plan; run `dicomdask plan` first")
    return job


# --- commit ---


def commit(session: Session) -> Summary:
    """Commit what has receipts; return the newest commit, and whether it is new.

    Raises
    ------
    PlanError, StoreError
        If tasks have no receipt, or an input is unaccounted for.
    """
    work = session.work
    store = str(_require_planned(work).store)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    made = commit_task.commit(work, now=now)
    newest = made or commits.read_commit(store)
    if newest is None:
        raise StoreError("the commit vanished while it was made; run again")
    return Summary(
        store, work.url, newest, made is not None, session.n_indexed, session.n_encoded
    )
