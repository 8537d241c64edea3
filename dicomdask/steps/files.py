"""Deidentify, as a user runs it: DICOM in, DICOM out."""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from dicomdask import pipeline, storage
from dicomdask.errors import NoDicomError, OptionError, PlanError, StoreError
from dicomdask.model import FORMAT, Settings
from dicomdask.runlog import StageUse
from dicomdask.steps.session import (
    Goal,
    Report,
    Session,
    default_work,
    no_progress,
    open_session,
)
from dicomdask.steps.stages import index_listed, list_inputs, make_plan, require_files
from dicomdask.steps.target import check_places, check_settings, with_policy
from dicomdask.tasks import files
from dicomdask.tasks.again import end_again, note_again, parts_again
from dicomdask.tasks.forgotten_files import leave_out_files, newest_files
from dicomdask.tasks.index import NOT_DICOM, extend_manifest
from dicomdask.tasks.isolate import stop_idle_cells
from dicomdask.tasks.masks import masks_work
from dicomdask.tasks.policies import job_policy
from dicomdask.tasks.record import read_record, write_record

SECONDS_PER_FILE: Final = 0.02
"""About how long a file takes, read and written; what is short needs no cluster."""


@dataclass(frozen=True, slots=True)
class Deidentified:
    """What a run of `deidentify` came to.

    `outcomes` and `codes` count all inputs so far; `n_done` files were read by this
    run. `mappings` are the files of old and new identifiers, where they were asked for.
    """

    dest: str
    work: str
    n_done: int
    outcomes: Mapping[str, int]
    codes: Mapping[str, int]
    mappings: tuple[str, ...]
    stages: tuple[StageUse, ...] = ()


def deidentify(
    sources: str | Sequence[str],
    dest: str,
    *,
    work: str | None = None,
    policy: str = "research",
    options: Sequence[str] = (),
    trust_pixels: Sequence[str] = (),
    key_file: str | None = None,
    crosswalk: bool = False,
    scheduler: str | None = None,
    memory: str | None = None,
    insecure_scheduler: bool = False,
    storage_options: Mapping[str, Any] | str | None = None,
    progress: Report = no_progress,
) -> Deidentified:
    """Write de-identified DICOM files; resume or extend what an earlier run began.

    Parameters
    ----------
    sources
        Files, folders or glob patterns.
    dest
        Where the files go: `PATIENT/STUDY/SERIES/INSTANCE.dcm`, by pseudonym and new
        UIDs; what became of each input goes to `_dicomdask`, by keyed names.
    work
        The private directory of identified intermediates; by default `<dest>.work`.
    policy, options, trust_pixels, key_file
        As in `convert`: the same give the same pseudonyms and UIDs.
    crosswalk
        Whether to write old and new identifiers to *work*: they identify everybody.
    scheduler, memory, insecure_scheduler, storage_options, progress
        As in `convert`.

    Raises
    ------
    DicomDaskError
        One sentence that says what, where, and what to do.
    """
    if storage_options is not None:
        storage.use_options(storage_options)
    names = [sources] if isinstance(sources, str) else list(sources)
    settings = Settings(
        policy=policy, options=tuple(options), trusted_pixels=tuple(trust_pixels)
    )
    target = storage.resolve(dest)
    directory = default_work(target, work)
    check_places(target, directory)
    check_settings(settings, None)
    if policy == "none":
        raise OptionError("policy none would copy the files; choose research or basic")
    exclude = (target, directory)
    require_files(names, exclude=exclude)
    session = open_session(
        directory,
        key_file=key_file,
        scheduler=scheduler,
        memory=memory,
        insecure_scheduler=insecure_scheduler,
        progress=progress,
        create=True,
    )
    with session:
        _set_target(session, target, with_policy(settings), crosswalk=crosswalk)
        list_inputs(session, names, exclude)
        try:
            if job_policy(session.work.require_job()).cleans_faces:
                _find_faces(session, names)
            return _finish(session, crosswalk=crosswalk)
        finally:
            stop_idle_cells()


