"""Azurite: a real Azure blob server, in memory."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from tests.servers.host import Facts, Host, free_port, hosted, serve

INSTALL: Final = "apt-get install nodejs npm && npm install -g azurite"
PROGRAM: Final = "azurite-blob"
ACCOUNT: Final = "devstoreaccount1"
KEY: Final = (  # azurite's own, written in its manual
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/"
    "KBHBeksoGMGw=="
)


@dataclass(frozen=True)
class Azure:
    """Where a blob server is and who may use it."""

    endpoint: str
    account: str = ACCOUNT
    key: str = KEY

    @property
    def connection(self) -> str:
        """Return the connection string of this server."""
        return (
            f"DefaultEndpointsProtocol=http;AccountName={self.account};"
            f"AccountKey={self.key};BlobEndpoint={self.endpoint}/{self.account};"
        )

    def at(self, endpoint: str) -> "Azure":
        """Return the same server behind another endpoint, such as a proxy."""
        return replace(self, endpoint=endpoint)

    def environment(self) -> dict[str, str]:
        """Return the variables that lead adlfs to this server."""
        return {
            "AZURE_STORAGE_CONNECTION_STRING": self.connection,
            "NO_PROXY": "127.0.0.1",
        }

    def new_name(self, prefix: str = "test") -> str:
        """Return the name of a container that is not there yet."""
        return f"{prefix}-{secrets.token_hex(6)}"


def installed() -> bool:
    """Return whether azurite is here."""
    return shutil.which(PROGRAM) is not None


@contextlib.contextmanager
def start() -> Iterator[Azure]:
    """Start azurite; it ends with the block or with this process."""
    with hosted(__name__) as facts:
        yield Azure(**facts)


def _run(host: Host) -> Facts:
    port = free_port()
    options = ("--silent", "--inMemoryPersistence", "--skipApiVersionCheck")
    address = ("--blobHost", "127.0.0.1", "--blobPort", str(port))
    command = [PROGRAM, *options, "--disableTelemetry", *address]
    host.spawn("azurite", command)
    host.wait_for_port("azurite", port)
    return {"endpoint": f"http://127.0.0.1:{port}"}


if __name__ == "__main__":
    os.umask(0o077)
    serve(_run)
