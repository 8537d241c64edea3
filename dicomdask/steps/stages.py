"""The stages: each does what has no receipt yet. Index, plan, encode, commit."""

import datetime
import logging
import time
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import dicomdask.tasks.commit as commit_task
import dicomdask.tasks.index as index_task
from dicomdask import arrays, commits, pipeline, plan, storage
from dicomdask.commits import Commit
from dicomdask.errors import NoDicomError, PlanError, StoreError
from dicomdask.model import PlannedVolume, Task
from dicomdask.runlog import Progress, StageUse
from dicomdask.steps.session import Goal, Session
from dicomdask.tasks import planning, resolve
from dicomdask.tasks.encode import plan_tasks, source_bytes
from dicomdask.tasks.forgotten import read_forgotten, without_left_out
from dicomdask.tasks.memory import as_of, open_buckets, read_memory
from dicomdask.tasks.planned import (
    Planned,
    find_news,
    job_state,
    read_planned,
    sort_verdicts,
    write_planned,
)
from dicomdask.tasks.policies import named_policy
from dicomdask.work import Job, Work

LOGGER: Final = logging.getLogger("dicomdask")
MANIFEST_FILES: Final = index_task.part_files(0)
BATCH_SECONDS: Final = (1.0, 20.0)
"""A batch of tasks is at least and at most about this long."""
SECONDS_PER_HEADER: Final = 0.001
SECONDS_PER_FRAME: Final = 0.008
BYTES_PER_SECOND: Final = 60e6


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did.

    `commit` is the dataset's newest state; `is_new` says whether this run made it.
    `n_encoded` tasks were done and `n_indexed` files read by this run; `stages` says
    where its time and bytes went.
    """

    store: str
    work: str
    commit: Commit
    is_new: bool
    n_indexed: int
    n_encoded: int
    stages: tuple[StageUse, ...] = ()


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
    with session.log.stage("list"):
        list_inputs(session, sources, exclude)
        done = work.indexed_parts()
        left = [part for part in work.manifest_parts() if part not in done]
        n_files = sum(work.n_listed(part) for part in left)
    counts = []
    if left:
        bag = pipeline.index_bag(left, work_url=work.url)
        goal = Goal(n_files, "files", "files")
        seconds = SECONDS_PER_HEADER * n_files
        counts = session.run("index", bag, goal, seconds=seconds)
    _require_dicom(work, sources)
    return sum(one["files"] for one in counts)


def list_inputs(
    session: Session, sources: Sequence[str], exclude: tuple[str, ...]
) -> None:
    """Add what is new or changed in the sources to the manifest."""
    started = time.monotonic()
    work = session.work
    listed = index_task.list_sources(sources, exclude=exclude)
    store = work.require_job().store
    files = without_left_out(work, listed, store=store, key=session.key)

    def tell(n_files: int, total: int) -> None:
        seconds = time.monotonic() - started
        session.progress(Progress("list", n_files, total, "files", seconds))

    n_files = index_task.extend_manifest(work, files, progress=lambda n: tell(n, n + 1))
    tell(n_files, n_files)
    session.log.note("found", stage="list", files=n_files)


def require_files(sources: Sequence[str], *, exclude: tuple[str, ...]) -> None:
    """Check that all sources exist and hold a file, as far as that is told at once.

    Raises
    ------
    SourceError
        If a source does not exist.
    NoDicomError
        If none holds a file.
    """
    found = [storage.has_files(one, exclude=exclude) for one in sources]
    if not any(found):
        raise NoDicomError(
            f"no file in {', '.join(sources)}; name the folder that holds DICOM"
        )


def _require_dicom(work: Work, sources: Sequence[str]) -> None:
    n_files = 0
    for part in sorted(work.indexed_parts()):
        note = work.read_counts(part)
        if note["instances"] + note["outcomes"] > note["not_dicom"]:
            return
        n_files += note["outcomes"]
    names = ", ".join(sources)
    raise NoDicomError(
        f"no DICOM among the {n_files} files of {names}; name the folder that holds it"
    )


# --- plan ---


def make_plan(session: Session) -> None:
    """Plan what is indexed and not planned; nothing is done where nothing changed.

    Raises
    ------
    PlanError
        If nothing is indexed, or the filter cannot be evaluated.
    """
    with session.log.stage("plan"):
        _make_plan(session)


def _make_plan(session: Session) -> None:
    work, key = session.work, session.key
    job = work.require_job()
    if not work.indexed_parts():
        raise PlanError(f"{work.url} has no index; run `dicomdask index` first")
    planned = read_planned(work)
    forgotten = sorted(read_forgotten(job.store, key).digests)
    news = find_news(work, job, key, planned, forgotten)
    if not news.is_any:
        return
    n_verdicts = work.n_verdicts()
    batches = resolve.write_batches(work, key, news.repeats) if news.repeats else []
    if batches:
        memory = session.runner.task_memory
        bag = pipeline.resolve_bag(batches, work_url=work.url, memory=memory)
        session.run("resolve", bag, Goal(len(batches), "sets"))
    found = sort_verdicts(work, key, work.verdict_names()[n_verdicts:])
    buckets = news.buckets | found
    waiting = _plan_buckets(session, buckets)
    if planned is not None:
        waiting |= set(planned.waiting) - buckets
    if job.limit is not None:
        names = work.plan_names()
        planning.prune(work, names, limit=job.limit, memory=None, key=key)
    _note_plan(work, job, made=buckets, waiting=waiting, forgotten=forgotten)


def _plan_buckets(session: Session, buckets: Iterable[str]) -> set[str]:
    """Plan some buckets; return those with a reason that may end."""
    work, names = session.work, sorted(buckets)
    if not names:
        return set()
    share = len(names) / max(len(names), len(work.bucket_names()))
    n_instances = MANIFEST_FILES * len(work.indexed_parts())  # at most
    seconds = SECONDS_PER_HEADER * n_instances * share
    step = max(1, int(len(names) * BATCH_SECONDS[0] / seconds))
    batches = [tuple(names[i : i + step]) for i in range(0, len(names), step)]
    bag = pipeline.plan_bag(batches, work_url=work.url)
    goal = Goal(len(names), "parts", "parts")
    results = session.run("plan", bag, goal, seconds=seconds)
    return {name for one in results for name in one["waiting"]}


def _note_plan(
    work: Work,
    job: Job,
    *,
    made: Container[str],
    waiting: Iterable[str] = (),
    again: Iterable[str] = (),
    forgotten: Sequence[str] | None = None,
) -> None:
    """Remember what the plan was made from; parts not made now may be edited.

    Who is forgotten was asked before the plan was made: who is forgotten meanwhile may
    be in it, and the commit refuses that.
    """
    before = read_planned(work)
    if forgotten is None:
        forgotten = before.forgotten if before else ()
    plans = {
        name: before.plans.get(name, token) if before and name not in made else token
        for name, token in work.plan_states().items()
    }
    planned = Planned(
        job_state(job),
        tuple(sorted(work.indexed_parts())),
        work.n_verdicts(),
        plans,
        tuple(sorted(again)),
        tuple(sorted(waiting)),
        tuple(forgotten),
    )
    write_planned(work, planned)


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
    with session.log.stage("encode"):
        return _encode(session, task_range)


def _encode(session: Session, task_range: tuple[int, int] | None) -> int:
    work = session.work
    job = _require_planned(work)
    store = str(job.store)
    _begin_store(store)
    if task_range is None:
        names = _find_lost(session, store)
        session.has_encoded = True
    else:
        names = work.plan_names()
    done, is_checked = 0, False
    while left := _open_tasks(session, names, task_range):
        if not is_checked:
            session.check_writers(store)
            is_checked = True
        if _reject_too_large(session, {task.part for task in left}):
            continue
        session.tell_memory(max(task.memory for task in left))
        counts = _run_tasks(session, left)
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


def _begin_store(store: str) -> None:
    """Write the root of a store unless it is there, and say what it cannot do."""
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


def _run_tasks(session: Session, left: Sequence["_OpenTask"]) -> list[dict[str, Any]]:
    batches = _batches(left, session.runner.n_workers)
    bag = pipeline.encode_bag(batches, work_url=session.work.url)
    nbytes = sum(task.nbytes for task in left)
    goal = Goal(len(left), "tasks", "pieces", nbytes)
    return session.run("encode", bag, goal)


def _replan(session: Session, job: Job) -> None:
    """Plan again without the frames that were unfit, and nothing that was pruned."""
    work = session.work
    planned = _read_planned(work)
    names = work.verdict_names()[planned.n_verdicts :]
    buckets = sort_verdicts(work, session.key, names) & set(work.plan_names())
    states = work.plan_states()
    edited = {name for name in buckets if states[name] != planned.plans.get(name)}
    before = dict(work.read_plans(buckets))
    waiting = _plan_buckets(session, buckets)
    for name, part in before.items():
        planning.keep_planned(work, name, part)
    waiting |= set(planned.waiting) - buckets
    again = planned.again
    _note_plan(work, job, made=buckets - edited, waiting=waiting, again=again)


def _find_lost(session: Session, store: str) -> list[str]:
    """Look whether done tasks have their shards still, where no commit names them.

    Returns the parts of the plan that the newest commit may not hold.
    """
    newest = session.newest or commits.read_commit(store)
    memory = as_of(read_memory(session.work), newest)
    commit_task.drop_lost(session.work, session.key, store, memory)
    return open_buckets(session.work, memory)


@dataclass(frozen=True, slots=True)
class _OpenTask:
    """A task without receipt: where it stands in the plan, and what it takes."""

    part: str
    number: int
    seconds: float
    nbytes: int
    memory: int


def _open_tasks(
    session: Session, names: Iterable[str], task_range: tuple[int, int] | None
) -> list[_OpenTask]:
    """Return the tasks without receipt in some parts of the plan, in its order."""
    work = session.work
    done = work.done_tasks()
    cleans_faces = named_policy(work.require_job()).cleans_faces
    found: list[_OpenTask] = []
    position = 0
    for name in names:
        part = work.read_plan(name)
        held = plan.held_bytes(part, cleans_faces=cleans_faces)
        for number, (volume, task) in enumerate(plan_tasks(part)):
            inside = task_range is None or task_range[0] <= position < task_range[1]
            position += 1
            if inside and plan.task_digest(volume, task, session.key) not in done:
                seconds, nbytes = _seconds(volume, task), source_bytes(volume, task)
                memory = plan.memory_bytes(volume, held)
                found.append(_OpenTask(name, number, seconds, nbytes, memory))
    return found


def _seconds(volume: PlannedVolume, task: Task) -> float:
    share = len(task.frames) / max(1, len(volume.frames))
    raw = volume.raw_bytes * share / BYTES_PER_SECOND
    return raw + SECONDS_PER_FRAME * len(task.frames)


Batch = list[tuple[str, int, int]]


def _batches(left: Sequence[_OpenTask], n_workers: int) -> list[Batch]:
    """Join tasks in the order of the plan into batches of a second or more."""
    shortest, longest = BATCH_SECONDS
    total = sum(task.seconds for task in left)
    wanted = min(max(shortest, total / (4 * n_workers)), longest)
    batches: list[Batch] = []
    seconds = wanted
    for task in left:
        if seconds >= wanted:
            batches.append([])
            seconds = 0.0
        seconds += task.seconds
        part, start, stop = batches[-1][-1] if batches[-1] else ("", 0, 0)
        if part == task.part and stop == task.number:
            batches[-1][-1] = (part, start, stop + 1)
        else:
            batches[-1].append((task.part, task.number, task.number + 1))
    return batches


def _reject_too_large(session: Session, names: Iterable[str]) -> bool:
    """Reject what no worker can hold, before anything of it is allocated.

    These parts are planned anew by the next run, which may have larger workers.
    """
    work, limit, key = session.work, session.runner.task_memory, session.key
    pruned = planning.prune(work, names, limit=None, memory=limit, key=key)
    if pruned:
        planned = _read_planned(work)
        again = {*planned.again, *pruned}
        job, waiting = work.require_job(), planned.waiting
        _note_plan(work, job, made=pruned, waiting=waiting, again=again)
    return bool(pruned)


def _require_planned(work: Work) -> Job:
    job = work.require_job()
    _read_planned(work)
    if job.store is None:
        raise PlanError(f"{work.url} has no plan; run `dicomdask plan` first")
    return job


def _read_planned(work: Work) -> Planned:
    found = read_planned(work)
    if found is None:
        raise PlanError(f"{work.url} has no plan; run `dicomdask plan` first")
    return found


# --- commit ---


def commit(session: Session) -> Summary:
    """Commit what has receipts; return the newest commit, and whether it is new.

    Raises
    ------
    PlanError, StoreError
        If tasks have no receipt, or an input is unaccounted for.
    """
    with session.log.stage("commit"):
        newest, is_new = _commit(session)
    return Summary(
        store=str(session.work.require_job().store),
        work=session.work.url,
        commit=newest,
        is_new=is_new,
        n_indexed=session.n_indexed,
        n_encoded=session.n_encoded,
        stages=session.log.uses(),
    )


def _commit(session: Session) -> tuple[Commit, bool]:
    work = session.work
    store = str(_require_planned(work).store)
    if not session.has_encoded:
        _find_lost(session, store)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    made = commit_task.commit(work, now=now)
    newest = made or commits.read_commit(store)
    if newest is None:
        raise StoreError("the commit vanished while it was made; run again")
    session.log.note(
        "commit",
        n=newest.n,
        is_new=made is not None,
        counts=newest.counts,
        codes=newest.codes,
    )
    return newest, made is not None
