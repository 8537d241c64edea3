"""Reading from an object store and in many processes: requests, faults, forks."""

import gc
import json
import multiprocessing
import os
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import dicomdask
from dicomdask import layout, storage
from dicomdask.errors import ShardError, StorageError
from dicomdask.shards import Request, parse_metadata, threads
from tests.builders import make_instance, write_series
from tests.servers import proxy
from tests.servers.fixtures import use
from tests.servers.proxy import Fault
from tests.test_shards import LAYOUT, VOLUME, Memory, encode_array, whole

N_VOLUMES, N_SLICES = 12, 5
SHAPE = (N_SLICES, 64, 48)


@pytest.fixture(scope="module")
def here(tmp_path_factory, convert):
    """Return a dataset of volumes of one shard each, a slice a chunk."""
    folder = tmp_path_factory.mktemp("reading")
    rng = np.random.default_rng(0)
    for patient in range(N_VOLUMES):
        planes = rng.integers(-1000, 3000, SHAPE).astype(np.int16)
        series = (
            make_instance(patient + 1, instance=z + 1, pixels=plane)
            for z, plane in enumerate(planes)
        )
        write_series(folder / "in" / str(patient), series)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "SHARD_BYTES", 1 << 20)
        convert(folder / "in", folder / "store.zarr", profile="slice")
    return folder / "store.zarr"


def boxes_of(ds, order=range(N_SLICES)):
    """Return a request for each slice, volumes mixed."""
    plane = (slice(0, 64), slice(0, 48))
    return [
        (name, (slice(z, z + 1), *plane))
        for z in order
        for name in ds.volumes.volume_id
    ]


def wanted_of(here):
    ds = dicomdask.open_dataset(str(here))
    return {name: ds.read(name) for name in ds.volumes["volume_id"]}


@pytest.fixture(scope="module")
def wanted(here):
    """Return the arrays of all volumes."""
    return wanted_of(here)


def check(found, requests, wanted):
    for array, (name, box) in zip(found, requests, strict=True):
        np.testing.assert_array_equal(array, wanted[name][box])


# --- an object store ----------------------------------------------------------


@pytest.fixture(scope="module")
def url(ceph, here):
    """The URL of the same dataset in a bucket."""
    with pytest.MonkeyPatch.context() as patch:
        use(ceph, patch)
        storage.requests.filesystem_of.cache_clear()
        found = f"s3://{ceph.make_bucket()}/store.zarr"
        for path in here.rglob("*"):
            if path.is_file():
                name = path.relative_to(here).as_posix()
                storage.write(f"{found}/{name}", path.read_bytes())
    return found


@pytest.fixture
def between(ceph, monkeypatch):
    """A proxy in front of the server; the environment leads to it."""
    with proxy.start(ceph.endpoint) as found:
        use(ceph.at(found.url), monkeypatch)
        monkeypatch.setattr(storage.requests, "WAITS", (0.05, 0.1, 0.2))
        storage.requests.filesystem_of.cache_clear()
        yield found
    storage.requests.filesystem_of.cache_clear()


@pytest.fixture
def ds(url, between):
    """The dataset, its table read; requests are counted from now."""
    found = dicomdask.open_dataset(url)
    found.volumes  # noqa: B018 - reads the table
    between.forget()
    return found


def most_at_once(between, monkeypatch):
    """Return what tells how many requests were on their way at the same time."""
    now, most = Counter(), Counter()
    original = between._pass_on

    async def count(*args):
        now["n"] += 1
        most["n"] = max(most["n"], now["n"])
        try:
            return await original(*args)
        finally:
            now["n"] -= 1

    monkeypatch.setattr(between, "_pass_on", count)
    return most


def test_a_shard_costs_two_requests_and_then_one_a_sample(ds, between, wanted):
    first, *later = np.array_split(np.arange(N_SLICES), N_SLICES)
    for z, bound in ((first, 2), *((z, 1.05) for z in later)):
        requests = boxes_of(ds, map(int, z))
        check(ds.read_many(requests), requests, wanted)
        assert len(between.requests) <= bound * len(requests)
        assert {one.method for one in between.requests} == {"GET"}
        between.forget()


