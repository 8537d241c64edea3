"""An HTTP proxy in front of a server that counts, delays and breaks what passes.

Requests and answers pass unchanged, the Host header too, so signatures stay valid. A
schedule says which request meets which fault. It is a pure function of the request, so
that one seed gives the same faults whatever the order in which requests come.

    with proxy.start(ceph.endpoint) as between:
        between.latency = 0.03
        between.faults = proxy.seeded(7, rate=0.2)
"""

import asyncio
import contextlib
import enum
import queue
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

MOST_OF_A_HEAD: Final = 1 << 20
PIECE: Final = 1 << 16


class Fault(enum.Enum):
    """What can happen to a request."""

    INTERNAL_ERROR = "500 Internal Server Error"
    SLOW_DOWN = "503 Slow Down"
    RESET = "the connection is reset; the server never sees the request"
    TRUNCATED = "the answer's body, if it has one, ends halfway"
    RESET_AFTER = "the server does what it is asked; then the connection is reset"


@dataclass(frozen=True)
class Request:
    """A request as it came."""

    method: str
    key: str
    """The path without its first part, which is the bucket; not quoted."""
    query: str
    range: str
    """The Range header, or Azure's name for it, or nothing."""
    attempt: int
    """How many requests like this one came before."""


Schedule = Callable[[Request], Fault | None]


# --- schedules ----------------------------------------------------------------


def never(_: Request) -> None:
    """Let everything pass."""


def always(fault: Fault, *, method: str = "") -> Schedule:
    """Break every request, or every one of a method."""
    return lambda request: fault if method in ("", request.method) else None


def first(count: int, fault: Fault, *, method: str = "") -> Schedule:
    """Break the first attempts of each request."""
    every = always(fault, method=method)
    return lambda request: every(request) if request.attempt < count else None


def seeded(
    seed: int,
    *,
    rate: float,
    kinds: tuple[Fault, ...] = tuple(Fault),
    attempts: int = 2,
) -> Schedule:
    """Break a part of the requests; none of them more often than `attempts` times."""

    def schedule(request: Request) -> Fault | None:
        chance = random.Random(f"{seed} {request}")
        if request.attempt >= attempts or chance.random() >= rate:
            return None
        return chance.choice(kinds)

    return schedule


# --- the proxy ----------------------------------------------------------------


