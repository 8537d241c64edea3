"""Resolve: decode only what shares a SOP Instance UID, and keep one copy."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar

import numpy as np
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicomdask import commits, header, pixels, plan, storage
from dicomdask.errors import CODES, InputError
from dicomdask.model import Instance, PlannedFrame, SourceFile, Stage, Verdict
from dicomdask.policy import Policy
from dicomdask.pseudonym import Key, resolve_key
from dicomdask.tasks import places
from dicomdask.tasks.attempts import Attempts
from dicomdask.tasks.barrier import guard, kind_of, quiet
from dicomdask.tasks.forgotten import read_forgotten
from dicomdask.tasks.isolate import Cell
from dicomdask.tasks.measure import Counts, measured
from dicomdask.tasks.policies import job_policy
from dicomdask.tasks.watch import watched
from dicomdask.work import Job, Work

Indexed = TypeVar("Indexed", Instance, SourceFile)
Source = TypeVar("Source", Instance, PlannedFrame, SourceFile)

Listed = Instance | PlannedFrame | SourceFile

BATCH_INSTANCES: Final = 64
MD5_ETAG: Final = re.compile('"?[0-9a-f]{32}"?')
NATIVE: Final = frozenset(
    {
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    }
)


def newest_of(
    instances: Iterable[Indexed], changed: Mapping[str, SourceFile]
) -> list[Indexed]:
    """Return instances or their files by URL, the newest state of each only."""

    def is_newest(instance: Indexed) -> bool:
        newest = changed.get(instance.url)
        return instance.token == (newest.token if newest else "")

    return sorted(filter(is_newest, instances), key=lambda one: one.url)


def write_batches(work: Work, key: Key, buckets: Iterable[str]) -> list[str]:
    """Write the groups that need a decision to the work directory; name the batches.

    In each group the copy to prefer comes first: one that is stored already, then one
    whose pixels are not compressed, then the smallest digest of the header.

    Parameters
    ----------
    buckets
        Where members of such groups lie.
    """
    job = work.require_job()
    chosen = sorted(_with_copies(work, key, buckets))
    repeats = find_repeats(work, job, chosen, key)
    verdicts = _release(work, chosen, repeats)
    groups = [group for group in repeats if _is_open(group, verdicts)]
    if not groups:
        return []
    found = {places.bucket_of(one, key) for group in groups for one in group}
    stored = stored_sources(str(job.store), found)

    def rank(instance: Instance) -> tuple[bool, bool, str, str]:
        return (
            plan.source_key(instance.url, key) not in stored,
            instance.transfer_syntax_uid not in NATIVE,
            instance.header_digest,
            instance.url,
        )

    number = work.next_verdict()
    ranked = [sorted(group, key=rank) for group in groups]
    names: list[str] = []
    for batch in _batches(ranked):
        names.append(f"{number + len(names):06d}-resolve")
        work.write_repeats(names[-1], batch)
    return names


def _with_copies(work: Work, key: Key, buckets: Iterable[str]) -> set[str]:
    """Return the buckets, and those of the copies that were decided on with theirs."""
    chosen = set(buckets)
    uids = {
        one.sop_instance_uid
        for bucket in chosen
        for states in [work.read_found(bucket)]
        for one in (work.read_bucket(bucket) if states else ())
        if (one.url, one.token) in states
    }
    digests = [places.instance_digest(uid, key) for uid in uids]
    return chosen | places.names_of(places.find(work, digests))


Verdicts = dict[tuple[str, str], Verdict]


def _release(
    work: Work, buckets: Iterable[str], repeats: Iterable[Iterable[Instance]]
) -> Verdicts:
    """Take back what was decided on instances that repeat no other any more.

    Returns all that is decided on the files of the buckets.
    """
    repeated = {(one.url, one.token) for group in repeats for one in group}
    verdicts: Verdicts = {}
    for bucket in buckets:
        verdicts |= work.read_found(bucket)
    lone = {
        state: replace(verdict, code="stored")
        for state, verdict in verdicts.items()
        if verdict.stage == "resolve"
        and verdict.code != "stored"
        and state not in repeated
    }
    if lone:
        work.write_verdicts(f"{work.next_verdict():06d}-again", list(lone.values()))
    return verdicts | lone


def _batches(groups: Iterable[list[Instance]]) -> list[list[Instance]]:
    batches: list[list[Instance]] = [[]]
    for group in groups:
        if len(batches[-1]) >= BATCH_INSTANCES:
            batches.append([])
        batches[-1].extend(group)
    return batches


def find_repeats(
    work: Work, job: Job, buckets: Iterable[str], key: Key
) -> list[list[Instance]]:
    """Return the groups of storable instances that share a SOP Instance UID."""
    changed = work.read_changed()
    forgotten = read_forgotten(job.store, key)
    policy = job_policy(job)
    groups: dict[str, list[Instance]] = defaultdict(list)
    for bucket in buckets:
        every = newest_of(work.read_bucket(bucket), changed)
        for instance in forgotten.split(every)[0]:
            if _may_be_stored(instance, policy):
                groups[instance.sop_instance_uid].append(instance)
    return [groups[uid] for uid in sorted(groups) if len(groups[uid]) > 1]


def _may_be_stored(instance: Instance, policy: Policy) -> bool:
    try:
        plan.check_instance(instance, policy)
    except InputError:
        return False
    return True


def _is_open(
    group: Sequence[Instance], verdicts: Mapping[tuple[str, str], Verdict]
) -> bool:
    """Return whether a group has a new member, or a conflict that may have ended."""
    found = [verdicts.get((one.url, one.token)) for one in group]
    if any(verdict is None for verdict in found):
        return True
    return any(verdict and has_ended(verdict) for verdict in found)


def has_ended(verdict: Verdict) -> bool:
    """Return whether the reason for a verdict is no more: a copy went, or came back."""
    if verdict.code == "conflict":
        return not storage.exists(verdict.url)
    if verdict.code == "source-changed":
        return is_unchanged(verdict)
    if verdict.code == "too-large":  # for the workers of that run
        return verdict.stage == "resolve"
    return verdict.code == "unreadable" and storage.is_openable(verdict.url)


def reopen(work: Work, buckets: Iterable[str]) -> set[str]:
    """Let files be tried again for which the reason of their verdict has ended.

    Returns the buckets with such. It is asked once a run: a file that can be opened and
    still not be read is tried once in each run, and does not keep one from its end.
    """
    found = {
        bucket: [one for one in work.read_found(bucket).values() if has_ended(one)]
        for bucket in buckets
    }
    ended = [one for verdicts in found.values() for one in verdicts]
    fit = [replace(one, code="stored") for one in ended if one.stage == "encode"]
    if fit:
        work.write_verdicts(f"{work.next_verdict():06d}-again", fit)
    return {bucket for bucket, verdicts in found.items() if verdicts}


def stored_sources(store: str, buckets: Iterable[str]) -> frozenset[str]:
    """Return the source keys that the newest commit holds of some buckets' series."""
    parent = commits.read_commit(store)
    if parent is None:
        return frozenset()
    found = commits.sweep(
        store,
        "instances",
        parent.tables.get("instances", ()),
        map(commits.begins_with, sorted(buckets)),
        columns=("series_key", "source_key"),
    )
    return frozenset(one for table in found for one in table["source_key"].to_pylist())


