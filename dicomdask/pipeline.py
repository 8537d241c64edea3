"""The only room with Dask: it wires bags and runs them, and decides nothing.

Put as little here as possible. Each bag is a plain map of a function from `tasks` over
names of parts in the work directory: no pixels, no headers and no keys travel through
the graph, and its keys name functions and numbers only.
"""

import json
import logging
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import dask
import dask.bag as db
import distributed
from dask.system import CPU_COUNT
from dask.utils import parse_bytes
from distributed.client import ClosedClientError
from distributed.deploy.subprocess import SubprocessWorker

from dicomdask import storage, tables
from dicomdask.errors import ClusterError, DicomDaskError, OptionError, PlanError
from dicomdask.model import Instance, column_name
from dicomdask.tasks import encode, index, planning, resolve

if TYPE_CHECKING:
    import dask.dataframe as dd

FILES_PER_PARTITION: Final = 256
MAX_PARTITIONS: Final = 25_000
"""A graph has twice as many tasks, and 20 MB at most."""
ANY_PORT: Final = {"dashboard_address": ":0"}
"""Any free port: two runs on one machine do not warn of each other."""
LOCAL_SCHEDULERS: Final = ("synchronous", "threads", "processes")
LOSSES: Final = 30
"""How many workers may die over one partition before a run ends. A crashing decoder
kills two: the third attempt goes apart. The others are for what kills from outside."""
NO_ANSWER: Final = (OSError, CancelledError, RuntimeError, ClosedClientError)
"""What a call of a client raises whose scheduler is gone."""
CLOSE_SECONDS: Final = 5
REPAIR_SECONDS: Final = 5.0


# --- wiring -------------------------------------------------------------------


def index_bag(parts: Sequence[str], *, work_url: str) -> db.Bag:
    """Return a lazy bag of counts, one manifest part a partition."""
    return _over(parts).map(index.index_part, work_url=work_url)


def resolve_bag(batches: Sequence[str], *, work_url: str) -> db.Bag:
    """Return a lazy bag of counts, one batch of repeated instances a partition."""
    return _over(batches).map(resolve.resolve_batch, work_url=work_url)


def plan_bag(batches: Sequence[Sequence[str]], *, work_url: str) -> db.Bag:
    """Return a lazy bag of counts, some buckets of the index a partition."""
    return _over(batches).map(planning.plan_buckets, work_url=work_url)


def encode_bag(
    batches: Sequence[Sequence[tuple[str, int, int]]], *, work_url: str
) -> db.Bag:
    """Return a lazy bag of counts, some (plan part, start, stop) a partition."""
    return _over(batches).flatten().map(encode.encode_batch, work_url=work_url)


def _over(elements: Sequence[Any]) -> db.Bag:
    n_partitions = min(max(1, len(elements)), MAX_PARTITIONS)
    return db.from_sequence(list(elements), npartitions=n_partitions)


