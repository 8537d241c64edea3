"""`dicomdask bench`: what it counts, that it ends in time, what it refuses."""

import json
import re
import shlex
import shutil
import time
from pathlib import Path

import fsspec
import pytest
from click.testing import CliRunner

import dicomdask
from dicomdask import bench as room
from dicomdask import cli, storage
from dicomdask.bench import bench
from dicomdask.errors import ShardError, StoreError

LOCAL = ("sequential", "random", "slices", "patches", "volumes")
TOGETHER = ("random, 64 together", "slices, 64 together", "patches, 64 together")
ROOT = Path(__file__).parent.parent


@pytest.fixture
def in_memory(store):
    """Return the dataset of `store` where each range is a request."""
    memory = fsspec.filesystem("memory")
    for path in sorted(store.rglob("*")):
        if path.is_file():
            memory.pipe(f"/bench/{path.relative_to(store)}", path.read_bytes())
    yield "memory://bench"
    memory.rm("/bench", recursive=True)


def by_name(found):
    return {pace.name: pace for pace in found.paces}


def test_what_is_counted_is_what_was_read(real_store, monkeypatch):
    seen = []

    def watch(name, size_of):
        original = getattr(storage.Ranges, name)

        def call(*args):
            found = original(*args)
            seen.append(size_of(found))
            return found

        monkeypatch.setattr(storage.Ranges, name, call)

    watch("get_range", len)
    watch("get_tail", len)
    watch("read_into", int)
    found = bench(str(real_store), seconds=1)
    assert tuple(by_name(found)) == LOCAL
    assert sum(pace.requests for pace in found.paces) == len(seen)
    assert sum(pace.read_bytes for pace in found.paces) == sum(seen)


def test_each_way_is_gone_and_held_against_its_limit(real_store):
    found = bench(str(real_store), seconds=1, patch_size=(8, 16, 16))
    paces = by_name(found)
    ds = dicomdask.open_dataset(str(real_store))
    assert found.stored_bytes == ds.volumes["stored_bytes"].sum()
    assert not found.is_distant
    for pace in paces.values():
        assert pace.n >= room.ROUNDS
        assert pace.seconds > 0
        assert pace.requests > 0
        assert 0 <= pace.decode_share <= 1
        assert pace.storage_seconds <= pace.seconds * 1.01
    for name in ("sequential", "random"):
        assert paces[name].value_bytes == 0
        assert found.share_of_limit(paces[name]) is None
    for name in ("slices", "patches", "volumes"):
        limit = paces[paces[name].limit]
        wanted = paces[name].byte_rate / limit.byte_rate
        assert found.share_of_limit(paces[name]) == pytest.approx(wanted)
    assert paces["patches"].value_bytes / paces["patches"].n <= 8 * 16 * 16 * 4
    assert "comes from the machine's memory" in found.remarks[0]


def test_a_distant_store_is_also_read_together(in_memory):
    found = bench(in_memory, seconds=0.5)
    paces = by_name(found)
    assert found.is_distant
    assert set(paces) == {*LOCAL, *TOGETHER}
    for name in TOGETHER:
        assert paces[name].n % room.TOGETHER == 0
    assert paces["patches, 64 together"].limit == "random, 64 together"
    assert "from afar" in found.remarks[0]


def test_an_object_store(store, s3):
    for path in sorted(store.rglob("*")):
        if path.is_file():
            url = storage.join(s3, "study.zarr", str(path.relative_to(store)))
            storage.write(url, path.read_bytes())
    found = bench(f"{s3}/study.zarr", seconds=1)
    paces = by_name(found)
    assert set(paces) == {*LOCAL, *TOGETHER}
    for name in ("random", "slices", "patches"):
        # the index of the one shard is asked for once
        assert paces[name].requests - paces[name].n in (0, 1)
    for name in ("slices, 64 together", "patches, 64 together"):
        assert paces[name].requests <= paces[name].n


def test_it_ends_in_time(real_store):
    bench(str(real_store), seconds=0)  # what is loaded once
    for seconds in (0.5, 2):
        started = time.monotonic()
        found = bench(str(real_store), seconds=seconds)
        taken = sum(pace.seconds for pace in found.paces)
        assert seconds * 0.9 <= taken <= time.monotonic() - started
        assert taken < seconds + 10


def test_seeds_decide_what_is_read(store):
    def boxes(seed):
        ds = dicomdask.open_dataset(str(store))
        volume = room.Opened.of(ds.volumes, 0)
        rng = room.random.Random(seed)
        return [room._box(volume, rng, {"z": 1, "y": 4, "x": 4}) for _ in range(9)]

    assert boxes(1) == boxes(1) != boxes(2)
    for box in boxes(3):
        for one, extent in zip(box, (5, 16, 12), strict=True):
            assert 0 <= one.start < one.stop <= extent


def test_volumes_that_are_left_out_are_told(real_store, monkeypatch):
    monkeypatch.setattr(room, "MOST_VOLUMES", 3)
    found = bench(str(real_store), seconds=0)
    n = len(dicomdask.open_dataset(str(real_store)).volumes)
    assert f"{n - 3} volumes were left out" in found.remarks[1]


def test_what_is_refused(store, tmp_path):
    with pytest.raises(StoreError, match="there is no dataset"):
        bench(str(tmp_path / "nothing"))
    [shard] = store.glob("volumes/*/*/*/0/c/*/*/*")
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 1
    shard.write_bytes(data)
    with pytest.raises(ShardError, match="damaged"):
        bench(str(store), seconds=0)
    shard.unlink()
    with pytest.raises(StoreError, match=r"is missing in .*verify"):
        bench(str(store), seconds=0)


def run(*arguments):
    return CliRunner().invoke(cli.main, ["bench", *map(str, arguments)])


def test_the_command_prints_a_table_or_json(real_store):
    result = run(real_store, "--seconds", 0.2, "--patch-size", "8,16,16")
    assert result.exit_code == 0, result.output
    for name in LOCAL:
        assert f"\n{name} " in result.stdout
    assert "of the limit" in result.stdout
    assert "\nnote: " in result.stdout
    document = json.loads(run(real_store, "--seconds", 0.2, "--json").stdout)
    assert [one["name"] for one in document["paces"]] == list(LOCAL)
    assert all(one["rate"] > 0 for one in document["paces"])
    assert document["remarks"]


@pytest.mark.parametrize(
    "options", [["--patch-size", "0"], ["--patch-size", "big"], ["--seconds", "-1"]]
)
def test_wrong_usage(options, store):
    assert run(store, *options).exit_code == 2


def test_the_commands_of_the_page_run(store, tmp_path, monkeypatch):
    shutil.copytree(store, tmp_path / "study.zarr")
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "examples/read.md").read_text()
    commands = re.findall(r"^ {4}\$ dicomdask (.*)$", page, re.MULTILINE)
    assert any(command.startswith("bench ") for command in commands)
    for command in commands:
        result = CliRunner().invoke(cli.main, shlex.split(command))
        assert result.exit_code == 0, result.output
