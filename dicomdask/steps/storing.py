"""The later stages: encode what the plan says, and commit what has receipts."""

import datetime
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import dicomdask.tasks.commit as commit_task
from dicomdask import arrays, commits, pipeline, plan, storage
from dicomdask.commits import Commit
from dicomdask.errors import PlanError, StoreError
from dicomdask.model import PlannedVolume, Task
from dicomdask.runlog import StageUse
from dicomdask.steps.session import Goal, Session
from dicomdask.steps.stages import (
    BATCH_SECONDS,
    note_plan,
    plan_buckets,
    require_plan,
    require_planned,
)
from dicomdask.tasks import planning
from dicomdask.tasks.encode import plan_tasks, source_bytes
from dicomdask.tasks.planned import sort_verdicts
from dicomdask.tasks.policies import named_policy
from dicomdask.tasks.remembered import as_of, open_buckets, read_remembered
from dicomdask.work import Job

LOGGER: Final = logging.getLogger("dicomdask")
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
    job = require_planned(work)
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
    planned = require_plan(work)
    names = work.verdict_names()[planned.n_verdicts :]
    buckets = sort_verdicts(work, session.key, names) & set(work.plan_names())
    states = work.plan_states()
    edited = {name for name in buckets if states[name] != planned.plans.get(name)}
    before = dict(work.read_plans(buckets))
    waiting = plan_buckets(session, buckets)
    for name, part in before.items():
        planning.keep_planned(work, name, part)
    waiting |= set(planned.waiting) - buckets
    again = planned.again
    note_plan(work, job, made=buckets - edited, waiting=waiting, again=again)


def _find_lost(session: Session, store: str) -> list[str]:
    """Look whether done tasks have their shards still, where no commit names them.

    Returns the parts of the plan that the newest commit may not hold.
    """
    newest = session.newest or commits.read_commit(store)
    remembered = as_of(read_remembered(session.work), newest)
    commit_task.drop_lost(session.work, session.key, store, remembered)
    return open_buckets(session.work, remembered)


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
        planned = require_plan(work)
        again = {*planned.again, *pruned}
        job, waiting = work.require_job(), planned.waiting
        note_plan(work, job, made=pruned, waiting=waiting, again=again)
    return bool(pruned)


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
    store = str(require_planned(work).store)
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
