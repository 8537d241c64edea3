"""What `storage` promises of every kind of place, each of them a real one."""

import multiprocessing
import traceback
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from dicomdask import storage
from dicomdask.errors import SourceError, StorageError, StoreError
from dicomdask.storage import NOT_A_FILE, Ranges
from tests.servers import proxy
from tests.servers.azurite import Azure
from tests.servers.fixtures import use
from tests.servers.proxy import Fault, Proxy
from tests.servers.s3 import S3
from tests.test_storage import StoreContract, race

SERVERS = ("ceph", "swift", "azurite")
PLACES = ("local", "memory", *SERVERS)
RACERS = 20
NAMES = (
    "sp ace",
    "ünï",
    "a+b",
    "50%",
    "%20",
    "~t",
    "(1)",
    "a=b&c",
    "it's",
    "#1",
    "wh?t",
    "[1]",
)


@pytest.fixture(scope="module", params=PLACES)
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def server(kind, request) -> S3 | Azure | None:
    return request.getfixturevalue(kind) if kind in SERVERS else None


@pytest.fixture(scope="module")
def root(kind, server, tmp_path_factory) -> str:
    """The URL of a place that all tests share."""
    if kind == "local":
        return str(tmp_path_factory.mktemp("place"))
    if kind == "memory":
        return "memory://contract"
    if kind == "azurite":
        return make_container(server)
    return f"s3://{server.make_bucket()}"


def make_container(azurite: Azure) -> str:
    adlfs = pytest.importorskip("adlfs")
    name = azurite.new_name()
    adlfs.AzureBlobFileSystem(connection_string=azurite.connection).mkdir(name)
    return f"az://{name}"


