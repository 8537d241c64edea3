"""One run over one work directory: opened, checked, with a scheduler on demand."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from dicomdask import pipeline, plan, storage
from dicomdask.commits import Commit
from dicomdask.errors import OptionError, PolicyError, StoreError
from dicomdask.pseudonym import (
    ENVIRONMENT_VARIABLE,
    Key,
    KeyReference,
    create_key_file,
    resolve_key,
)
from dicomdask.runlog import Progress, RunLog
from dicomdask.steps.workers import check_workers
from dicomdask.tasks.commit import versions
from dicomdask.work import Job, Work

CLUSTER_SECONDS: Final = 3.0
"""About how long a local cluster takes to start."""

Report = Callable[[Progress], None]
"""Called with how far a stage is, whenever a piece of it is done."""


def no_progress(progress: Progress) -> None:
    """Report nothing."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What a bag is to do: so many pieces; the counts of a result say of how many.

    `piece` is the entry of a result's counts that holds how many it did; where there is
    none, each result is one piece.
    """

    total: int
    unit: str = "parts"
    piece: str | None = None
    total_bytes: int = 0


@dataclass(slots=True)
class Session:
    """One run over one work directory: opened, checked, with a scheduler on demand.

    Parameters
    ----------
    work
        The work directory.
    key
        The key that the job's reference resolves to here.
    scheduler, memory, insecure_scheduler
        See `pipeline.open_runner`; nothing is started before there is work to do.
    progress
        Told of each finished piece.
    n_indexed, n_encoded, has_encoded
        What was done so far.
    newest
        The store's newest commit when the run began.
    log
        Where time and bytes go.
    """

    work: Work
    key: Key
    log: RunLog
    scheduler: str | None = None
    memory: str | None = None
    insecure_scheduler: bool = False
    progress: Report = no_progress
    n_indexed: int = 0
    n_encoded: int = 0
    has_encoded: bool = False
    newest: Commit | None = None
    _stack: ExitStack = field(default_factory=ExitStack)
    _runner: pipeline.Runner | None = None

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self.log.close(error[1])
        finally:
            self._stack.__exit__(*error)  # a client is closed by what ended the run

    def keep(self, stack: ExitStack) -> None:
        """Close these with the session."""
        self._stack.push(stack)

    @property
    def runner(self) -> pipeline.Runner:
        """Return the scheduler, started at the first use."""
        if self._runner is None:
            if self._is_local:
                _require_memory(self.task_memory)
            opened = pipeline.open_runner(
                self.scheduler, memory=self.memory, insecure=self.insecure_scheduler
            )
            is_here = self.scheduler in pipeline.LOCAL_SCHEDULERS
            with nullcontext() if is_here else self.log.stage("start"):
                runner = self._stack.enter_context(opened)
                _require_memory(runner.task_memory)
                check_workers(runner, self.work, self.key)
            self._runner = runner
        return self._runner

    @property
    def task_memory(self) -> int | None:
        """Return what one task may take; a local cluster is not started for it."""
        if self._is_local and self._runner is None:
            return pipeline.local_memory(self.memory)
        return self.runner.task_memory

    @property
    def _is_local(self) -> bool:
        return self.scheduler is None and pipeline.current_client() is None

    def tell_memory(self, need: int) -> None:
        """Tell how what the largest task takes compares with what it may take."""
        has = self.runner.task_memory or 0
        self.log.note("memory", task_bytes=need, worker_bytes=has)
        told = Progress("memory", 1, 1, done_bytes=need, total_bytes=has)
        self.progress(told)

    def check_writers(self, store: str) -> None:
        """Check that the workers reach a store; raise PlanError where some do not."""
        check_workers(self.runner, self.work, self.key, store=store)

    def run(
        self, stage: str, bag: Any, goal: Goal, *, seconds: float | None = None
    ) -> list[dict[str, Any]]:
        """Compute a bag of counts, and report progress.

        Parameters
        ----------
        seconds
            About how long it takes on one core. What is over before a local cluster
            would have started is done in this process.
        """
        is_short = seconds is not None and seconds < CLUSTER_SECONDS
        inline = is_short and self._is_local and self._runner is None
        with self.log.stage(stage) as use:
            runner = pipeline.Runner("synchronous") if inline else self.runner
            tally = Tally(stage, goal)
            self.progress(tally.progress())
            found = []
            for counts in runner.run(bag):
                use.add_task(counts)
                tally.add(counts)
                self.progress(tally.progress())
                found.append(counts)
            self.log.note("found", stage=stage, **tally.summary())
        return found


class Tally:
    """The counts of one bag's results so far."""

    def __init__(self, stage: str, goal: Goal) -> None:
        self._stage, self._goal = stage, goal
        self._started = time.monotonic()
        self._done = self._done_bytes = 0
        self._outcomes: Counter[str] = Counter()

    def add(self, counts: Mapping[str, Any]) -> None:
        """Add what one result says."""
        self._done += counts[self._goal.piece] if self._goal.piece else 1
        self._done_bytes += counts.get("piece_bytes", 0)
        self._outcomes.update(counts.get("found", {}))

    def progress(self) -> Progress:
        """Return how far the stage is."""
        return Progress(
            stage=self._stage,
            done=self._done,
            total=self._goal.total,
            unit=self._goal.unit,
            seconds=time.monotonic() - self._started,
            done_bytes=self._done_bytes,
            total_bytes=self._goal.total_bytes,
            outcomes=dict(self._outcomes),
        )

    def summary(self) -> dict[str, Any]:
        """Return what the run log keeps of it."""
        return {
            self._goal.unit: self._done,
            "source_bytes": self._done_bytes,
            "outcomes": dict(sorted(self._outcomes.items())),
        }


