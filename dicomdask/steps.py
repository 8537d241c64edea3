"""The steps as a user runs them: index, plan, encode, commit, and all at once.

Each step reads and writes the work directory, so a step that was cut off is simply run
again: it does what has no receipt yet. Nothing here touches an input; the tasks do.
"""

import datetime
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, get_args

import dicomdask.tasks.commit as commit_task
import dicomdask.tasks.index as index_task
from dicomdask import arrays, commits, pipeline, plan, storage
from dicomdask.commits import Commit
from dicomdask.errors import NoDicomError, PlanError, PolicyError, StoreError
from dicomdask.model import Irregular, PlannedVolume, Profile, Settings, Task
from dicomdask.policy import load_policy
from dicomdask.pseudonym import (
    ENVIRONMENT_VARIABLE,
    Key,
    KeyReference,
    create_key_file,
    resolve_key,
)
from dicomdask.tasks import planning, resolve
from dicomdask.tasks.encode import plan_tasks
from dicomdask.work import Job, Work

MANIFEST_FILES: Final = 256
FILES_PER_BUCKET: Final = 20_000
MIN_BUCKETS: Final = 4
BATCH_SECONDS: Final = (1.0, 20.0)
"""A batch of tasks is at least and at most about this long."""
SECONDS_PER_FRAME: Final = 0.008
BYTES_PER_SECOND: Final = 60e6

Progress = Callable[[str, int, int], None]
"""Called with a step, how much of it is done, and how much there is."""