def test_a_chunk_read_alone_costs_a_request(ds, between, wanted):
    requests = boxes_of(ds)
    ds.read_many(requests)
    between.forget()
    with ThreadPoolExecutor(16) as pool:
        found = pool.map(lambda one: ds.read(one[0], z=one[1][0]), requests)
        check(found, requests, wanted)
    assert len(between.requests) == len(requests)


def test_a_shard_that_goes_is_named(ds, url, between):
    (name, _), *_ = boxes_of(ds)
    ds.read(name, z=0)
    shard = f"{ds.row(name)['path']}/0/c/0/0/0"
    data = storage.read(f"{url}/{shard}")
    storage.remove(f"{url}/{shard}")
    try:
        with pytest.raises(ShardError, match=f"{name}: shard {shard} is missing"):
            ds.read(name, z=1)
    finally:
        storage.write(f"{url}/{shard}", data)


def test_a_volume_costs_a_request(ds, between, wanted):
    requests = [(name, whole(SHAPE)) for name in wanted]
    check(ds.read_many(requests), requests, wanted)
    assert len(between.requests) == 2 * N_VOLUMES


def test_many_requests_are_on_their_way_at_once(ds, between, wanted, monkeypatch):
    most = most_at_once(between, monkeypatch)
    between.latency = 0.2
    ds._reader._max_gap = 0  # else a volume is one range
    requests = boxes_of(ds, (0, 2, 4))
    started = time.monotonic()
    check(ds.read_many(requests), requests, wanted)
    assert time.monotonic() - started < 0.2 * len(requests) / 2
    assert 20 < most["n"] <= 64


def test_in_flight_is_bounded(ds, between, wanted, monkeypatch):
    most = most_at_once(between, monkeypatch)
    between.latency = 0.05
    monkeypatch.setattr("dicomdask.storage.flight.AHEAD_FILES", 5)
    requests = boxes_of(ds, (0, 2, 4))
    check(ds.read_many(requests), requests, wanted)
    assert most["n"] == 5
    most.clear()
    monkeypatch.setattr("dicomdask.storage.flight.AHEAD_BYTES", 15_000)  # two chunks
    check(ds.read_many(boxes_of(ds, (1, 3))), boxes_of(ds, (1, 3)), wanted)
    assert 1 <= most["n"] <= 3


@pytest.mark.parametrize("fault", list(Fault))
def test_each_request_fails_once(fault, ds, between, wanted):
    between.faults = proxy.first(1, fault)
    requests = boxes_of(ds, (0, 3))
    check(ds.read_many(requests), requests, wanted)
    assert between.met[fault] >= N_VOLUMES


@pytest.mark.parametrize("seed", range(1, 2))
def test_a_store_that_fails_now_and_then(seed, ds, between, wanted):
    between.faults = proxy.seeded(seed, rate=0.3)
    for z in range(N_SLICES):
        requests = boxes_of(ds, (z,))
        check(ds.read_many(requests), requests, wanted)
    assert sum(between.met.values()) > 5


