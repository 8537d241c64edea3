"""The whole story: whatever runs it, and however often it is cut off, same bytes."""

import json
import multiprocessing
import secrets
import shutil
from contextlib import contextmanager
from pathlib import Path

import distributed
import numpy as np
import pytest
from click.testing import CliRunner
from distributed.protocol import pickle

import dicomdask
from dicomdask import (
    errors,
    layout,
    pipeline,
    pixels,
    plan,
    pseudonym,
    shards,
    storage,
)
from dicomdask.cli import main
from dicomdask.tasks import encode
from dicomdask.work import Work
from tests.builders import make_instance, make_series, to_bytes, write_series
from tests.conftest import SECRET

US = "1.2.840.10008.5.1.4.1.1.6.1"
SR = "1.2.840.10008.5.1.4.1.1.88.11"
N_SERIES = 4
SCHEDULERS = ["threads", "processes", "cluster of 1", "cluster of 2"]


def write_pile(folder):
    """Write volumes of several patients, and what is not stored."""
    for number in range(1, N_SERIES + 1):
        series = f"1.2.826.0.1.3680043.8.498.7.{number}.1.1"
        made = (
            set_uids(ds, number, series)
            for ds in make_series(3 + number, gap_mm=1.0 + number)
        )
        write_series(folder / f"patient {number}", made)
    other = folder / "other"
    other.mkdir()
    us = make_instance(90, Modality="US", SOPClassUID=US)
    report = make_instance(91, Modality="SR", SOPClassUID=SR)
    del report.PixelData, report.Rows, report.Columns
    (other / "us.dcm").write_bytes(to_bytes(us))
    (other / "report.dcm").write_bytes(to_bytes(report))
    (other / "notes.txt").write_text("not DICOM")
    (other / "broken.dcm").write_bytes(to_bytes(make_instance(92))[:400])
    shutil.copy(folder / "patient 1" / "0001.dcm", other / "copy.dcm")


def set_uids(ds, patient, series):
    ds.PatientID, ds.SeriesInstanceUID = f"PAT{patient:04d}", series
    ds.StudyInstanceUID = series.rsplit(".", 1)[0]
    ds.SOPInstanceUID = f"{series}.{ds.InstanceNumber}"
    ds.FrameOfReferenceUID = f"{series}.0"
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    return ds


