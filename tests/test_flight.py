"""Headers of distant files: many in flight, no thread each, and what comes of them."""

import io
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicomdask import storage
from dicomdask.errors import InputError
from dicomdask.limits import AHEAD_FILES
from dicomdask.model import Instance, SourceFile
from dicomdask.tasks import index
from dicomdask.tasks.barrier import quiet
from tests.benchmarks import slow_server
from tests.builders import make_series, to_bytes
from tests.servers import proxy
from tests.servers.fixtures import use
from tests.test_reading import most_at_once

N_SLICES = 100
FIRST = 1 << 14
"""What is read of a header at first."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(storage.requests, "WAITS", (0.01, 0.02, 0.04))
    storage.requests.filesystem_of.cache_clear()


@pytest.fixture
def folder(tmp_path):
    """A folder of a series."""
    found = tmp_path / "root" / "series"
    found.mkdir(parents=True)
    for number, ds in enumerate(make_series(N_SLICES)):
        (found / f"{number:03d}").write_bytes(to_bytes(ds))
    return found


@pytest.fixture
def between(folder):
    """A proxy in front of a server of the folder."""
    with (
        slow_server.start(folder.parent, latency=0) as server,
        proxy.start(server.url) as found,
    ):
        found.series = f"{found.url}/series"
        yield found


def files_at(root: str, folder: Path, paths: list[Path]) -> list[SourceFile]:
    names = [(path, path.relative_to(folder)) for path in paths]
    return [SourceFile(f"{root}/{n}", p.stat().st_size, "") for p, n in names]


def indexed(files: list[SourceFile]) -> list[Instance | InputError]:
    with quiet():
        found = list(index._index(files))
    assert [file for file, _ in found] == files
    return [one for _, one in found]


def told(one: Instance | InputError) -> object:
    if isinstance(one, Instance):
        return replace(one, url="")
    return one.code, one.reason


def asked_bytes(request: proxy.Request) -> int:
    start, stop = request.range.removeprefix("bytes=").split("-")
    return int(stop) + 1 - int(start)


# --- what they cost -----------------------------------------------------------


def test_real_headers_there_are_those_here(data):
    every = (path for path in sorted(data.rglob("*")) if path.is_file())
    paths = [path for path in every if not set("#?%") & set(str(path))]
    with (
        slow_server.start(data, latency=0) as server,
        proxy.start(server.url) as between,
    ):
        there = indexed(files_at(between.url, data, paths))
    here = indexed(files_at(str(data), data, paths))
    assert [told(one) for one in there] == [told(one) for one in here]
    n_requests, nbytes = Counter(), Counter()
    for one in between.requests:
        n_requests[one.key] += 1
        nbytes[one.key] += asked_bytes(one)
    long: Counter[int] = Counter()
    for path, one in zip(paths, there, strict=True):
        if isinstance(one, Instance):
            key = path.relative_to(data).as_posix().split("/", 1)[1]
            assert nbytes[key] <= max(FIRST, 1.5 * one.header_bytes), path
            if one.header_bytes <= FIRST:
                assert n_requests[key] == 1, path
            else:
                long[n_requests[key]] += 1
    assert long[2] > 20 * (long.total() - long[2])


def test_many_are_on_their_way_and_none_has_a_thread(folder, between, monkeypatch):
    most = most_at_once(between, monkeypatch)
    between.latency = 0.2
    seen: set[str] = set()
    original = index.read_instance

    def read(*args):
        seen.update(one.name for one in threading.enumerate())
        return original(*args)

    monkeypatch.setattr(index, "read_instance", read)
    found = indexed(files_at(between.series, folder, sorted(folder.iterdir())))
    assert all(isinstance(one, Instance) for one in found)
    assert 20 < most["n"] <= AHEAD_FILES
    assert not [name for name in seen if name.startswith("dicomdask-ahead")]


def test_what_they_hold_is_bounded(folder, between, monkeypatch):
    most = most_at_once(between, monkeypatch)
    between.latency = 0.02
    monkeypatch.setattr("dicomdask.storage.flight.AHEAD_BYTES", 10_000)
    files = files_at(between.series, folder, sorted(folder.iterdir())[:20])
    assert all(isinstance(one, Instance) for one in indexed(files))
    assert most["n"] <= 10_000 // min(file.size for file in files)


def test_what_is_read_of_them_is_counted(folder, between):
    files = files_at(between.series, folder, sorted(folder.iterdir()))
    with storage.counted() as traffic:
        indexed(files)
    assert traffic.read_bytes == sum(file.size for file in files)


# --- what fails ---------------------------------------------------------------


def test_a_file_that_fails_fails_alone(folder, between):
    paths = sorted(folder.iterdir())
    files = files_at(between.series, folder, paths)
    paths[3].unlink()
    paths[5].write_bytes(paths[5].read_bytes()[:600])
    found = indexed(files)
    codes = {n: one.code for n, one in enumerate(found) if isinstance(one, InputError)}
    (cut,) = indexed(files_at(str(folder), folder, paths[5:6]))
    assert codes == {3: "source-changed", 5: cut.code}


@pytest.mark.parametrize("fault", proxy.Fault)
def test_each_request_fails_once(folder, between, fault):
    between.faults = proxy.first(1, fault)
    found = indexed(files_at(between.series, folder, sorted(folder.iterdir())[:30]))
    assert all(isinstance(one, Instance) for one in found)
    assert between.met[fault] == 30


def test_who_is_refused_does_not_ask_again(ceph, monkeypatch):
    url = f"s3://{ceph.make_bucket()}"
    with proxy.start(ceph.endpoint) as between:
        use(ceph.at(between.url), monkeypatch)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hushhush")
        files = [SourceFile(f"{url}/{number}", 9000, "") for number in range(5)]
        found = indexed(files)
        assert len(between.requests) == 5
    assert [one.code for one in found] == ["unreadable"] * 5


def test_a_store_that_cannot_be_opened_is_unreadable(monkeypatch):
    monkeypatch.setenv(storage.OPTIONS_VARIABLE, '{"s3": {"key": 1, "no-such": 2}}')
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    found = indexed([SourceFile("s3://nowhere/one", 9000, "")])
    assert [one.code for one in found] == ["unreadable"]


# --- any reader ---------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(-1, 300)), max_size=5))
@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_reader_sees_the_file(between, folder, steps):
    content = bytes(range(200))
    (folder / "object").write_bytes(content)

    def read(file, stream):
        opened = stream or io.BytesIO(content)
        return [take(opened, start, size) for start, size in steps]

    def take(opened, start, size):
        opened.seek(start)
        data = b""
        while more := opened.read(size if size < 0 else size - len(data)):
            data += more
        return data

    files = [SourceFile(f"{between.series}/object", size, "") for size in (200, 250)]
    found = dict(storage.parse_starts(read, files))
    assert found == dict.fromkeys(range(2), read(None, None))


def test_stores_that_wait_are_read_in_threads(folder):
    paths = sorted(folder.iterdir())[:5]
    for path in paths:
        storage.write(f"memory://flight/{path.name}", path.read_bytes())
    there = indexed(files_at("memory://flight", folder, paths))
    here = indexed(files_at(str(folder), folder, paths))
    assert [told(one) for one in there] == [told(one) for one in here]
