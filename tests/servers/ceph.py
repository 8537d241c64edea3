"""Ceph's object gateway: a real S3 server that checks signatures and conditions.

One monitor, one object store in memory, one gateway, all on the loopback.
"""

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from typing import Final

from tests.servers.host import Facts, Host, HostError, free_port, hosted, serve
from tests.servers.s3 import S3

INSTALL: Final = "apt-get install radosgw ceph-mon ceph-osd ceph-common"
PROGRAMS: Final = ("ceph", "ceph-mon", "ceph-osd", "radosgw", "radosgw-admin")
BOOTS: Final = 6
KEY: Final = "test"
SECRET: Final = "testing"

CONFIGURATION: Final = """
[global]
fsid = {fsid}
mon host = v1:127.0.0.1:{monitor}
mon initial members = a
public network = 127.0.0.0/8
cluster network = 127.0.0.0/8
ms bind ipv4 = true
ms bind ipv6 = false
auth cluster required = none
auth service required = none
auth client required = none
auth supported = none
run dir = {folder}
admin socket = {folder}/$name.asok
pid file = {folder}/$name.pid
log file = {folder}/$name.daemon.log
mon cluster log file = {folder}/cluster.log
keyring = {folder}/keyring
crash dir = {folder}/crash
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail warn = 2
mon data avail crit = 1
paxos propose interval = 0.05
paxos min wait = 0.01
[mon.a]
mon data = {folder}/mon
mon addr = v1:127.0.0.1:{monitor}
[osd.0]
osd data = {folder}/osd
osd objectstore = memstore
osd class update on start = false
memstore device bytes = 4294967296
osd memory target = 939524096
osd class load list = *
osd class default list = *
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{gateway}
rgw enable usage log = false
rgw thread pool size = 64
rgw enable gc threads = false
rgw enable lc threads = false
rgw relaxed region enforcement = true
rgw crypt require ssl = false
"""


def installed() -> bool:
    """Return whether Ceph's programs are here."""
    return all(shutil.which(name) for name in PROGRAMS)


@contextlib.contextmanager
def start() -> Iterator[S3]:
    """Start Ceph; it ends with the block or with this process."""
    with hosted(__name__) as facts:
        yield S3(**facts)


def _run(host: Host) -> Facts:
    cluster = _Cluster(host)
    cluster.start_monitor()
    cluster.start_store()
    cluster.start_gateway()
    endpoint = f"http://127.0.0.1:{cluster.gateway}"
    return {"endpoint": endpoint, "key": KEY, "secret": SECRET}


class _Cluster:
    def __init__(self, host: Host) -> None:
        self.host = host
        self.fsid = str(uuid.uuid4())
        self.monitor = free_port()
        self.gateway = free_port()
        self.conf = str(host.folder / "ceph.conf")
        for name in ("mon", "osd"):
            (host.folder / name).mkdir()
        with open(self.conf, "w") as file:
            file.write(
                CONFIGURATION.format(
                    fsid=self.fsid,
                    folder=host.folder,
                    monitor=self.monitor,
                    gateway=self.gateway,
                )
            )

    def start_monitor(self) -> None:
        folder = self.host.folder
        keyring, monmap = str(folder / "keyring"), str(folder / "monmap")
        address = f"[v1:127.0.0.1:{self.monitor}]"
        self.host.run(
            *("ceph-authtool", "--create-keyring", keyring, "--gen-key"),
            *("-n", "mon.", "--cap", "mon", "allow *"),
        )
        self.host.run(
            *("monmaptool", "--create", "--fsid", self.fsid),
            *("--addv", "a", address, "--clobber", monmap),
        )
        self.host.run(
            *("ceph-mon", "-c", self.conf, "--mkfs", "-i", "a"),
            *("--monmap", monmap, "--keyring", keyring),
        )
        self.host.spawn("monitor", ["ceph-mon", "-c", self.conf, "-f", "-i", "a"])
        self.host.wait_for_port("monitor", self.monitor)

    def start_store(self) -> None:
        identifier = str(uuid.uuid4())
        self.host.run("ceph", "-c", self.conf, "osd", "new", identifier, "0")
        self.host.run(
            *("ceph-osd", "-c", self.conf, "-i", "0", "--mkfs"),
            *("--osd-uuid", identifier, "--no-mon-config"),
        )
        for boot in range(BOOTS):  # the first boot sometimes fails
            name = f"store-{boot}"
            self.host.spawn(name, ["ceph-osd", "-c", self.conf, "-f", "-i", "0"])
            with contextlib.suppress(HostError):
                self.host.wait(name, lambda name=name: self._boots(name), 10)
                return
            self.host.processes[name].kill()
            self.host.processes[name].wait()
        raise HostError(f"the store does not boot: {self.host.last_lines(name)}")

    def _boots(self, name: str) -> bool:
        if b"waiting for initial osdmap" not in self.host.log(name).read_bytes():
            return False
        time.sleep(0.5)
        return self.host.processes[name].poll() is None

    def start_gateway(self) -> None:
        command = ["radosgw", "-c", self.conf, "-f", "-n", "client.rgw"]
        self.host.spawn("gateway", command)
        self.host.wait_for_port("gateway", self.gateway)
        self.host.run(
            *("radosgw-admin", "-c", self.conf, "user", "create"),
            *("--uid=tester", "--display-name=tester"),
            *(f"--access-key={KEY}", f"--secret={SECRET}"),
        )


if __name__ == "__main__":
    os.umask(0o077)
    serve(_run)
