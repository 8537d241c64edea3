"""The stages up to a plan: list, index, resolve and plan what is new."""

import time
from collections.abc import Container, Iterable, Sequence
from typing import Final

import dicomdask.tasks.index as index_task
from dicomdask import pipeline, storage
from dicomdask.errors import NoDicomError, PlanError
from dicomdask.runlog import Progress
from dicomdask.steps.session import Goal, Session
from dicomdask.tasks import planning, resolve
from dicomdask.tasks.forgotten import read_forgotten, without_left_out
from dicomdask.tasks.planned import (
    Planned,
    find_news,
    job_state,
    read_planned,
    sort_verdicts,
    write_planned,
)
from dicomdask.work import Job, Work

MANIFEST_FILES: Final = index_task.part_files(0)
BATCH_SECONDS: Final = (1.0, 20.0)
"""A batch of tasks is at least and at most about this long."""
SECONDS_PER_HEADER: Final = 0.001


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
    list_inputs(session, sources, exclude)
    return index_listed(session, sources)


def index_listed(session: Session, sources: Sequence[str]) -> int:
    """Index what is listed and new; return how many files were read.

    Raises
    ------
    NoDicomError
        If no listed file is DICOM.
    """
    work = session.work
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
    with session.log.stage("list"):
        started = time.monotonic()
        work = session.work
        listed = index_task.list_sources(sources, exclude=exclude)
        store = work.require_job().store
        files = without_left_out(work, listed, store=store, key=session.key)

        def tell(n_files: int, total: int) -> None:
            seconds = time.monotonic() - started
            session.progress(Progress("list", n_files, total, "files", seconds))

        n_files = index_task.extend_manifest(
            work, files, progress=lambda n: tell(n, n + 1)
        )
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
    waiting = plan_buckets(session, buckets)
    if planned is not None:
        waiting |= set(planned.waiting) - buckets
    if job.limit is not None:
        names = work.plan_names()
        planning.prune(work, names, limit=job.limit, memory=None, key=key)
    note_plan(work, job, made=buckets, waiting=waiting, forgotten=forgotten)


def plan_buckets(session: Session, buckets: Iterable[str]) -> set[str]:
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


def note_plan(
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


def require_planned(work: Work) -> Job:
    """Return the job of a work directory that has a plan, or raise PlanError."""
    job = work.require_job()
    require_plan(work)
    if job.store is None:
        raise PlanError(f"{work.url} has no plan; run `dicomdask plan` first")
    return job


def require_plan(work: Work) -> Planned:
    """Return what was planned, or raise PlanError."""
    found = read_planned(work)
    if found is None:
        raise PlanError(f"{work.url} has no plan; run `dicomdask plan` first")
    return found
