"""Slurm: a real batch system of a few nodes, all of them this machine.

Memory and processors are counted when a job is admitted; no cgroup holds it to them.
"""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.servers.host import Facts, Host, free_port, hosted, serve

INSTALL: Final = "apt-get install slurm-wlm munge"
PROGRAMS: Final = ("munged", "munge", "slurmctld", "slurmd", "sinfo", "sbatch")
NODES: Final = ("n1", "n2")
CPUS: Final = 4
MEBIBYTES: Final = 4000

CONFIGURATION: Final = """
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
AuthType=auth/munge
AuthInfo=socket={socket}
CryptoType=crypto/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.daemon.log
SlurmdLogFile={folder}/slurmd-%n.daemon.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=2,batch_sched_delay=0,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
ReturnToService=2
InactiveLimit=0
KillWait=5
MinJobAge=300
SlurmctldTimeout=30
SlurmdTimeout=30
Waittime=0
{nodes}
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""
NODE: Final = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} "
    "CPUs={cpus} RealMemory={mebibytes} State=UNKNOWN"
)


@dataclass(frozen=True)
class Slurm:
    """How to reach a batch system, and the processes of its nodes."""

    configuration: str
    pids: dict[str, int]
    """The process of each node's daemon, by the node's name."""

    def environment(self) -> dict[str, str]:
        """Return the variables that lead Slurm's commands to this system."""
        return {"SLURM_CONF": self.configuration}

    def run(self, *command: str, timeout: float = 60) -> str:
        """Run one of Slurm's commands; return what it prints."""
        done = subprocess.run(
            command,
            env={**os.environ, **self.environment()},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=timeout,
        )
        return done.stdout


def installed() -> bool:
    """Return whether Slurm's programs are here, and the right to run them."""
    return all(shutil.which(name) for name in PROGRAMS) and os.geteuid() == 0


@contextlib.contextmanager
def start() -> Iterator[Slurm]:
    """Start Slurm; it and all its jobs end with the block or with this process."""
    with hosted(__name__) as facts:
        slurm = Slurm(**facts)
        yield slurm


def _run(host: Host) -> Facts:
    munge = _start_munge(host)
    controller = free_port()
    configuration = host.folder / "slurm.conf"
    configuration.write_text(_configuration(host.folder, controller, munge))
    for name in ("state", *(f"spool-{node}" for node in NODES)):
        (host.folder / name).mkdir()
    conf = ("-D", "-f", str(configuration))
    host.spawn("controller", ["slurmctld", *conf, "-c"])
    host.wait_for_port("controller", controller)
    for node in NODES:
        host.spawn(node, ["slurmd", *conf, "-N", node])
    slurm = Slurm(str(configuration), {node: host.pids()[node] for node in NODES})
    host.wait("controller", lambda: _idle(slurm) == len(NODES))
    return {"configuration": slurm.configuration, "pids": slurm.pids}


def _configuration(folder: Path, controller: int, munge: str) -> str:
    host = socket.gethostname().split(".")[0]
    nodes = [
        NODE.format(
            name=name, host=host, port=free_port(), cpus=CPUS, mebibytes=MEBIBYTES
        )
        for name in NODES
    ]
    return CONFIGURATION.format(
        folder=folder, controller=controller, socket=munge, nodes="\n".join(nodes)
    )


def _start_munge(host: Host) -> str:
    """Start the daemon that tells who asks; return its socket."""
    place = host.folder / "munge"
    place.mkdir(mode=0o711)
    key = place / "key"
    key.touch(0o600)
    key.write_bytes(secrets.token_bytes(1024))
    address = str(place / "socket")
    host.spawn(
        "munge",
        [
            *("munged", "--foreground", "--force", "--num-threads=2"),
            *(f"--key-file={key}", f"--socket={address}"),
            *(f"--pid-file={place / 'pid'}", f"--log-file={place / 'log'}"),
            f"--seed-file={place / 'seed'}",
        ],
    )
    host.wait("munge", lambda: _answers(address))
    return address


def _answers(address: str) -> bool:
    command = ["munge", "-S", address, "-n"]
    return subprocess.run(command, capture_output=True).returncode == 0


def _idle(slurm: Slurm) -> int:
    try:
        states = slurm.run("sinfo", "-h", "-N", "-o", "%t")
    except subprocess.CalledProcessError:
        return 0
    return states.split().count("idle")


if __name__ == "__main__":
    os.umask(0o022)
    serve(_run)
