"""An HTTP server of ranges in a process of its own: each answer waits a while first.

It serves the files of a folder, and folders as pages of links; it costs little CPU, so
that what is measured is the client.

    with slow_server.start(folder, latency=0.03) as server:
        ...read f"{server.url}/chest.zarr/zarr.json"...
        server.count()
"""

import argparse
import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import unquote

COUNT = "/.count"
RANGE = re.compile(rb"\r\nrange: *bytes=(\d*)-(\d*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """The URL of the folder."""
        return f"http://{self.host}:{self.port}"

    def count(self) -> int:
        """Return how many requests came since this was asked before."""
        with closing(HTTPConnection(self.host, self.port)) as connection:
            connection.request("GET", COUNT)
            return int(connection.getresponse().read())


@contextmanager
def start(folder: Path, *, latency: float) -> Iterator[Server]:
    """Serve a folder; `latency` is in seconds."""
    words = [sys.executable, "-m", __name__, str(folder), str(latency)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield Server("127.0.0.1", int(process.stdout.readline()))
        finally:
            process.terminate()


class Answering(asyncio.Protocol):
    """One connection: its requests are answered one after the other."""

    n_requests = 0

    def __init__(self, folder: Path, latency: float) -> None:
        self._folder, self._latency = folder, latency
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            path = unquote(head.split(b" ", 2)[1].decode())
            if path == COUNT:
                count, Answering.n_requests = str(Answering.n_requests).encode(), 0
                self._transport.write(_head(200, len(count)) + count)
                continue
            Answering.n_requests += 1
            loop = asyncio.get_running_loop()
            loop.call_later(self._latency, self._answer, head, path)

    def _answer(self, head: bytes, path: str) -> None:
        place = self._folder / path.lstrip("/")
        is_head = head.startswith(b"HEAD")
        if place.is_dir():
            page = _page(place)
            self._transport.write(_head(200, len(page)) + (b"" if is_head else page))
        elif not place.is_file():
            self._transport.write(_head(404, 0))
        else:
            self._transport.write(_file(place, head, is_head=is_head))


def _page(folder: Path) -> bytes:
    names = (f"{one.name}/" if one.is_dir() else one.name for one in folder.iterdir())
    return "".join(f'<a href="{name}">{name}</a>\n' for name in names).encode()


def _file(path: Path, head: bytes, *, is_head: bool) -> bytes:
    size = path.stat().st_size
    found = RANGE.search(head)
    start, stop = 0, size
    if found:
        first, last = found.groups()
        start = int(first) if first else max(0, size - int(last))
        stop = min(size, int(last) + 1) if first and last else size
    if is_head:
        return _head(200, size)
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        body = file.read(stop - start)
    extra = f"Content-Range: bytes {start}-{stop - 1}/{size}\r\n" if found else ""
    return _head(206 if found else 200, len(body), extra) + body


def _head(status: int, length: int, extra: str = "") -> bytes:
    lines = (
        f"HTTP/1.1 {status} -\r\nContent-Length: {length}\r\n"
        f"Accept-Ranges: bytes\r\nContent-Type: text/html\r\n{extra}\r\n"
    )
    return lines.encode()


async def _serve(folder: Path, latency: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Answering(folder, latency), "127.0.0.1", 0, backlog=512
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("latency", type=float)
    options = parser.parse_args()
    asyncio.run(_serve(options.folder, options.latency))
