"""What the plan was made from, and which buckets have to be planned again."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from dicomdask import plan
from dicomdask.errors import PlanError
from dicomdask.pseudonym import Key
from dicomdask.tasks import places
from dicomdask.tasks.policies import job_policy
from dicomdask.tasks.resolve import reopen
from dicomdask.work import Job, Work

NOTE = "planned.json"


@dataclass(frozen=True, slots=True)
class Planned:
    """What the plan was made from.

    `state` is a digest of the settings; `parts` of the manifest and the first
    `n_verdicts` verdicts are in it. `plans` holds the token of each part as it was
    made, so that an edit can be told. `again` names the parts to plan anew by the next
    run, `waiting` those with a reason that may end. `forgotten` are the patients that
    were kept out when the plan was begun.
    """

    state: str
    parts: tuple[str, ...]
    n_verdicts: int
    plans: dict[str, str]
    again: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    forgotten: tuple[str, ...] = ()


def read_planned(work: Work) -> Planned | None:
    """Return what the plan was made from; None where there is no plan."""
    try:
        found: Planned = plan.from_plain(Planned, work.read_note(NOTE))
    except TypeError:
        return None
    return found


def write_planned(work: Work, planned: Planned) -> None:
    """Remember what the plan was made from."""
    work.write_note(asdict(planned), NOTE)


def job_state(job: Job) -> str:
    """Return a digest of all settings that the plan depends on."""
    policy = job_policy(job).digest
    state = [asdict(job.settings), job.limit, job.store, job.key_fingerprint, policy]
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class News:
    """What is new since the plan was made.

    Parameters
    ----------
    buckets
        Those to plan again.
    repeats
        Those in which copies of one instance may lie.
    is_any
        Whether anything is new at all.
    """

    buckets: frozenset[str]
    repeats: frozenset[str]
    is_any: bool


def find_news(
    work: Work, job: Job, key: Key, planned: Planned | None, forgotten: Sequence[str]
) -> News:
    """Return what is new since the plan was made; verdicts are sorted by bucket."""
    everything = (
        planned is None
        or planned.state != job_state(job)
        or planned.forgotten != tuple(forgotten)
    )
    before = planned.parts if planned and not everything else ()
    fresh = sorted(work.indexed_parts() - set(before))
    buckets, repeats = _touched(work, fresh)
    ended = reopen(work, planned.waiting) if planned else set[str]()
    n_verdicts = planned.n_verdicts if planned else 0
    names = work.verdict_names()[n_verdicts:]
    buckets |= sort_verdicts(work, key, names)
    if planned is not None:
        repeats |= set(planned.waiting) if ended else set()
        repeats |= set(planned.again)
        buckets |= ended | set(planned.again) | _spoilt(work, planned)
    is_any = bool(fresh or names or buckets)
    if everything or (is_any and job.limit is not None):
        buckets = set(work.bucket_names())
    return News(frozenset(buckets), frozenset(repeats), is_any or everything)


def _touched(work: Work, parts: Sequence[str]) -> tuple[set[str], set[str]]:
    """Return the buckets that new parts concern, and those that may hold copies."""
    fresh = places.read_parts(work, parts)
    found = np.concatenate([fresh, places.find_others(work, fresh, parts)])
    digests, counts = np.unique(found["digest"], return_counts=True)
    several = np.isin(found["digest"], digests[counts > 1])
    return places.names_of(found), places.names_of(found[several])


def sort_verdicts(work: Work, key: Key, names: Iterable[str]) -> set[str]:
    """File verdicts under the buckets that they concern; return these."""
    found = {name: work.read_verdicts(name) for name in names}
    digests = {
        one.url: places.file_digest(plan.source_key(one.url, key))
        for verdicts in found.values()
        for one in verdicts
    }
    seen: dict[int, set[str]] = defaultdict(set)
    for digest, number in places.find(work, digests.values()).tolist():
        seen[digest].add(places.bucket_name(number))
    touched: set[str] = set()
    for name, verdicts in found.items():
        buckets = defaultdict(list)
        for verdict in verdicts:
            for bucket in seen[digests[verdict.url]]:
                buckets[bucket].append(verdict)
        for bucket, rows in buckets.items():
            work.write_found(bucket, name, rows)
        touched |= set(buckets)
    return touched - {places.bucket_name(places.NOWHERE)}


def _spoilt(work: Work, planned: Planned) -> set[str]:
    """Return the parts of the plan that are gone or damaged; an edited one is kept."""
    states = work.plan_states()
    edited = [
        name for name, token in states.items() if planned.plans.get(name) != token
    ]
    return {
        *(name for name in planned.plans if name not in states),
        *(name for name in edited if not _is_readable(work, name)),
    }


def _is_readable(work: Work, name: str) -> bool:
    try:
        work.read_plan(name)
    except PlanError:
        return False
    return True
