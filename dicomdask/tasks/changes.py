"""From the plan to what a commit changes: bucket by bucket, never all rows at once."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any, Final

import numpy as np

from dicomdask import commits, plan, rows, storage, tables
from dicomdask.commits import Change, Commit
from dicomdask.errors import CODES, StoreError
from dicomdask.model import Outcome, PlannedVolume, SourceFile
from dicomdask.pseudonym import Key
from dicomdask.tasks import places
from dicomdask.tasks.index import make_outcome, stored_outcome
from dicomdask.tasks.planned import Planned
from dicomdask.tasks.remembered import Remembered, as_of, open_buckets, write_remembered
from dicomdask.tasks.resolve import newest_of
from dicomdask.tasks.settle import Before, recall, settle
from dicomdask.work import Work

OF_VOLUMES: Final = ("series_key", "volume_id", "revision", "n_duplicates")
OF_INSTANCES: Final = ("series_key", "source_key", "SOPInstanceUID")
SOURCE: Final = "source_key"


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a commit would change, and what this work directory would then hold.

    `n_inputs` is None where only what is new was looked at.
    """

    change: Change
    n_inputs: int | None
    parts: tuple[str, ...]
    plans: dict[str, str]


@dataclass(frozen=True, slots=True)
class Context:
    """What the plan of a work directory is compared with, and how."""

    work: Work
    store: str
    key: Key
    planned: Planned
    parent: Commit | None
    remembered: Remembered | None
    states: Mapping[str, str]
    changed: Mapping[str, SourceFile]

    @property
    def is_alone(self) -> bool:
        """Whether the store holds what is remembered, and nothing else."""
        return self.remembered is not None and self.remembered.is_alone

    def parts_of(self, table: str) -> tuple[commits.TablePart, ...]:
        """Return the parts of one table of the parent."""
        return tuple(self.parent.tables.get(table, ())) if self.parent else ()


def propose(
    work: Work,
    store: str,
    key: Key,
    *,
    planned: Planned,
    remembered: Remembered | None,
    parent: Commit | None,
) -> Proposal:
    """Return what the plan changes against a commit.

    If this work directory made it, only what changed since is looked at; if no other
    ever committed to the store, against what it remembers, without reading a table.

    Raises
    ------
    StoreError
        If an input is unaccounted for, or receipts or parts are damaged.
    """
    held = as_of(remembered, parent)
    states, changed = work.plan_states(), work.read_changed()
    context = Context(work, store, key, planned, parent, held, states, changed)
    parts = tuple(sorted(work.indexed_parts()))
    fresh = [name for name in parts if held is None or name not in held.parts]
    found = _Found([_table(_outcomes(work, part)) for part in fresh])
    names = open_buckets(work, held)
    if names:
        write_remembered(work, None)  # until the commit is made, it tells nothing
    for bucket, before in _before(context, names):
        _settle(context, bucket, before, found)
    wanted = tables.concat("inputs", [*found.inputs, _taken(context, found)])
    wanted = tables.last_of_each(wanted, SOURCE)
    news, replaced = _new_inputs(context, wanted, found)
    if context.is_alone:
        again = _seen_before(work, fresh)
        keys = news[SOURCE].to_pylist()
        replaced |= {name for name in keys if places.file_digest(name) in again}
    return Proposal(
        Change(
            _Rows(context, tuple(found.added.items()), news),
            frozenset(found.dropped),
            replaced,
        ),
        None if held else wanted.num_rows - len(found.taken),
        parts,
        dict(states),
    )


@dataclass(slots=True)
class _Found:
    """What was found out of all buckets so far."""

    inputs: list[tables.Table]
    remembered: list[tables.Table] = field(default_factory=list)
    added: dict[str, frozenset[str]] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)
    taken: set[str] = field(default_factory=set)


def _table(outcomes: Iterable[Outcome]) -> tables.Table:
    return tables.to_table("inputs", [asdict(one) for one in outcomes])


def _outcomes(work: Work, part: str) -> list[Outcome]:
    found = work.read_outcomes(part)
    if len(found) != work.read_counts(part)["outcomes"]:
        raise StoreError(
            f"outcomes of part {part} are missing in {work.url}; remove the work "
            "directory but keep its key, then run again"
        )
    return found


