"""Clusters: one of our own on this machine, or one that somebody else started."""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import dask
import distributed
from dask.system import CPU_COUNT
from dask.utils import parse_bytes
from distributed.deploy.subprocess import SubprocessWorker

from dicomdask.address import check_address, read_address
from dicomdask.errors import OptionError, PlanError

ANY_PORT: Final = {"dashboard_address": ":0"}
"""Any free port: two runs on one machine do not warn of each other."""
TLS_VARIABLE: Final = "DASK_DISTRIBUTED__COMM__TLS__"
LOCAL_SCHEDULERS: Final = ("synchronous", "threads", "processes")
REPAIR_SECONDS: Final = 5.0
LOSSES: Final = 30
"""How many workers may die over one partition before a run ends. A crashing decoder
kills two: the third attempt goes apart. The others are for what kills from outside."""


UNPAUSED: Final = {
    f"distributed.worker.memory.{name}": False for name in ("target", "spill", "pause")
}
"""Workers that hold nothing between tasks of known size need not wait for memory."""


class _Worker(SubprocessWorker):  # type: ignore[misc]
    """A worker process that leaves Ctrl-C to the process that started it."""

    async def _start(self) -> None:
        # The thread of the cluster's event loop never handles it, and what it starts
        # inherits its mask: no worker dies with a traceback of its own.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        await super()._start()


class _Silence(distributed.WorkerPlugin):  # type: ignore[misc]
    """Keeps workers from printing tracebacks: errors of tasks come back as they are.

    What a nanny says, or the watch over the memory, has loggers of its own.
    """

    def setup(self, worker: distributed.Worker) -> None:
        """Begin, on each worker and on those that replace it."""
        logging.getLogger("distributed.worker").addFilter(_drop)


def _drop(_: logging.LogRecord) -> bool:
    return False


def worker_limit(memory: str | None) -> int:
    """Return the bytes that a nanny grants a worker of a local cluster."""
    fair = int(distributed.system.MEMORY_LIMIT) // CPU_COUNT
    return parse_memory(memory) if memory else fair


@contextmanager
def local_cluster(memory: str | None) -> Iterator[distributed.Client]:
    """Start one worker process with one thread for each core.

    The workers are processes of their own, not copies of this one, so a script that
    calls `convert` needs no `if __name__ == "__main__"`.
    """
    # How the cluster comes and goes, down to tracebacks of closed connections, is INFO.
    logging.getLogger("distributed").setLevel(logging.WARNING)
    worker = {
        "cls": _Worker,
        "options": {
            "worker_class": "distributed.Nanny",
            "worker_kwargs": {
                "nthreads": 1,
                "memory_limit": worker_limit(memory),
                "config": UNPAUSED,
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
    with _own_security() as security, ExitStack() as stack:
        if security is not None:
            scheduler["options"] |= {"protocol": "tls://", "security": security}
        cluster = distributed.SpecCluster(
            workers=dict.fromkeys(range(CPU_COUNT), worker),
            scheduler=scheduler,
            security=security,
            silence_logs=False,  # it would restore the level before the last line
        )
        stack.enter_context(cluster)
        stack.enter_context(_kept_up(cluster))
        client = distributed.Client(cluster, set_as_default=False)
        stack.enter_context(client)
        client.register_plugin(_Silence())
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


@contextmanager
def _own_security() -> Iterator[distributed.Security | None]:
    """Make certificates for one local cluster, where `cryptography` is installed.

    Without them other users of the machine could run code on the workers. The workers
    find them in their environment, which nobody else can read, and nowhere on a disk.
    """
    try:
        security = distributed.Security.temporary()
    except ImportError:
        yield None
        return
    names = {"CA_FILE": security.tls_ca_file}
    for role in ("CLIENT", "WORKER", "SCHEDULER"):
        names[f"{role}__CERT"] = security.tls_worker_cert
        names[f"{role}__KEY"] = security.tls_worker_key
    mine = {
        f"DASK_DISTRIBUTED__COMM__TLS__{name}": text for name, text in names.items()
    }
    before = {name: os.environ.get(name) for name in mine}
    os.environ.update(mine)
    try:
        yield security
    finally:
        for name, text in before.items():
            os.environ.pop(name)
            if text is not None:
                os.environ[name] = text


def parse_memory(text: str) -> int:
    """Return the bytes of a size such as `4GiB`; raise PlanError if it is none."""
    try:
        return int(parse_bytes(text))
    except ValueError:
        raise OptionError("--memory is not a size; write it like 4GiB") from None


def check_scheduler(
    scheduler: str | None, memory: str | None, *, insecure: bool = False
) -> None:
    """Raise OptionError for a scheduler or a size that nothing can be made of."""
    if memory is not None:
        parse_memory(memory)
    if scheduler is not None and scheduler not in LOCAL_SCHEDULERS:
        check_address(read_address(scheduler), insecure=insecure)


def connect(scheduler: str, *, insecure: bool) -> distributed.Client:
    """Return a client of the cluster at an address or of a scheduler file.

    Raises
    ------
    PlanError
        If it may not be spoken to, or nobody answers there.
    """
    address = read_address(scheduler)
    check_address(address, insecure=insecure)
    security = None
    if address.startswith("tls://"):
        _require_certificates()
        security = distributed.Security(require_encryption=True)
    try:
        return distributed.Client(address, security=security, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise PlanError(
            f"no scheduler answers at {scheduler} ({type(error).__name__}); start it, "
            "check the certificates where it is tls://, or leave --scheduler out to "
            "run on this machine"
        ) from None


def _require_certificates() -> None:
    """Check that Dask's configuration names files to speak TLS with."""
    for name in ("ca-file", "client.cert"):
        path = dask.config.get(f"distributed.comm.tls.{name}", None)
        if path is None or not Path(path).is_file():
            variable = name.replace(".", "__").replace("-", "_").upper()
            raise OptionError(
                f"tls:// needs certificates, and no file is given as "
                f"distributed.comm.tls.{name}; set {TLS_VARIABLE}{variable} to its path"
            )