def index_sources(sources: str | Sequence[str]) -> db.Bag:
    """Return a lazy bag of the instances of some sources, for trusted pipelines.

    The sources are listed now; no file is opened before the bag is computed. Inputs
    that are no instances are left out: `dicomdask.convert` accounts for them.

    Parameters
    ----------
    sources
        Files, folders or glob patterns.

    Returns
    -------
    dask.bag.Bag
        Of `dicomdask.model.Instance`: identified values, keep them private.

    Raises
    ------
    SourceError
        If a source does not exist.
    """
    names = [sources] if isinstance(sources, str) else list(sources)
    found = {file.url: file for file in index.list_sources(names, exclude=())}
    files = [found[url] for url in sorted(found)]
    n_partitions = max(1, -(-len(files) // FILES_PER_PARTITION))
    return db.from_sequence(files, npartitions=n_partitions).map_partitions(
        index.read_instances
    )


def index_dataframe(work: str) -> "dd.DataFrame":
    """Return a lazy dataframe over the index of a work directory (identified).

    Parameters
    ----------
    work
        The work directory that `dicomdask index` or `convert` filled.

    Returns
    -------
    dask.dataframe.DataFrame
        One row an instance, one typed column a field of `dicomdask.model.Instance`;
        DICOM attributes under their keywords.
    """
    import dask.dataframe as dd  # noqa: PLC0415 - takes a second that nobody else pays

    url = storage.join(storage.resolve(work), "index")
    listed = storage.list_below(url)
    paths = [storage.join(url, one.name) for one in listed if _is_part(one.name)]
    if not paths:
        raise PlanError(f"{work} has no index; run `dicomdask index` first")
    meta = tables.empty_frame(Instance)
    frame = dd.from_map(_read_frame, paths, meta=meta)
    return frame.rename(columns={name: column_name(name) for name in meta.columns})


def _is_part(name: str) -> bool:
    return name.endswith(".parquet") and name.rsplit("/", 1)[-1][0] != "."


def _read_frame(url: str) -> Any:
    return tables.frame_from_parquet(storage.read(url))


# --- running ------------------------------------------------------------------


class Runner:
    """Computes bags with one scheduler, and yields results as they finish.

    Parameters
    ----------
    scheduler
        `synchronous`, `threads` or `processes`; or a `distributed.Client`.
    """

    def __init__(self, scheduler: "str | distributed.Client") -> None:
        self._scheduler = scheduler

    @property
    def n_workers(self) -> int:
        """Return how many tasks run at once."""
        if isinstance(self._scheduler, str):
            return 1 if self._scheduler == "synchronous" else int(CPU_COUNT)
        with _answering(self._scheduler):
            return int(max(1, sum(self._scheduler.nthreads().values())))

    @property
    def task_memory(self) -> int | None:
        """Return the bytes that one task may take now; None where nothing limits it."""
        if isinstance(self._scheduler, str):
            return int(distributed.system.MEMORY_LIMIT) // self.n_workers
        with _answering(self._scheduler):
            workers = self._scheduler.scheduler_info(n_workers=-1)["workers"].values()
        limits = [
            int(worker["memory_limit"]) // int(worker["nthreads"])
            for worker in workers
            if worker["memory_limit"]
        ]
        return min(limits, default=None)

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
    scheduler: str | None = None, *, memory: str | None = None
) -> Iterator[Runner]:
    """Open the scheduler that a name stands for, and close what was started.

    Parameters
    ----------
    scheduler
        None: the current client, else a local cluster fitted to the machine.
        `synchronous`, `threads`, `processes`: in or from this process. Otherwise the
        address (`tcp://…`) or the scheduler file of a running cluster.
    memory
        What one worker of a local cluster may take, such as `4GiB`.

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
            yield Runner(current)
            return
        with _local_cluster(memory) as client:
            yield Runner(client)
        return
    with _connect(scheduler) as client, _ended_quietly(client):
        yield Runner(client)


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


@contextmanager
def _local_cluster(memory: str | None) -> Iterator[distributed.Client]:
    """Start one worker process with one thread for each core.

    The workers are processes of their own, not copies of this one, so a script that
    calls `convert` needs no `if __name__ == "__main__"`.
    """
    # How the cluster comes and goes, down to tracebacks of closed connections, is INFO.
    logging.getLogger("distributed").setLevel(logging.WARNING)
    fair = int(distributed.system.MEMORY_LIMIT) // CPU_COUNT
    limit = parse_memory(memory) if memory else fair
    worker = {
        "cls": SubprocessWorker,
        "options": {
            "worker_class": "distributed.Nanny",
            "worker_kwargs": {
                "nthreads": 1,
                "memory_limit": limit,
                "silence_logs": logging.WARNING,
                **ANY_PORT,
            },
        },
    }
    scheduler = {
        "cls": distributed.Scheduler,
        "options": {
            "host": "127.0.0.1",
            "port": 0,
            "dashboard": False,
            "allowed_failures": LOSSES,
            **ANY_PORT,
        },
    }
    with (
        distributed.SpecCluster(
            workers=dict.fromkeys(range(CPU_COUNT), worker),
            scheduler=scheduler,
            silence_logs=False,  # it would restore the level before the last line
        ) as cluster,
        _kept_up(cluster),
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        client.wait_for_workers(CPU_COUNT)
        yield client


@contextmanager
def _kept_up(cluster: distributed.SpecCluster) -> Iterator[None]:
    """Replace workers whose nanny was killed too; nannies replace their worker only."""
    has_ended = threading.Event()

    def repair() -> None:
        while not has_ended.wait(REPAIR_SECONDS):
            for name, worker in list(cluster.workers.items()):
                if worker.process and worker.process.returncode is not None:
                    del cluster.workers[name]
                    cluster.scale(CPU_COUNT)

    thread = threading.Thread(target=repair, name="dicomdask-repair", daemon=True)
    thread.start()
    try:
        yield
    finally:
        has_ended.set()
        thread.join()


def parse_memory(text: str) -> int:
    """Return the bytes of a size such as `4GiB`; raise PlanError if it is none."""
    try:
        return int(parse_bytes(text))
    except ValueError:
        raise OptionError("--memory is not a size; write it like 4GiB") from None


def check_scheduler(scheduler: str | None, memory: str | None) -> None:
    """Raise OptionError for a scheduler or a size that nothing can be made of."""
    if memory is not None:
        parse_memory(memory)
    if scheduler is None or scheduler in LOCAL_SCHEDULERS or "://" in scheduler:
        return
    if not Path(scheduler).is_file():
        raise OptionError(
            f"{scheduler} is neither synchronous, threads, processes, an address such "
            "as tcp://host:8786, nor a scheduler file; check --scheduler"
        )


def _connect(scheduler: str) -> distributed.Client:
    is_file = "://" not in scheduler
    check_scheduler(scheduler, None)
    try:
        if is_file:
            json.loads(Path(scheduler).read_bytes())["address"]  # else it waits
            return distributed.Client(scheduler_file=scheduler, set_as_default=False)
        return distributed.Client(scheduler, set_as_default=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PlanError(
            f"no scheduler answers at {scheduler} ({type(error).__name__}); start it, "
            "or leave --scheduler out to run on this machine"
        ) from None