def test_a_server_that_stays_down_is_named(ds, between, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(storage.requests, "WAITS", (0.01,))
    storage.requests.filesystem_of.cache_clear()
    between.faults = proxy.always(Fault.RESET)
    with pytest.raises(StorageError, match="does not answer as it should"):
        ds.read_many(boxes_of(ds, (0,))[:1])


@pytest.fixture
def session(ceph, url, between, tmp_path, monkeypatch):
    """Credentials in a file that the environment names; return how to set them."""
    file = tmp_path / "options.json"

    def put(secret):
        options = {
            "key": ceph.key,
            "secret": secret,
            "client_kwargs": {"endpoint_url": between.url},
        }
        file.write_text(json.dumps(options))

    put(ceph.secret)
    monkeypatch.setenv(storage.OPTIONS_VARIABLE, str(file))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    storage.options.forget_options()
    return put


def lose_session(put):
    """Let requests be refused from now on."""
    put("hushhush")
    storage.options.forget_options()
    storage.requests.filesystem_of.cache_clear()


def test_credentials_that_go_are_one_error(session, url, wanted):
    ds = dicomdask.open_dataset(url)
    check(ds.read_many(boxes_of(ds, (0,))), boxes_of(ds, (0,)), wanted)
    lose_session(session)
    with pytest.raises(
        StorageError, match=r"denies access .*; check the cred"
    ) as caught:
        ds.read_many(boxes_of(ds, (1,)))
    assert "hushhush" not in str(caught.value)


def test_credentials_that_come_back_end_no_epoch(
    ceph, session, url, between, wanted, monkeypatch
):
    monkeypatch.setattr(storage.requests, "WAITS", (0.3, 0.5, 1.0, 2.0))
    ds = dicomdask.open_dataset(url)
    check(ds.read_many(boxes_of(ds, (0,))), boxes_of(ds, (0,)), wanted)
    lose_session(session)
    between.forget()
    later = threading.Timer(0.2, session, args=(ceph.secret,))
    later.start()
    check(ds.read_many(boxes_of(ds, (1,))), boxes_of(ds, (1,)), wanted)
    later.join()
    assert len(between.requests) > N_VOLUMES  # some were refused


def test_the_second_epoch_makes_no_request(url, between, wanted, tmp_path):
    for epoch in range(2):
        ds = dicomdask.open_dataset(url, cache_folder=str(tmp_path / "cache"))
        ds.volumes  # noqa: B018 - reads the table
        between.forget()
        order = range(N_SLICES) if epoch == 0 else reversed(range(N_SLICES))
        for z in order:
            requests = boxes_of(ds, (z,))
            check(ds.read_many(requests), requests, wanted)
        assert bool(between.requests) == (epoch == 0)


# --- the memory of a reader ---------------------------------------------------


def test_decoded_chunks_are_kept_within_their_bytes():
    objects, text = encode_array(VOLUME, LAYOUT)
    store, meta = Memory(objects), parse_metadata(text)
    reader = store.reader(cache_bytes=1 << 20)
    for _ in range(3):
        found = reader.read("a", meta, whole(VOLUME.shape))
        np.testing.assert_array_equal(found, VOLUME)
        found[...] = 77  # what is handed out leads to no kept chunk
    assert len(store.log) == 2


@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_the_bytes_of_a_cache_are_bounded(codec):
    """By its own account, and by that of Python."""
    array = np.arange(64 * 64 * 64, dtype="u2").reshape(64, 64, 64)
    objects, text = encode_array(array, type(LAYOUT)((4, 16, 64), (64, 64, 64), codec))
    meta, budget = parse_metadata(text), 100_000
    reader = Memory(objects).reader(cache_bytes=budget)
    for z in range(0, 64, 3):
        box = (slice(z, min(z + 5, 64)), slice(1, 64), slice(0, 60))
        np.testing.assert_array_equal(reader.read("a", meta, box), array[box])
        assert reader._chunks.nbytes <= budget
    gc.collect()
    arrays = [
        one
        for one, _ in [*reader._chunks._young.values(), *reader._chunks._old.values()]
    ]
    held = {id(_owner(one)): _owner(one) for one in arrays}
    assert sum(map(_nbytes, held.values())) <= budget


def _owner(array):
    while isinstance(getattr(array, "base", None), np.ndarray):
        array = array.base
    return array if array.base is None else array.base


def _nbytes(owner):
    return memoryview(owner).nbytes


def test_threads_share_a_cache(wanted, here):
    ds = dicomdask.open_dataset(str(here), cache_bytes=60_000)
    batches = [boxes_of(ds, (z, (z + 1) % N_SLICES)) for z in range(N_SLICES)] * 6
    with ThreadPoolExecutor(4) as pool:
        for found, requests in zip(
            pool.map(ds.read_many, batches), batches, strict=True
        ):
            check(found, requests, wanted)
    assert ds._reader._chunks.nbytes <= 60_000


# --- processes and threads ----------------------------------------------------


def read_all(store, name, ds=None):
    """Read a volume in large and in small batches; return its sum."""
    ds = ds or dicomdask.open_dataset(store, cache_bytes=1 << 20)
    one = ds.read_many([(name, whole(SHAPE))])[0]
    assert np.array_equal(ds.read(name), one)
    return int(one.astype(np.int64).sum())


def _send(pipe, function, *args):
    pipe.send(function(*args))


@pytest.fixture
def pooled(monkeypatch):
    """Let every read use the pool of threads, in children too."""
    monkeypatch.setattr(threads, "PAYS_FROM_BYTES", 0)
    monkeypatch.setattr(threads, "n_threads", lambda: 3)


def in_child(method, function, *args):
    context = multiprocessing.get_context(method)
    mine, its = context.Pipe(duplex=False)
    child = context.Process(target=_send, args=(its, function, *args))
    child.start()
    try:
        assert mine.poll(60), f"a child made by {method} hangs"
        return mine.recv()
    finally:
        child.kill()
        child.join()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_children_read_what_their_parent_has_read(method, here, wanted, pooled, full):
    ds = dicomdask.open_dataset(str(here), cache_bytes=1 << 20)
    name = next(iter(wanted))
    expected = read_all(str(here), name, ds)
    for _ in range(50 if full else 2 if method == "fork" else 1):
        assert in_child(method, read_all, str(here), name, ds) == expected


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_in_the_middle_of_other_threads_reads(here, wanted, pooled, full):
    """Whatever a thread holds just then, the child does not wait for it."""
    ds = dicomdask.open_dataset(str(here), cache_bytes=100_000)
    names, stop = list(wanted), threading.Event()
    expected = read_all(str(here), names[0], ds)

    def read_on(number):
        while not stop.is_set():
            read_all(str(here), names[number], ds)

    others = [threading.Thread(target=read_on, args=(n,)) for n in (1, 2, 3)]
    for other in others:
        other.start()
    try:
        for _ in range(50 if full else 5):
            assert in_child("fork", read_all, str(here), names[0], ds) == expected
    finally:
        stop.set()
        for other in others:
            other.join()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_reads_from_an_object_store(ds, url, wanted, full):
    name = next(iter(wanted))
    expected = int(wanted[name].astype(np.int64).sum())
    assert read_all(url, name, ds) == expected
    for _ in range(50 if full else 2):
        assert in_child("fork", read_all, url, name, ds) == expected


def test_children_of_others_decode_alone():
    assert threads.n_threads() == min(8, len(os.sched_getaffinity(0)))
    assert in_child("spawn", threads.n_threads) == 1


def test_an_error_waits_for_the_threads_that_write(pooled):
    """Who catches it may use the array again: nobody else writes to it any more."""
    objects, text = encode_array(VOLUME, LAYOUT)
    [shard] = objects
    data = bytearray(objects[shard])
    data[20] ^= 1
    reader, meta = Memory({shard: bytes(data)}).reader(), parse_metadata(text)
    for _ in range(20):
        out = np.zeros_like(VOLUME)
        request = Request("a", meta, whole(VOLUME.shape), out)
        with pytest.raises(ShardError, match=r"chunk 0 of shard .* is damaged"):
            reader.read_many([request] * 3)
        before = out.copy()
        time.sleep(0.002)
        np.testing.assert_array_equal(out, before)


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
def test_a_damaged_chunk_is_named_from_threads_and_batches(at, here, tmp_path, pooled):
    ds = dicomdask.open_dataset(str(here))
    name = ds.volumes["volume_id"][3]
    [path] = (here / ds.row(name)["path"] / "0").rglob("c/*/*/*")
    sound = path.read_bytes()
    data = bytearray(sound)
    data[int(at * (len(data) - 200))] ^= 8
    try:
        path.write_bytes(data)
        for _ in range(2):
            told = f"^volume {name}: chunk {int(at * 5)} of shard .*{name}.* is damaged"
            with pytest.raises(ShardError, match=told) as caught:
                ds.read_many(boxes_of(ds))
            assert caught.value.volume_id == name
        path.write_bytes(data[: len(data) // 2])
        fresh = dicomdask.open_dataset(str(here))
        with pytest.raises(ShardError, match=f"^volume {name}: .*(damaged|cut short)"):
            fresh.read_many(boxes_of(fresh))
    finally:
        path.write_bytes(sound)
