"""Commit: from receipts and outcomes to the next state of the dataset."""

import hashlib
import platform
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Final

from dicomdask import commits, plan, rows, storage, tables
from dicomdask.commits import Change, Commit, TablePart
from dicomdask.errors import CODES, PlanError, StoreError
from dicomdask.model import Outcome, PlannedVolume
from dicomdask.pseudonym import Key, resolve_key
from dicomdask.tasks.index import make_outcome, stored_outcome
from dicomdask.tasks.planning import job_policy
from dicomdask.tasks.resolve import read_current
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


Plans = Mapping[str, plan.Plan]


def missing_tasks(work: Work, key: Key, plans: Plans) -> list[str]:
    """Return the digests of the plan's tasks that have no receipt."""
    done = work.done_tasks()
    return [
        digest
        for part in plans.values()
        for volume in part.volumes
        for digest in task_digests(volume, key)
        if digest not in done
    ]


def task_digests(volume: PlannedVolume, key: Key) -> list[str]:
    """Return the digests of a volume's tasks."""
    return [plan.task_digest(volume, task, key) for task in plan.volume_tasks(volume)]


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
    key = resolve_key(job.key)
    plans = work.read_plans()
    missing = missing_tasks(work, key, plans)
    if missing:
        raise PlanError(
            f"{len(missing)} tasks of the plan have no receipt; run `dicomdask encode`"
        )
    volumes = _volumes_by_series(plans)
    inputs = account(work, key, plans)
    store = str(job.store)

    def change_of(parent: Commit | None) -> Change:
        return _change(store, parent, volumes, inputs, _Parts(work, key))

    def describe(n: int, parts: Mapping[str, tuple[TablePart, ...]]) -> Commit:
        return _describe(n, parts, job=job, key=key, now=now)

    return commits.publish(store, change_of, describe)


def _volumes_by_series(plans: Plans) -> dict[str, list[PlannedVolume]]:
    series: dict[str, list[PlannedVolume]] = defaultdict(list)
    for part in plans.values():
        for volume in part.volumes:
            series[volume.series_key].append(volume)
    return series


# --- accounting ---------------------------------------------------------------


def account(work: Work, key: Key, plans: Plans) -> dict[str, dict[str, Any]]:
    """Return the row of every listed input, by source_key.

    Raises
    ------
    StoreError
        If an input has no outcome though nobody edited the plan.
    """
    found = {outcome.source_key: outcome for outcome in work.read_outcomes()}
    for bucket in work.bucket_names():
        for instance in read_current(work, bucket):
            found.pop(plan.source_key(instance.url, key), None)
    for part in plans.values():
        found |= {outcome.source_key: outcome for outcome in part.outcomes}
        for volume in part.volumes:
            for frame in volume.frames:
                found[frame.source_key] = stored_outcome(frame.source_key, frame.size)
    found |= _unselected(work, key, found)
    return {name: asdict(found[name]) for name in sorted(found)}


def _unselected(
    work: Work, key: Key, found: Mapping[str, Outcome]
) -> dict[str, Outcome]:
    """Return outcomes for what somebody took out of the plan by hand."""
    changed = work.read_changed()
    listed = {
        plan.source_key(file.url, key): changed.get(file.url, file)
        for part in work.manifest_parts()
        for file in work.read_manifest(part)
    }
    left = {name: file for name, file in listed.items() if name not in found}
    if left and (not is_edited(work) or lacks_parts(work)):
        raise StoreError(
            f"{len(left)} inputs have no outcome; run `dicomdask plan` and "
            "`dicomdask encode` again"
        )
    reason = CODES["not-selected"]
    return {
        name: make_outcome(file, "plan", "not-selected", reason, key)
        for name, file in left.items()
    }


def note_plan(work: Work) -> None:
    """Remember the plan as it was made, so that an edit can be told."""
    work.write_note(_plan_digests(work), "plan.json")


def is_edited(work: Work) -> bool:
    """Return whether the plan is no longer what `note_plan` saw."""
    return bool(work.read_note("plan.json") != _plan_digests(work))


def lacks_parts(work: Work) -> bool:
    """Return whether a part that `note_plan` saw is no longer there."""
    return not set(work.read_note("plan.json") or ()) <= set(work.plan_names())


def _plan_digests(work: Work) -> dict[str, str]:
    texts = {
        name: storage.read(work.path("plan", f"{name}.json"))
        for name in work.plan_names()
    }
    return {name: hashlib.sha256(text).hexdigest() for name, text in texts.items()}


