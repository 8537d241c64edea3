"""Resolve: decode only what shares a SOP Instance UID, and keep one copy."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeVar

from pydicom import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicomdask import commits, header, pixels, plan, storage
from dicomdask.errors import CODES, InputError
from dicomdask.model import Instance, PlannedFrame, Stage, Verdict
from dicomdask.pseudonym import Key
from dicomdask.tasks.barrier import guard, quiet
from dicomdask.work import Job, Work

Source = TypeVar("Source", Instance, PlannedFrame)

BATCH_INSTANCES: Final = 64
NATIVE: Final = frozenset(
    {
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    }
)


def read_current(work: Work, bucket: str) -> list[Instance]:
    """Return the instances of one bucket, each file in its newest state only."""
    changed = work.read_changed()

    def is_newest(instance: Instance) -> bool:
        newest = changed.get(instance.url)
        return instance.token == (newest.token if newest else "")

    return sorted(filter(is_newest, work.read_bucket(bucket)), key=lambda one: one.url)


def write_batches(work: Work, key: Key) -> list[str]:
    """Write the groups that need a decision to the work directory; name the batches.

    In each group the copy to prefer comes first: one that is stored already, then one
    whose pixels are not compressed, then the smallest digest of the header.
    """
    job = work.require_job()
    verdicts = work.read_verdicts()
    repeats = find_repeats(work, job)
    groups = [group for group in repeats if _is_open(group, verdicts)]
    if not groups:
        return []
    stored = stored_sources(str(job.store))

    def rank(instance: Instance) -> tuple[bool, bool, str, str]:
        return (
            plan.source_key(instance.url, key) not in stored,
            instance.transfer_syntax_uid not in NATIVE,
            instance.header_digest,
            instance.url,
        )

    number = work.n_verdicts()
    ranked = [sorted(group, key=rank) for group in groups]
    names: list[str] = []
    for batch in _batches(ranked):
        names.append(f"{number + len(names):06d}-resolve")
        work.write_repeats(names[-1], batch)
    return names


def _batches(groups: Iterable[list[Instance]]) -> list[list[Instance]]:
    batches: list[list[Instance]] = [[]]
    for group in groups:
        if len(batches[-1]) >= BATCH_INSTANCES:
            batches.append([])
        batches[-1].extend(group)
    return batches


def find_repeats(work: Work, job: Job) -> list[list[Instance]]:
    """Return the groups of storable instances that share a SOP Instance UID."""
    groups: dict[str, list[Instance]] = defaultdict(list)
    for bucket in work.bucket_names():
        for instance in read_current(work, bucket):
            if _may_be_stored(instance, job):
                groups[instance.sop_instance_uid].append(instance)
    return [groups[uid] for uid in sorted(groups) if len(groups[uid]) > 1]


def _may_be_stored(instance: Instance, job: Job) -> bool:
    try:
        plan.check_instance(instance, job.settings)
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
        return is_unchanged(verdict.url, verdict.size, verdict.token)
    return False


def stored_sources(store: str) -> frozenset[str]:
    """Return the source keys of the instances that the newest commit holds."""
    parent = commits.read_commit(store)
    if parent is None:
        return frozenset()
    rows = commits.read_rows(store, parent, "instances")
    return frozenset(row["source_key"] for row in rows)


def resolve_batch(name: str, *, work_url: str) -> dict[str, int]:
    """Decide on one batch of repeated instances; return counts."""
    work = Work(work_url)
    groups: dict[str, list[Instance]] = defaultdict(list)
    for instance in work.read_repeats(name):
        groups[instance.sop_instance_uid].append(instance)
    with quiet():
        found = [one for group in groups.values() for one in resolve_group(group)]
    work.write_verdicts(name, found)
    return {"groups": len(groups), "instances": len(found)}


def resolve_group(group: Sequence[Instance]) -> list[Verdict]:
    """Return a verdict on each copy of one SOP Instance UID: at most one is `stored`.

    Parameters
    ----------
    group
        The copies, the one to prefer first.
    """
    unfit: list[Verdict] = []
    contents: dict[str, tuple[str, ...]] = {}
    for instance, fetched in fetch_ahead(group):
        try:
            contents[instance.url] = guard(_content, instance, fetched)
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


def _content(instance: Instance, fetched: Callable[[], bytes]) -> tuple[str, ...]:
    """Return what makes two copies the same: decoded pixels, place and scale."""
    dataset = read_dataset(instance, fetched)
    frames = pixels.decode_frames(dataset)
    digest = hashlib.blake2b(frames.tobytes(), digest_size=16)
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
    return Verdict(file.url, file.size, file.token, stage, code, text)


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


def read_dataset(
    file: Instance | PlannedFrame, fetched: Callable[[], bytes]
) -> Dataset:
    """Return the dataset of a file that is still as it was indexed.

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
    if len(data) != file.size or not is_unchanged(file.url, file.size, file.token):
        raise InputError("source-changed")
    return header.read_dataset(data)


def is_unchanged(url: str, size: int, token: str) -> bool:
    """Return whether a file is there, as far as can be told in the state indexed."""
    found = storage.describe(url)
    return found.size == size and token in ("", found.etag)
