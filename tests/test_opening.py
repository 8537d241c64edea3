"""Opening a dataset of very many volumes: requests, memory, time; and what is amiss."""

import json
import os
import shutil
import time
from unittest.mock import patch

import fsspec
import pyarrow as pa
import pytest

import dicomdask
from dicomdask import commits, storage, tables
from dicomdask.commits import runs
from dicomdask.errors import ReadError, StorageError, StoreError
from tests.builders import make_series, write_series
from tests.many import add_volumes, measure_opening
from tests.test_lazy import plainly

SMALL = 800
PARTS = {"volumes": 128, "frames": 256, "instances": 128, "inputs": 128}
HEAVY = ("header", "statistics")


@pytest.fixture(scope="module")
def many(tmp_path_factory, convert):
    """Return a dataset of very many volumes in many small parts; one has an array."""
    folder = tmp_path_factory.mktemp("many")
    write_series(folder / "in", make_series(5))
    store = folder / "store.zarr"
    convert(folder / "in", store)
    with patch.dict(runs.PART_ROWS, PARTS):
        add_volumes(str(store), SMALL)
    return store


@pytest.fixture(scope="module")
def many_in_memory(many):
    """Return the same dataset where each request counts."""
    url = "memory://many/store.zarr"
    memory = fsspec.filesystem("memory")
    for path in sorted(many.rglob("*")):
        if path.is_file():
            memory.pipe(f"/many/store.zarr/{path.relative_to(many)}", path.read_bytes())
    yield url
    memory.rm("/many", recursive=True)


@pytest.fixture
def requests(monkeypatch):
    """Return what storage is asked for."""
    found = []

    def watch(owner, name):
        original = getattr(owner, name)

        def call(*args):
            found.append((name, *args[-1:]))
            return original(*args)

        monkeypatch.setattr(owner, name, call)

    get_many = storage.Ranges.get_many

    def count(self, wanted):
        found.extend(("range", one) for one in wanted)
        return get_many(self, wanted)

    monkeypatch.setattr(storage.Ranges, "get_many", count)
    watch(storage.Ranges, "read_into")
    for name in ("read", "exists", "list_names", "open_blocks"):
        watch(storage, name)
    return found


def is_waiting(column):
    return all(callable(piece) for piece in column.array._column._pieces)


def test_no_request_a_volume(many_in_memory, requests):
    ds = dicomdask.open_dataset(many_in_memory)
    n_parts = len(ds.commit.tables["volumes"])
    assert n_parts >= 6
    assert len(requests) == 3
    volumes = ds.volumes
    assert len(volumes) == SMALL + 1
    assert len(requests) == 3 + n_parts
    assert [one[0] for one in requests[3:]] == ["read"] * n_parts
    [name] = volumes[volumes["n_frames"] == 5]["volume_id"]
    assert ds.read(name, z=0).shape == (16, 12)
    assert len(requests) == 3 + n_parts + 2
    assert all(is_waiting(volumes[column]) for column in HEAVY)


def test_one_row_reads_one_part(many, requests):
    ds = dicomdask.open_dataset(str(many))
    volume_id = ds.volumes["volume_id"][700]
    requests.clear()
    row = ds.row(volume_id)
    assert len(json.loads(row["header"])) > 40
    assert len(row["statistics"]["histogram"]) == 64
    assert len(requests) == 1
    ds.row(volume_id)
    assert len(requests) == 1


def test_the_frame_is_that_of_the_whole_table(many):
    ds = dicomdask.open_dataset(str(many))
    for name in ("volumes", "frames", "instances", "inputs", "redactions"):
        wanted = commits.read_table(ds.store, ds.commit, name).to_pandas()
        found = getattr(ds, name)
        assert list(found.columns) == list(wanted.columns)
        for column in found.columns:
            one, other = plainly(list(found[column])), plainly(list(wanted[column]))
            assert one == other, column


def test_parts_of_an_earlier_version_lack_heavy_columns(many, monkeypatch):
    fields = [*tables.SCHEMAS["volumes"], pa.field("later", pa.string())]
    heavy = (*tables.HEAVY["volumes"], "later")
    monkeypatch.setitem(tables.SCHEMAS, "volumes", pa.schema(fields))
    monkeypatch.setitem(tables.HEAVY, "volumes", heavy)
    ds = dicomdask.open_dataset(str(many))
    assert ds.row(ds.volumes["volume_id"][5])["later"] is None
    assert ds.volumes["later"].isna().all()


def test_frames_of_one_volume_are_found_without_the_others(many, requests):
    ds = dicomdask.open_dataset(str(many))
    n_parts = len(ds.commit.tables["frames"])
    assert n_parts >= 6
    for volume_id in ds.volumes["volume_id"][[3, 700, SMALL]]:
        requests.clear()
        found = ds.frames_of(volume_id)
        assert len(requests) <= 3  # one a run, where keys meet two
        wanted = ds.frames[ds.frames["volume_id"] == volume_id]
        assert len(found) == len(wanted) > 0
        assert found["slope"].tolist() == wanted["slope"].tolist()
        assert found["z"].tolist() == wanted["z"].tolist()


