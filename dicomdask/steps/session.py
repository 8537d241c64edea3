"""One run over one work directory: opened, checked, with a scheduler on demand."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from dicomdask import pipeline, storage
from dicomdask.commits import Commit
from dicomdask.errors import OptionError, PolicyError, StoreError
from dicomdask.pseudonym import (
    ENVIRONMENT_VARIABLE,
    Key,
    KeyReference,
    create_key_file,
    resolve_key,
)
from dicomdask.work import Job, Work

CLUSTER_SECONDS: Final = 3.0
"""About how long a local cluster takes to start."""

Progress = Callable[[str, int, int], None]
"""Called with a step, how much of it is done, and how much there is."""


def no_progress(step: str, done: int, total: int) -> None:
    """Report nothing."""


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
    n_indexed, n_encoded, has_encoded
        What was done so far.
    newest
        The store's newest commit when the run began.
    """

    work: Work
    key: Key
    scheduler: str | None = None
    memory: str | None = None
    progress: Progress = no_progress
    n_indexed: int = 0
    n_encoded: int = 0
    has_encoded: bool = False
    newest: Commit | None = None
    _stack: ExitStack = field(default_factory=ExitStack)
    _runner: pipeline.Runner | None = None

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def keep(self, stack: ExitStack) -> None:
        """Close these with the session."""
        self._stack.push(stack)

    @property
    def runner(self) -> pipeline.Runner:
        """Return the scheduler, started at the first use."""
        if self._runner is None:
            opened = pipeline.open_runner(self.scheduler, memory=self.memory)
            self._runner = self._stack.enter_context(opened)
        return self._runner

    def run(
        self, step: str, bag: Any, total: int, *, seconds: float | None = None
    ) -> Iterator[dict[str, Any]]:
        """Compute a bag of counts, and report progress.

        Parameters
        ----------
        seconds
            About how long it takes on one core. What is over before a local cluster
            would have started is done in this process.
        """
        self.progress(step, 0, total)
        is_short = seconds is not None and seconds < CLUSTER_SECONDS
        is_alone = self.scheduler is None and pipeline.current_client() is None
        inline = is_short and is_alone and self._runner is None
        runner = pipeline.Runner("synchronous") if inline else self.runner
        for done, counts in enumerate(runner.run(bag), 1):
            self.progress(step, done, total)
            yield counts


def open_session(
    work: str,
    *,
    key_file: str | None = None,
    scheduler: str | None = None,
    memory: str | None = None,
    progress: Progress = no_progress,
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
    if memory is not None:
        pipeline.parse_memory(memory)
    opened = Work(url)
    if create:
        require_work_place(url)
        storage.make_private_folder(url)
    else:
        opened.require_job()
    with ExitStack() as stack:
        stack.enter_context(locked(url, shared=shared))
        job = _open_job(opened, key_file)
        session = Session(opened, resolve_key(job.key), scheduler, memory, progress)
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
    url, job = work.url, work.read_job()
    reference = _key_reference(url, key_file, job)
    key = resolve_key(reference)
    if job is None:
        job = Job(reference, key.fingerprint())
    if job.key_fingerprint != key.fingerprint():
        raise PolicyError(
            f"{url} was made with another key; pass the key it was made with, or "
            "another --work"
        )
    job = replace(job, key=reference)
    work.write_job(job)
    return job


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