@measured
def resolve_batch(name: str, *, work_url: str, memory: int | None = None) -> Counts:
    """Decide on one batch of repeated instances; return counts.

    A batch at which processes died before is decoded apart. What may take more than
    `memory` bytes is rejected before it is read.
    """
    work = Work(work_url)
    instances = work.read_repeats(name)
    large = [one for one in instances if not _is_held(one, memory)]
    groups: dict[str, list[Instance]] = defaultdict(list)
    for instance in instances:
        if instance not in large:
            groups[instance.sop_instance_uid].append(instance)
    attempts = Attempts(work)
    states = [f"{one.url} {one.size} {one.token}" for one in instances]
    mark = resolve_key(work.require_job().key).digest("resolve", *states)
    with quiet(), Cell(Work, work_url) as cell, attempts.mark(mark):
        read = partial(read_apart, cell) if attempts.is_careful else _read_here
        found = [make_verdict(one, "resolve", "too-large") for one in large]
        for group in groups.values():
            found += resolve_group(group, read)
        work.write_verdicts(name, found)
    codes = Counter(kind_of(verdict.code, verdict.reason) for verdict in found)
    return {"groups": len(groups), "instances": len(found), "found": dict(codes)}


def _is_held(instance: Instance, memory: int | None) -> bool:
    return memory is None or plan.resolve_bytes(instance) <= memory