def test_a_volume_takes_little_memory(many):
    ds = dicomdask.open_dataset(str(many))
    light = ds.volumes.memory_usage(index=False).sum() / SMALL
    header = ds.volumes["header"].str.len().mean()
    assert header > 3000
    assert light < 2000


def test_a_part_that_is_gone_by_the_time_it_is_looked_at(many, tmp_path):
    store = tmp_path / "store.zarr"
    shutil.copytree(many, store)
    ds = dicomdask.open_dataset(str(store))
    assert len(ds.volumes) == SMALL + 1
    shutil.rmtree(store / "tables" / "volumes")
    assert ds.volumes["Modality"].isin(["CT", "MR", "PT"]).all()
    with pytest.raises(ReadError, match="is named by the commit but missing"):
        list(ds.volumes["header"])


# --- what is amiss --------------------------------------------------------------


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_what_is_no_dataset_is_named(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("buy milk")
    (tmp_path / "plain.zarr").mkdir()
    plain = {"zarr_format": 3, "node_type": "group", "attributes": {}}
    (tmp_path / "plain.zarr" / "zarr.json").write_text(json.dumps(plain))
    (tmp_path / "text.zarr").mkdir()
    (tmp_path / "text.zarr" / "zarr.json").write_text("no json")
    for name in ("folder", "file", "plain.zarr", "text.zarr"):
        with pytest.raises(StoreError, match=f"{name} exists and is no dicomdask data"):
            dicomdask.open_dataset(str(tmp_path / name))
    for name in ("nothing", "file/nothing", "memory://nothing/at/all"):
        where = name if "://" in name else str(tmp_path / name)
        with pytest.raises(
            StoreError, match=r"there is no dataset at .*check the path"
        ):
            dicomdask.open_dataset(where)


def test_a_dataset_without_a_commit_says_what_to_run(store):
    (store / "commits" / "0.json").unlink()
    with pytest.raises(StoreError, match=r"has no commit yet; run .*convert"):
        dicomdask.open_dataset(str(store))


def test_a_newer_format_is_not_taken_for_damage(store):
    change(store / "commits" / "0.json", '"format": 1', '"format": 2')
    with pytest.raises(
        StoreError, match=r"commit 0 .* is of format 2.*use the version"
    ):
        dicomdask.open_dataset(str(store))
    change(store / "zarr.json", '"format":1', '"format":2')
    with pytest.raises(StoreError, match=r"store\.zarr is of format 2"):
        dicomdask.open_dataset(str(store))


def test_a_damaged_commit_says_what_to_do(store):
    path = store / "commits" / "0.json"
    path.write_text(path.read_text()[:-30])
    with pytest.raises(StoreError, match=r"commit 0 .* is damaged; restore"):
        dicomdask.open_dataset(str(store))


@pytest.mark.parametrize("name", ["volumes", "frames"])
def test_a_part_that_is_gone_or_damaged_is_named_when_it_is_used(name, store):
    [path] = (store / "tables" / name).iterdir()
    ds = dicomdask.open_dataset(str(store))
    other = dicomdask.open_dataset(str(store))
    volume_id = other.volumes["volume_id"][0]
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ReadError, match=rf"{path.name} in .* is damaged.*restore it"):
        getattr(ds, name)
    path.unlink()
    with pytest.raises(ReadError, match=rf"{path.name} is named by .* missing"):
        getattr(ds, name)
    if name == "frames":
        with pytest.raises(ReadError, match="missing"):
            other.frames_of(volume_id)


def test_a_folder_that_may_not_be_entered_is_named(store, monkeypatch):
    def refuse(url):
        raise PermissionError(13, "Permission denied", url)

    monkeypatch.setattr(storage, "read", refuse)
    with pytest.raises(StoreError, match="may not be read; check its permissions"):
        dicomdask.open_dataset(str(store))


def test_missing_credentials_are_named_at_once(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv(storage.OPTIONS_VARIABLE, "")
    options = {"endpoint_url": "http://127.0.0.1:9", "anon": False}
    started = time.monotonic()
    with pytest.raises(StorageError, match=r"s3://lab denies access .* credentials"):
        dicomdask.open_dataset("s3://lab/chest.zarr", storage_options=options)
    assert time.monotonic() - started < 10


def test_a_hundred_thousand_volumes_open_at_once(tmp_path, convert, full):
    n = 100_000 if full else 4096
    write_series(tmp_path / "in", make_series(5))
    convert(tmp_path / "in", tmp_path / "store.zarr")
    add_volumes(str(tmp_path / "store.zarr"), n)
    rows, seconds, megabytes = measure_opening(tmp_path / "store.zarr")
    assert rows == n + 1
    assert seconds <= (2 if full else 10)
    assert megabytes <= (500 if full else 300)
