"""Run `dicomdask convert` on Slurm: the workers are jobs, the scheduler is here.

    python deploy/slurm/convert.py --jobs 8 --queue normal /data/export /lab/chest.zarr

Options that are not named below go to `dicomdask convert` as they are. All talk is
encrypted, with a certificate made for this run; the text of a job names files only.
"""

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Final

import click
from dask.utils import format_bytes, parse_bytes
from dask_jobqueue import SLURMCluster
from distributed import Client
from distributed.security import Security

from dicomdask.cli import main as dicomdask

CHECK_SECONDS: Final = 5.0
"""How often to look for lost jobs; one that is not there twice is replaced."""
RETIRE_SECONDS: Final = 300
"""How long before its time is up a worker hands over, at most."""
EXIT_TERMINATED: Final = 128 + signal.SIGTERM
"""Slurm or a person ends this process; it cancels its jobs first."""
LOOPBACK: Final = "127.0.0.1:0"
"""Dashboards ask for no password, so only this host may see them."""


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--jobs", default=4, show_default=True, help="How many jobs to keep up.")
@click.option(
    "--cores", default=4, show_default=True, help="Workers of a job, one core each."
)
@click.option(
    "--memory", default="4GiB", show_default=True, help="What one worker may take."
)
@click.option("--queue", help="The partition.  [default: that of the site]")
@click.option("--account", help="Who pays.  [default: that of the user]")
@click.option(
    "--walltime", default="04:00:00", show_default=True, help="Of one job: H:MM:SS."
)
@click.option("--interface", help="The network of workers and scheduler, such as ib0.")
@click.option(
    "--shared",
    default="dicomdask-slurm",
    show_default=True,
    help="A private folder that all nodes see: certificates and the jobs' logs.",
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="SRC... STORE")
def run(*, words: tuple[str, ...], jobs: int, shared: str, **job: str) -> None:
    """Convert DICOM with workers that are Slurm jobs; resumes by itself."""
    check_words(words)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))
    with (
        open_cluster(Path(shared).absolute(), **job) as cluster,
        kept_at(cluster, jobs),
        Client(cluster) as client,
    ):
        click.echo(f"dashboard: {cluster.dashboard_link}", err=True)
        click.echo("waiting for the first job; `squeue --me` shows them", err=True)
        client.wait_for_workers(1)
        # convert takes the client that is open, prints what it prints anywhere else,
        # and leaves with its own exit code
        dicomdask(["convert", *words], prog_name="dicomdask")


def check_words(words: Sequence[str]) -> None:
    """Refuse what `dicomdask convert` would refuse, before a job is submitted."""
    convert = dicomdask.commands["convert"]
    context = convert.make_context("dicomdask convert", list(words))
    if context.params.get("scheduler"):
        raise click.UsageError("leave --scheduler out; Slurm's jobs are the workers")


@contextmanager
def open_cluster(
    shared: Path,
    *,
    cores: int,
    memory: str,
    queue: str | None,
    account: str | None,
    walltime: str,
    interface: str | None,
) -> Iterator[SLURMCluster]:
    """Start a scheduler here, with TLS, whose workers will be Slurm jobs."""
    lifetime, stagger = lifetimes(walltime)
    shared.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (
        TemporaryDirectory(dir=shared, prefix="tls-") as private,
        SLURMCluster(
            queue=queue,
            account=account,
            walltime=walltime,
            cores=cores,
            processes=cores,
            memory=format_bytes(cores * parse_bytes(memory)),
            interface=interface,
            security=make_certificate(Path(private)),
            log_directory=str(shared / "logs"),
            job_name="dicomdask-worker",
            scheduler_options={"dashboard_address": LOOPBACK},
            worker_extra_args=[
                *("--dashboard-address", LOOPBACK),
                *("--lifetime", f"{lifetime}s", "--lifetime-stagger", f"{stagger}s"),
            ],
        ) as cluster,
    ):
        check_job(cluster)
        yield cluster


def make_certificate(private: Path) -> Security:
    """Make a certificate for this run, in files that only this user may read."""
    made = Security.temporary()
    certificate, key = private / "tls.crt", private / "tls.key"
    certificate.write_text(made.tls_ca_file)
    key.touch(mode=0o600)
    key.write_text(made.tls_worker_key)
    roles = ("client", "scheduler", "worker")
    return Security(
        require_encryption=True,
        tls_ca_file=str(certificate),
        **{f"tls_{role}_cert": str(certificate) for role in roles},
        **{f"tls_{role}_key": str(key) for role in roles},
    )


def lifetimes(walltime: str) -> tuple[int, int]:
    """Return after how many seconds a worker retires, and by how much that varies.

    A worker that hands over before Slurm ends its job costs nothing; one that is
    killed counts against the task that it was at.
    """
    days, _, clock = walltime.rpartition("-")
    seconds = int(days or 0) * 86400
    for number, unit in zip(reversed(clock.split(":")), (1, 60, 3600), strict=False):
        seconds += int(number) * unit
    early = min(RETIRE_SECONDS, seconds // 5)
    return seconds - early, early // 2


def check_job(cluster: SLURMCluster) -> None:
    """Let Slurm check a job without running it; leave with what it says against it."""
    command = ["sbatch", "--test-only"]
    try:
        subprocess.run(
            command,
            input=cluster.job_script(),
            capture_output=True,
            text=True,
            check=True,
        )
    except FileNotFoundError:
        raise click.UsageError("no sbatch here; run this on a login node") from None
    except subprocess.CalledProcessError as error:
        raise click.ClickException(
            f"Slurm refuses such a job: {error.stderr.strip()}"
        ) from None


@contextmanager
def kept_at(cluster: SLURMCluster, jobs: int) -> Iterator[None]:
    """Keep so many jobs: one that was cancelled, lost or over is submitted anew."""
    ended = Event()

    def keep() -> None:
        seen: set[str] = set()
        missing: set[str] = set()
        while not ended.wait(CHECK_SECONDS):
            here = running_jobs(cluster)
            lost = missing & (seen - here)
            seen, missing = (seen | here) - lost, seen - here
            with suppress(Exception):  # Slurm does not answer: the next round will
                if lost:
                    cluster.sync(cluster.scale_down, lost)
                cluster.scale(jobs=jobs)

    cluster.scale(jobs=jobs)
    thread = Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def running_jobs(cluster: SLURMCluster) -> set[str]:
    """Return the names of the jobs of which at least one worker is connected."""
    workers = cluster.observed
    return {
        job
        for job, spec in list(cluster.worker_spec.items())
        if any(f"{job}{suffix}" in workers for suffix in spec.get("group", [""]))
    }


if __name__ == "__main__":
    sys.exit(run())
