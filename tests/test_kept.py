"""Ranges kept in a local folder: whole or not there, within a budget, for all."""

import multiprocessing
import os
import pickle
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dicomdask
from dicomdask import storage
from dicomdask.errors import StoreError
from dicomdask.shards import parse_metadata
from dicomdask.storage import KeptRanges, kept
from tests.test_shards import LAYOUT, VOLUME, Memory, encode_array, whole

BUDGET = 1 << 20
OVERHEAD = 4 + 8
"""A checksum; and the tally, once."""


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def opened(folder, budget=BUDGET, origin="s3://bucket/a.zarr"):
    return KeptRanges(str(folder), budget, origin=origin)


def files_of(folder):
    return [path for path in Path(folder).glob("??/*") if path.is_file()]


def bytes_of(folder):
    return sum(
        path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()
    )


# --- entries ------------------------------------------------------------------


@given(st.binary(min_size=1, max_size=99), st.integers(0, 1 << 50), st.text())
@settings(max_examples=50, deadline=None)
def test_what_is_put_is_what_is_got(tmp_path_factory, data, start, path):
    here = opened(tmp_path_factory.mktemp("kept"))
    for bounds in ((start, start + len(data)), (-len(data), None)):
        assert here.get(path, *bounds) is None
        here.put(path, *bounds, data)
        assert here.get(path, *bounds) == data
        assert here.get(path + "x", *bounds) is None
    assert here.get(path, start, start + len(data) + 1) is None


def test_datasets_share_a_folder(folder):
    here, there = opened(folder), opened(folder, origin="s3://bucket/b.zarr")
    here.put("path", 0, 2, b"ab")
    assert there.get("path", 0, 2) is None
    there.put("path", 0, 2, b"cd")
    assert (here.get("path", 0, 2), there.get("path", 0, 2)) == (b"ab", b"cd")
    assert pickle.loads(pickle.dumps(there)).get("path", 0, 2) == b"cd"


def damage(kind, data):
    flipped = bytearray(data)
    flipped[len(data) // 3] ^= 4
    return {
        "flipped": bytes(flipped),
        "cut": data[:-1],
        "empty": b"",
        "longer": data + b"x",
        "zeros": bytes(len(data)),
    }[kind]


KINDS = ("flipped", "cut", "empty", "longer", "zeros")


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_entry_is_dropped(kind, folder):
    here = opened(folder)
    here.put("path", 10, 1010, bytes(range(250)) * 4)
    [file] = files_of(folder)
    file.write_bytes(damage(kind, file.read_bytes()))
    assert here.get("path", 10, 1010) is None
    assert files_of(folder) == []
    here.put("path", 10, 1010, bytes(range(250)) * 4)
    assert here.get("path", 10, 1010) == bytes(range(250)) * 4


def test_the_folder_is_the_users_own(folder):
    opened(folder).put("path", 0, 3, b"abc")
    for path in (folder, *folder.glob("??")):
        assert path.stat().st_mode & 0o077 == 0
    folder.parent.joinpath("file").write_text("")
    with pytest.raises(StoreError, match=r"cannot make the cache folder .* can write"):
        opened(folder.parent / "file" / "cache")


# --- the budget ---------------------------------------------------------------


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=60))
@settings(max_examples=20, deadline=None)
def test_all_files_stay_within_the_budget(tmp_path_factory, sizes):
    folder, budget = tmp_path_factory.mktemp("kept"), 10_000
    here = opened(folder, budget)
    for number, size in enumerate(sizes):
        here.put("path", number, number + size, bytes(size))
        assert bytes_of(folder) <= budget + OVERHEAD
        assert here.get("path", number, number + size) == bytes(size)


def test_what_was_used_longest_ago_goes_first(folder):
    here = opened(folder, 10 * (1000 + 4))
    for number in range(10):
        here.put("path", number, number + 1000, bytes(1000))
        os.utime(here._file("path", number, number + 1000), (number, number))
    assert here.get("path", 2, 1002)
    here.put("path", 10, 1010, bytes(1000))
    kept_now = {n for n in range(11) if here._file("path", n, n + 1000).exists()}
    assert kept_now == {2, 3, 4, 5, 6, 7, 8, 9, 10}


def test_what_is_larger_than_the_budget_is_left_out(folder):
    here = opened(folder, 1000)
    here.put("path", 0, 2000, bytes(2000))
    assert files_of(folder) == []


