"""The main job on an object store: what it asks for, what it costs and survives."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import fsspec
import numpy as np
import pytest

import dicomdask
from dicomdask import storage
from dicomdask.errors import OptionError, PolicyError, StorageError
from tests.builders import make_series, to_bytes, write_series
from tests.conftest import SECRET
from tests.servers import proxy
from tests.servers.fixtures import use

LARGE = 100_000
"""Bytes of a private element in front of the pixels of every fourth slice."""


@pytest.fixture(autouse=True)
def forget_connections():
    storage.requests.filesystem_of.cache_clear()
    yield
    storage.requests.filesystem_of.cache_clear()


@pytest.fixture
def between(ceph, monkeypatch):
    """A proxy in front of the server; the environment leads to it."""
    with proxy.start(ceph.endpoint) as found:
        use(ceph.at(found.url), monkeypatch)
        yield found


@pytest.fixture
def bucket(ceph, between):
    """The URL of a bucket with a source of 8 slices; requests are counted from now."""
    url = f"s3://{ceph.make_bucket()}"
    for number, ds in enumerate(make_series(8), 1):
        if number % 4 == 0:
            block = ds.private_block(0x0029, "NOISE", create=True)
            block.add_new(0x10, "OB", bytes(LARGE))
        storage.write(f"{url}/in/{number:04d}.dcm", to_bytes(ds))
    between.forget()
    return url


@pytest.fixture
def here(tmp_path, convert):
    """The same dataset on a local disk."""
    write_series(tmp_path / "in", make_series(8))
    convert(tmp_path / "in", tmp_path / "here.zarr")
    return dicomdask.open_dataset(str(tmp_path / "here.zarr"))


def run(bucket, key_file, **options):
    return dicomdask.convert(
        f"{bucket}/in",
        f"{bucket}/out.zarr",
        work=f"{bucket}/work",
        key_file=str(key_file),
        **{"scheduler": "synchronous", **options},
    )


def check_same(bucket, here):
    there = dicomdask.open_dataset(f"{bucket}/out.zarr")
    (mine,), (yours,) = here.volumes.volume_id, there.volumes.volume_id
    assert mine == yours
    np.testing.assert_array_equal(here.read(mine), there.read(yours))
    assert there.commit.counts == here.commit.counts


def of_sources(between):
    return [one for one in between.requests if one.key.startswith("in/")]


def test_a_dataset_made_there_is_the_one_made_here(bucket, key_file, here):
    made = run(bucket, key_file)
    assert made.commit.counts["stored"] == 8
    check_same(bucket, here)


def test_a_header_costs_a_request_and_a_large_one_two(bucket, key_file, between):
    run(bucket, key_file)
    headers = [one for one in of_sources(between) if one.range]
    each = Counter(one.key for one in headers)
    assert {each[f"in/{n:04d}.dcm"] for n in (4, 8)} == {2}
    assert {each[f"in/{n:04d}.dcm"] for n in (1, 2, 3, 5, 6, 7)} == {1}
    asked = Counter()
    for one in headers:
        start, stop = one.range.removeprefix("bytes=").split("-")
        asked[one.key] += int(stop) + 1 - int(start)
    assert max(asked.values()) <= 1.5 * (LARGE + 2000)


def test_an_input_costs_an_index_and_a_read_and_no_question(bucket, key_file, between):
    run(bucket, key_file)
    found = Counter(one.method for one in of_sources(between))
    assert found == {"GET": 8 + 2 + 8}


def test_each_object_is_one_put(bucket, key_file, between):
    run(bucket, key_file)
    puts = Counter(one.key for one in between.requests if one.method == "PUT")
    shards = [key for key in puts if "/c/" in key]
    assert shards
    assert all(puts[key] == 1 for key in puts if key.startswith("out.zarr/volumes/"))
    assert not [one for one in between.requests if "upload" in one.query]


def test_reading_a_chunk_costs_an_index_and_a_range(bucket, key_file, between):
    run(bucket, key_file)
    ds = dicomdask.open_dataset(f"{bucket}/out.zarr")
    (volume,) = ds.volumes.volume_id
    between.forget()
    ds.read(volume, z=0)
    assert [one.method for one in between.requests] == ["GET", "GET"]
    between.forget()
    ds.read(volume, z=3)
    assert [one.method for one in between.requests] == ["GET"]


def test_opening_reads_a_commit_and_lists_no_table(bucket, key_file, between):
    run(bucket, key_file)
    between.forget()
    dicomdask.open_dataset(f"{bucket}/out.zarr")
    assert len(between.requests) <= 3
    assert not [one for one in between.requests if "tables" in one.query]


@pytest.mark.parametrize("seed", range(3))
def test_a_store_that_fails_now_and_then_harms_nothing(
    seed, bucket, key_file, between, here, monkeypatch
):
    monkeypatch.setattr(storage.requests, "WAITS", (0.01, 0.02, 0.04))
    between.faults = proxy.seeded(seed, rate=0.2)
    made = run(bucket, key_file)
    assert made.commit.n == 0
    assert sum(between.met.values()) > 10
    check_same(bucket, here)


@pytest.mark.parametrize("fault", [proxy.Fault.RESET, proxy.Fault.INTERNAL_ERROR])
def test_a_store_that_stays_down_is_named(fault, bucket, between, monkeypatch):
    monkeypatch.setattr(storage.requests, "WAITS", (0.01,))
    between.faults = proxy.always(fault)
    with pytest.raises(StorageError, match="does not answer as it should"):
        storage.read(f"{bucket}/in/0001.dcm")


def test_from_here_to_there_and_back(bucket, key_file, here, tmp_path, convert):
    source = tmp_path / "in"
    dicomdask.convert(
        str(source),
        f"{bucket}/out.zarr",
        work=str(tmp_path / "work"),
        key_file=str(key_file),
        scheduler="synchronous",
    )
    check_same(bucket, here)
    made = dicomdask.convert(
        f"{bucket}/in",
        str(tmp_path / "back.zarr"),
        key_file=str(key_file),
        scheduler="synchronous",
    )
    assert made.commit.counts["stored"] == 8


def test_a_second_run_does_nothing_and_a_new_slice_replaces(bucket, key_file, between):
    run(bucket, key_file)
    between.forget()
    again = run(bucket, key_file)
    assert not again.is_new
    assert not of_sources(between)
    *_, ninth = make_series(9)
    storage.write(f"{bucket}/in/0009.dcm", to_bytes(ninth))
    assert run(bucket, key_file).commit.counts["stored"] == 9
    ds = dicomdask.open_dataset(f"{bucket}/out.zarr")
    assert ds.volumes["shape"].map(tuple).tolist() == [(9, 16, 12)]


def test_what_lies_in_the_source_and_is_ours_is_not_listed(bucket, key_file):
    made = dicomdask.convert(
        f"{bucket}/in",
        f"{bucket}/in/out.zarr",
        work=f"{bucket}/in/work",
        key_file=str(key_file),
        scheduler="synchronous",
    )
    again = dicomdask.convert(
        f"{bucket}/in",
        f"{bucket}/in/out.zarr",
        work=f"{bucket}/in/work",
        key_file=str(key_file),
        scheduler="synchronous",
    )
    assert made.commit == again.commit
    assert made.commit.counts["inputs"] == 8


def test_globs(bucket, key_file):
    found = storage.list_files(f"{bucket}/in/000[1-3].dcm")
    assert [one.url.rsplit("/", 1)[-1] for one in found] == [
        "0001.dcm",
        "0002.dcm",
        "0003.dcm",
    ]


# --- credentials --------------------------------------------------------------


def test_the_command_with_a_file_of_options_and_workers_of_its_own(
    ceph, bucket, key_file, here, tmp_path
):
    options = {
        bucket: {
            "key": ceph.key,
            "secret": ceph.secret,
            "client_kwargs": {"endpoint_url": ceph.endpoint},
        }
    }
    (tmp_path / "options.json").write_text(json.dumps(options))
    bare = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    command = [
        *(sys.executable, "-m", "dicomdask", "convert"),
        *(f"{bucket}/in", f"{bucket}/out.zarr", "--work", f"{bucket}/work"),
        *("--storage-options", "options.json", "--key-file", str(key_file), "--json"),
    ]
    root = str(Path(__file__).parent.parent)
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**bare, "PYTHONPATH": root, "AWS_EC2_METADATA_DISABLED": "true"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"]["stored"] == 8
    check_same(bucket, here)
    filesystem, path = fsspec.core.url_to_fs(bucket)
    for name in filesystem.find(path):
        assert ceph.secret.encode() not in filesystem.cat_file(name), name


def test_a_wrong_secret_is_said_and_not_repeated(bucket, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hushhush")
    storage.requests.filesystem_of.cache_clear()
    with pytest.raises(StorageError, match="denies access") as caught:
        storage.read(f"{bucket}/in/0001.dcm")
    assert "hushhush" not in str(caught.value)


def test_options_of_one_dataset_leave_the_others_alone(
    ceph, bucket, key_file, here, monkeypatch
):
    run(bucket, key_file)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv(storage.OPTIONS_VARIABLE, "")
    storage.requests.filesystem_of.cache_clear()
    options = {"key": ceph.key, "secret": ceph.secret}
    there = dicomdask.open_dataset(f"{bucket}/out.zarr", storage_options=options)
    (volume,) = there.volumes.volume_id
    np.testing.assert_array_equal(there.read(volume), here.read(volume))
    with pytest.raises(StorageError, match="denies access"):
        storage.read(f"{bucket}/in/0001.dcm")


def test_a_distant_store_needs_a_place_for_identified_data(bucket, key_file):
    with pytest.raises(OptionError, match="say with --work where it may lie"):
        dicomdask.convert(f"{bucket}/in", f"{bucket}/out.zarr")


def test_no_key_is_made_in_a_store(bucket):
    with pytest.raises(PolicyError, match="never written to an object store"):
        dicomdask.convert(f"{bucket}/in", f"{bucket}/out.zarr", work=f"{bucket}/work")
    assert SECRET not in str(storage.list_names(bucket))
    assert storage.list_names(bucket) == ["in"]


# --- the page -----------------------------------------------------------------


def test_the_commands_of_the_page_run(ceph, bucket, tmp_path):
    text = (Path(__file__).parent.parent / "examples/object_store.md").read_text()
    commands = re.findall(r"^    \$ (.*)$", text, re.MULTILINE)
    assert len(commands) == 4
    script = "\n".join(["set -e", *commands])
    source = bucket.removeprefix("s3://")
    script = script.replace("s3://hospital/export", f"{bucket}/in")
    for name in ("lab", "private"):
        script = script.replace(f"s3://{name}/", f"s3://{ceph.make_bucket(name)}/")
    assert source in script
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(Path(__file__).parent.parent),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert "all is as it should be" in done.stdout
    assert "Traceback" not in done.stderr