class TestEveryPlace(StoreContract):
    @pytest.fixture
    def base(self, kind, root, server, monkeypatch) -> Iterator[str]:
        """The URL of a folder for one test."""
        if server is not None:
            use(server, monkeypatch)
        url = storage.join(root, uuid.uuid4().hex, "be low")
        yield url
        if kind == "memory":
            storage.remove_tree(url)

    # --- names

    def test_any_name(self, base):
        for name in NAMES:
            url, data = storage.join(base, name, name), name.encode()
            storage.create(url, data)
            assert storage.read(url) == data, name
            assert storage.is_file(url), name
            assert Ranges(base).get_range(f"{name}/{name}", 1, 99) == data[1:], name
            assert storage.list_names(storage.join(base, name)) == [name]
            (listed,) = storage.list_files(storage.join(base, name))
            assert listed == storage.describe(url)
            assert listed.url == url
        assert storage.list_names(base) == sorted(NAMES)
        assert len(list(storage.list_files(base))) == len(NAMES)
        for name in NAMES:
            storage.remove(storage.join(base, name, name))
        assert list(storage.list_below(base)) == []

    # --- ranges

    def test_any_range(self, base):
        data = b"0123456789"
        storage.write(storage.join(base, "object"), data)
        for start, stop in ((0, 1), (3, 7), (0, 10), (9, 10), (5, 100), (0, 100)):
            found = Ranges(base).get_range("object", start, stop)
            assert found == data[start:stop], (start, stop)

    def test_a_range_behind_the_end(self, base):
        storage.write(storage.join(base, "object"), b"0123456789")
        for start, stop in ((10, 12), (99, 120)):
            assert Ranges(base).get_range("object", start, stop) == b""

    def test_many_ranges_at_once(self, base):
        data = {"object": b"0123456789", "other": b"abc"}
        for name, content in data.items():
            storage.write(storage.join(base, name), content)
        bounds = [(0, 2), (4, 4), (8, 20), (30, 40), (1, 9), (-3, None), (-99, None)]
        wanted = [(name, *pair) for pair in bounds for name in data] * 10
        found = dict(Ranges(base).get_many(wanted))
        assert len(found) == len(wanted)
        for number, (name, start, stop) in enumerate(wanted):
            assert found[number] == data[name][start:stop], wanted[number]
        with pytest.raises(FileNotFoundError):
            list(Ranges(base).get_many([*wanted, ("nothing", 0, 1)]))
        assert list(Ranges(base).get_many([])) == []

    def test_any_tail(self, base):
        data = b"0123456789"
        storage.write(storage.join(base, "object"), data)
        for nbytes in (1, 4, 10, 11, 4096):
            assert Ranges(base).get_tail("object", nbytes) == data[-nbytes:], nbytes

    def test_ranges_and_tails_of_no_bytes(self, base):
        storage.write(storage.join(base, "empty"), b"")
        storage.write(storage.join(base, "object"), b"0123456789")
        assert Ranges(base).get_range("empty", 0, 10) == b""
        assert Ranges(base).get_tail("empty", 10) == b""
        assert Ranges(base).get_range("object", 4, 4) == b""
        with storage.open_blocks(storage.join(base, "empty")) as file:
            assert file.read(4) == b""

    def test_blocks(self, base):
        url = storage.join(base, "object")
        storage.write(url, b"0123456789")
        for size in (None, 10):
            with storage.open_blocks(url, size) as file:
                assert file.read(3) == b"012"
                file.seek(-2, 2)
                assert file.read(99) == b"89"
                assert file.read(1) == b""

    @pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
    def test_a_long_object(self, base):
        url, data = storage.join(base, "object"), bytes(range(256)) * (20 << 12)
        storage.write(url, data)
        assert storage.describe(url).size == len(data) == 20 << 20
        assert storage.read(url) == data
        assert Ranges(base).get_range("object", 1, 6 << 20) == data[1 : 6 << 20]

    # --- what is not there

    def test_what_is_missing_is_not_found(self, base):
        url = storage.join(base, "nothing")
        for ask in (storage.read, storage.open_blocks):
            with pytest.raises(FileNotFoundError):
                ask(url)
        assert storage.describe(url).size == NOT_A_FILE
        assert not storage.is_file(url)
        assert not storage.is_openable(url)
        with pytest.raises(SourceError, match="no such source"):
            list(storage.list_files(url))

    def test_a_folder_is_no_object(self, base):
        storage.write(storage.join(base, "folder", "object"), b"x")
        folder = storage.join(base, "folder")
        assert storage.exists(folder)
        assert not storage.is_file(folder)
        assert storage.describe(folder).size == NOT_A_FILE
        with pytest.raises(OSError, match=r".*"):
            storage.read(folder)

    # --- listings

    def test_files_with_sizes_and_states(self, base):
        for name, data in {"b": b"1", "a/deep/er": b"22", "a/c": b""}.items():
            storage.write(storage.join(base, name), data)
        found = {file.url: file for file in storage.list_files(base)}
        sizes = {url.removeprefix(base): file.size for url, file in found.items()}
        assert sizes == {"/b": 1, "/a/deep/er": 2, "/a/c": 0}
        url = storage.join(base, "b")
        assert found[url].etag == storage.describe(url).etag != ""
        storage.write(url, b"2")
        assert found[url].etag != storage.describe(url).etag

    def test_some_files_are_left_out(self, base):
        for name in ("in", "out/1", "outer"):
            storage.write(storage.join(base, name), b"x")
        found = storage.list_files(base, exclude=(storage.join(base, "out"),))
        assert [file.url.removeprefix(base) for file in found] == ["/in", "/outer"]

    def test_a_glob(self, base):
        for name in ("1.dcm", "2.dcm", "3.txt", "deep/4.dcm"):
            storage.write(storage.join(base, name), b"x")
        found = storage.list_files(storage.join(base, "*.dcm"))
        assert [file.url.removeprefix(base) for file in found] == ["/1.dcm", "/2.dcm"]
        found = storage.list_files(storage.join(base, "**", "*.dcm"))
        assert len(list(found)) == 3

    def test_one_file(self, base):
        url = storage.join(base, "object")
        storage.write(url, b"x")
        assert [file.url for file in storage.list_files(url)] == [url]

    def test_a_name_that_begins_another_is_not_it(self, base):
        for name in ("one/object", "one-more/object"):
            storage.write(storage.join(base, name), b"x")
        one = storage.join(base, "one")
        assert [file.url for file in storage.list_files(one)] == [f"{one}/object"]
        assert [file.name for file in storage.list_below(one)] == ["object"]
        storage.remove_tree(one)
        assert storage.list_names(base) == ["one-more"]

    def test_a_listing_is_never_an_old_one(self, base):
        for number in range(5):
            assert storage.list_names(base) == [str(one) for one in range(number)]
            url = storage.join(base, str(number))
            assert not storage.exists(url)
            storage.write(url, b"x")
            assert storage.exists(url)
            assert len(list(storage.list_below(base))) == number + 1
        storage.remove(storage.join(base, "0"))
        assert storage.list_names(base) == ["1", "2", "3", "4"]

    def test_more_than_one_page(self, base, full):
        """Swift is told to give 100 names a page; the others give 1000 and 5000."""
        count = 1200 if full else 120
        urls = [storage.join(base, "many", f"{one:04}") for one in range(count)]
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda url: storage.write(url, b"x"), urls))
        assert [file.url for file in storage.list_files(base)] == urls
        assert len(storage.list_names(storage.join(base, "many"))) == count
        storage.remove_tree(base)
        assert not storage.exists(base)

    # --- writes

    def test_of_many_who_create_one_wins(self, base, kind):
        url = storage.join(base, "object")
        found = race(RACERS, lambda number: storage.create(url, b"%d" % number))
        winners = [number for number, one in enumerate(found) if one is None]
        losers = [one for one in found if isinstance(one, FileExistsError)]
        assert len(winners) + len(losers) == RACERS
        if storage.can_create_once(base):
            assert storage.read(url) == b"%d" % winners[0]
        assert (len(winners) == 1) or kind == "swift"

    def test_it_is_known_whether_one_wins(self, base, kind):
        assert storage.can_create_once(base) == (kind != "swift")
        assert storage.list_names(base) == []

    def test_remove_tree_removes_an_object_too(self, base):
        url = storage.join(base, "object")
        storage.write(url, b"x")
        storage.remove_tree(url)
        assert not storage.exists(url)

    # --- processes

    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
    def test_a_forked_child_reads_what_its_parent_has_read(self, base):
        url = storage.join(base, "object")
        storage.write(url, b"content")
        ranges = Ranges(base)
        assert ranges.get_range("object", 0, 3) == b"con"
        mine, its = multiprocessing.Pipe(duplex=False)
        child = multiprocessing.get_context("fork").Process(
            target=lambda: its.send((storage.read(url), ranges.get_tail("object", 4)))
        )
        child.start()
        try:
            assert mine.poll(30)
            assert mine.recv() == (b"content", b"tent")
        finally:
            child.kill()
            child.join()
        assert storage.read(url) == b"content"


