"""The proxy of the tests: what passes, what is counted, what breaks."""

import gc
import http.client
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from tests.servers import proxy
from tests.servers.proxy import Fault, Proxy, Request


class Origin(BaseHTTPRequestHandler):
    """Holds objects; tells what it was sent in its answers' fields."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]

    def do_PUT(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size + 2)[:-2]
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        self.objects[self.path] = body
        self.answer(200, b"")

    def do_GET(self):
        found = self.objects.get(self.path)
        if self.path.endswith("chunked"):
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"5\r\nabcde\r\n3\r\nfgh\r\n0\r\n\r\n")
        elif found is None:
            self.answer(404, b"no such key")
        else:
            self.answer(200, found)

    def do_HEAD(self):
        self.do_GET()

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Host", self.headers["Host"])
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def objects() -> dict[str, bytes]:
    return {"/b/k": b"content", "/b/long": bytes(range(256)) * 4000}


@pytest.fixture
def between(objects) -> Iterator[Proxy]:
    handler = type("Handler", (Origin,), {"objects": objects})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        serve = threading.Thread(target=server.serve_forever, args=(0.01,))
        serve.start()
        with proxy.start(f"http://127.0.0.1:{server.server_port}") as found:
            yield found
        server.shutdown()
        serve.join()


@pytest.fixture
def connection(between) -> Iterator[http.client.HTTPConnection]:
    found = http.client.HTTPConnection(between.url.removeprefix("http://"), timeout=10)
    yield found
    found.close()


def ask(connection, method, path, body=None, **fields):
    connection.request(method, path, body, fields)
    answer = connection.getresponse()
    return answer.status, answer.read(), answer


class TestWhatPasses:
    def test_bytes_over_one_connection(self, connection, objects):
        assert ask(connection, "GET", "/b/k")[:2] == (200, b"content")
        held = connection.sock
        assert ask(connection, "GET", "/b/long")[1] == objects["/b/long"]
        assert ask(connection, "HEAD", "/b/long")[:2] == (200, b"")
        assert ask(connection, "GET", "/b/none")[:2] == (404, b"no such key")
        assert connection.sock is held

    def test_the_host_that_the_client_named(self, connection, between):
        answer = ask(connection, "GET", "/b/k")[2]
        assert f"http://{answer.headers['X-Host']}" == between.url

    @pytest.mark.parametrize("size", [0, 1, 3_000_000])
    def test_uploads(self, connection, objects, size):
        body = bytes(size)
        assert ask(connection, "PUT", "/b/new", body)[0] == 200
        assert objects["/b/new"] == body
        assert ask(connection, "GET", "/b/new")[1] == body

    def test_uploads_in_chunks(self, connection, objects):
        connection.request(
            "PUT",
            "/b/new",
            iter([b"one", b"two"]),
            {"Transfer-Encoding": "chunked"},
            encode_chunked=True,
        )
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"")
        assert objects["/b/new"] == b"onetwo"
        assert ask(connection, "GET", "/b/chunked")[1] == b"abcdefgh"
        assert ask(connection, "GET", "/b/k")[1] == b"content"

    def test_leave_to_go_on_is_asked_of_the_server(self, connection, objects):
        connection.putrequest("PUT", "/b/new")
        connection.putheader("Content-Length", "3")
        connection.putheader("Expect", "100-continue")
        connection.endheaders()
        assert connection.sock.recv(100).startswith(b"HTTP/1.1 100")
        connection.send(b"yes")
        assert connection.getresponse().status == 200
        assert objects["/b/new"] == b"yes"


class TestWhatIsCounted:
    def test_requests_by_method_key_and_query(self, connection, between):
        for _ in range(2):
            ask(connection, "GET", "/b/a%20b%2B?list-type=2")
        ask(connection, "PUT", "/b/k", b"12345")
        assert between.counts() == {
            ("GET", "a b+", "list-type=2"): 2,
            ("PUT", "k", ""): 1,
        }
        assert between.count("GET") == 2
        assert between.count("PUT", "k") == 1
        assert between.count("PUT", "other") == 0

    def test_bytes_and_ranges(self, connection, between):
        ask(connection, "PUT", "/b/k", b"12345")
        ask(connection, "GET", "/b/k", Range="bytes=0-4")
        assert (between.received_bytes, between.sent_bytes) == (5, 5)
        assert between.requests[-1] == Request("GET", "k", "", "bytes=0-4", 0)
        between.forget()
        assert (between.received_bytes, between.counts()) == (0, {})

    def test_latency(self, connection, between):
        between.latency = 0.2
        start = time.monotonic()
        ask(connection, "GET", "/b/k")
        assert 0.2 <= time.monotonic() - start < 2


class TestWhatBreaks:
    @pytest.mark.parametrize(
        ("fault", "status", "code"),
        [
            (Fault.INTERNAL_ERROR, 500, b"<Code>InternalServerError<"),
            (Fault.SLOW_DOWN, 503, b"<Code>SlowDown<"),
        ],
    )
    @pytest.mark.parametrize("size", [1, 3_000_000])
    def test_errors(self, connection, between, objects, fault, status, code, size):
        between.faults = proxy.first(1, fault)
        found, body, _ = ask(connection, "PUT", "/b/new", bytes(size))
        assert found == status
        assert code in body
        assert "/b/new" not in objects
        assert ask(connection, "PUT", "/b/new", bytes(size))[0] == 200
        assert between.met == {fault: 1}

    def test_a_reset_before(self, connection, between, objects):
        between.faults = proxy.first(1, Fault.RESET)
        with pytest.raises(ConnectionResetError):
            ask(connection, "PUT", "/b/new", b"x")
        assert "/b/new" not in objects
        connection.close()
        assert ask(connection, "PUT", "/b/new", b"x")[0] == 200

    def test_a_reset_after(self, connection, between, objects):
        between.faults = proxy.first(1, Fault.RESET_AFTER)
        with pytest.raises(ConnectionResetError):
            ask(connection, "PUT", "/b/new", b"x")
        assert objects["/b/new"] == b"x"

    @pytest.mark.parametrize("path", ["/b/k", "/b/long", "/b/chunked"])
    def test_half_an_answer(self, connection, between, path):
        between.faults = proxy.first(1, Fault.TRUNCATED)
        with pytest.raises(http.client.IncompleteRead):
            ask(connection, "GET", path)

    def test_no_half_of_nothing(self, connection, between):
        between.faults = proxy.always(Fault.TRUNCATED)
        assert ask(connection, "PUT", "/b/new", b"x")[0] == 200

    def test_a_server_that_is_gone(self):
        with proxy.start("http://127.0.0.1:1") as between:
            address = between.url.removeprefix("http://")
            connection = http.client.HTTPConnection(address, timeout=10)
            with pytest.raises(OSError, match=r"reset|closed"):
                ask(connection, "GET", "/b/k")
            connection.close()

    def test_a_proxy_that_has_stopped(self):
        with proxy.start("http://127.0.0.1:1") as between:
            address = between.url.removeprefix("http://")
        with pytest.raises(ConnectionRefusedError):
            http.client.HTTPConnection(address, timeout=10).connect()


class TestSchedules:
    def requests(self, count=300, attempts=3):
        return [
            Request("GET", f"key/{number}", "", "", attempt)
            for number in range(count)
            for attempt in range(attempts)
        ]

    def test_one_seed_gives_one_schedule(self):
        schedules = [proxy.seeded(seed, rate=0.3) for seed in (1, 1, 2)]
        found = [[one(request) for request in self.requests()] for one in schedules]
        assert found[0] == found[1] != found[2]
        assert {None, *Fault} == set(found[0])

    def test_the_rate(self):
        schedule = proxy.seeded(1, rate=0.3, attempts=3)
        broken = sum(schedule(request) is not None for request in self.requests())
        assert 0.25 < broken / 900 < 0.35

    def test_nobody_is_broken_for_ever(self):
        schedule = proxy.seeded(1, rate=1.0, attempts=2)
        for request in self.requests():
            assert (schedule(request) is None) == (request.attempt == 2)

    def test_many_at_once(self, between, objects):
        between.faults = proxy.seeded(5, rate=0.5, kinds=(Fault.SLOW_DOWN,), attempts=1)
        address = between.url.removeprefix("http://")

        def put(number):
            connection = http.client.HTTPConnection(address, timeout=10)
            try:
                path = f"/b/{number}"
                while ask(connection, "PUT", path, b"%d" % number)[0] != 200:
                    pass
            finally:
                connection.close()

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(put, range(60)))
        assert [objects[f"/b/{number}"] for number in range(60)] == [
            b"%d" % number for number in range(60)
        ]
        assert between.count("PUT") == 60 + between.met[Fault.SLOW_DOWN]
        assert 15 < between.met[Fault.SLOW_DOWN] < 45


def test_connections_that_come_while_it_stops_are_closed(objects):
    """Else the collector finds them later, in whatever test runs by then."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(5):
            with proxy.start("http://127.0.0.1:9") as found:
                address = urlsplit(found.url)
                ends = [
                    socket.create_connection((address.hostname, address.port))
                    for _ in range(50)
                ]
            for end in ends:
                end.close()
        gc.collect()
    assert [one for one in seen if one.category is ResourceWarning] == []