def _set_target(
    session: Session, dest: str, settings: Settings, *, crosswalk: bool
) -> None:
    """Decide where files go; what is there must be of the same policy and key."""
    job = session.work.require_job()
    if job.store not in {None, dest}:
        raise StoreError(
            f"{session.work.url} belongs to another store; give another --work"
        )
    session.work.write_job(replace(job, store=dest, settings=settings))
    target = files.target_of(
        session.work, session.work.require_job(), crosswalk=crosswalk
    )
    wanted = {
        "format": FORMAT,
        "policy": target.policy.name,
        "policy digest": target.policy.digest,
        "options": list(target.policy.options),
        "codes": [list(code) for code in target.policy.codes],
        "key": session.key.fingerprint(),
    }
    storage.require_writable(dest)
    found = read_record(dest)
    if found is not None:
        differing = [name for name in wanted if found.get(name) != wanted[name]]
        if differing:
            raise PlanError(
                f"{dest} was made with another {', '.join(differing)}; use the same, "
                "or another destination"
            )
    elif storage.list_names(dest):
        raise StoreError(
            f"{dest} is not empty and was not made by `dicomdask deidentify`; give "
            "another path"
        )
    write_record(dest, (found or {}) | wanted)


def _find_faces(session: Session, sources: Sequence[str]) -> None:
    """Plan the volumes of what is listed, apart, and find their faces in them.

    Who is forgotten is no longer listed, and so in nothing that is kept apart.
    """
    own = session.work
    apart = masks_work(own)
    storage.make_private_folder(apart.url)
    apart.write_job(own.require_job())
    session.work = apart
    try:
        listed = {file.url: file for file in newest_files(own)}
        extend_manifest(apart, listed.values(), progress=lambda _: None)
        index_listed(session, sources)
        make_plan(session)
        parts = apart.plan_names()
        bag = pipeline.masks_bag(parts, work_url=apart.url)
        session.run("faces", bag, Goal(len(parts), "parts", "parts"))
    finally:
        session.work = own
    names = storage.list_names(own.path(files.FOLDER))
    note_again(own, [own.path(files.FOLDER, name) for name in names])


def _finish(session: Session, *, crosswalk: bool) -> Deidentified:
    work = session.work
    job = work.require_job()
    target = files.target_of(work, job, crosswalk=crosswalk)
    left, again = files.left_batches(target), parts_again(target.path())
    done = []
    if left:
        session.check_writers(target.url)
        bag = pipeline.files_bag(
            left, work_url=work.url, crosswalk=crosswalk, memory=session.task_memory
        )
        n_files = sum(stop - start for _, start, stop in left)
        goal = Goal(n_files, "files", "files")
        seconds = SECONDS_PER_FILE * n_files
        done = session.run("deidentify", bag, goal, seconds=seconds)
    end_again(target.path(), again)
    leave_out_files(target)
    outcomes, codes = _settle(session, target, crosswalk=crosswalk)
    if not set(codes) - NOT_DICOM:
        raise NoDicomError("no DICOM in the sources; name the folder that holds it")
    record = read_record(target.url) or {}
    write_record(target.url, record | {"outcomes": outcomes, "codes_found": codes})
    return Deidentified(
        dest=target.url,
        work=work.url,
        n_done=sum(one["files"] for one in done),
        outcomes=outcomes,
        codes=codes,
        mappings=_write_mappings(target) if crosswalk else (),
        stages=session.log.uses(),
    )


def _settle(
    session: Session, target: files.Target, *, crosswalk: bool
) -> tuple[dict[str, int], dict[str, int]]:
    buckets = storage.list_names(target.path("rows"))
    bag = pipeline.settle_bag(buckets, work_url=session.work.url, crosswalk=crosswalk)
    goal = Goal(len(buckets), "parts", "buckets")
    results = session.run("settle", bag, goal, seconds=0.0)
    outcomes: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    for one in results:
        outcomes.update(one["outcomes"])
        codes.update(one["codes"])
    return dict(sorted(outcomes.items())), dict(sorted(codes.items()))


def _write_mappings(target: files.Target) -> tuple[str, ...]:
    """Write old and new identifiers as two CSV files, into the work directory only.

    A PatientID that several issuers gave has as many lines.
    """
    found: dict[str, set[tuple[str, str]]] = {"patient": set(), "uid": set()}
    for one in files.read_crosswalk(target):
        found[one.kind].add((one.old, one.new))
    urls = []
    for kind, pairs in found.items():
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("id_old", "id_new"))
        writer.writerows(sorted(pairs))
        urls.append(target.path(f"{kind}_mapping.csv"))
        with storage.room_at(target.work.url):
            storage.write(urls[-1], text.getvalue().encode())
    return tuple(urls)
