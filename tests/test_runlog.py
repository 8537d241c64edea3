"""What a run tells: progress as one line, an account of time, a log of its own."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import dicomdask
from dicomdask import pixels, runlog, show, storage
from dicomdask.errors import InputError
from dicomdask.runlog import Progress, RunLog
from tests.builders import make_instance, make_series, to_bytes, write_series

# --- one line -----------------------------------------------------------------

GB = 1_000_000_000
LINES = [
    (
        Progress("encode", 34, 120, "tasks", 6.0, 1.2 * GB, 4.4 * GB, {"truncated": 3}),
        "encode: 34 of 120 tasks, 1.2 GB of 4.4 GB, 200.0 MB/s, 16 s left; 3 truncated",
    ),
    (
        Progress("encode", 120, 120, "tasks", 20.0, 4 * GB, 4 * GB, {"truncated": 0}),
        "encode: 120 tasks, 4.0 GB, 200.0 MB/s, 20.0 s",
    ),
    (
        Progress("index", 5_000, 20_000, "files", 10.0, outcomes={"instances": 4990}),
        "index: 5000 of 20000 files, 500 files/s, 30 s left; 4990 instances",
    ),
    (
        Progress("encode", 0, 9, "tasks", 0.0, 0, GB),
        "encode: 0 of 9 tasks, 0 B of 1.0 GB",
    ),
    (Progress("plan", 1, 1, "parts", 4.0), "plan: 1 part, 0.25 parts/s, 4.0 s"),
    (Progress("list", 0, 0, "files"), "list: 0 files, 0.0 s"),
]


@pytest.mark.parametrize(("progress", "text"), LINES)
def test_one_line(progress, text):
    assert show.progress_text(progress) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (119, "119 s"),
        (150, "2 min"),
        (7000, "117 min"),
        (12_000, "3 h 20 min"),
    ],
)
def test_durations(seconds, text):
    assert show.duration(seconds) == text


# --- where time and bytes go --------------------------------------------------


def test_stages_within_stages_count_once(tmp_path):
    with storage.counted() as traffic:
        log = RunLog(str(tmp_path), traffic)
        with log.stage("outer"):
            storage.write(str(tmp_path / "a"), b"12345")
            with log.stage("inner"):
                time.sleep(0.05)
                storage.write(str(tmp_path / "b"), b"123")
            storage.read(str(tmp_path / "a"))
            with log.stage("outer"):
                storage.read(str(tmp_path / "a"))
    uses = {use.stage: use for use in log.uses()}
    assert list(uses) == ["outer", "inner", "rest"]
    assert (uses["outer"].read_bytes, uses["outer"].written_bytes) == (10, 5)
    assert uses["inner"].written_bytes == 3
    log.close()
    begun = [one["stage"] for one in lines_of(log.url) if one["event"] == "stage"]
    assert begun == ["outer", "inner"]
    assert uses["inner"].seconds >= 0.05 > uses["outer"].seconds


def test_bytes_are_counted_for_whoever_asked(tmp_path):
    url = str(tmp_path / "a")
    with storage.counted() as outer:
        storage.write(url, b"12345")
        with storage.counted() as inner, storage.open_blocks(url) as file:
            file.seek(1)
            file.read(2)
        storage.create(str(tmp_path / "b"), b"1")
    storage.read(url)
    assert (outer.read_bytes, outer.written_bytes) == (0, 6)
    assert (inner.read_bytes, inner.written_bytes) == (2, 0)


def test_what_runs_ahead_is_counted_too():
    urls = [f"memory://ahead/{number}" for number in range(20)]
    for url in urls:
        storage.write(url, b"12345")
    with storage.counted() as traffic:
        found = storage.ahead(storage.read, urls, is_remote=lambda _: True)
        assert [result() for _, result in found] == [b"12345"] * 20
    assert traffic.read_bytes == 100


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_tasks_count_their_bytes_wherever_they_run(
    scheduler, series, tmp_path, convert
):
    summary = convert(series, tmp_path / "store.zarr", scheduler=scheduler)
    uses = {use.stage: use for use in summary.stages}
    n_bytes = sum(path.stat().st_size for path in series.iterdir())
    assert n_bytes < uses["encode"].read_bytes < n_bytes + 100_000
    assert uses["encode"].tasks == uses["index"].tasks == 1
    assert 0 < uses["index"].task_seconds < uses["index"].seconds + 1


# --- progress -----------------------------------------------------------------


def test_progress_counts_files_tasks_bytes_and_outcomes(tmp_path, convert):
    folder, seen = tmp_path / "in", []
    paths = write_series(folder, make_series(6))
    paths[-1].write_bytes(paths[-1].read_bytes()[:-200])
    (folder / "notes.txt").write_text("no DICOM")
    convert(folder, tmp_path / "store.zarr", progress=seen.append)
    last = {one.stage: one for one in seen if one.stage != "encode"}
    assert (last["index"].done, last["index"].total) == (7, 7)
    assert last["index"].outcomes == {"instances": 6, "not-dicom": 1}
    first, again = (one for one in seen if one.stage == "encode" and one.is_over)
    assert first.outcomes == {"truncated": 1}
    assert again.outcomes == {}
    n_bytes = sum(path.stat().st_size for path in paths)
    assert (first.done, first.done_bytes, first.total_bytes) == (1, n_bytes, n_bytes)
    assert all(one.done <= one.total for one in seen)


# --- the log ------------------------------------------------------------------


def logs(work):
    """Return the lines of each run's log, in order of their names."""
    paths = sorted((Path(work) / "log").iterdir())
    return [lines_of(path) for path in paths]


