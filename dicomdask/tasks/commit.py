"""Commit: from receipts and outcomes to the next state of the dataset."""

import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import cache, partial
from importlib.metadata import version
from typing import Any, Final

from dicomdask import burnedin, commits, plan, shards, storage
from dicomdask.commits import Change, Commit, TablePart
from dicomdask.errors import ForgottenError, PlanError, StoreError
from dicomdask.model import PlannedVolume
from dicomdask.pseudonym import Key, resolve_key
from dicomdask.tasks import fingerprint, places
from dicomdask.tasks.changes import Proposal, propose
from dicomdask.tasks.planned import Planned, read_planned
from dicomdask.tasks.policies import job_policy
from dicomdask.tasks.remembered import (
    Remembered,
    as_of,
    open_buckets,
    read_remembered,
    write_remembered,
)
from dicomdask.tasks.settle import state_of
from dicomdask.work import Job, Work

PACKAGES: Final = (
    "dicomdask",
    "dask",
    "numcodecs",
    "numpy",
    "pyarrow",
    "pydicom",
    "pyjpegls",
    "pylibjpeg-libjpeg",
    "pylibjpeg-openjpeg",
    "pylibjpeg-rle",
    "zarr",
)
"""The packages whose versions decide bytes; a commit names them."""


def missing_tasks(work: Work, key: Key, names: Iterable[str]) -> list[str]:
    """Return the digests of the tasks in some parts of the plan without receipt."""
    done = work.done_tasks()
    return [
        digest
        for name in names
        for volume in work.read_plan(name).volumes
        for digest in task_digests(volume, key)
        if digest not in done
    ]


def task_digests(volume: PlannedVolume, key: Key) -> list[str]:
    """Return the digests of a volume's tasks."""
    return [plan.task_digest(volume, task, key) for task in plan.volume_tasks(volume)]


def drop_lost(work: Work, key: Key, store: str, remembered: Remembered | None) -> int:
    """Take back the receipts of tasks whose shards are gone; return how many.

    Shards that no commit names yet may be removed by others. Volumes that are
    remembered as they are planned now are not looked at.
    """
    done = work.done_tasks()
    n_lost = 0
    for volume in _volumes_to_commit(work, remembered):
        for task in plan.volume_tasks(volume):
            digest = plan.task_digest(volume, task, key)
            shard = shards.shard_key(task.corner)
            url = storage.join(store, volume.path, "0", shard)
            if digest in done and not storage.exists(url):
                work.remove_receipt(digest)
                n_lost += 1
    return n_lost


def _volumes_to_commit(
    work: Work, remembered: Remembered | None
) -> Iterator[PlannedVolume]:
    for name in open_buckets(work, remembered):
        held = work.read_committed(name).series if remembered else ()
        states = {state for series in held for state in series.states}
        planned = work.read_plan(name).volumes
        yield from (one for one in planned if state_of(one) not in states)


def commit(work: Work, *, now: str) -> Commit | None:
    """Make the next commit from the work directory; None where nothing changes.

    Parameters
    ----------
    now
        The time that the commit is to carry.

    Raises
    ------
    PlanError
        If tasks of the plan have no receipt.
    StoreError
        If an input is unaccounted for, or receipts or parts are damaged.
    """
    job = work.require_job()
    store, key, planned = str(job.store), resolve_key(job.key), read_planned(work)
    if planned is None or not set(planned.plans) <= set(work.plan_names()):
        raise StoreError(
            f"parts of the plan are missing in {work.url}; run `dicomdask plan` and "
            "`dicomdask encode` again"
        )
    remembered = read_remembered(work)
    tried: list[tuple[Commit | None, Proposal]] = []
    make = partial(_describe, job=job, key=key, now=now)

    def change_of(parent: Commit | None) -> Change:
        _require_planned_without(planned, parent)
        names = open_buckets(work, as_of(remembered, parent))
        missing = missing_tasks(work, key, names)
        if missing:
            raise PlanError(
                f"{len(missing)} tasks of the plan have no receipt; "
                "run `dicomdask encode`"
            )
        found = propose(
            work, store, key, planned=planned, remembered=remembered, parent=parent
        )
        tried.append((parent, found))
        return found.change

    def describe(n: int, parts: Mapping[str, tuple[TablePart, ...]]) -> Commit:
        return make(n, parts, parent=tried[-1][0])

    made = commits.publish(store, change_of, describe)
    parent, proposal = tried[-1]
    newest = made or parent
    if newest is not None:
        _remember(work, newest, proposal, remembered)
    return made


