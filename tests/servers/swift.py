"""OpenStack Swift with its S3 front: a real server as old as S3 can be.

It refuses conditional writes and deletes in bulk, so it shows what falls back.
"""

import contextlib
import getpass
import os
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.servers.host import Facts, Host, free_port, hosted, serve
from tests.servers.s3 import S3

INSTALL: Final = (
    "apt-get install swift-proxy swift-account swift-container swift-object memcached"
)
KINDS: Final = ("account", "container", "object")
PROGRAMS: Final = (
    *(f"swift-{kind}-server" for kind in (*KINDS, "proxy")),
    "memcached",
    "unshare",
)
SYSTEM_PYTHON: Final = "/usr/bin/python3"
CONFIGURED: Final = Path("/etc/swift")
KEY: Final = "test:tester"
SECRET: Final = "testing"

HASH: Final = """
[swift-hash]
swift_hash_path_suffix = test
swift_hash_path_prefix = test
[storage-policy:0]
name = one
default = yes
"""
DEFAULT: Final = """
[DEFAULT]
user = {user}
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
swift_dir = /etc/swift
log_level = WARNING
log_address = {folder}/no-log
"""
STORAGE: Final = """
devices = {folder}/devices
mount_check = false
conn_timeout = 10
node_timeout = 60
disable_fallocate = true
fallocate_reserve = 0
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
recon_cache_path = {folder}/recon
"""
PROXY: Final = """
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck proxy-logging cache listing_formats bulk s3api tempauth copy slo dlo proxy-logging proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
allow_account_management = true
conn_timeout = 10
node_timeout = 60
recoverable_node_timeout = 30
error_suppression_limit = 1000000
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:proxy-logging]
use = egg:swift#proxy_logging
access_log_level = DEBUG
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{memory}
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:bulk]
use = egg:swift#bulk
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
allow_no_owner = true
max_bucket_listing = 100
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
"""  # noqa: E501
"""Without proxy-logging a HEAD that finds nothing is answered with a body."""
RINGS: Final = """
import sys
from swift.common.ring import RingBuilder
for name in sys.argv[2:]:
    kind, port = name.split(":")
    builder = RingBuilder(part_power=4, replicas=1, min_part_hours=1)
    builder.add_dev({"region": 1, "zone": 1, "ip": "127.0.0.1", "port": int(port),
                     "device": "d1", "weight": 1, "meta": "",
                     "replication_ip": "127.0.0.1", "replication_port": int(port)})
    builder.rebalance()
    builder.get_ring().save(f"{sys.argv[1]}/{kind}.ring.gz")
"""
"""For the system's Python: one process builds the rings in a tenth of the time."""


def installed() -> bool:
    """Return whether Swift's programs are here, and the right to run them."""
    programs = all(shutil.which(name) for name in PROGRAMS)
    return programs and CONFIGURED.is_dir() and os.geteuid() == 0


@contextlib.contextmanager
def start() -> Iterator[S3]:
    """Start Swift; it ends with the block or with this process."""
    with hosted(__name__) as facts:
        yield S3(**facts)


def _run(host: Host) -> Facts:
    ports = {name: free_port() for name in (*KINDS, "proxy", "memcached")}
    _configure(host.folder, ports)
    _make_rings(host, ports)
    memory = ("-l", "127.0.0.1", "-p", str(ports["memcached"]), "-m", "64")
    host.spawn("memcached", ["memcached", *memory, "-u", getpass.getuser()])
    for kind in (*KINDS, "proxy"):
        command = [f"swift-{kind}-server", str(CONFIGURED / f"{kind}-server.conf")]
        host.spawn(kind, _with_configuration(host.folder / "etc", command))
    for name, port in ports.items():
        host.wait_for_port(name, port)
    endpoint = f"http://127.0.0.1:{ports['proxy']}"
    host.wait("proxy", lambda: _healthy(endpoint))
    return {"endpoint": endpoint, "key": KEY, "secret": SECRET}


def _configure(folder: Path, ports: dict[str, int]) -> None:
    etc = folder / "etc"
    etc.mkdir()
    (folder / "devices" / "d1").mkdir(parents=True)
    (folder / "recon").mkdir()
    (etc / "swift.conf").write_text(HASH)
    (etc / "container-reconciler.conf").write_text("")
    for kind in (*KINDS, "proxy"):
        text = DEFAULT + (PROXY if kind == "proxy" else STORAGE)
        (etc / f"{kind}-server.conf").write_text(
            text.format(
                user=getpass.getuser(),
                port=ports[kind],
                folder=folder,
                kind=kind,
                memory=ports["memcached"],
            )
        )


def _make_rings(host: Host, ports: dict[str, int]) -> None:
    kinds = [f"{kind}:{ports[kind]}" for kind in KINDS]
    host.run(SYSTEM_PYTHON, "-c", RINGS, str(host.folder / "etc"), *kinds)


def _with_configuration(etc: Path, command: list[str]) -> list[str]:
    """Return a command that sees `etc` as /etc/swift, and nobody else does."""
    script = f'mount --bind "$0" {CONFIGURED} && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, str(etc), *command]


def _healthy(endpoint: str) -> bool:
    try:
        with urllib.request.urlopen(f"{endpoint}/healthcheck", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


if __name__ == "__main__":
    os.umask(0o077)
    serve(_run)
