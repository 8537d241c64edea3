"""Plan: one bucket's series at a time, with what resolve and encode found out."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from dicomdask import plan
from dicomdask.errors import CODES
from dicomdask.model import Instance, Outcome, PlannedVolume, Verdict
from dicomdask.pseudonym import Key, resolve_key
from dicomdask.tasks.barrier import kind_of
from dicomdask.tasks.forgotten import Forgotten, read_forgotten
from dicomdask.tasks.index import make_outcome, stored_outcome
from dicomdask.tasks.measure import Counts, measured
from dicomdask.tasks.policies import job_policy, named_policy
from dicomdask.tasks.resolve import newest_of, stored_sources
from dicomdask.work import Job, Work

WAITING: Final = frozenset({"conflict", "source-changed", "unreadable", "too-large"})
"""The codes of verdicts that may end: a copy goes, or a file comes back."""


@measured
def plan_buckets(buckets: Sequence[str], *, work_url: str) -> Counts:
    """Plan the series of some buckets; return counts, and which wait for an end."""
    work = Work(work_url)
    job = work.require_job()
    changed = work.read_changed()
    forgotten = read_forgotten(job.store, resolve_key(job.key))
    found: Counter[str] = Counter()
    waiting = []
    for bucket in buckets:
        verdicts = work.read_found(bucket)
        current = newest_of(work.read_bucket(bucket), changed)
        made = _plan_bucket(work, job, bucket, current, verdicts, forgotten)
        work.write_plan(bucket, made)
        found["volumes"] += len(made.volumes)
        found.update(kind_of(one.code, one.reason) for one in made.outcomes)
        if any(verdict.code in WAITING for verdict in verdicts.values()):
            waiting.append(bucket)
    return {"parts": len(buckets), "waiting": waiting, "found": dict(found)}


Verdicts = dict[tuple[str, str], Verdict]


def _plan_bucket(
    work: Work,
    job: Job,
    bucket: str,
    every: list[Instance],
    verdicts: Verdicts,
    forgotten: Forgotten,
) -> plan.Plan:
    key = forgotten.key
    current, gone = forgotten.split(every)
    fit, outcomes, duplicates = _sift(work, bucket, current, verdicts, key)
    reason = CODES["forgotten"]
    outcomes += [make_outcome(one, "plan", "forgotten", reason, key) for one in gone]
    if job.settings.where and fit:
        fit, others = plan.filter_instances(fit, job.settings.where)
        reason = CODES["filtered"]
        outcomes += [
            make_outcome(one, "plan", "filtered", reason, key) for one in others
        ]
    made = plan.plan_instances(
        fit,
        job.settings,
        policy=job_policy(job),
        key=key,
        duplicates=duplicates,
    )
    told = sorted([*made.outcomes, *outcomes], key=lambda one: one.source_key)
    return plan.Plan(made.volumes, tuple(told))


Sifted = tuple[list[Instance], list[Outcome], Counter[str]]


def _sift(
    work: Work, bucket: str, current: list[Instance], found: Verdicts, key: Key
) -> Sifted:
    """Return the fit instances, the outcomes of others, and duplicates by UID."""
    verdicts = {
        state: verdict for state, verdict in found.items() if verdict.code != "stored"
    }
    gone = {
        one.url
        for one in current
        for verdict in [verdicts.get((one.url, one.token))]
        if verdict is not None and verdict.code == "source-changed"
    }
    kept, outcomes = _spare(work, bucket, current, gone, key)
    fit: list[Instance] = []
    duplicates: Counter[str] = Counter()
    for one in kept:
        verdict = verdicts.get((one.url, one.token))
        if verdict is None:
            fit.append(one)
            continue
        told = (verdict.stage, verdict.code, verdict.reason)
        outcomes.append(make_outcome(one, *told, key))
        duplicates[one.sop_instance_uid] += verdict.code == "duplicate"
    return fit, outcomes, duplicates


def _spare(
    work: Work, bucket: str, current: list[Instance], gone: set[str], key: Key
) -> tuple[list[Instance], list[Outcome]]:
    """Set aside the stored series of which a source is gone: they stay as they are.

    To encode such a series again would lose the slices whose sources are gone.
    """
    store = str(work.require_job().store)
    stored = stored_sources(store, [bucket]) if gone else frozenset()
    names = (
        {one.url: plan.source_key(one.url, key) for one in current} if stored else {}
    )
    spared = {
        plan.series_key(one, key)
        for one in current
        if one.url in gone and names.get(one.url) in stored
    }
    kept: list[Instance] = []
    outcomes: list[Outcome] = []
    for one in current:
        if plan.series_key(one, key) not in spared:
            kept.append(one)
        elif names[one.url] in stored:
            outcomes.append(stored_outcome(names[one.url], one.size))
        else:
            code = "series-incomplete"
            outcomes.append(make_outcome(one, "encode", code, CODES[code], key))
    return kept, outcomes


def keep_planned(work: Work, name: str, before: plan.Plan) -> None:
    """Take out of one part of the plan what was not in it before."""
    urls = {frame.url for volume in before.volumes for frame in volume.frames}
    part = work.read_plan(name)
    kept = [
        volume
        for volume in part.volumes
        if all(frame.url in urls for frame in volume.frames)
    ]
    if len(kept) < len(part.volumes):
        still = {outcome.source_key: outcome for outcome in part.outcomes}
        pruned = {
            outcome.source_key: outcome
            for outcome in before.outcomes
            if outcome.code == "not-selected"
        }
        outcomes = sorted((pruned | still).values(), key=lambda one: one.source_key)
        work.write_plan(name, plan.Plan(tuple(kept), tuple(outcomes)))


def prune(
    work: Work,
    names: Iterable[str],
    *,
    limit: int | None,
    memory: int | None,
    key: Key,
) -> list[str]:
    """Take out of the plan what is beyond a number of volumes, or needs more memory.

    Returns the parts in which there was any.

    Parameters
    ----------
    names
        The parts of the plan to look at.
    limit
        How many volumes to keep over all parts of the plan.
    memory
        The bytes that one task may take. What is encoded already stays.
    """
    left = limit
    pruned: list[str] = []
    done = frozenset() if memory is None else work.done_tasks()
    job = work.read_job()
    cleans_faces = job is not None and named_policy(job).cleans_faces
    for name in sorted(names):
        part = work.read_plan(name)
        kept, dropped = list[PlannedVolume](), list[Outcome]()
        held = plan.held_bytes(part, cleans_faces=cleans_faces)
        for volume in part.volumes:
            code = _reason_to_drop(volume, left, memory, held)
            if code == "too-large" and _is_done(volume, done, key):
                code = None
            if code is None:
                kept.append(volume)
                left = None if left is None else left - 1
                continue
            dropped += [
                make_outcome(frame, "plan", code, CODES[code], key)
                for frame in volume.frames
            ]
        if len(kept) < len(part.volumes):
            pruned.append(name)
            outcomes = _with_dropped(part.outcomes, dropped, kept)
            work.write_plan(name, plan.Plan(tuple(kept), tuple(outcomes)))
    return pruned


def _with_dropped(
    outcomes: Iterable[Outcome], dropped: Iterable[Outcome], kept: list[PlannedVolume]
) -> list[Outcome]:
    """Return outcomes with those of dropped frames: one for each file in no volume."""
    stored = {frame.source_key for volume in kept for frame in volume.frames}
    gone = {one.source_key: one for one in dropped if one.source_key not in stored}
    return sorted([*outcomes, *gone.values()], key=lambda one: one.source_key)


def _is_done(volume: PlannedVolume, done: Collection[str], key: Key) -> bool:
    tasks = plan.volume_tasks(volume)
    return all(plan.task_digest(volume, task, key) in done for task in tasks)


def _reason_to_drop(
    volume: PlannedVolume, left: int | None, memory: int | None, held: int
) -> str | None:
    if left is not None and left <= 0:
        return "not-selected"
    if memory is not None and plan.memory_bytes(volume, held) > memory:
        return "too-large"
    return None