def _require_planned_without(planned: Planned, parent: Commit | None) -> None:
    """Check that the plan was made without the patients that were forgotten since."""
    if parent is not None and set(parent.forgotten) - set(planned.forgotten):
        raise ForgottenError(
            "a patient was forgotten while this run went on, so its plan is out of "
            "date; run again"
        )


def _remember(
    work: Work, newest: Commit, proposal: Proposal, before: Remembered | None
) -> None:
    """Remember a commit, so that the next looks at what changed since only."""
    if proposal.n_inputs is None:
        is_alone = before is not None and before.is_alone
    else:
        is_alone = newest.counts["inputs"] == proposal.n_inputs
    remembered = Remembered(
        commits.identity(newest), is_alone, proposal.parts, dict(proposal.plans)
    )
    if remembered != before:
        write_remembered(work, remembered)
        places.merge(work, proposal.parts)


# --- describe -----------------------------------------------------------------


def _describe(
    n: int,
    parts: Mapping[str, tuple[TablePart, ...]],
    *,
    parent: Commit | None,
    job: Job,
    key: Key,
    now: str,
) -> Commit:
    policy = job_policy(job)
    counts, codes, statistics = summaries(str(job.store), parts, parent=parent)
    return Commit(
        n=n,
        created=now,
        tables=parts,
        counts=counts,
        codes=codes,
        settings=kept_settings(job, key),
        policy={
            "name": policy.name,
            "digest": policy.digest,
            "codes": [list(code) for code in policy.codes],
            **({"detector": policy.detector} if policy.detector else {}),
        },
        key_fingerprint=key.fingerprint(),
        versions=versions(),
        statistics=statistics,
    )


def summaries(
    store: str,
    parts: Mapping[str, tuple[TablePart, ...]],
    *,
    parent: Commit | None,
) -> tuple[dict[str, int], Mapping[str, int], Mapping[str, Any]]:
    """Return what a commit says of its tables: counts, codes and statistics.

    The latter are sums by modality, with the fingerprints of its volumes. `looked`
    counts the instances in whose pixels somebody looked for text, if there are any.
    """
    sums = {name: commits.total(store, name, found) for name, found in parts.items()}
    counts = {name: sum(part.rows for part in found) for name, found in parts.items()}
    outcomes, codes = (sums["inputs"].get(one, {}) for one in ("outcome", "code"))
    pooled = fingerprint.pooled(store, parts, parent)
    statistics = {
        name: {**found, "fingerprints": pooled[name]} if name in pooled else found
        for name, found in sums["volumes"].items()
    }
    looks = sums["instances"].get("text_look", {})
    looked = sum(looks.get(by, 0) for by in burnedin.LOOKERS)
    told = {"looked": looked} if looked else {}
    return counts | dict(outcomes) | told, codes, statistics


def kept_settings(job: Job, key: Key) -> dict[str, Any]:
    """Return the settings as a commit keeps them: --where may name a patient.

    What a policy file says may as well; its name and the policy's digest stay.
    """
    where = job.settings.where
    hidden = None if where is None else key.digest("where", where)
    kept = asdict(job.settings) | {"where": hidden, "limit": job.limit}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in kept.items()
        if name != "policy_text"
    }


@cache
def versions() -> Mapping[str, str]:
    """Return the versions of what runs, by name."""
    return {"python": platform.python_version()} | {
        name: version(name) for name in PACKAGES
    }