# --- before -------------------------------------------------------------------

Bucket = tuple[Mapping[str, Before], Mapping[str, Outcome]]


def _before(context: Context, names: list[str]) -> Iterator[tuple[str, Bucket]]:
    """Yield each bucket with its series, and inputs as far as they are remembered."""
    if context.parent is None:
        yield from ((name, ({}, {})) for name in names)
    elif context.is_alone:
        yield from ((name, recall(context.work.read_committed(name))) for name in names)
    else:
        yield from ((name, (old, {})) for name, old in _in_tables(context, names))


def _in_tables(
    context: Context, names: list[str]
) -> Iterator[tuple[str, dict[str, Before]]]:
    """Yield each bucket with its series as the tables hold them."""
    volumes, instances = (
        commits.sweep(
            context.store,
            table,
            context.parts_of(table),
            map(commits.begins_with, names),
            columns=columns,
        )
        for table, columns in (("volumes", OF_VOLUMES), ("instances", OF_INSTANCES))
    )
    for name, states, sources in zip(names, volumes, instances, strict=True):
        every = context.work.read_bucket_files(name)
        known = {plan.source_key(one.url, context.key) for one in every}
        yield name, _series(states.to_pylist(), sources.to_pylist(), known)


def _series(
    volumes: list[dict[str, Any]], instances: list[dict[str, Any]], known: set[str]
) -> dict[str, Before]:
    states: dict[str, set[str]] = {}
    for row in volumes:
        text = f"{row['volume_id']}/{row['revision']}/{row['n_duplicates']}"
        states.setdefault(row["series_key"], set()).add(text)
    own: dict[str, set[str]] = {name: set() for name in states}
    others: dict[str, dict[str, str]] = {name: {} for name in states}
    for row in instances:
        if row[SOURCE] in known:
            own[row["series_key"]].add(row[SOURCE])
        else:
            others[row["series_key"]][row[SOURCE]] = row["SOPInstanceUID"]
    return {
        name: Before(frozenset(found), frozenset(own[name]), others[name])
        for name, found in states.items()
    }


# --- one bucket ---------------------------------------------------------------


def _settle(context: Context, bucket: str, before: Bucket, found: _Found) -> None:
    series, remembered = before
    part = context.work.read_plan(bucket)

    def uids_of(volumes: Collection[PlannedVolume]) -> dict[str, str]:
        merged = merge_all(context.work, volumes, context.key)
        rows = [row for one in merged for row in one["instances"]]
        return {row[SOURCE]: row["SOPInstanceUID"] for row in rows}

    inputs = _account(context, bucket, part)
    settled = settle(part, inputs, series, uids_of=uids_of, key=context.key)
    context.work.write_committed(bucket, settled.committed)
    found.inputs.append(_table(settled.inputs.values()))
    found.remembered.append(_table(remembered.values()))
    if settled.added:
        found.added[bucket] = settled.added
    found.dropped |= settled.dropped
    found.taken |= settled.taken


def _account(context: Context, bucket: str, part: plan.Plan) -> dict[str, Outcome]:
    """Return the outcome of every input of a bucket, by source key.

    Raises
    ------
    StoreError
        If an input has no outcome though nobody edited the plan.
    """
    found = {outcome.source_key: outcome for outcome in part.outcomes}
    for volume in part.volumes:
        for frame in volume.frames:
            found[frame.source_key] = stored_outcome(frame.source_key, frame.size)
    every = newest_of(context.work.read_bucket_files(bucket), context.changed)
    left = [one for one in every if plan.source_key(one.url, context.key) not in found]
    is_edited = context.states[bucket] != context.planned.plans.get(bucket)
    if left and not is_edited:
        raise StoreError(
            f"{len(left)} inputs have no outcome; run `dicomdask plan` and "
            "`dicomdask encode` again"
        )
    return found | {one.source_key: one for one in _unselected(left, context.key)}


def _unselected(left: Iterable[SourceFile], key: Key) -> Iterator[Outcome]:
    """Yield outcomes for what somebody took out of the plan by hand."""
    reason = CODES["not-selected"]
    for one in left:
        yield make_outcome(one, "plan", "not-selected", reason, key)