@pytest.fixture(scope="module")
def pile(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pile") / "in"
    write_pile(folder)
    return folder


@pytest.fixture(scope="module")
def reference(pile, tmp_path_factory, convert):
    """Return the dataset that the synchronous scheduler makes."""
    path = tmp_path_factory.mktemp("reference") / "store.zarr"
    convert(pile, path)
    return path


@contextmanager
def scheduler_of(name):
    """Give the `scheduler` argument that a name stands for; run what it needs."""
    if not name.startswith("cluster"):
        yield name
        return
    with (
        distributed.LocalCluster(
            n_workers=int(name[-1]), threads_per_worker=1, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster, set_as_default=False),
    ):
        yield cluster.scheduler_address


def content(store, *, without=("commits",)):
    """Return the bytes of every file below a store."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file() and path.relative_to(store).parts[0] not in without
    }


def commit_of(store):
    """Return the only commit as it is written, but for the time it was made."""
    [path] = (store / "commits").iterdir()
    return {**json.loads(path.read_bytes()), "created": None}


def assert_same(store, reference):
    assert content(store) == content(reference)
    assert commit_of(store) == commit_of(reference)


# --- schedulers ---------------------------------------------------------------


def test_everything_is_accounted_for(pile, reference):
    ds = dicomdask.open_dataset(str(reference))
    n_stored = sum(3 + number for number in range(1, N_SERIES + 1))
    assert len(ds.inputs) == sum(path.is_file() for path in pile.rglob("*"))
    assert ds.inputs["source_key"].is_unique
    found = ds.inputs.groupby("outcome").size().to_dict()
    assert found == {"stored": n_stored, "rejected": 3, "skipped": 1, "duplicate": 1}
    assert sorted(ds.volumes["n_frames"]) == [3 + n for n in range(1, N_SERIES + 1)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:multiprocessing")
@pytest.mark.parametrize("name", SCHEDULERS)
def test_line_37_every_scheduler_writes_the_same(
    name, pile, reference, tmp_path, convert
):
    store = tmp_path / "store.zarr"
    with scheduler_of(name) as scheduler:
        summary = convert(pile, store, scheduler=scheduler, insecure_scheduler=True)
    assert summary.is_new
    assert summary.n_encoded == N_SERIES
    assert_same(store, reference)
    wanted, found = (dicomdask.open_dataset(str(one)) for one in (reference, store))
    for volume_id in wanted.volumes["volume_id"]:
        assert np.array_equal(found.read(volume_id), wanted.read(volume_id))
    assert multiprocessing.active_children() == []


def test_the_current_client_is_used_and_left_open(pile, reference, tmp_path, convert):
    store = tmp_path / "store.zarr"
    with distributed.Client(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
    ) as client:
        convert(pile, store, scheduler=None)
        names = set(client.run_on_scheduler(task_prefixes))
        assert client.status == "running"
    assert names == {"index", "resolve", "plan", "encode"}, "as the dashboard shows"
    assert_same(store, reference)


def task_prefixes(dask_scheduler):
    return list(dask_scheduler.task_prefixes)


# --- other sources, same dataset ----------------------------------------------


def test_line_37_shuffled_sources_give_the_same_dataset(
    pile, reference, tmp_path, convert
):
    moved = tmp_path / "moved"
    paths = sorted(path for path in pile.rglob("*") if path.is_file())
    for path in reversed(paths):
        folder = moved / secrets.token_hex(1)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / secrets.token_hex(8))
    store = tmp_path / "store.zarr"
    convert(moved, store)
    without = ("commits", "tables")
    assert content(store, without=without) == content(reference, without=without)
    found, wanted = (dicomdask.open_dataset(str(one)) for one in (store, reference))
    for name in ("volumes", "frames", "instances", "inputs"):
        assert rows_of(found, name) == rows_of(wanted, name), name


def rows_of(ds, name):
    table = getattr(ds, name).drop(columns="source_key", errors="ignore")
    return sorted(table.map(repr).to_records(index=False).tolist())


def test_a_pile_of_only_damaged_dicom_is_accounted_for(tmp_path, convert):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in (1, 2):
        whole = to_bytes(make_instance(number))
        (folder / f"{number}.dcm").write_bytes(whole[:400])
    counts = convert(folder, tmp_path / "store").commit.counts
    assert counts["inputs"] == counts["rejected"] == 2
    assert len(dicomdask.open_dataset(str(tmp_path / "store"))) == 0


# --- what travels -------------------------------------------------------------


@pytest.fixture
def graphs(monkeypatch):
    """Return the pickled graphs of all bags that are built."""
    found = {}

    def watch(name):
        build = getattr(pipeline, name)

        def call(elements, **options):
            bag = build(elements, **options)
            found.setdefault(name, []).append(pickle.dumps(dict(bag.dask)))
            return bag

        monkeypatch.setattr(pipeline, name, call)

    for name in ("index_bag", "resolve_bag", "plan_bag", "encode_bag"):
        watch(name)
    return found


@pytest.mark.parametrize("place", ["file", "environment", "work"])
def test_the_key_stays_where_it_is(place, pile, tmp_path, convert, graphs, monkeypatch):
    secret = SECRET
    options = {}
    if place != "file":
        options["key_file"] = None
    if place == "environment":
        monkeypatch.setenv(pseudonym.ENVIRONMENT_VARIABLE, SECRET)
    store = tmp_path / "store.zarr"
    convert(pile, store, **options)
    if place == "work":
        path = Path(f"{store}.work") / "key"
        secret = path.read_text().strip()
        assert path.stat().st_mode & 0o777 == 0o600
        assert len(secret) >= 32
        path.unlink()
    assert set(graphs) == {"index_bag", "resolve_bag", "plan_bag", "encode_bag"}
    blobs = [blob for some in graphs.values() for blob in some]
    blobs += content(store, without=()).values()
    blobs += content(Path(f"{store}.work"), without=()).values()
    for blob in blobs:
        assert secret.encode() not in blob
        assert bytes.fromhex(secret) not in blob


def test_graphs_hold_names_and_numbers_only(pile, tmp_path, convert, graphs):
    convert(pile, tmp_path / "store.zarr")
    for blob in (blob for some in graphs.values() for blob in some):
        assert b".dcm" not in blob
        assert b"PAT0001" not in blob
        assert b"patient 1" not in blob
        assert len(blob) < 10_000


def test_a_key_is_never_pickled(key):
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(key)


def test_receipts_are_small(reference):
    folder = Path(f"{reference}.work") / "receipts" / "tasks"
    receipts = list(folder.rglob("*.json"))
    assert len(receipts) == N_SERIES
    assert all(path.stat().st_size < 1000 for path in receipts)


# --- step by step -------------------------------------------------------------


def command(*words, code=0):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def planned(pile, tmp_path, key_file):
    """Index and plan with the commands; return the store and the options."""
    store, work = tmp_path / "store.zarr", tmp_path / "work"
    options = ["--work", work, "--key-file", key_file, "--scheduler", "synchronous"]
    command("index", pile, *options)
    command("plan", store, *options)
    return store, options


def test_step_by_step_is_the_same_as_at_once(planned, reference):
    store, options = planned
    command("encode", *options)
    assert not (store / "commits").exists()
    command("commit", *options[:4])
    assert_same(store, reference)
    before = content(store, without=())
    command("encode", *options)
    command("commit", *options[:4])
    assert content(store, without=()) == before


@pytest.mark.parametrize("size", [1, 2, 100])
def test_ranges_of_tasks_are_the_same_as_at_once(size, planned, reference):
    store, options = planned
    for start in range(0, N_SERIES, size):
        text = command("encode", *options, "--task-range", f"{start}:{start + size}")
        done = min(size, N_SERIES - start)
        left = max(0, N_SERIES - start - size)
        assert f"{done} tasks encoded, {left} left" in text
        if left:
            failed = command("commit", *options[:4], code=1)
            assert f"{left} tasks of the plan have no receipt" in failed
    command("commit", *options[:4])
    assert_same(store, reference)


def test_ranges_in_any_order_and_again(planned, reference):
    store, options = planned
    for piece in ("3:5", "0:2", "3:5", "1:3", "7:9"):
        command("encode", *options, "--task-range", piece)
    command("commit", *options[:4])
    assert_same(store, reference)


def test_a_range_with_an_unfit_frame(tmp_path, key_file, convert):
    folder, store, work = (tmp_path / name for name in ("in", "store.zarr", "work"))
    paths = write_series(folder, make_series(6))
    paths[-1].write_bytes(paths[-1].read_bytes()[:-200])
    options = ["--work", work, "--key-file", key_file, "--scheduler", "synchronous"]
    command("index", folder, *options)
    command("plan", store, *options)
    told = command("encode", *options, "--task-range", "0:1", code=1)
    assert "1 frames turned out unfit; run `dicomdask plan`" in told
    command("plan", store, *options)
    command("encode", *options, "--task-range", "0:1")
    command("commit", *options[:4])
    convert(folder, tmp_path / "other.zarr")
    assert_same(store, tmp_path / "other.zarr")
    ds = dicomdask.open_dataset(str(store))
    assert ds.volumes["n_frames"].tolist() == [5]
    assert sorted(ds.inputs["code"]) == ["stored"] * 5 + ["truncated"]


# --- cut off ------------------------------------------------------------------


class Killed(BaseException):
    """What no barrier catches."""


@pytest.fixture
def decoded(monkeypatch):
    """Return the SOP Instance UIDs that are decoded, in order."""
    found = []
    decode = pixels.FrameDecoder.decode

    def call(decoder, number):
        found.append(str(decoder._dataset.SOPInstanceUID))
        return decode(decoder, number)

    monkeypatch.setattr(pixels.FrameDecoder, "decode", call)
    return found


def fail_once(monkeypatch, room, name, at, error):
    """Let the call number `at` of a function fail, before it does anything."""
    original = getattr(room, name)
    calls = []

    def call(*args, **options):
        calls.append(1)
        if len(calls) == at + 1:
            raise error
        return original(*args, **options)

    monkeypatch.setattr(room, name, call)


NO_SPACE = OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("at", "error"), [(0, Killed()), (2, Killed()), (3, Killed()), (1, NO_SPACE)]
)
def test_a_kill_before_a_receipt(
    at, error, pile, reference, tmp_path, convert, decoded, monkeypatch
):
    store = tmp_path / "store.zarr"
    with monkeypatch.context() as patch:
        fail_once(patch, Work, "write_receipt", at, error)
        with pytest.raises(type(error)):
            convert(pile, store)
    work = Work(f"{store}.work")
    done = {
        url
        for name in work.plan_names()
        for volume, task in encode.plan_tasks(work.read_plan(name))
        for url in urls_of(volume, task)
        if plan.task_digest(volume, task, KEY) in work.done_tasks()
    }
    assert len(work.done_tasks()) == at
    with pytest.raises(errors.StoreError, match="no commit yet"):
        dicomdask.open_dataset(str(store))
    decoded.clear()
    summary = convert(pile, store)
    n_stored = summary.commit.counts["stored"]
    assert summary.n_encoded == N_SERIES - at
    assert len(decoded) == len(set(decoded)) == n_stored - len(done)
    assert_same(store, reference)


KEY = pseudonym.Key(SECRET.encode())


def urls_of(volume, task):
    return [volume.frames[number].url for number in task.frames]


@pytest.mark.parametrize("step", ["index_bag", "resolve_bag", "plan_bag", "encode_bag"])
def test_a_kill_before_any_step(step, pile, reference, tmp_path, convert, monkeypatch):
    store = tmp_path / "store.zarr"
    with monkeypatch.context() as patch:
        fail_once(patch, pipeline, step, 0, Killed())
        with pytest.raises(Killed):
            convert(pile, store)
    convert(pile, store)
    assert_same(store, reference)


@pytest.mark.parametrize("at", [0, 1, 7, 20, 40])
def test_a_kill_before_any_write(at, pile, reference, tmp_path, convert, monkeypatch):
    store = tmp_path / "store.zarr"
    with monkeypatch.context() as patch:
        fail_once(patch, storage, "write", at, Killed())
        with pytest.raises(Killed):
            convert(pile, store)
    convert(pile, store)
    assert_same(store, reference)


def test_a_finished_run_does_nothing_again(pile, reference, tmp_path, convert, decoded):
    store = tmp_path / "store.zarr"
    convert(pile, store)
    before = content(store, without=())
    decoded.clear()
    summary = convert(pile, store)
    assert not summary.is_new
    assert (summary.n_encoded, summary.n_indexed, decoded) == (0, 0, [])
    assert content(store, without=()) == before


def test_a_batch_that_dask_runs_again_decodes_nothing(
    pile, reference, tmp_path, convert, decoded
):
    store = tmp_path / "store.zarr"
    convert(pile, store)
    work = Work(f"{store}.work")
    decoded.clear()
    for name in work.plan_names():
        n = len(encode.plan_tasks(work.read_plan(name)))
        counts = encode.encode_batch((name, 0, n), work_url=work.url)
        assert counts["tasks"] == n
    assert decoded == []
    assert_same(store, reference)


def test_several_shards_of_one_volume(tmp_path, convert, monkeypatch):
    monkeypatch.setattr(layout, "SHARD_BYTES", 7000)
    folder, store = tmp_path / "in", tmp_path / "store.zarr"
    write_series(folder, make_series(40))
    with monkeypatch.context() as patch:
        fail_once(patch, Work, "write_receipt", 1, Killed())
        with pytest.raises(Killed):
            convert(folder, store)
    summary = convert(folder, store)
    assert summary.n_encoded == 2
    ds = dicomdask.open_dataset(str(store))
    [row] = ds.volumes.itertuples()
    assert len(list(store.rglob("c/*/*/*"))) == 3
    assert row.n_frames == 40
    assert row.stored_bytes == sum(p.stat().st_size for p in store.rglob("c/*/*/*"))
    values = ds.read(row.volume_id)
    assert values[:, 0, 0].tolist() == list(range(1, 41))
    assert shards.parse_metadata(row.zarr_json).shape == (40, 16, 12)
