"""Take patients out of a work directory.

What names them goes last: the index and the manifest, by which everything else is
found again when this is cut off.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dicomdask import commits, plan, storage
from dicomdask.commits import Commit
from dicomdask.model import (
    Committed,
    Instance,
    Outcome,
    SourceFile,
    Verdict,
)
from dicomdask.pseudonym import Key
from dicomdask.tasks import places
from dicomdask.tasks.forgotten import drop
from dicomdask.tasks.patient import Patient
from dicomdask.tasks.planned import read_planned, write_planned
from dicomdask.tasks.remembered import (
    Remembered,
    as_of,
    read_remembered,
    write_remembered,
)
from dicomdask.tasks.vacuum import TEMPORARY
from dicomdask.work import Work


@dataclass(frozen=True, slots=True)
class Traces:
    """What is looked for: the names of some patients' files, series and tasks.

    `shared` are files of others that are copies of theirs: which of them is stored is
    decided again, without the one that goes.
    """

    key: Key
    urls: frozenset[str]
    sources: frozenset[str]
    series: frozenset[str]
    tasks: frozenset[str]
    records: frozenset[tuple[int, int]]
    shared: frozenset[str]
    buckets: frozenset[str]


def clean_work(
    work: Work, patients: Sequence[Patient], made: tuple[Commit, Commit] | None
) -> int:
    """Remove all that a work directory holds of some patients; return how many records.

    No other run may use the directory meanwhile.

    Parameters
    ----------
    made
        The commit without the patients, and the one before it. If the directory made
        the latter, it need not be compared with the former.
    """
    traces = _trace(work, patients)
    remembered = read_remembered(work)
    if remembered is not None:
        write_remembered(work, None)  # until all is clean, it tells nothing
    urls, sources = traces.urls, traces.sources
    count = _remove_tasks(work, traces.tasks)
    tokens = _clean_plan(work, traces)
    _clean_committed(work, traces)
    count += drop(work, Instance, lambda one: one.url in urls, "repeats")

    def is_gone(one: Verdict) -> bool:
        return one.url in urls or (one.url in traces.shared and one.stage == "resolve")

    count += drop(work, Verdict, is_gone, "verdicts")
    for bucket in storage.list_names(work.path("found")):
        drop(work, Verdict, is_gone, "found", bucket)
    drop(work, SourceFile, lambda one: one.url in urls, "locked")
    count += _clean_outcomes(work, sources)
    storage.remove_tree(work.path("review"))  # pictures of whomever; soon made again
    _remove_temporary(work)
    _clean_places(work, traces.records)
    drop(work, SourceFile, lambda one: one.url in urls, "changed.parquet")
    count += drop(work, SourceFile, lambda one: one.url in urls, "manifest")
    for bucket in work.bucket_names():
        count += drop(work, Instance, lambda one: one.url in urls, "index", bucket)
    _note_plan(work, patients if made else (), traces, tokens)
    if remembered is not None:
        write_remembered(work, _after(remembered, made, tokens))
    return count


def _trace(work: Work, patients: Sequence[Patient]) -> Traces:
    key = patients[0].key
    urls = {url for one in patients for url in one.urls}
    uids = {uid for one in patients for uid in one.instance_uids}
    sources = {name for one in patients for name in one.sources}
    records = {(places.file_digest(name), places.NOWHERE) for name in sources}
    shared: set[str] = set()
    buckets: set[str] = set()
    for bucket in work.bucket_names() if uids else ():
        for one in work.read_bucket(bucket):
            if one.url in urls:
                number = int(places.bucket_of(one, key), 16)
                name = plan.source_key(one.url, key)
                records.add((places.file_digest(name), number))
                records.add((places.instance_digest(one.sop_instance_uid, key), number))
            elif one.sop_instance_uid in uids:
                shared.add(one.url)
                buckets.add(bucket)
    return Traces(
        key,
        frozenset(urls),
        frozenset(sources),
        frozenset(name for one in patients for name in one.series),
        frozenset(task for one in patients for task in one.tasks),
        frozenset(records),
        frozenset(shared),
        frozenset(buckets),
    )


def _remove_tasks(work: Work, tasks: Collection[str]) -> int:
    """Remove receipts, then the rows that they stand for."""
    attempts = work.read_attempts()
    for task in sorted(tasks):
        for mark in attempts.get(task, ()):
            work.remove_attempt(mark)
        work.remove_receipt(task)
        storage.remove(work.part_url(task))
    return len(tasks)


Tokens = dict[str, tuple[str, str]]


def _clean_plan(work: Work, traces: Traces) -> Tokens:
    """Take the patients out of the plan; return the tokens of what was changed."""
    before = work.plan_states()
    changed: list[str] = []
    for name in before:
        part = work.read_plan(name)
        volumes = tuple(v for v in part.volumes if v.series_key not in traces.series)
        others = tuple(o for o in part.outcomes if o.source_key not in traces.sources)
        if (len(volumes), len(others)) != (len(part.volumes), len(part.outcomes)):
            work.write_plan(name, plan.Plan(volumes, others))
            changed.append(name)
    after = work.plan_states() if changed else before
    return {name: (before[name], after[name]) for name in changed}


def _clean_committed(work: Work, traces: Traces) -> None:
    """Take the patients out of what is remembered as committed."""
    for name in storage.list_names(work.path("committed")):
        bucket = name.removesuffix(".json")
        found = work.read_committed(bucket)
        series = [one for one in found.series if one.series_key not in traces.series]
        others = [one for one in found.outcomes if one.source_key not in traces.sources]
        cleaned = Committed(tuple(series), tuple(others))
        if cleaned != found:
            work.write_committed(bucket, cleaned)


def _clean_outcomes(work: Work, sources: Collection[str]) -> int:
    """Take outcomes out, and count those that are left first: a commit compares."""
    count = 0
    for part in sorted(work.indexed_parts()):
        found = work.read_outcomes(part)
        left = sum(one.source_key not in sources for one in found)
        if left < len(found):
            counts = work.read_counts(part) | {"outcomes": left}
            work.write_note(counts, "index", f"{part}.json")
    for part in work.manifest_parts():
        names = ("outcomes", f"{part}.parquet")
        count += drop(work, Outcome, lambda one: one.source_key in sources, *names)
    return count


def _clean_places(work: Work, records: Collection[tuple[int, int]]) -> None:
    gone = np.array(sorted(records), places.RECORD)
    for name in storage.list_names(work.path("places")):
        places.remove(work, name, gone)


def _note_plan(
    work: Work, patients: Sequence[Patient], traces: Traces, tokens: Tokens
) -> None:
    """Note that the plan is without the patients now; nobody edited it.

    Where this comes after a try that was cut off, they are not noted, so that the next
    run plans everything anew.
    """
    planned = read_planned(work)
    if planned is None:
        return
    digests = {digest for one in patients for digest in one.digests}
    write_planned(
        work,
        replace(
            planned,
            plans=_renewed(planned.plans, tokens),
            again=tuple(sorted({*planned.again, *traces.buckets})),
            forgotten=tuple(sorted(digests.union(planned.forgotten))),
        ),
    )


def _renewed(plans: dict[str, str], tokens: Tokens) -> dict[str, str]:
    """Return tokens of parts of the plan, new ones for those that were current."""
    same = {name: new for name, (old, new) in tokens.items() if plans.get(name) == old}
    return plans | same


def _after(
    remembered: Remembered, made: tuple[Commit, Commit] | None, tokens: Tokens
) -> Remembered:
    plans = _renewed(remembered.plans, tokens)
    is_held = made is not None and as_of(remembered, made[1]) is not None
    commit = commits.identity(made[0]) if made and is_held else remembered.commit
    return replace(remembered, commit=commit, plans=plans)


def _remove_temporary(work: Work) -> None:
    """Remove what is left of writes that were cut off."""
    for one in storage.list_below(work.url):
        if TEMPORARY.fullmatch(one.name.rsplit("/", 1)[-1]):
            storage.remove(storage.join(work.url, one.name))
