"""Running: bags are computed, and their results come as they finish."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from typing import Any, Final

import dask
import dask.bag as db
import distributed
from dask.system import CPU_COUNT
from distributed.client import ClosedClientError

from dicomdask import plan
from dicomdask.errors import ClusterError, DicomDaskError
from dicomdask.pipeline.clusters import (
    LOCAL_SCHEDULERS,
    LOSSES,
    connect,
    local_cluster,
    worker_limit,
)

LOGGER: Final = logging.getLogger("dicomdask")
NO_ANSWER: Final = (OSError, CancelledError, RuntimeError, ClosedClientError)
"""What a call of a client raises whose scheduler is gone."""
CLOSE_SECONDS: Final = 5


class Runner:
    """Computes bags with one scheduler, and yields results as they finish.

    Parameters
    ----------
    scheduler
        `synchronous`, `threads` or `processes`; or a `distributed.Client`.
    is_own
        Whether it was started by this process, with this environment.
    """

    def __init__(
        self, scheduler: "str | distributed.Client", *, is_own: bool = True
    ) -> None:
        self._scheduler = scheduler
        self.is_own = is_own

    @property
    def n_workers(self) -> int:
        """Return how many tasks run at once."""
        if isinstance(self._scheduler, str):
            return 1 if self._scheduler == "synchronous" else int(CPU_COUNT)
        with _answering(self._scheduler):
            return int(max(1, sum(self._scheduler.nthreads().values())))

    @property
    def task_memory(self) -> int | None:
        """Return the bytes that one task may take now; None where nothing limits it.

        It counts a process to itself. Tasks in threads of one process share its base.
        """
        if isinstance(self._scheduler, str):
            whole = int(distributed.system.MEMORY_LIMIT)
            is_shared = self._scheduler != "processes"
            return _share(whole, self.n_workers) if is_shared else whole // CPU_COUNT
        with _answering(self._scheduler):
            workers = self._scheduler.scheduler_info(n_workers=-1)["workers"].values()
        limits = [
            _share(_usable(int(worker["memory_limit"])), int(worker["nthreads"]))
            for worker in workers
            if worker["memory_limit"]
        ]
        return min(limits, default=None)

    def ask_workers(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """Call a function on each worker process of a cluster.

        Returns one result a worker, an exception where the function raised one. Where
        there is no worker yet, the first that comes is asked.
        """
        if isinstance(self._scheduler, str):
            return []
        with _answering(client := self._scheduler):
            if client.nthreads():
                return list(client.run(function, *args, on_error="return").values())
            LOGGER.warning("the scheduler has no worker yet; waiting for the first")
            future = client.submit(function, *args, pure=False)
            return [future.exception() or future.result()]

    def run(self, bag: db.Bag) -> Iterator[Any]:
        """Compute a bag; yield the elements of each partition when it is done."""
        if isinstance(self._scheduler, str):
            return self._run_locally(bag)
        return self._run_distributed(bag, self._scheduler)

    def _run_locally(self, bag: db.Bag) -> Iterator[Any]:
        parts = bag.to_delayed()
        step = 1 if self._scheduler == "synchronous" else 4 * self.n_workers
        for start in range(0, len(parts), step):
            some = parts[start : start + step]
            for result in self._compute(some):
                yield from result

    def _compute(self, parts: Sequence[Any]) -> Sequence[Any]:
        """Compute partitions here; start over where a process of the pool died."""
        for _ in range(LOSSES * len(parts)):
            try:
                return tuple(dask.compute(*parts, scheduler=self._scheduler))
            except BrokenProcessPool:
                continue
        raise ClusterError(WORKERS_DIE)

    @staticmethod
    def _run_distributed(bag: db.Bag, client: distributed.Client) -> Iterator[Any]:
        with _answering(client):
            futures = client.compute(bag.to_delayed())
        done = distributed.as_completed(
            futures, loop=client.loop, with_results=True, raise_errors=False
        )
        retries: Counter[Any] = Counter()
        for future, result in done:
            if future.status == "finished":
                yield from result
                future.release()
                continue
            if future.status != "error":  # cancelled: the scheduler forgot it
                raise ClusterError(_gone(client))
            error = result[1]
            if not isinstance(error, distributed.KilledWorker):
                raise error
            if retries[future.key] == LOSSES:
                raise ClusterError(WORKERS_DIE)
            retries[future.key] += 1
            with _answering(client):
                future.retry()
            done.add(future)


def _share(nbytes: int, n_tasks: int) -> int:
    """Return what each of some tasks in one process may take, its base included."""
    return (nbytes - plan.BASE_BYTES) // n_tasks + plan.BASE_BYTES


def _usable(limit: int) -> int:
    """Return what a worker may take of its limit before its nanny ends it."""
    return int(limit * (dask.config.get("distributed.worker.memory.terminate") or 1))


def local_memory(memory: str | None) -> int:
    """Return what one task may take on a local cluster, without starting it."""
    return _usable(worker_limit(memory))


WORKERS_DIE: Final = (
    "workers keep dying over one and the same piece of work; what is done is kept: see "
    "that they have the memory and the time they need, then run the same command again"
)


def _gone(client: distributed.Client) -> str:
    address = client.scheduler.address if client.scheduler else "its address"
    return (
        f"the scheduler at {address} is gone; what is done is kept, run the same "
        "command again"
    )


@contextmanager
def _answering(client: distributed.Client) -> Iterator[None]:
    """Say clearly that the scheduler is gone where it does not answer."""
    try:
        yield
    except NO_ANSWER as error:
        if isinstance(error, DicomDaskError):
            raise
        raise ClusterError(_gone(client)) from None


@contextmanager
def open_runner(
    scheduler: str | None = None,
    *,
    memory: str | None = None,
    insecure: bool = False,
) -> Iterator[Runner]:
    """Open the scheduler that a name stands for, and close what was started.

    Parameters
    ----------
    scheduler
        None: the current client, else a local cluster fitted to the machine.
        `synchronous`, `threads`, `processes`: in or from this process. Otherwise the
        address (`tls://…`) or the scheduler file of a running cluster.
    memory
        What one worker of a local cluster may take, such as `4GiB`.
    insecure
        Whether an address on this machine may be plain `tcp://`.

    Raises
    ------
    PlanError
        If the cluster cannot be reached or `memory` is not a size.
    """
    if scheduler in LOCAL_SCHEDULERS:
        yield Runner(str(scheduler))
        return
    if scheduler is None:
        current = current_client()
        if current is not None:
            yield Runner(current, is_own=False)
            return
        with local_cluster(memory) as client:
            yield Runner(client)
        return
    with (
        connect(scheduler, insecure=insecure) as client,
        _ended_quietly(client),
    ):
        yield Runner(client, is_own=False)


@contextmanager
def _ended_quietly(client: distributed.Client) -> Iterator[None]:
    """Close a client whose scheduler is gone without its tracebacks.

    It goes on trying in a thread of its own, and logs there what one line says.
    """
    try:
        yield
    except ClusterError:
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
        with suppress(*NO_ANSWER):
            client.close(timeout=CLOSE_SECONDS)
        raise


def current_client() -> distributed.Client | None:
    """Return the client that the caller opened, if there is one."""
    try:
        return distributed.get_client()
    except ValueError:
        return None