def merge_rows(work: Work, volume: PlannedVolume, key: Key) -> dict[str, Any]:
    """Return the rows of one volume that its tasks left in the work directory."""
    tasks = plan.volume_tasks(volume)
    digests = [plan.task_digest(volume, task, key) for task in tasks]
    merged = rows.merge_parts([work.read_part(digest) for digest in digests])
    merged["volume"]["n_duplicates"] = volume.n_duplicates  # copies may come later
    return merged


def merge_all(
    work: Work, volumes: Iterable[PlannedVolume], key: Key
) -> list[dict[str, Any]]:
    """Return the rows of several volumes in order; from a network many at once."""
    is_remote = not storage.is_local(work.url)
    found = storage.ahead(
        partial(merge_rows, work, key=key), volumes, is_remote=lambda _: is_remote
    )
    return [take() for _, take in found]


# --- inputs -------------------------------------------------------------------


def _new_inputs(
    context: Context, wanted: tables.Table, found: _Found
) -> tuple[tables.Table, frozenset[str]]:
    """Return the rows that are new or differ, and the sources of the latter."""
    if context.is_alone or context.parent is None:
        remembered = tables.concat("inputs", found.remembered)
        return tables.news(wanted, remembered, SOURCE)
    parts = context.parts_of("inputs")
    bounds = sorted({"", commits.ABOVE_ALL, *(part.low for part in parts)})
    pieces = [(pair, tables.within(wanted, SOURCE, *pair)) for pair in pairwise(bounds)]
    asked = [(pair, piece) for pair, piece in pieces if piece.num_rows]
    there = commits.sweep(context.store, "inputs", parts, [pair for pair, _ in asked])
    results = [
        tables.news(piece, rows, SOURCE)
        for (_, piece), rows in zip(asked, there, strict=True)
    ]
    news = tables.concat("inputs", [fresh for fresh, _ in results])
    return news, frozenset().union(*(replaced for _, replaced in results))


def _taken(context: Context, found: _Found) -> tables.Table:
    """Return new rows for sources of others whose slices are stored from here now."""
    if not found.taken:
        return tables.to_table("inputs", [])
    parts = context.parts_of("inputs")
    old = [
        row
        for part in parts
        for row in tables.pick_rows(
            commits.read_part(context.store, part), SOURCE, found.taken
        ).to_pylist()
    ]
    duplicate = {"outcome": "duplicate", "stage": "resolve", "code": "duplicate"}
    reason = CODES["duplicate"]
    return tables.to_table(
        "inputs", [row | duplicate | {"reason": reason} for row in old]
    )


def _seen_before(work: Work, parts: Sequence[str]) -> set[int]:
    """Return the digests of files in some parts that were listed in others before."""
    fresh = places.read_parts(work, parts)
    others = places.find_others(work, fresh, parts)
    found = np.concatenate([fresh["digest"], others["digest"]])
    digests, counts = np.unique(found, return_counts=True)
    return set(digests[counts > 1].tolist())


# --- rows ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows to add, made when they are asked for: a bucket's volumes at a time."""

    context: Context
    added: tuple[tuple[str, frozenset[str]], ...]
    inputs: tables.Table

    def __len__(self) -> int:
        return len(self.added) + bool(self.inputs.num_rows)

    def __contains__(self, _: object) -> bool:
        return False

    def __iter__(self) -> Iterator[Mapping[str, tables.Table]]:
        work, key = self.context.work, self.context.key
        for bucket, series in self.added:
            volumes = work.read_plan(bucket).volumes
            chosen = [volume for volume in volumes if volume.series_key in series]
            merged = merge_all(work, chosen, key)
            yield {
                "volumes": tables.to_table(
                    "volumes", [one["volume"] for one in merged]
                ),
                "frames": _flat(merged, "frames"),
                "instances": _flat(merged, "instances"),
                "fingerprints": tables.to_table(
                    "fingerprints", [one["fingerprint"] for one in merged]
                ),
                "redactions": _flat(merged, "redactions"),
            }
        if self.inputs.num_rows:
            yield {"inputs": self.inputs}


def _flat(merged: list[dict[str, Any]], name: str) -> tables.Table:
    return tables.to_table(name, [row for one in merged for row in one[name]])