class Proxy:
    """A running proxy: what it has seen, and what it shall do."""

    def __init__(self, endpoint: str) -> None:
        self.url = ""
        self.latency = 0.0
        """Seconds that each request waits."""
        self.faults: Schedule = never
        self._target = urlsplit(endpoint)
        self._tasks: set[asyncio.Task[None]] = set()
        self._clients: set[_Stream] = set()
        self._is_over = False
        self.forget()

    def forget(self) -> None:
        """Begin to count anew."""
        self.requests: list[Request] = []
        self._attempts: Counter[tuple[str, str, str, str]] = Counter()
        self.met: Counter[Fault] = Counter()
        self.received_bytes = 0
        """Bytes of the bodies of requests."""
        self.sent_bytes = 0
        """Bytes of the bodies of answers."""

    def counts(self) -> Counter[tuple[str, str, str]]:
        """Return how many requests came, by method, key and query."""
        seen = [(one.method, one.key, one.query) for one in self.requests]
        return Counter(seen)

    def count(self, method: str, key: str | None = None) -> int:
        """Return how many requests of a method came, for one key or all."""
        return sum(
            number
            for (one_method, one_key, _), number in self.counts().items()
            if one_method == method and key in (None, one_key)
        )

    async def run(self, ready: Callable[[Callable[[], None]], None]) -> None:
        """Serve until told to stop; `ready` is given the function that tells so."""
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        with socket.create_server(("127.0.0.1", 0), backlog=100) as listening:
            listening.setblocking(False)
            self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            loop.add_reader(listening, self._accept, listening)
            ready(lambda: loop.call_soon_threadsafe(stop.set))
            await stop.wait()
            loop.remove_reader(listening)
        self._is_over = True
        for client in self._clients:
            client.reset()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1)

    def _accept(self, listening: socket.socket) -> None:
        """Take a connection, not with `start_server`: that loses some as it closes."""
        with contextlib.suppress(OSError):
            connection, _ = listening.accept()
            task = asyncio.get_running_loop().create_task(self._serve(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket) -> None:
        """Serve one connection through one connection of its own to the server."""
        ends = await asyncio.open_connection(sock=connection, limit=MOST_OF_A_HEAD)
        client = _Stream(*ends)
        self._clients.add(client)
        server = None
        try:
            while not self._is_over and (head := await _read_head(client)):
                server = server or await _Stream.connect(self._target)
                if not await self._pass_on(head, client, server):
                    break
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            client.reset()
        finally:
            self._clients.discard(client)
            client.close()
            if server is not None:
                server.writer.transport.abort()

    async def _pass_on(
        self, head: "_Head", client: "_Stream", server: "_Stream"
    ) -> bool:
        """Pass on a request and its answer; return whether another may follow."""
        request = self._note(head)
        fault = self.faults(request)
        if fault is not None:
            self.met[fault] += 1
        await asyncio.sleep(self.latency)
        if fault is Fault.RESET:
            client.reset()
            return False
        if fault in (Fault.INTERNAL_ERROR, Fault.SLOW_DOWN):
            await self._refuse(head, client, fault)
            return False
        upload = asyncio.create_task(self._upload(head, client, server))
        try:
            answer = await _read_answer(client, server)
            body = _body(server, answer, head.method)
            if fault is Fault.RESET_AFTER:
                await _drain(body)
                client.reset()
                return False
            client.writer.write(answer.raw)
            if fault is Fault.TRUNCATED and not await self._send_half(client, body):
                return False
            await self._send_all(client, body)
            await asyncio.wait({upload}, timeout=0.1)  # some answer before they read
            return upload.done() and not (head.closes or answer.closes)
        finally:
            upload.cancel()
            with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
                await upload

    def _note(self, head: "_Head") -> Request:
        method, target = head.first.split()[:2]
        url = urlsplit(target)
        key = unquote(url.path).lstrip("/").partition("/")[2]
        ranges = head.fields.get("range") or head.fields.get("x-ms-range", "")
        what = method, key, url.query, ranges
        request = Request(*what, attempt=self._attempts[what])
        self._attempts[what] += 1
        self.requests.append(request)
        return request

    async def _upload(
        self, head: "_Head", client: "_Stream", server: "_Stream"
    ) -> None:
        server.writer.write(head.raw)
        async for piece in _body(client, head):
            self.received_bytes += len(piece)
            await server.send(piece)
        await server.writer.drain()

    async def _send_all(self, client: "_Stream", body: AsyncIterator[bytes]) -> None:
        async for piece in body:
            self.sent_bytes += len(piece)
            await client.send(piece)
        await client.writer.drain()

    async def _send_half(self, client: "_Stream", body: AsyncIterator[bytes]) -> bool:
        """Send the first half of a body; return whether that is all of it."""
        whole = b"".join([piece async for piece in body])
        self.sent_bytes += len(whole) // 2
        await client.send(whole[: len(whole) // 2])
        return not whole

    async def _refuse(self, head: "_Head", client: "_Stream", fault: Fault) -> None:
        if "expect" not in head.fields:  # who expects leave to go on sends no body
            await _drain(_body(client, head))
        code = fault.value.partition(" ")[2].replace(" ", "")
        body = f"<Error><Code>{code}</Code><Message>made by a test</Message></Error>"
        lines = (
            f"HTTP/1.1 {fault.value}",
            "Content-Type: application/xml",
            f"Content-Length: {len(body)}",
            "Connection: close",
        )
        content = "" if head.method == "HEAD" else body
        await client.send("\r\n".join([*lines, "", content]).encode())


@contextlib.contextmanager
def start(endpoint: str) -> Iterator[Proxy]:
    """Run a proxy in front of an endpoint, in a thread of this process."""
    proxy = Proxy(endpoint)
    stops: queue.Queue[Callable[[], None]] = queue.Queue()
    thread = threading.Thread(
        target=lambda: asyncio.run(proxy.run(stops.put)), daemon=True
    )
    thread.start()
    stop = stops.get(timeout=10)
    try:
        yield proxy
    finally:
        stop()
        thread.join(10)


# --- HTTP ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Head:
    raw: bytes
    first: str
    fields: Mapping[str, str]

    @property
    def method(self) -> str:
        return self.first.partition(" ")[0]

    @property
    def status(self) -> int:
        return int(self.first.split()[1])

    @property
    def closes(self) -> bool:
        return self.fields.get("connection", "").lower() == "close"


class _Stream:
    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, target: SplitResult) -> "_Stream":
        host, port = target.hostname, target.port
        return cls(*await asyncio.open_connection(host, port, limit=MOST_OF_A_HEAD))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """End the connection so that the other side gets an error."""
        linger = struct.pack("ii", 1, 0)
        with contextlib.suppress(OSError):
            self.writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, linger
            )
        self.writer.transport.abort()


async def _read_head(stream: _Stream) -> _Head | None:
    """Return the next head, or nothing where the other side has ended."""
    try:
        raw = await stream.reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    first, *lines = raw.decode("latin-1").strip().split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return _Head(raw, first, {name.lower(): text.strip() for name, _, text in pairs})


async def _read_answer(client: _Stream, server: _Stream) -> _Head:
    """Return the head of the final answer; pass on those that say to continue."""
    while True:
        head = await _read_head(server)
        if head is None:
            raise ConnectionResetError
        if head.status >= 200:
            return head
        await client.send(head.raw)


async def _body(
    stream: _Stream, head: _Head, method: str | None = None
) -> AsyncIterator[bytes]:
    """Give the body that follows a head, in pieces, as it is on the wire.

    `method` is that of the request that an answer belongs to.
    """
    is_answer = method is not None
    if is_answer and (method == "HEAD" or head.status in (204, 304)):
        return
    if "chunked" in head.fields.get("transfer-encoding", "").lower():
        async for piece in _chunks(stream):
            yield piece
        return
    length = head.fields.get("content-length")
    left = int(length) if length else (1 << 62 if is_answer else 0)
    while left:
        piece = await stream.reader.read(min(left, PIECE))
        if not piece:
            if length:
                raise ConnectionResetError
            return
        left -= len(piece)
        yield piece


async def _chunks(stream: _Stream) -> AsyncIterator[bytes]:
    while True:
        line = await stream.reader.readuntil(b"\r\n")
        yield line
        size = int(line.split(b";")[0], 16)
        if size == 0:
            break
        yield await stream.reader.readexactly(size + 2)
    while (line := await stream.reader.readuntil(b"\r\n")) != b"\r\n":
        yield line
    yield line


async def _drain(pieces: AsyncIterator[bytes]) -> None:
    async for _ in pieces:
        pass