Content = tuple[str, ...]


def resolve_group(
    group: Sequence[Instance], read: Callable[[Instance, bytes], Content]
) -> list[Verdict]:
    """Return a verdict on each copy of one SOP Instance UID: at most one is `stored`.

    Parameters
    ----------
    group
        The copies, the one to prefer first.
    read
        Returns what makes two copies the same, in this process or apart; raises
        InputError only.
    """
    unfit: list[Verdict] = []
    contents: dict[str, Content] = {}
    for instance, fetched in fetch_ahead(group):
        try:
            data = guard(read_source, instance, fetched)
            contents[instance.url] = read(instance, data)
        except InputError as error:
            unfit.append(make_verdict(instance, "resolve", error.code, error.reason))
    left = [instance for instance in group if instance.url in contents]
    if len(set(contents.values())) > 1:
        return unfit + [make_verdict(one, "resolve", "conflict") for one in left]
    codes = ["stored", *["duplicate"] * len(left)]
    decided = [
        make_verdict(one, "resolve", code)
        for one, code in zip(left, codes, strict=False)
    ]
    return unfit + decided


def _read_here(instance: Instance, data: bytes) -> Content:
    with watched(_taken(instance)):
        return guard(_content, instance, data)


def read_apart(cell: Cell, instance: Instance, data: bytes) -> Content:
    """Return what makes two copies the same, read in a process apart."""
    return cell.call(_content, instance, data, nbytes=_taken(instance))


def _taken(instance: Instance) -> int:
    return instance.size + pixels.decoded_bytes(instance)


def _content(instance: Instance, data: bytes) -> Content:
    """Return what makes two copies the same: decoded pixels, place and scale."""
    dataset = header.read_dataset(data, limit=plan.inflated_bytes(instance))
    frames = pixels.decode_frames(dataset)
    digest = hashlib.blake2b(np.ascontiguousarray(frames).data, digest_size=16)
    told = (
        frames.shape,
        instance.image_position_patient,
        instance.image_orientation_patient,
        instance.pixel_spacing,
        pixels.modality_parameters(dataset),
    )
    return (digest.hexdigest(), *map(repr, told))


def make_verdict(
    file: Instance | PlannedFrame, stage: Stage, code: str, reason: str | None = None
) -> Verdict:
    """Return a verdict on the present state of one file."""
    text = reason or CODES[code]
    return Verdict(file.url, file.size, file.token, stage, code, text, file.etag)


def fetch_ahead(
    files: Iterable[Source],
) -> Iterator[tuple[Source, Callable[[], bytes]]]:
    """Yield each file with what returns its bytes; distant ones are fetched ahead."""
    return storage.ahead(
        lambda file: storage.read(file.url),
        files,
        is_remote=lambda file: not storage.is_local(file.url),
        nbytes=lambda file: file.size,
    )


def read_source(file: Listed, fetched: Callable[[], bytes]) -> bytes:
    """Return the bytes of a file that is still as it was listed.

    Parameters
    ----------
    fetched
        Returns the file's bytes; see `fetch_ahead`.

    Raises
    ------
    InputError
        `source-changed` if it is not.
    """
    data = fetched()
    is_same = len(data) == file.size and (
        _is_digest(data, listed_etag(file)) or is_unchanged(file)
    )
    if not is_same:
        raise InputError("source-changed")
    return data


def listed_etag(file: Listed | Verdict) -> str:
    """Return the etag that tells a file's state; empty where none was kept."""
    return file.token or file.etag


def _is_digest(data: bytes, etag: str) -> bool:
    """Return whether the etag of an object is the MD5 of what was read of it.

    It is for what an object store was given in one piece; no request is needed then.
    """
    if not MD5_ETAG.fullmatch(etag):
        return False
    return hashlib.md5(data, usedforsecurity=False).hexdigest() == etag.strip('"')


def is_unchanged(file: Listed | Verdict) -> bool:
    """Return whether a file is there, as far as can be told in the state listed."""
    found = storage.describe(file.url)
    return found.size == file.size and listed_etag(file) in ("", found.etag)