@pytest.fixture
def between(ceph, monkeypatch) -> Iterator[Proxy]:
    """A proxy in front of Ceph, to which the environment leads."""
    with proxy.start(ceph.endpoint) as found:
        use(ceph.at(found.url), monkeypatch)
        yield found


@pytest.fixture
def bucket(ceph) -> str:
    return f"s3://{ceph.make_bucket()}"


@pytest.fixture
def impatient(monkeypatch) -> None:
    """Let only `storage` try again, not the library below, and wait little."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(storage.requests, "WAITS", (0.1, 0.1, 0.1))


def write_and_read(base):
    """Do all that `storage` can do; return nothing if all bytes are right."""
    one, two = storage.join(base, "tree", "one"), storage.join(base, "tree", "two")
    storage.write(one, b"first")
    storage.write(one, b"0123456789")
    storage.create(two, b"two")
    assert storage.exists(one)
    assert storage.is_file(two)
    assert storage.read(one) == b"0123456789"
    assert Ranges(base).get_range("tree/one", 2, 5) == b"234"
    assert Ranges(base).get_tail("tree/one", 3) == b"789"
    wanted = [("tree/one", 0, 2), ("tree/one", 4, 6), ("tree/one", -1, None)]
    pieces = sorted(Ranges(base).get_many(wanted))
    assert [bytes(piece) for _, piece in pieces] == [b"01", b"45", b"9"]
    with storage.open_blocks(one) as file:
        assert file.read(4) == b"0123"
    assert [file.size for file in storage.list_files(base)] == [10, 3]
    assert storage.list_names(storage.join(base, "tree")) == ["one", "two"]
    storage.remove(two)
    assert not storage.exists(two)
    storage.remove_tree(storage.join(base, "tree"))
    assert list(storage.list_below(base)) == []


def test_marks_of_empty_folders_are_no_inputs(ceph, bucket, monkeypatch):
    use(ceph, monkeypatch)
    client, name = ceph.client(), bucket.removeprefix("s3://")
    for key in ("folder/", "folder/object", "folder/folder", "empty/"):
        client.put_object(Bucket=name, Key=key, Body=b"")
    client.close()
    found = [file.url.removeprefix(bucket) for file in storage.list_files(bucket)]
    assert found == ["/folder/folder", "/folder/object"]
    folder = storage.join(bucket, "folder")
    assert storage.list_names(folder) == ["folder", "object"]
    storage.remove_tree(folder)
    assert storage.list_names(bucket) == ["empty"]


class TestFaults:
    def test_none(self, bucket, between):
        write_and_read(bucket)
        assert between.count("PUT") == 3

    @pytest.mark.parametrize("fault", Fault)
    def test_each_request_fails_once(self, bucket, between, impatient, fault):
        between.faults = proxy.first(1, fault)
        write_and_read(bucket)
        assert between.met[fault] >= 5

    @pytest.mark.parametrize("seed", range(2))
    def test_a_storm(self, bucket, between, seed):
        between.faults = proxy.seeded(seed, rate=0.3)
        urls = [storage.join(bucket, str(number)) for number in range(40)]

        def work(url):
            storage.write(url, url.encode())
            return storage.read(url)

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(work, urls)) == [url.encode() for url in urls]
        assert set(between.met) == set(Fault)

    def test_an_answer_that_is_lost_does_not_lose_the_race(self, bucket, between):
        between.faults = proxy.first(1, Fault.RESET_AFTER, method="PUT")
        url = storage.join(bucket, "object")
        storage.create(url, b"mine")
        with pytest.raises(FileExistsError):
            storage.create(url, b"yours")
        assert storage.read(url) == b"mine"


class TestFaultsOfAzure:
    """The library waits 15 seconds after a 500 or 503: only what is fast is tried."""

    @pytest.fixture
    def container(self, azurite) -> str:
        return make_container(azurite)

    @pytest.mark.parametrize("fault", [Fault.RESET, Fault.RESET_AFTER])
    def test_each_request_fails_once(self, container, azurite, monkeypatch, fault):
        with proxy.start(azurite.endpoint) as between:
            use(azurite.at(between.url), monkeypatch)
            between.faults = proxy.first(1, fault)
            write_and_read(container)
            assert between.met[fault] >= 5

    def test_half_an_answer(self, container, azurite, monkeypatch):
        url = storage.join(container, "object")
        with proxy.start(azurite.endpoint) as between:
            use(azurite.at(between.url), monkeypatch)
            storage.write(url, b"0123456789")
            between.faults = proxy.first(1, Fault.TRUNCATED)
            assert storage.read(url) == b"0123456789"
            assert Ranges(container).get_range("object", 2, 8) == b"234567"
            assert between.met[Fault.TRUNCATED] == 2


SECRET = "never-to-be-told"
ASK: dict[str, Callable[[str], object]] = {
    "read": storage.read,
    "write": lambda url: storage.write(url, b"x"),
    "create": lambda url: storage.create(url, b"x"),
    "list_files": lambda url: list(storage.list_files(url)),
    "list_names": storage.list_names,
    "exists": storage.exists,
    "describe": storage.describe,
    "open_blocks": storage.open_blocks,
    "get_tail": lambda url: Ranges(url).get_tail("object", 4),
    "get_range": lambda url: Ranges(url).get_range("object", 0, 4),
    "get_many": lambda url: list(Ranges(url).get_many([("object", 0, 4)] * 3)),
    "remove": storage.remove,
    "remove_tree": storage.remove_tree,
    "require_writable": storage.require_writable,
}


def check_sentence(error, *expected):
    """Check that an error is one sentence for people, and tells no secret."""
    text = "".join(traceback.format_exception(error))
    assert SECRET not in text
    message = str(error)
    assert "\n" not in message
    assert len(message) < 200
    for part in expected:
        assert part in message


class TestRefusals:
    def test_a_wrong_secret(self, ceph, bucket, impatient, monkeypatch):
        use(replace(ceph, secret=SECRET), monkeypatch)
        for ask in ASK.values():
            with pytest.raises(StorageError) as caught:
                ask(f"{bucket}/folder")
            check_sentence(caught.value, bucket, "denies access", "credentials")
        for name in ("exists", "list_names", "list_files", "describe"):
            with pytest.raises(StorageError, match="denies access"):
                ASK[name](bucket)

    def test_no_credentials_at_all(self, ceph, bucket, impatient, monkeypatch):
        use(ceph, monkeypatch)
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        for ask in ASK.values():
            with pytest.raises(StorageError) as caught:
                ask(f"{bucket}/folder")
            check_sentence(caught.value, bucket, "denies access", "credentials")

    def test_a_bucket_that_is_not_there(self, ceph, monkeypatch):
        use(ceph, monkeypatch)
        bucket = f"s3://no-{uuid.uuid4().hex}"
        for ask in ("write", "create", "require_writable"):
            with pytest.raises(StoreError) as caught:
                ASK[ask](f"{bucket}/object")
            check_sentence(caught.value, bucket, "does not exist", "make the bucket")

    def test_nothing_is_found_in_it(self, ceph, monkeypatch):
        use(ceph, monkeypatch)
        url = f"s3://no-{uuid.uuid4().hex}/object"
        with pytest.raises(FileNotFoundError):
            storage.read(url)
        with pytest.raises(SourceError, match="no such source"):
            list(storage.list_files(url))
        assert storage.list_names(url) == []
        assert not storage.exists(url)
        storage.remove(url)
        storage.remove_tree(url)

    @pytest.mark.parametrize(
        ("ask", "fault"),
        [
            ("read", Fault.INTERNAL_ERROR),
            ("list_files", Fault.INTERNAL_ERROR),
            ("write", Fault.RESET),
            ("create", Fault.SLOW_DOWN),
        ],
    )
    def test_a_server_that_stays_down(self, bucket, between, impatient, ask, fault):
        between.faults = proxy.always(fault)
        with pytest.raises(StorageError) as caught:
            ASK[ask](bucket + "/object")
        check_sentence(caught.value, bucket, "does not answer", "run again")
        assert 4 <= len(between.requests) <= 40

    def test_a_server_that_is_gone(self, ceph, bucket, impatient, monkeypatch):
        with proxy.start(ceph.endpoint) as between:
            use(ceph.at(between.url), monkeypatch)
        with pytest.raises(StorageError) as caught:
            storage.read(bucket + "/object")
        check_sentence(caught.value, bucket, "does not answer", "network")