def _no_progress(step: str, done: int, total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did.

    `commit` is the dataset's newest state; `is_new` says whether this run made it.
    `n_encoded` tasks were done and `n_indexed` files read by this run.
    """

    store: str
    work: str
    commit: Commit
    is_new: bool
    n_indexed: int
    n_encoded: int


@dataclass(slots=True)
class Session:
    """One run over one work directory: opened, checked, with a scheduler on demand.

    Parameters
    ----------
    work
        The work directory.
    key
        The key that the job's reference resolves to here.
    scheduler, memory
        See `pipeline.open_runner`; nothing is started before there is work to do.
    progress
        Told of each finished piece.
    """

    work: Work
    key: Key
    scheduler: str | None = None
    memory: str | None = None
    progress: Progress = _no_progress
    n_indexed: int = 0
    n_encoded: int = 0
    _stack: ExitStack = field(default_factory=ExitStack)
    _runner: pipeline.Runner | None = None

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def runner(self) -> pipeline.Runner:
        """Return the scheduler, started at the first use."""
        if self._runner is None:
            opened = pipeline.open_runner(self.scheduler, memory=self.memory)
            self._runner = self._stack.enter_context(opened)
        return self._runner

    def run(self, step: str, bag: Any, total: int) -> Iterator[dict[str, int]]:
        """Compute a bag of counts, and report progress."""
        self.progress(step, 0, total)
        for done, counts in enumerate(self.runner.run(bag), 1):
            self.progress(step, done, total)
            yield counts


# --- the job ------------------------------------------------------------------


def open_session(
    work: str,
    *,
    key_file: str | None = None,
    scheduler: str | None = None,
    memory: str | None = None,
    progress: Progress = _no_progress,
    create: bool = False,
    n_files: int = 0,
) -> Session:
    """Open a work directory.

    Parameters
    ----------
    key_file
        Where the key is; else the environment, else a key made in the directory.
    create
        Whether to make it a work directory if it is none yet.
    n_files
        How many files a new one is made for.

    Raises
    ------
    StoreError
        If it is no work directory, or cannot be written to.
    PolicyError
        If the key is missing, or another than the one it was made with.
    """
    url = storage.require_local(work)
    if memory is not None:
        pipeline.parse_memory(memory)
    opened = Work(url)
    if create:
        storage.make_private_folder(url)
    job = opened.read_job() if create else opened.require_job()
    reference = _key_reference(url, key_file, job)
    key = resolve_key(reference)
    if job is None:
        n_buckets = max(MIN_BUCKETS, -(-n_files // FILES_PER_BUCKET))
        job = Job(n_buckets, reference, key.fingerprint())
    if job.key_fingerprint != key.fingerprint():
        raise PolicyError(
            f"{url} was made with another key; pass the key it was made with, or "
            "another --work"
        )
    opened.write_job(replace(job, key=reference))
    return Session(opened, key, scheduler, memory, progress)


def _key_reference(work: str, key_file: str | None, job: Job | None) -> KeyReference:
    if key_file is not None:
        return KeyReference(str(Path(key_file).absolute()))
    if os.environ.get(ENVIRONMENT_VARIABLE):
        return KeyReference()
    path = Path(storage.decode_path(work)) / "key"
    if job is None or job.key.path == str(path):
        create_key_file(path)
        return KeyReference(str(path))
    return job.key


# --- index --------------------------------------------------------------------


def index(session: Session, sources: Sequence[str], *, exclude: tuple[str, ...]) -> int:
    """List the sources and index what is new; return how many files were read.

    Raises
    ------
    SourceError
        If a source does not exist.
    NoDicomError
        If no listed file is DICOM.
    """
    work = session.work
    files = index_task.list_sources(sources, exclude=exclude)
    session.progress("list", len(files), len(files))
    index_task.extend_manifest(work, files, part_files=MANIFEST_FILES)
    done = work.indexed_parts()
    left = [part for part in work.manifest_parts() if part not in done]
    bag = pipeline.index_bag(left, work_url=work.url)
    counts = list(session.run("index", bag, len(left))) if left else []
    _require_dicom(work, sources)
    return sum(one["instances"] + one["outcomes"] for one in counts)


def count_files(sources: Sequence[str], *, exclude: tuple[str, ...]) -> int:
    """Return how many files the sources hold; raise NoDicomError for none."""
    n_files = len(index_task.list_sources(sources, exclude=exclude))
    if not n_files:
        raise NoDicomError(
            f"no file in {', '.join(sources)}; name the folder that holds DICOM"
        )
    return n_files


def _require_dicom(work: Work, sources: Sequence[str]) -> None:
    notes = [work.read_note("index", f"{part}.json") for part in work.indexed_parts()]
    is_dicom = sum(
        note["instances"] + note["outcomes"] - note["not_dicom"] for note in notes
    )
    if not is_dicom:
        n_files = sum(note["outcomes"] for note in notes)
        names = ", ".join(sources)
        raise NoDicomError(
            f"no DICOM among the {n_files} files of {names}; name the folder that "
            "holds it"
        )


# --- plan ---------------------------------------------------------------------


def set_target(
    session: Session, store: str, settings: Settings, *, limit: int | None = None
) -> None:
    """Decide what the session plans for.

    Raises
    ------
    StoreError
        If the store is no dataset.
    PlanError, PolicyError
        If it was made with other settings, or they cannot be used.
    """
    _check_settings(settings, limit)
    url = storage.require_local(store)
    if session.work.url.startswith(storage.join(url, "")):
        raise StoreError("the work directory may not lie inside the store")
    job = session.work.require_job()
    job = replace(job, store=url, settings=settings, limit=limit)
    check_store(job, session.key)
    session.work.write_job(job)


def make_plan(session: Session) -> None:
    """Plan what is indexed; nothing is done where nothing changed.

    Raises
    ------
    PlanError
        If nothing is indexed, or the filter cannot be evaluated.
    """
    work = session.work
    job = work.require_job()
    if not work.bucket_names() and not work.indexed_parts():
        raise PlanError(f"{work.url} has no index; run `dicomdask index` first")
    if work.read_note("planned.json") == _plan_state(work, job):
        return
    batches = resolve.write_batches(work, session.key)
    if batches:
        bag = pipeline.resolve_bag(batches, work_url=work.url)
        _exhaust(session.run("resolve", bag, len(batches)))
    buckets = work.bucket_names()
    if buckets:
        bag = pipeline.plan_bag(buckets, work_url=work.url)
        _exhaust(session.run("plan", bag, len(buckets)))
    planning.prune(work, limit=job.limit, memory=None, key=session.key)
    _note_plan(work, job)


def _note_plan(work: Work, job: Job) -> None:
    commit_task.note_plan(work)
    work.write_note(_plan_state(work, job), "planned.json")


def _exhaust(results: Iterator[Any]) -> None:
    for _ in results:
        pass


def _check_settings(settings: Settings, limit: int | None) -> None:
    load_policy(
        settings.policy,
        options=settings.options,
        trusted_pixels=settings.trusted_pixels,
    )
    if settings.profile not in get_args(Profile):
        raise PlanError(f"--profile is one of {', '.join(get_args(Profile))}")
    if settings.on_irregular not in get_args(Irregular):
        raise PlanError(f"--on-irregular is one of {', '.join(get_args(Irregular))}")
    if limit is not None and limit < 1:
        raise PlanError("--limit is a number of volumes, at least 1")


def _plan_state(work: Work, job: Job) -> str:
    """Return a digest of all that the plan is made from."""
    verdicts = work.read_verdicts().values()
    ended = [
        one.url
        for one in verdicts
        if one.code == "conflict" and not storage.exists(one.url)
    ]
    policy = planning.job_policy(job).digest
    parts = sorted(work.indexed_parts())
    state = [asdict(job), policy, parts, work.n_verdicts(), ended]
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()


def check_store(job: Job, key: Key) -> None:
    """Check that the job's store is new, or a dataset made with the same settings.

    Raises
    ------
    StoreError
        If it is something else, or cannot be written to.
    PlanError
        If its policy, key, profile or filter differ; named in the message.
    """
    store = str(job.store)
    if storage.exists(store) and storage.list_names(store):
        require_dataset(store)
    newest = commits.read_commit(store)
    if newest is None:
        return
    wanted: dict[str, Any] = {**asdict(job.settings), "limit": job.limit}
    wanted["policy digest"] = planning.job_policy(job).digest
    wanted["key"] = key.fingerprint()
    made_with = {
        **newest.settings,
        "policy digest": newest.policy["digest"],
        "key": newest.key_fingerprint,
    }
    plain = json.loads(json.dumps(wanted))
    differing = sorted(name for name in plain if plain[name] != made_with.get(name))
    if differing:
        raise PlanError(
            f"{store} was made with another {', '.join(differing)}; use the same, "
            "another store, or --overwrite"
        )


def require_dataset(store: str) -> None:
    """Check that a store is a dicomdask dataset, or raise StoreError."""
    if not storage.exists(store):
        raise StoreError(f"there is no dataset at {store}; check the path")
    try:
        document = json.loads(storage.read(storage.join(store, "zarr.json")))
        found = document["attributes"]["dicomdask"]["format"]
    except (OSError, ValueError, KeyError, TypeError):
        raise StoreError(
            f"{store} exists and is no dicomdask dataset; give another path, or "
            "remove what is there"
        ) from None
    if found != arrays.FORMAT:
        raise StoreError(
            f"{store} has another format than {arrays.FORMAT}; use the version of "
            "dicomdask that wrote it"
        )


# --- encode -------------------------------------------------------------------


def encode(session: Session, *, task_range: tuple[int, int] | None = None) -> int:
    """Encode the tasks without receipt; return how many were done.

    Series in which frames turn out to be unfit are planned again without them.

    Parameters
    ----------
    task_range
        Only the tasks [start, stop) of the whole plan, in its order: for array jobs.

    Raises
    ------
    PlanError
        If there is no plan; or, with a range, if frames were unfit.
    """
    work = session.work
    if not work.plan_names():
        raise PlanError(f"{work.url} has no plan; run `dicomdask plan` first")
    job = work.require_job()
    store = str(job.store)
    storage.require_writable(store)
    root = storage.join(store, "zarr.json")
    if not storage.exists(root):
        storage.write(root, arrays.root_metadata().encode())
    done = 0
    while True:
        left = _open_tasks(session, task_range)
        if not left:
            return done
        _check_memory(session)
        left = _open_tasks(session, task_range)
        batches = _batches(left, session.runner.n_workers)
        bag = pipeline.encode_bag(batches, work_url=work.url)
        counts = list(session.run("encode", bag, len(batches)))
        done += sum(one["tasks"] for one in counts)
        n_unfit = sum(one["unfit"] for one in counts)
        if n_unfit and task_range is not None:
            raise PlanError(
                f"{n_unfit} frames turned out unfit; run `dicomdask plan`, then "
                "`dicomdask encode` again"
            )
        if n_unfit:
            _replan(session, job)


def _replan(session: Session, job: Job) -> None:
    """Plan again without the frames that were unfit, and nothing that was pruned."""
    work = session.work
    was_edited = commit_task.is_edited(work)
    before = {name: work.read_plan(name) for name in work.plan_names()}
    bag = pipeline.plan_bag(list(before), work_url=work.url)
    _exhaust(session.run("plan", bag, len(before)))
    for name, part in before.items():
        planning.keep_planned(work, name, part)
    if not was_edited:
        commit_task.note_plan(work)
    work.write_note(_plan_state(work, job), "planned.json")


@dataclass(frozen=True, slots=True)
class _OpenTask:
    """A task without receipt: where it stands in the plan, and its rough cost."""

    part: str
    number: int
    seconds: float


def _open_tasks(
    session: Session, task_range: tuple[int, int] | None
) -> list[_OpenTask]:
    work = session.work
    done = work.done_tasks()
    found: list[_OpenTask] = []
    position = 0
    for name in work.plan_names():
        for number, (volume, task) in enumerate(plan_tasks(work.read_plan(name))):
            inside = task_range is None or task_range[0] <= position < task_range[1]
            position += 1
            if inside and plan.task_digest(volume, task, session.key) not in done:
                found.append(_OpenTask(name, number, _seconds(volume, task)))
    return found


def _seconds(volume: PlannedVolume, task: Task) -> float:
    share = len(task.frames) / max(1, len(volume.frames))
    raw = volume.raw_bytes * share / BYTES_PER_SECOND
    return raw + SECONDS_PER_FRAME * len(task.frames)


def _batches(left: Sequence[_OpenTask], n_workers: int) -> list[tuple[str, int, int]]:
    """Join tasks that follow one another into batches of a second or more."""
    shortest, longest = BATCH_SECONDS
    total = sum(task.seconds for task in left)
    wanted = min(max(shortest, total / (4 * n_workers)), longest)
    batches: list[tuple[str, int, int]] = []
    seconds = wanted
    for task in left:
        part, start, stop = batches[-1] if batches else ("", 0, 0)
        if seconds < wanted and part == task.part and stop == task.number:
            batches[-1] = (part, start, stop + 1)
            seconds += task.seconds
        else:
            batches.append((task.part, task.number, task.number + 1))
            seconds = task.seconds
    return batches


def _check_memory(session: Session) -> None:
    """Reject what no worker can hold, before anything of it is allocated."""
    limit = session.runner.task_memory
    planning.prune(session.work, limit=None, memory=limit, key=session.key)


# --- commit -------------------------------------------------------------------


def commit(session: Session) -> Summary:
    """Commit what has receipts; return the newest commit, and whether it is new.

    Raises
    ------
    PlanError, StoreError
        If tasks have no receipt, or an input is unaccounted for.
    """
    work = session.work
    store = str(work.require_job().store)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    made = commit_task.commit(work, now=now)
    newest = made or commits.read_commit(store)
    if newest is None:
        raise StoreError("the commit vanished while it was made; run again")
    return Summary(
        store, work.url, newest, made is not None, session.n_indexed, session.n_encoded
    )


# --- all at once --------------------------------------------------------------


def convert(
    sources: str | Sequence[str],
    store: str,
    *,
    work: str | None = None,
    policy: str = "research",
    options: Sequence[str] = (),
    trust_pixels: Sequence[str] = (),
    key_file: str | None = None,
    profile: Profile = "balanced",
    on_irregular: Irregular = "split",
    where: str | None = None,
    limit: int | None = None,
    scheduler: str | None = None,
    memory: str | None = None,
    overwrite: bool = False,
    progress: Progress = _no_progress,
) -> Summary:
    """Convert DICOM into a dataset; resume or extend what an earlier run began.

    Parameters
    ----------
    sources
        Files, folders or glob patterns.
    store
        Where the dataset is, or will be.
    work
        The private directory of identified intermediates; by default `<store>.work`.
    policy
        `research`, `basic` or `none`.
    options
        Options of PS3.15 Annex E that the policy is to apply besides.
    trust_pixels
        Modalities whose pixels you know to hold no text, such as `DX`.
    key_file
        The key of the pseudonyms; else the variable `DICOMDASK_KEY`, else a key is
        made in the work directory.
    profile
        How the dataset will be read most: `slice`, `balanced` or `patch`.
    on_irregular
        Whether to `split` or `reject` slices that are not evenly spaced.
    where
        An expression over DICOM keywords: `Modality == 'CT'`.
    limit
        How many volumes to store at most.
    scheduler
        None: the current Dask client, else a local cluster fitted to the machine;
        `synchronous`, `threads`, `processes`, an address or a scheduler file.
    memory
        What one worker of a local cluster may take, such as `4GiB`.
    overwrite
        Whether to remove the store and begin anew.
    progress
        Called with a step, how much of it is done, and how much there is.

    Returns
    -------
    Summary
        The newest commit, and what this run did.

    Raises
    ------
    DicomDaskError
        One sentence that says what, where, and what to do.
    """
    names = [sources] if isinstance(sources, str) else list(sources)
    settings = Settings(
        policy=policy,
        options=tuple(options),
        trusted_pixels=tuple(trust_pixels),
        profile=profile,
        on_irregular=on_irregular,
        where=where,
    )
    session = prepare(
        names,
        store,
        settings,
        work=work,
        key_file=key_file,
        limit=limit,
        scheduler=scheduler,
        memory=memory,
        overwrite=overwrite,
        progress=progress,
    )
    with session:
        return finish(session)


def finish(session: Session) -> Summary:
    """Encode and commit what a session planned."""
    session.n_encoded = encode(session)
    return commit(session)


def prepare(
    sources: Sequence[str],
    store: str,
    settings: Settings,
    *,
    work: str | None = None,
    key_file: str | None = None,
    limit: int | None = None,
    scheduler: str | None = None,
    memory: str | None = None,
    overwrite: bool = False,
    progress: Progress = _no_progress,
) -> Session:
    """Do all that comes before encoding, and return the open session.

    See `convert` for the parameters and errors.
    """
    target = storage.require_local(store)
    directory = storage.require_local(work or f"{target}.work")
    n_files = count_files(sources, exclude=(target, directory))
    if overwrite:
        _remove_dataset(target, directory)
    session = open_session(
        directory,
        key_file=key_file,
        scheduler=scheduler,
        memory=memory,
        progress=progress,
        create=True,
        n_files=n_files,
    )
    with ExitStack() as stack:
        stack.enter_context(session)
        set_target(session, target, settings, limit=limit)
        session.n_indexed = index(session, sources, exclude=(target, directory))
        make_plan(session)
        stack.pop_all()
    return session


def _remove_dataset(store: str, work: str) -> None:
    """Remove a dataset and its intermediates; the key stays."""
    if storage.exists(store):
        require_dataset(store)
        storage.remove_tree(store)
    for name in storage.list_names(work):
        if name != "key":
            storage.remove_tree(storage.join(work, name))