def _require_memory(memory: int | None) -> None:
    """Raise OptionError where workers cannot even hold what they import."""
    if memory is not None and memory < plan.BASE_BYTES:
        raise OptionError(
            f"a task may take {memory >> 20} MiB, but a worker takes "
            f"{plan.BASE_BYTES >> 20} MiB before it reads anything; give workers more "
            "memory with --memory, or fewer threads"
        )


def open_session(
    work: str,
    *,
    key_file: str | None = None,
    scheduler: str | None = None,
    memory: str | None = None,
    insecure_scheduler: bool = False,
    progress: Report = no_progress,
    create: bool = False,
    shared: bool = False,
) -> Session:
    """Open a work directory.

    Parameters
    ----------
    key_file
        Where the key is; else the environment, else a key made in the directory.
    create
        Whether to make it a work directory if it is none yet.
    shared
        Whether others that share may work in it at the same time: they own other tasks.

    Raises
    ------
    StoreError
        If it is no work directory, cannot be written to, or another run works in it.
    PolicyError
        If the key is missing, or another than the one it was made with.
    """
    url = storage.resolve(work)
    pipeline.check_scheduler(scheduler, memory, insecure=insecure_scheduler)
    opened = Work(url)
    if create:
        require_work_place(url)
        storage.make_private_folder(url)
    else:
        opened.require_job()
    with ExitStack() as stack:
        stack.enter_context(locked(url, shared=shared))
        job = _open_job(opened, key_file)
        key = resolve_key(job.key)
        log = open_log(opened, stack.enter_context(storage.counted()))
        session = Session(
            opened, key, log, scheduler, memory, insecure_scheduler, progress
        )
        session.keep(stack.pop_all())
    return session


@contextmanager
def locked(work: str, *, shared: bool = False) -> Iterator[None]:
    """Keep other runs out of a work directory; StoreError if one is in it."""
    with storage.lock(work, shared=shared) as is_held:
        if not is_held:
            raise StoreError(
                f"another run works in {work}; wait for its end, or give another --work"
            )
        yield


def _open_job(work: Work, key_file: str | None) -> Job:
    """Return the job of a work directory, or a new one; the key must be the same."""
    url, before = work.url, work.read_job()
    job = before
    reference = _key_reference(url, key_file, job)
    key = resolve_key(reference)
    if job is None:
        job = Job(reference, key.fingerprint())
    if job.key_fingerprint != key.fingerprint():
        raise PolicyError(
            f"{url} was made with another key; pass the key it was made with, or "
            "another --work"
        )
    found = replace(job, key=reference)
    if found != before:
        work.write_job(found)
    return found


def open_log(work: Work, traffic: storage.Traffic) -> RunLog:
    """Open the log of a run; its first line names the versions of what runs."""
    return RunLog(work.path("log"), traffic, versions=versions())


def default_work(store: str, work: str | None) -> str:
    """Return where the work directory is: as told, or beside a local store.

    Raises
    ------
    OptionError
        If the store is no local one and nothing is told.
    """
    if work is not None:
        return storage.resolve(work)
    if not storage.is_local(store):
        raise OptionError(
            "the work directory holds identified data, so it has no default beside an "
            "object store; say with --work where it may lie"
        )
    return storage.resolve(f"{store}.work")


def require_work_place(url: str) -> None:
    """Check that a folder is empty, new or a work directory, or raise StoreError."""
    names = storage.list_names(url)
    if names and not {"job.json", "key"} & set(names):
        raise StoreError(
            f"{url} is not empty and is no work directory; give another --work"
        )


def _key_reference(work: str, key_file: str | None, job: Job | None) -> KeyReference:
    if key_file is not None:
        return KeyReference(str(Path(key_file).absolute()))
    if os.environ.get(ENVIRONMENT_VARIABLE):
        return KeyReference()
    if not storage.is_local(work):
        if job is None:
            raise PolicyError(
                "a key is never written to an object store; pass --key-file, or set "
                f"{ENVIRONMENT_VARIABLE}: make one with `openssl rand -hex 32`"
            )
        return job.key
    path = Path(storage.decode_path(work)) / "key"
    if job is None or job.key.path == str(path):
        create_key_file(path)
        return KeyReference(str(path))
    return job.key
