"""One run over one work directory: opened, checked, with a scheduler on demand."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from dicomdask import pipeline, storage
from dicomdask.errors import OptionError, PolicyError, StoreError
from dicomdask.pseudonym import (
    ENVIRONMENT_VARIABLE,
    Key,
    KeyReference,
    create_key_file,
    resolve_key,
)
from dicomdask.work import Job, Work

FILES_PER_BUCKET: Final = 20_000
MIN_BUCKETS: Final = 4
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
    """

    work: Work
    key: Key
    scheduler: str | None = None
    memory: str | None = None
    progress: Progress = no_progress
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

    def run(
        self, step: str, bag: Any, total: int, *, seconds: float | None = None
    ) -> Iterator[dict[str, int]]:
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
    url = storage.resolve(work)
    if memory is not None:
        pipeline.parse_memory(memory)
    opened = Work(url)
    if create:
        require_work_place(url)
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