# --- change -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Parts:
    """The rows that tasks left in the work directory."""

    work: Work
    key: Key

    def of(self, volume: PlannedVolume) -> dict[str, Any]:
        digests = task_digests(volume, self.key)
        merged = rows.merge_parts([self.work.read_part(digest) for digest in digests])
        merged["volume"]["n_duplicates"] = volume.n_duplicates  # copies may come later
        return merged


def _change(
    store: str,
    parent: Commit | None,
    volumes: Mapping[str, list[PlannedVolume]],
    inputs: Mapping[str, dict[str, Any]],
    parts: _Parts,
) -> Change:
    """Return what the plan changes: whole series, and inputs with new outcomes."""
    old_series, old_sources = _committed_series(store, parent)
    old_inputs = _committed_inputs(store, parent)
    changed = [
        series
        for series, planned in volumes.items()
        if old_series.get(series) != set(map(_state, planned))
    ]
    withdrawn = {
        old_sources[name]
        for name, row in inputs.items()
        if name in old_sources and row["outcome"] != "stored"
    }
    fresh = {name: row for name, row in inputs.items() if old_inputs.get(name) != row}
    merged = [parts.of(volume) for series in changed for volume in volumes[series]]
    return Change(
        rows={
            "volumes": tables.to_table("volumes", [part["volume"] for part in merged]),
            "frames": tables.to_table("frames", _flat(merged, "frames")),
            "instances": tables.to_table("instances", _flat(merged, "instances")),
            "inputs": tables.to_table("inputs", list(fresh.values())),
        },
        dropped_series=frozenset((withdrawn | set(changed)) & set(old_series)),
        dropped_sources=frozenset(fresh) & frozenset(old_inputs),
    )


State = tuple[str, str, int]


def _state(volume: PlannedVolume) -> State:
    return (volume.volume_id, volume.revision, volume.n_duplicates)


def _flat(parts: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [row for part in parts for row in part[name]]


def _committed_series(
    store: str, parent: Commit | None
) -> tuple[dict[str, set[State]], dict[str, str]]:
    """Return the states of each series' volumes, and each stored source's series."""
    series: dict[str, set[State]] = defaultdict(set)
    if parent is None:
        return series, {}
    for row in commits.read_rows(store, parent, "volumes"):
        state = (row["volume_id"], row["revision"], row["n_duplicates"])
        series[row["series_key"]].add(state)
    instances = commits.read_rows(store, parent, "instances")
    return series, {row["source_key"]: row["series_key"] for row in instances}


def _committed_inputs(store: str, parent: Commit | None) -> dict[str, dict[str, Any]]:
    if parent is None:
        return {}
    return {
        row["source_key"]: row for row in commits.read_rows(store, parent, "inputs")
    }


# --- describe -----------------------------------------------------------------


def _describe(
    n: int,
    parts: Mapping[str, tuple[TablePart, ...]],
    *,
    job: Job,
    key: Key,
    now: str,
) -> Commit:
    store = str(job.store)
    policy = job_policy(job)
    inputs = _rows(store, parts, "inputs")
    volumes = _rows(store, parts, "volumes")
    outcomes = Counter(row["outcome"] for row in inputs)
    counts = {name: sum(part.rows for part in found) for name, found in parts.items()}
    return Commit(
        n=n,
        created=now,
        tables=parts,
        counts=counts | {name: outcomes[name] for name in sorted(outcomes)},
        codes=dict(sorted(Counter(row["code"] for row in inputs).items())),
        settings=kept_settings(job, key),
        policy={
            "name": policy.name,
            "digest": policy.digest,
            "codes": [list(code) for code in policy.codes],
        },
        key_fingerprint=key.fingerprint(),
        versions=_versions(),
        statistics=_summary(volumes),
    )


def kept_settings(job: Job, key: Key) -> dict[str, Any]:
    """Return the settings as a commit keeps them: --where may name a patient."""
    where = job.settings.where
    hidden = None if where is None else key.digest("where", where)
    kept = asdict(job.settings) | {"where": hidden, "limit": job.limit}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in kept.items()
    }


def _rows(
    store: str, parts: Mapping[str, tuple[TablePart, ...]], name: str
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for part in parts[name]:
        found.extend(commits.read_part(store, part).to_pylist())
    return found


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {
        name: version(name) for name in PACKAGES
    }


def _summary(volumes: list[dict[str, Any]]) -> dict[str, Any]:
    """Return counts and sizes by modality."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for row in volumes:
        counter = found[row["Modality"] or "unknown"]
        counter["volumes"] += 1
        for name in ("n_frames", "raw_bytes", "stored_bytes"):
            counter[name] += row[name]
    return {name: dict(sorted(found[name].items())) for name in sorted(found)}