def lines_of(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_a_log_says_what_was_done_and_with_what(tmp_path, convert):
    folder, store = tmp_path / "in", tmp_path / "store.zarr"
    write_series(folder, make_series(3))
    (folder / "notes.txt").write_text("no DICOM")
    convert(folder, store, where="PatientID == 'PAT0001'")
    [log] = logs(f"{store}.work")
    assert log[0]["event"] == "run"
    assert log[0]["versions"]["dicomdask"] == dicomdask.__version__
    ended = [one for one in log if one["event"] == "stage-end"]
    assert [one["stage"] for one in ended] == [
        "list",
        "index",
        "plan",
        "encode",
        "commit",
    ] or [one["stage"] for one in ended] == [
        "list",
        "index",
        "plan",
        "start",
        "encode",
        "commit",
    ]
    for one in ended:
        assert {"seconds", "read_bytes", "written_bytes", "tasks"} <= set(one)
    found = {one["stage"]: one for one in log if one["event"] == "found"}
    assert found["index"]["outcomes"] == {"instances": 3, "not-dicom": 1}
    assert found["encode"]["tasks"] == 1
    [commit] = (one for one in log if one["event"] == "commit")
    assert commit["codes"] == {"stored": 3, "not-dicom": 1}
    assert log[-1]["event"] == "end"
    assert log[-1]["is_done"]
    text = json.dumps(log)
    assert "PAT0001" not in text
    assert str(folder) not in text


def test_each_run_has_a_log_of_its_own(series, tmp_path, convert):
    store = tmp_path / "store.zarr"
    convert(series, store)
    convert(series, store)
    first, second = logs(f"{store}.work")
    assert {"encode"} <= {one.get("stage") for one in first}
    [commit] = (one for one in second if one["event"] == "commit")
    assert commit["is_new"] is False


def test_an_error_is_there_by_class_and_code_and_not_by_its_message(
    series, tmp_path, convert, monkeypatch
):
    def fail(*_):
        raise KeyError("PAT0001")

    monkeypatch.setattr(pixels.FrameDecoder, "decode", fail)
    store = tmp_path / "store.zarr"
    convert(series, store)
    [log] = logs(f"{store}.work")
    found = [one for one in log if one["event"] == "found" and one["stage"] == "encode"]
    assert found[0]["outcomes"] == {"unexpected KeyError": 5}

    class Stopped(BaseException):
        pass

    def stop(*_):
        raise Stopped("PAT0001")

    monkeypatch.setattr(runlog.StageUse, "add_task", stop)
    with pytest.raises(Stopped):
        convert(series, tmp_path / "other.zarr")
    [log] = logs(tmp_path / "other.zarr.work")
    assert log[-2] == {
        "event": "error",
        "at_s": log[-2]["at_s"],
        "error": "Stopped",
        "code": None,
    }
    assert log[-1]["is_done"] is False
    assert "PAT0001" not in json.dumps(log)


def test_an_error_with_a_code_names_it(tmp_path):
    log = RunLog(str(tmp_path), storage.Traffic())
    log.close(InputError("truncated"))
    lines = lines_of(next(tmp_path.iterdir()))
    assert (lines[1]["error"], lines[1]["code"]) == ("InputError", "truncated")


def test_a_log_stays_small_and_keeps_its_last_line(tmp_path, monkeypatch):
    monkeypatch.setattr(runlog, "MAX_LOG_BYTES", 2_000)
    log = RunLog(str(tmp_path), storage.Traffic())
    for _ in range(100):
        with log.stage("encode"):
            pass
    log.close(ValueError())
    [path] = tmp_path.iterdir()
    lines = lines_of(path)
    assert path.stat().st_size < 2_500
    assert [one["event"] for one in lines[-2:]] == ["error", "end"]


def test_a_log_lies_on_an_object_store_too():
    log = RunLog("memory://run/log", storage.Traffic())
    with log.stage("list"):
        pass
    [name] = storage.list_names("memory://run/log")
    first = storage.read(f"memory://run/log/{name}")
    log.close()
    assert storage.read(f"memory://run/log/{name}").startswith(first)
    assert storage.list_names("memory://run/log") == [name]


def test_json_is_all_that_goes_to_stdout(tmp_path):
    """Progress, the note of a missing scheduler and errors go elsewhere."""
    folder = tmp_path / "in"
    write_series(folder, make_series(3))
    (folder / "us.dcm").write_bytes(to_bytes(make_instance(9, Modality="US")))
    words = ["convert", folder, tmp_path / "store.zarr", "--json", "--scheduler"]
    done = subprocess.run(
        [sys.executable, "-m", "dicomdask", *words, "threads"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "80"},
    )
    assert done.returncode == 8
    document = json.loads(done.stdout)
    assert document["stages"][0]["stage"] == "list"
    assert "encode: 1 task, " in done.stderr