def test_a_full_disk_costs_no_epoch(folder, monkeypatch):
    here = opened(folder)

    def full(self, *_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    here.put("path", 0, 3, b"abc")
    assert here.get("path", 0, 3) is None
    assert not list(folder.glob("tmp-*"))


def test_a_tally_that_is_lost_is_counted_anew(folder):
    here = opened(folder, 5000)
    for number in range(4):
        here.put("path", number, number + 1000, bytes(1000))
    (folder / kept.TALLY_NAME).unlink()
    for number in range(4, 12):
        here.put("path", number, number + 1000, bytes(1000))
        assert bytes_of(folder) <= 5000 + OVERHEAD


# --- processes ----------------------------------------------------------------


def write_much(folder, seed, budget, n):
    here = opened(folder, budget)
    for number in range(n):
        size = 500 + (number * seed) % 4000
        here.put(f"path{seed}", number, number + size, bytes([seed]) * size)
        found = here.get(f"path{number % 5}", number, number + size)
        assert found is None or set(found) == {number % 5}


def test_processes_share_a_folder(folder):
    budget = 200_000
    context = multiprocessing.get_context("spawn")
    children = [
        context.Process(target=write_much, args=(folder, seed, budget, 150))
        for seed in (1, 2, 3)
    ]
    for child in children:
        child.start()
    while any(child.is_alive() for child in children):
        time.sleep(0.01)
        # while files are counted, one may be replaced and another not yet be there
        sizes = {path: path.stat().st_size for path in files_of_now(folder)}
        assert sum(sizes.values()) <= budget + 2 * 5000
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert bytes_of(folder) <= budget + OVERHEAD


def files_of_now(folder):
    for path in list(Path(folder).glob("??/*")):
        if path.exists():
            yield path


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_writer_leaves_no_damaged_entry(seed, folder, full):
    context = multiprocessing.get_context("spawn")
    for attempt in range(20 if full else 1):
        child = context.Process(target=write_much, args=(folder, 4, BUDGET, 100_000))
        child.start()
        until = time.monotonic() + 60
        while len(files_of(folder)) < 5 and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.003 * (seed + attempt))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        here = opened(folder)
        whole_ones = 0
        for file in files_of(folder):
            size = file.stat().st_size - 4
            whole_ones += kept._is_whole(file.read_bytes(), size)
        assert whole_ones == len(files_of(folder)) >= 5
        here.put("after", 0, 3, b"abc")
        assert here.get("after", 0, 3) == b"abc"


def test_temporary_files_of_the_killed_go(folder):
    here = opened(folder, 3000)
    old, new = folder / f"{kept.TEMPORARY}1-1-1", folder / f"{kept.TEMPORARY}2-2-2"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    for number in range(4):
        here.put("path", number, number + 1000, bytes(1000))
    assert not old.exists()
    assert new.exists()


def test_who_waits_too_long_keeps_nothing(folder, monkeypatch):
    monkeypatch.setattr(kept, "BUSY_SECONDS", 0.02)
    here = opened(folder)
    here.put("path", 0, 3, b"abc")
    with here._locked_tally() as tally:
        assert tally is not None
        here.put("path", 3, 6, b"def")
    assert here.get("path", 3, 6) is None
    here.put("path", 3, 6, b"def")
    assert here.get("path", 3, 6) == b"def"


# --- the reader ---------------------------------------------------------------


@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_the_second_epoch_asks_for_nothing(codec, folder):
    layout = type(LAYOUT)(LAYOUT.chunks, LAYOUT.shards, codec)
    objects, text = encode_array(VOLUME, layout)
    meta = parse_metadata(text)
    boxes = [
        (slice(z, z + 2), slice(1, 6), slice(x, x + 4)) for z in (0, 2) for x in (0, 3)
    ]
    for epoch in range(3):
        store = Memory(objects)
        store.is_distant = True
        reader = store.reader(kept=opened(folder))
        for box in boxes if epoch < 2 else boxes[::-1]:
            np.testing.assert_array_equal(reader.read("a", meta, box), VOLUME[box])
        assert bool(store.log) == (epoch == 0)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_entries_are_fetched_again(kind, folder):
    objects, text = encode_array(VOLUME, LAYOUT)
    store, meta = Memory(objects), parse_metadata(text)
    store.reader(kept=opened(folder)).read("a", meta, whole(VOLUME.shape))
    for file in files_of(folder):
        file.write_bytes(damage(kind, file.read_bytes()))
    for n_asked in (2, 0):
        store.log.clear()
        reader = store.reader(kept=opened(folder))
        found = reader.read("a", meta, whole(VOLUME.shape))
        np.testing.assert_array_equal(found, VOLUME)
        assert len(store.log) == n_asked


def test_what_comes_damaged_is_not_kept(folder):
    """Though its chunk was checked before, as with another cache that is full."""
    objects, text = encode_array(VOLUME, LAYOUT)
    store, meta = Memory(dict(objects)), parse_metadata(text)
    reader = store.reader(kept=opened(folder))
    reader.read("a", meta, whole(VOLUME.shape))
    for file in files_of(folder):
        file.unlink()
    [shard] = objects
    data = bytearray(objects[shard])
    data[20] ^= 1
    store.objects[shard] = bytes(data)
    with pytest.raises(dicomdask.errors.ShardError, match=r"chunk 0 .* is damaged"):
        reader.read("a", meta, whole(VOLUME.shape))
    store.objects[shard] = objects[shard]
    np.testing.assert_array_equal(reader.read("a", meta, whole(VOLUME.shape)), VOLUME)


def test_a_dataset_keeps_what_it_reads(store, folder, monkeypatch):
    options = {"cache_folder": str(folder), "cache_folder_bytes": BUDGET}
    first = dicomdask.open_dataset(str(store), **options)
    name = first.volumes["volume_id"][0]
    wanted = first.read(name)
    second = pickle.loads(pickle.dumps(dicomdask.open_dataset(str(store), **options)))
    second.volumes  # noqa: B018 - reads the table

    def refuse(*_):
        raise AssertionError

    for call in ("get_many", "get_range", "get_tail", "read_into"):
        monkeypatch.setattr(storage.Ranges, call, refuse)
    np.testing.assert_array_equal(second.read(name), wanted)
    found = second.read_many([(name, whole(wanted.shape))] * 2)
    np.testing.assert_array_equal(found, np.stack([wanted] * 2))
