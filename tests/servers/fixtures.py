"""Fixtures that start real servers, once a session, or skip by name.

Servers: `ceph`, `swift`, `azurite`, `slurm`. Places: `s3`, the URL of a fresh bucket
in Ceph, with the environment set so that any client finds it.
"""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.servers import azurite as azurite_server
from tests.servers import ceph as ceph_server
from tests.servers import slurm as slurm_server
from tests.servers import swift as swift_server
from tests.servers.azurite import Azure
from tests.servers.s3 import S3
from tests.servers.slurm import Slurm


def started(server: ModuleType) -> Iterator[Any]:
    """Start a server, or skip with what to install."""
    if not server.installed():
        name = server.__name__.rsplit(".", 1)[-1]
        pytest.skip(f"{name} is not installed: {server.INSTALL} (and run as root)")
    with server.start() as found:
        yield found


@pytest.fixture(scope="session")
def ceph() -> Iterator[S3]:
    """Return a Ceph gateway: S3 with signatures and conditional writes."""
    yield from started(ceph_server)


@pytest.fixture(scope="session")
def swift() -> Iterator[S3]:
    """Return a Swift proxy: S3 without conditional writes."""
    yield from started(swift_server)


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azure]:
    """Return an Azure blob server."""
    yield from started(azurite_server)


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """Return a batch system of two nodes."""
    yield from started(slurm_server)


@pytest.fixture
def s3(ceph: S3, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of a fresh bucket; the environment says how to reach it."""
    use(ceph, monkeypatch)
    return f"s3://{ceph.make_bucket()}"


def use(server: S3 | Azure, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the environment so that this process and its children reach a server."""
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
