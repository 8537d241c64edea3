"""The command line: help, options to library calls, exit codes, what is printed."""

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

import dicomdask
from dicomdask import arrays, cli, steps
from dicomdask.errors import CODES, PlanError
from dicomdask.model import Settings
from dicomdask.verify import Report
from dicomdask.work import Work
from tests.builders import (
    make_instance,
    make_series,
    other_series,
    to_bytes,
    write_series,
)

DX_IMAGE = "1.2.840.10008.5.1.4.1.1.1.1"
OUTCOMES = ("stored", "duplicate", "skipped", "rejected")
TABLES = ("volumes", "frames", "instances", "inputs")


@pytest.fixture(autouse=True)
def _no_key_in_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DICOMDASK_KEY", raising=False)


@pytest.fixture
def pile(tmp_path: Path) -> Path:
    """Two CT series of two patients and a file that is no DICOM: 8 inputs."""
    folder = tmp_path / "pile"
    write_series(folder / "one", make_series(4))
    write_series(folder / "two", other_series(3, 2))
    (folder / "notes.txt").write_text("buy milk")
    return folder


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """One CT series and nothing else."""
    folder = tmp_path / "clean"
    write_series(folder, make_series(4))
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, [str(one) for one in arguments])


def convert(*arguments: object, code: int = 0) -> Result:
    result = run("convert", *arguments, "--scheduler", "synchronous")
    assert result.exit_code == code, result.output
    return result


def work_of(store: Path) -> Path:
    return store.with_name(f"{store.name}.work")


def command_line(
    *arguments: object, **options: Any
) -> subprocess.CompletedProcess[str]:
    code = "from dicomdask.cli import main; main(prog_name='dicomdask')"
    words = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, **options)


class Recorder:
    """Stands for a library function: notes its calls, returns what it was given."""

    def __init__(self, returns: Any = None) -> None:
        self.returns = returns
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append((args, kwargs))
        return self.returns

    def only_call(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the one call; progress is checked and left out."""
        (found,) = self.calls
        args, kwargs = found
        progress = kwargs.pop("progress", None)
        assert progress is None or isinstance(progress, cli.output.ProgressLine)
        return args, kwargs


# --- help and usage -----------------------------------------------------------

COMMANDS = sorted(cli.main.commands)


def test_the_commands_of_the_main_job_are_there() -> None:
    wanted = {"convert", "index", "plan", "encode", "commit", "info", "verify", "demo"}
    assert wanted <= set(COMMANDS)


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_every_command(flag: str) -> None:
    result = run(flag)
    assert result.exit_code == 0
    for name in COMMANDS:
        assert f"\n  {name} " in result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert f"Usage: main {name}" in result.stdout
    options = [p for p in cli.main.commands[name].params if isinstance(p, click.Option)]
    for option in options:
        assert option.help, f"{option.name} has no help"
        assert option.opts[-1] in result.stdout


def test_version() -> None:
    assert dicomdask.__version__ in run("--version").stdout


@pytest.mark.parametrize(
    "words",
    [
        ["no-such-command"],
        ["convert"],
        ["convert", "only-one"],
        ["convert", "a", "b", "--no-such-option"],
        ["convert", "a", "b", "--profile", "sideways"],
        ["convert", "a", "b", "--patch-size", "64,64"],
        ["convert", "a", "b", "--codec", "gzip"],
        ["convert", "a", "b", "--on-irregular", "sideways"],
        ["convert", "a", "b", "--limit", "many"],
        ["index", "a"],
        ["plan", "a"],
        ["encode"],
        ["encode", "--work", "w", "--task-range", "3"],
        ["encode", "--work", "w", "--task-range", "-3:4"],
        ["encode", "--work", "w", "--task-range", "a:b"],
        ["commit"],
        ["info"],
        ["verify"],
        ["verify", "a", "--sample", "some"],
    ],
    ids=" ".join,
)
def test_usage_is_exit_code_2(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*words)
    assert os.listdir() == []
    assert result.exit_code == 2
    assert "Usage: " in result.stderr
    assert result.stdout == ""


# --- options reach the library ------------------------------------------------


ALL_SETTINGS: list[str] = [
    *["--policy", "basic", "--option", "retain-uids", "--option", "clean-graphics"],
    *["--trust-pixels", "DX", "--trust-pixels", "CR", "--profile", "slice"],
    *["--on-irregular", "reject", "--where", "Modality == 'CT'", "--limit", "3"],
    *["--patch-size", "32,96,96", "--codec", "zstd"],
]
SETTINGS = Settings(
    policy="basic",
    options=("retain-uids", "clean-graphics"),
    trusted_pixels=("DX", "CR"),
    profile="slice",
    on_irregular="reject",
    where="Modality == 'CT'",
    patch_size=(32, 96, 96),
    codec="zstd",
)
RUN = ["--key-file", "k", "--scheduler", "threads", "--memory", "4GiB"]
RUN_CALL = {
    "key_file": "k",
    "scheduler": "threads",
    "memory": "4GiB",
    "insecure_scheduler": False,
}


@pytest.fixture
def summary(clean: Path, tmp_path: Path) -> Any:
    return dicomdask.convert(
        str(clean), str(tmp_path / "made.zarr"), scheduler="synchronous"
    )


def fake_session(**attributes: Any) -> Any:
    session = nullcontext()
    found = {"work": Work("/nowhere/work"), "task_memory": None, **attributes}
    session.__dict__.update(found)
    session.enter_result = session
    return session


def test_convert_calls_prepare_and_finish(
    monkeypatch: pytest.MonkeyPatch, summary: Any
) -> None:
    session = fake_session()
    prepare, finish = Recorder(session), Recorder(summary)
    monkeypatch.setattr(steps, "prepare", prepare)
    monkeypatch.setattr(steps, "finish", finish)
    result = run("convert", "a", "b", "out", "--work", "w", *RUN, *ALL_SETTINGS)
    assert result.exit_code == 0
    assert prepare.only_call() == (
        (("a", "b"), "out", SETTINGS),
        {"work": "w", "limit": 3, "overwrite": False, **RUN_CALL},
    )
    assert finish.only_call() == ((session,), {})


def test_convert_has_the_documented_defaults(
    monkeypatch: pytest.MonkeyPatch, summary: Any
) -> None:
    prepare = Recorder(fake_session())
    monkeypatch.setattr(steps, "prepare", prepare)
    monkeypatch.setattr(steps, "finish", Recorder(summary))
    assert run("convert", "a", "out").exit_code == 0
    nothing = dict.fromkeys(["work", "limit", "key_file", "scheduler", "memory"])
    settings = Settings("research", (), (), "balanced", "split", None, None, "lz4")
    assert prepare.only_call() == (
        (("a",), "out", settings),
        {**nothing, "overwrite": False, "insecure_scheduler": False},
    )


def test_overwrite_reaches_prepare(
    monkeypatch: pytest.MonkeyPatch, summary: Any
) -> None:
    prepare = Recorder(fake_session())
    monkeypatch.setattr(steps, "prepare", prepare)
    monkeypatch.setattr(steps, "finish", Recorder(summary))
    assert run("convert", "a", "out", "--overwrite").exit_code == 0
    assert prepare.only_call()[1]["overwrite"] is True


def test_dry_run_calls_prepare_and_does_not_finish(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prepare, finish = Recorder(fake_session()), Recorder()
    monkeypatch.setattr(steps, "prepare", prepare)
    monkeypatch.setattr(steps, "finish", finish)
    assert run("convert", "a", "out", "--dry-run").exit_code == 0
    assert len(prepare.calls) == 1
    assert finish.calls == []


def test_index_calls_the_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    session = fake_session()
    count, opened, index = Recorder(7), Recorder(session), Recorder(5)
    monkeypatch.setattr(steps, "require_files", count)
    monkeypatch.setattr(steps, "open_session", opened)
    monkeypatch.setattr(steps, "index", index)
    work = str(tmp_path / "w")
    result = run("index", "a", "b", "--work", work, *RUN)
    assert result.exit_code == 0
    assert result.stdout == f"5 files read into the index of {work}\n"
    assert count.only_call() == ((("a", "b"),), {"exclude": (work,)})
    wanted = {"create": True, **RUN_CALL}
    assert opened.only_call() == ((work,), wanted)
    assert index.only_call() == ((session, ("a", "b")), {"exclude": (work,)})


def test_plan_calls_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    session = fake_session()
    opened, target, make = Recorder(session), Recorder(), Recorder()
    monkeypatch.setattr(steps, "open_session", opened)
    monkeypatch.setattr(steps, "set_target", target)
    monkeypatch.setattr(steps, "make_plan", make)
    assert run("plan", "out", "--work", "w", *RUN, *ALL_SETTINGS).exit_code == 0
    assert opened.only_call() == (("w",), RUN_CALL)
    assert target.only_call() == ((session, "out", SETTINGS), {"limit": 3})
    assert make.only_call() == ((session,), {})


@pytest.mark.parametrize(
    ("words", "task_range"), [([], None), (["--task-range", "4:12"], (4, 12))]
)
def test_encode_calls_the_library(
    words: list[str], task_range: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = fake_session(key="the key")
    opened, encode, missing = Recorder(session), Recorder(8), Recorder([])
    monkeypatch.setattr(steps, "open_session", opened)
    monkeypatch.setattr(steps, "encode", encode)
    monkeypatch.setattr(cli.run, "missing_tasks", missing)
    result = run("encode", "--work", "w", *RUN, *words)
    assert result.exit_code == 0
    assert result.stdout == "8 tasks encoded, 0 left\n"
    wanted = {"shared": task_range is not None, **RUN_CALL}
    assert opened.only_call() == (("w",), wanted)
    assert encode.only_call() == ((session,), {"task_range": task_range})
    assert missing.only_call()[0][:2] == (session.work, "the key")


@pytest.mark.parametrize(("words", "code"), [([], 1), (["--task-range", "0:1"], 0)])
def test_encode_fails_where_tasks_are_left_but_of_other_ranges(
    words: list[str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "open_session", Recorder(fake_session(key="k")))
    monkeypatch.setattr(steps, "encode", Recorder(1))
    monkeypatch.setattr(cli.run, "missing_tasks", Recorder(["a task"]))
    assert run("encode", "--work", "w", *words).exit_code == code


def test_commit_calls_the_library(
    monkeypatch: pytest.MonkeyPatch, summary: Any
) -> None:
    session = fake_session()
    opened, commit = Recorder(session), Recorder(summary)
    monkeypatch.setattr(steps, "open_session", opened)
    monkeypatch.setattr(steps, "commit", commit)
    assert run("commit", "--work", "w", "--key-file", "k").exit_code == 0
    assert opened.only_call() == (("w",), {"key_file": "k"})
    assert commit.only_call() == ((session,), {})


@pytest.mark.parametrize(
    ("words", "sample", "seed"),
    [
        ([], 200, 0),
        (["--sample", "7", "--seed", "3"], 7, 3),
        (["--all"], None, 0),
    ],
)
def test_verify_calls_the_library(
    words: list[str],
    sample: int | None,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
    summary: Any,
) -> None:
    verify = Recorder(Report(4, 1, 4, 0, ()))
    monkeypatch.setattr(cli.look, "run_verify", verify)
    assert run("verify", summary.store, *words).exit_code == 0
    args, kwargs = verify.only_call()
    assert args == (summary.store,)
    assert kwargs.pop("work").url == summary.work
    assert kwargs.pop("key").fingerprint() == summary.commit.key_fingerprint
    assert kwargs == {"sample": sample, "seed": seed}


def test_verify_without_a_work_directory(
    monkeypatch: pytest.MonkeyPatch, summary: Any
) -> None:
    shutil.rmtree(summary.work)
    verify = Recorder(Report(4, 1, 4, 0, ()))
    monkeypatch.setattr(cli.look, "run_verify", verify)
    assert run("verify", summary.store).exit_code == 0
    nothing = {"work": None, "key": None}
    assert verify.only_call() == (
        (summary.store,),
        {**nothing, "sample": 200, "seed": 0},
    )


def test_demo_calls_the_library(monkeypatch: pytest.MonkeyPatch, summary: Any) -> None:
    made = Recorder(summary)
    monkeypatch.setattr(dicomdask, "convert", made)
    result = run("demo", summary.store, "--scheduler", "threads")
    assert result.exit_code == 0
    (source, target), options = made.only_call()
    assert Path(source).is_dir()
    wanted = {"scheduler": "threads", "insecure_scheduler": False}
    assert (target, options) == (summary.store, wanted)


# --- errors -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (PlanError("what, where, what to do"), "dicomdask: what, where, what to do\n"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (ZeroDivisionError("SECRET^NAME"), "an unforeseen ZeroDivisionError"),
    ],
)
def test_an_error_is_one_sentence_and_a_traceback_only_with_v(
    error: Exception, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(dicomdask, "open_dataset", fail)
    result = run("info", "somewhere")
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1
    assert "SECRET" not in result.output
    loud = run("info", "somewhere", "-v")
    assert loud.exit_code == 1
    assert loud.exception is error or "Traceback" in loud.stderr


def test_v_shows_the_traceback_in_a_process(tmp_path: Path) -> None:
    loud = command_line("info", tmp_path / "none.zarr", "--verbose")
    assert loud.returncode == 1
    assert "Traceback (most recent call last)" in loud.stderr
    assert "there is no dataset at " in loud.stderr


def test_v_does_not_change_the_exit_code(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    words = ["convert", tmp_path / "empty", tmp_path / "o.zarr"]
    assert run(*words).exit_code == 2
    assert run(*words, "-v").exit_code == 2


# --- convert ------------------------------------------------------------------


def test_convert_all_good_is_exit_code_0(clean: Path, tmp_path: Path) -> None:
    store = tmp_path / "o.zarr"
    result = convert(clean, store)
    assert "4 inputs: 4 stored" in result.stdout
    assert f"dicomdask info {store}" in result.stdout
    again = convert(clean, store)
    assert "nothing new: commit 0 stands" in again.stdout


def test_convert_with_rejected_is_exit_code_8_and_names_them(
    pile: Path, tmp_path: Path
) -> None:
    result = convert(pile, tmp_path / "o.zarr", code=8)
    assert "8 inputs: 7 stored, 1 rejected" in result.stdout
    assert f"1  not-dicom  {CODES['not-dicom']}" in result.stdout
    assert convert(pile, tmp_path / "o.zarr", code=8).exit_code == 8


def test_convert_takes_several_sources_and_globs(pile: Path, tmp_path: Path) -> None:
    store = tmp_path / "o.zarr"
    convert(pile / "one", pile / "t*" / "*.dcm", pile / "one" / "0001.dcm", store)
    assert dicomdask.open_dataset(str(store)).commit.counts["inputs"] == 7


def test_convert_json_is_one_document(pile: Path, tmp_path: Path) -> None:
    result = convert(pile, tmp_path / "o.zarr", "--json", code=8)
    document = json.loads(result.stdout)
    assert document["counts"]["inputs"] == 8
    assert document["is_new"] is True
    assert (document["n_indexed"], document["n_encoded"]) == (8, 2)
    again = json.loads(convert(pile, tmp_path / "o.zarr", "--json", code=8).stdout)
    assert (again["is_new"], again["n_indexed"], again["n_encoded"]) == (False, 0, 0)


def test_only_objects_without_pixels_is_done_with_nothing_stored(
    tmp_path: Path,
) -> None:
    source, store = tmp_path / "src", tmp_path / "o.zarr"
    source.mkdir()
    report = make_instance(SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", Modality="SR")
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored"):
        delattr(report, keyword)
    (source / "report.dcm").write_bytes(to_bytes(report))
    result = convert(source, store)
    assert "1 inputs: 1 skipped" in result.stdout
    assert len(dicomdask.open_dataset(str(store))) == 0
    assert run("verify", store).exit_code == 0
    write_series(source / "ct", make_series(3))
    convert(source, store)
    assert len(dicomdask.open_dataset(str(store))) == 1


@pytest.mark.parametrize("as_json", [True, False])
def test_dry_run_writes_no_store_and_prints_sizes_and_memory(
    as_json: bool, pile: Path, tmp_path: Path
) -> None:
    store = tmp_path / "o.zarr"
    result = convert(pile, store, "--dry-run", *(["--json"] if as_json else []))
    assert not store.exists()
    n_bytes = sum(p.stat().st_size for p in pile.rglob("*.dcm"))
    if as_json:
        document = json.loads(result.stdout)
        assert document["volumes"] == 2
        assert document["frames"] == 7
        assert document["source_bytes"] == n_bytes
        assert document["raw_bytes"] == 7 * 16 * 12 * 2
        assert document["task_memory_bytes"] > document["raw_bytes"]
        assert document["worker_memory_bytes"] > document["task_memory_bytes"]
    else:
        assert "plan: 2 volumes of 7 frames (2 volume)" in result.stdout
        assert f"tasks read {n_bytes / 1000:.1f} kB and store 2.7 kB" in result.stdout
        assert "memory: a task takes at most " in result.stdout
        assert re.search(r"; a worker has [0-9.]+ [MG]B\n", result.stdout)
    convert(pile, store, code=8)
    assert len(dicomdask.open_dataset(str(store))) == 2


def test_dry_run_changes_nothing_of_a_dataset_that_stands(
    clean: Path, tmp_path: Path
) -> None:
    store = tmp_path / "o.zarr"
    convert(clean, store)
    before = {p: p.stat().st_mtime_ns for p in store.rglob("*")}
    write_series(clean / "two", other_series(3, 2))
    assert "plan: 2 volumes" in convert(clean, store, "--dry-run").stdout
    assert {p: p.stat().st_mtime_ns for p in store.rglob("*")} == before


def test_dry_run_with_overwrite_is_refused(clean: Path, tmp_path: Path) -> None:
    convert(clean, tmp_path / "o.zarr")
    convert(clean, tmp_path / "o.zarr", "--dry-run", "--overwrite", code=2)
    assert len(dicomdask.open_dataset(str(tmp_path / "o.zarr"))) == 1


# --- what is chosen -----------------------------------------------------------


def codes(store: Path) -> dict[str, int]:
    """Return the outcomes by code, after checking that all counts add up."""
    dataset = dicomdask.open_dataset(str(store))
    counts = dataset.commit.counts
    by_code = dict(dataset.inputs["code"].value_counts())
    assert by_code == dict(dataset.commit.codes)
    assert sum(by_code.values()) == counts["inputs"] == len(dataset.inputs)
    assert sum(counts.get(name, 0) for name in OUTCOMES) == counts["inputs"]
    for name in TABLES:
        assert counts[name] == len(getattr(dataset, name))
    assert dataset.volumes["n_frames"].sum() == counts["frames"]
    return by_code


def test_where_leaves_the_others_out(pile: Path, tmp_path: Path) -> None:
    store = tmp_path / "o.zarr"
    result = convert(pile, store, "--where", "PatientID == 'OTHER2'", code=8)
    assert codes(store) == {"filtered": 4, "stored": 3, "not-dicom": 1}
    assert f"4  filtered   {CODES['filtered']}" in result.stdout


def test_where_that_leaves_everything_out(clean: Path, tmp_path: Path) -> None:
    store = tmp_path / "o.zarr"
    convert(clean, store, "--where", "Modality == 'MR' and SliceThickness < 3")
    assert codes(store) == {"filtered": 4}
    assert len(dicomdask.open_dataset(str(store))) == 0


def test_no_value_of_where_reaches_the_dataset(pile: Path, tmp_path: Path) -> None:
    store = tmp_path / "o.zarr"
    convert(pile, store, "--where", "PatientID == 'OTHER2'", code=8)
    leaks = [p for p in store.rglob("*") if p.is_file() and b"OTHER2" in p.read_bytes()]
    assert leaks == []


def test_limit_is_a_number_of_volumes(pile: Path, tmp_path: Path) -> None:
    write_series(pile / "three", other_series(4, 3))
    store = tmp_path / "o.zarr"
    convert(pile, store, "--limit", "1", code=8)
    found = codes(store)
    assert len(dicomdask.open_dataset(str(store))) == 1
    assert found["stored"] + found["not-selected"] == 11
    assert found["not-selected"] in {7, 8}
    before = dicomdask.open_dataset(str(store)).commit
    convert(pile, store, "--limit", "1", code=8)
    assert dicomdask.open_dataset(str(store)).commit == before


def test_policies_differ_in_dates_and_identity(clean: Path, tmp_path: Path) -> None:
    rows = {}
    for policy in ("research", "basic", "none"):
        store = tmp_path / f"{policy}.zarr"
        convert(clean, store, "--policy", policy)
        rows[policy] = dicomdask.open_dataset(str(store)).volumes.iloc[0]
        commit = dicomdask.open_dataset(str(store)).commit
        assert commit.policy["name"] == policy
    assert rows["none"]["PatientID"] == "PAT0001"
    assert rows["none"]["StudyDate"] == "20200229"
    assert "Family1" not in str(rows["research"].to_dict())
    assert "PAT0001" not in str(rows["research"].to_dict())
    assert rows["research"]["StudyDate"] < "20200229"
    assert rows["basic"].fillna("")["StudyDate"] == ""
    assert rows["basic"]["PatientID"] != "PAT0001"


def test_trust_pixels_lets_a_modality_pass(tmp_path: Path) -> None:
    source = tmp_path / "src"
    source.mkdir()
    image = make_instance(
        SOPClassUID=DX_IMAGE,
        Modality="DX",
        ImagePositionPatient=None,
        ImageOrientationPatient=None,
    )
    (source / "dx.dcm").write_bytes(to_bytes(image))
    convert(source, tmp_path / "a.zarr", code=8)
    assert codes(tmp_path / "a.zarr") == {"burned-in-risk": 1}
    convert(source, tmp_path / "b.zarr", "--trust-pixels", "DX")
    assert codes(tmp_path / "b.zarr") == {"stored": 1}
    convert(source, tmp_path / "c.zarr", "--trust-pixels", "CR", code=8)
    assert codes(tmp_path / "c.zarr") == {"burned-in-risk": 1}


def test_profiles_cut_the_arrays_differently(tmp_path: Path) -> None:
    source = tmp_path / "src"
    pixels = np.zeros((256, 256), np.int16)
    series = (make_instance(instance=n, pixels=pixels + n) for n in range(1, 33))
    write_series(source, series)
    chunks = {}
    for profile in ("slice", "balanced", "patch"):
        store = tmp_path / f"{profile}.zarr"
        convert(source, store, "--profile", profile)
        dataset = dicomdask.open_dataset(str(store))
        assert dataset.commit.settings["profile"] == profile
        chunks[profile] = tuple(dataset.volumes.iloc[0]["chunks"])
        stored = dataset.read(dataset.volumes.iloc[0]["volume_id"])
        np.testing.assert_array_equal(stored[:, 0, 0], np.arange(1, 33))
    assert chunks["slice"][0] == 1
    assert len(set(chunks.values())) == 3


def test_a_patch_size_and_a_codec_cut_and_compress_the_arrays(tmp_path: Path) -> None:
    source = tmp_path / "src"
    write_series(
        source,
        (
            make_instance(instance=n, pixels=np.full((128, 96), n, np.int16))
            for n in range(1, 33)
        ),
    )
    for words, chunks, codec in (
        (["--patch-size", "16", "--codec", "none"], (16, 16, 16), "none"),
        (["--patch-size", "8,32,32", "--codec", "zstd"], (8, 32, 32), "zstd"),
    ):
        store = tmp_path / f"{codec}.zarr"
        convert(source, store, *words)
        dataset = dicomdask.open_dataset(str(store))
        row = dataset.volumes.iloc[0]
        assert (tuple(row["chunks"]), row["codec"]) == (chunks, codec)
        array = arrays.open_array(str(store), f"{row['path']}/0")
        np.testing.assert_array_equal(array[:, 5, 90], np.arange(1, 33))
        assert "nothing new" in convert(source, store, *words).stdout
    made = dicomdask.convert(
        str(source), str(tmp_path / "p.zarr"), patch_size=16, scheduler="synchronous"
    )
    assert made.commit.settings["patch_size"] == [16, 16, 16]


def test_on_irregular_splits_or_rejects(tmp_path: Path) -> None:
    source = tmp_path / "src"
    slices = list(make_series(8))
    write_series(source, iter([*slices[:3], *slices[5:]]))
    convert(source, tmp_path / "split.zarr")
    assert len(dicomdask.open_dataset(str(tmp_path / "split.zarr"))) == 2
    store = tmp_path / "reject.zarr"
    convert(source, store, "--on-irregular", "reject", code=8)
    assert codes(store) == {"missing-slices": 6}


# --- overwrite ----------------------------------------------------------------


def test_overwrite_begins_anew_and_keeps_the_key(clean: Path, tmp_path: Path) -> None:
    store = tmp_path / "o.zarr"
    convert(clean, store)
    before = list(dicomdask.open_dataset(str(store)).volumes["volume_id"])
    key = (work_of(store) / "key").read_bytes()
    write_series(clean / "two", other_series(3, 2))
    convert(clean, store)
    shutil.rmtree(clean / "two")
    convert(clean, store, "--policy", "basic", "--overwrite")
    after = dicomdask.open_dataset(str(store))
    assert (work_of(store) / "key").read_bytes() == key
    assert after.commit.n == 0
    assert after.commit.counts["inputs"] == 4
    assert list(after.volumes["volume_id"]) == before


def test_overwrite_of_nothing_is_a_plain_run(clean: Path, tmp_path: Path) -> None:
    convert(clean, tmp_path / "o.zarr", "--overwrite")
    assert codes(tmp_path / "o.zarr") == {"stored": 4}


@pytest.mark.parametrize(
    "mistake",
    [
        ["--policy", "reserch"],
        ["--option", "retain-everything"],
        ["--limit", "0"],
        ["--memory", "much"],
        ["--key-file", "no-such-key"],
        ["--scheduler", "no-such-file.json"],
    ],
    ids=" ".join,
)
def test_overwrite_with_a_mistake_removes_nothing(
    mistake: list[str], clean: Path, tmp_path: Path
) -> None:
    store = tmp_path / "o.zarr"
    convert(clean, store)
    result = run("convert", clean, store, "--overwrite", *mistake)
    assert result.exit_code in {1, 2}
    assert codes(store) == {"stored": 4}
    assert run("verify", store).exit_code == 0


def test_overwrite_from_a_source_without_dicom_removes_nothing(
    clean: Path, tmp_path: Path
) -> None:
    store = tmp_path / "o.zarr"
    convert(clean, store)
    (tmp_path / "empty").mkdir()
    convert(tmp_path / "empty", store, "--overwrite", code=2)
    convert(tmp_path / "nowhere", store, "--overwrite", code=1)
    assert codes(store) == {"stored": 4}


def test_overwrite_never_empties_a_folder_that_is_no_work_directory(
    clean: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    (home / "letters").mkdir(parents=True)
    (home / "letters" / "thesis.tex").write_text("years of work")
    words = ("convert", clean, tmp_path / "o.zarr", "--work", home, "--overwrite")
    result = run(*words, "--scheduler", "synchronous")
    assert (home / "letters" / "thesis.tex").exists(), "somebody's files are gone"
    assert result.exit_code == 1
    assert str(home) in result.stderr


# --- step by step -------------------------------------------------------------


@pytest.fixture
def stepwise(pile: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The store and the work directory, indexed and planned."""
    store, work = tmp_path / "steps.zarr", tmp_path / "work"
    step("index", pile, "--work", work)
    step("plan", store, "--work", work)
    return store, work


def step(*words: object, code: int = 0) -> Result:
    scheduler = () if words[0] == "commit" else ("--scheduler", "synchronous")
    result = run(*words, *scheduler)
    assert result.exit_code == code, result.output
    return result


def test_steps_make_what_convert_makes(pile: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k" * 32)
    key = ("--key-file", tmp_path / "key")
    store, work = tmp_path / "steps.zarr", tmp_path / "work"
    assert "8 files read" in step("index", pile, "--work", work, *key).stdout
    assert "2 volumes of 7 frames" in step("plan", store, "--work", work, *key).stdout
    assert not store.exists()
    encoded = step("encode", "--work", work, *key)
    assert encoded.stdout == "2 tasks encoded, 0 left\n"
    assert run("info", store).exit_code == 1, "nobody sees it before the commit"
    committed = step("commit", "--work", work, *key)
    assert "8 inputs: 7 stored, 1 rejected" in committed.stdout
    convert(pile, tmp_path / "whole.zarr", *key, code=8)
    whole = {
        str(path.relative_to(tmp_path / "whole.zarr")): path.read_bytes()
        for path in (tmp_path / "whole.zarr").rglob("*")
        if path.is_file() and path.parent.name != "commits"
    }
    for name, data in whole.items():
        assert (store / name).read_bytes() == data, name
    assert step("encode", "--work", work, *key).stdout == "0 tasks encoded, 0 left\n"
    assert "nothing new" in step("commit", "--work", work, *key).stdout


def test_plan_is_json_to_read(stepwise: tuple[Path, Path], pile: Path) -> None:
    parts = [json.loads(p.read_text()) for p in (stepwise[1] / "plan").glob("*.json")]
    assert all(part["format"] == 1 for part in parts)
    volumes = [volume for part in parts for volume in part["volumes"]]
    assert sorted(volume["shape"] for volume in volumes) == [[3, 16, 12], [4, 16, 12]]
    for volume in volumes:
        assert volume["dimensions"] == ["z", "y", "x"]
        assert volume["spacing_mm"] == [2.5, 0.5, 0.75]
        assert [frame["index"] for frame in volume["frames"]] == [
            [z] for z in range(len(volume["frames"]))
        ]
        assert all(frame["url"].startswith(str(pile)) for frame in volume["frames"])


def test_plan_prints_json(stepwise: tuple[Path, Path]) -> None:
    store, work = stepwise
    document = json.loads(step("plan", store, "--work", work, "--json").stdout)
    assert (document["volumes"], document["tasks"]) == (2, 2)


def prune(work: Path, n_frames: int) -> None:
    """Take the volume of so many frames out of the plan, as a person would."""
    for path in (work / "plan").glob("*.json"):
        part = json.loads(path.read_text())
        part["volumes"] = [v for v in part["volumes"] if len(v["frames"]) != n_frames]
        path.write_text(json.dumps(part))


def test_an_edited_plan_goes_through_encode_and_commit(
    stepwise: tuple[Path, Path],
) -> None:
    store, work = stepwise
    prune(work, 3)
    assert step("encode", "--work", work).stdout == "1 tasks encoded, 0 left\n"
    step("commit", "--work", work)
    assert codes(store) == {"stored": 4, "not-selected": 3, "not-dicom": 1}
    assert run("verify", store, "--work", work, "--all").exit_code == 0


def test_an_edited_plan_survives_plan_again(stepwise: tuple[Path, Path]) -> None:
    store, work = stepwise
    prune(work, 4)
    assert "1 volumes of 3 frames" in step("plan", store, "--work", work).stdout


def test_task_ranges_share_the_work_of_an_array_job(
    stepwise: tuple[Path, Path],
) -> None:
    store, work = stepwise
    first = step("encode", "--work", work, "--task-range", "0:1")
    assert first.stdout == "1 tasks encoded, 1 left\n"
    step("commit", "--work", work, code=1)
    again = step("encode", "--work", work, "--task-range", "0:1")
    assert again.stdout == "0 tasks encoded, 1 left\n"
    beyond = step("encode", "--work", work, "--task-range", "2:100")
    assert beyond.stdout == "0 tasks encoded, 1 left\n"
    second = step("encode", "--work", work, "--task-range", "1:100")
    assert second.stdout == "1 tasks encoded, 0 left\n"
    step("commit", "--work", work)
    assert codes(store) == {"stored": 7, "not-dicom": 1}


def test_commit_prints_json(stepwise: tuple[Path, Path]) -> None:
    step("encode", "--work", stepwise[1])
    result = step("commit", "--work", stepwise[1], "--json")
    assert json.loads(result.stdout)["codes"] == {"not-dicom": 1, "stored": 7}


# --- info and verify ----------------------------------------------------------


def test_info_counts_add_up(pile: Path, tmp_path: Path) -> None:
    store = tmp_path / "o.zarr"
    (pile / "zero.dcm").touch()
    (pile / "copy.dcm").write_bytes((pile / "one" / "0001.dcm").read_bytes())
    convert(pile, store, code=8)
    result = run("info", store)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"{store}: commit 0 of 20")
    assert any(line.split()[:3] == ["CT", "2", "7"] for line in lines)
    (total,) = (line for line in lines if " inputs: " in line)
    assert total == "10 inputs: 7 stored, 1 duplicate, 2 rejected"
    below = lines[lines.index(total) + 1 :]
    counts = {line.split()[1]: int(line.split()[0]) for line in below}
    assert counts == codes(store)
    assert sum(counts.values()) == 10
    for line in below:
        assert line.endswith(CODES[line.split()[1]])


def test_info_json(pile: Path, tmp_path: Path) -> None:
    store = tmp_path / "o.zarr"
    convert(pile, store, code=8)
    document = json.loads(run("info", store, "--json").stdout)
    assert document["store"] == str(store)
    assert document["codes"] == codes(store)
    assert sum(document["codes"].values()) == document["counts"]["inputs"] == 8
    assert document["statistics"]["CT"]["volumes"] == 2
    assert document["policy"]["name"] == "research"


def test_verify_says_what_it_checked(pile: Path, tmp_path: Path) -> None:
    store = tmp_path / "o.zarr"
    convert(pile, store, code=8)
    result = run("verify", store)
    assert result.exit_code == 0
    assert "2 volumes checked, 7 frames compared" in result.stdout
    sample = json.loads(run("verify", store, "--sample", "2", "--json").stdout)
    assert sample["n_frames"] == 2
    every = json.loads(run("verify", store, "--all", "--json").stdout)
    assert (every["n_frames"], every["problems"]) == (7, [])


def test_verify_without_the_sources_reads_all_the_same(
    clean: Path, tmp_path: Path
) -> None:
    store = tmp_path / "o.zarr"
    convert(clean, store)
    shutil.rmtree(clean)
    result = run("verify", store, "--all")
    assert result.exit_code == 0
    assert "4 frames read, their sources are not here" in result.stdout


@pytest.mark.parametrize("damage", ["shard", "missing shard", "table", "source"])
def test_verify_finds_damage(damage: str, clean: Path, tmp_path: Path) -> None:
    store = tmp_path / "o.zarr"
    convert(clean, store)
    (shard,) = (store / "volumes").rglob("c/0/0/0")
    (table,) = (store / "tables" / "frames").iterdir()
    source = clean / "0002.dcm"
    target = {"shard": shard, "table": table, "source": source}.get(damage, shard)
    data = bytearray(target.read_bytes())
    place = -10 if damage == "source" else len(data) // 3
    data[place] ^= 0xFF
    target.write_bytes(data)
    if damage == "missing shard":
        shard.unlink()
    result = run("verify", store, "--all")
    assert result.exit_code == 1
    assert "problem: " in result.stdout or result.stderr.startswith("dicomdask: ")
    assert "all is as it should be" not in result.stdout


# --- progress -----------------------------------------------------------------


def test_progress_is_plain_lines_where_stderr_is_no_terminal(
    pile: Path, tmp_path: Path
) -> None:
    words = ("convert", pile, tmp_path / "o.zarr", "--scheduler", "synchronous")
    result = command_line(*words)
    assert result.returncode == 8
    lines = result.stderr.splitlines()
    stages = [line.split(":")[0] for line in lines]
    assert stages == ["list", "index", "plan", "memory", "encode"]
    assert lines[0].startswith("list: 8 files, ")
    assert lines[1].endswith("; 7 instances, 1 not-dicom")
    assert lines[3].startswith("memory: a task takes at most ")
    assert lines[4].startswith("encode: 2 tasks, ")
    assert "\r" not in result.stderr
    assert "\x1b" not in result.stderr
    assert "8 inputs" in result.stdout
    assert "list:" not in result.stdout


def test_progress_on_a_terminal_has_rate_and_time_left(tmp_path: Path) -> None:
    source = tmp_path / "src"
    for number in range(2, 9):
        write_series(source / str(number), other_series(2, number))
    (tmp_path / "key").write_text("k" * 32)
    ours, theirs = pty.openpty()
    words = ["convert", source, tmp_path / "o.zarr", "--key-file", tmp_path / "key"]
    code = "from dicomdask.cli import main; main(prog_name='dicomdask')"
    command = [sys.executable, "-c", code, *map(str, words)]
    with subprocess.Popen(
        [*command, "--scheduler", "synchronous"], stdout=subprocess.PIPE, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = _read_all(ours)
        assert process.stdout is not None
        printed = process.stdout.read().decode()
    os.close(ours)
    assert process.returncode == 0
    assert "\r" in shown
    assert "files/s" in shown
    assert "0 of 7 tasks, 0 B of " in shown
    assert " kB/s, " in shown
    assert " s left" in shown
    assert "\x1b" not in printed


def _read_all(descriptor: int) -> str:
    data = b""
    while True:
        try:
            block = os.read(descriptor, 4096)
        except OSError:  # the other end is closed
            return data.decode()
        if not block:
            return data.decode()
        data += block


def test_plain_lines_come_now_and_then_and_at_the_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = cli.output.ProgressLine()
    for stage in ("encode", "plan", "encode"):
        for done in range(101):
            line(steps.Progress(stage, done, 100, "tasks", seconds=done))
    shown = capsys.readouterr().err.splitlines()
    once = ["30 of 100", "60 of 100", "90 of 100", "100 tasks"]
    assert [text.split(" tasks, ")[0] for text in shown[:3]] == [
        f"encode: {text}" for text in once[:3]
    ]
    assert len(shown) == 12
    assert [text for text in shown if " left" not in text] == [
        "encode: 100 tasks, 1 tasks/s, 100 s",
        "plan: 100 tasks, 1 tasks/s, 100 s",
        "encode: 100 tasks, 1 tasks/s, 100 s",
    ]


def test_convert_says_where_time_and_bytes_went(pile: Path, tmp_path: Path) -> None:
    result = convert(pile, tmp_path / "o.zarr", code=8)
    (head,) = (line for line in result.stdout.splitlines() if line[:6] == "stage ")
    assert head.split() == ["stage", "seconds", "share", "read", "written", "tasks"]
    document = json.loads(convert(pile, tmp_path / "p.zarr", "--json", code=8).stdout)
    stages = {one["stage"]: one for one in document["stages"]}
    order = ["list", "index", "plan", "encode", "commit", "rest"]
    assert list(stages) == order
    assert sum(one["share"] for one in stages.values()) == pytest.approx(1, abs=0.001)
    n_bytes = sum(path.stat().st_size for path in pile.rglob("*.dcm"))
    store = sum(p.stat().st_size for p in (tmp_path / "p.zarr").rglob("c/*/*/*"))
    assert n_bytes < stages["encode"]["read_bytes"] < n_bytes + 100_000
    assert store < stages["encode"]["written_bytes"] < store + 100_000
    assert stages["index"]["tasks"] == 1


# --- as a process -------------------------------------------------------------


def test_demo_converts_what_ships_with_pydicom(tmp_path: Path) -> None:
    store = tmp_path / "demo.zarr"
    result = command_line("demo", store, "--scheduler", "synchronous")
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert "np.int64" not in result.stdout
    found = codes(store)
    assert found["stored"] > 5
    assert f"ds = dicomdask.open_dataset('{store}')" in result.stdout
    assert "ds.read(" in result.stdout
    shown = result.stdout.split("read it back in Python:\n")[1]
    example = [line.strip().split("  #")[0] for line in shown.splitlines()]
    namespace: dict[str, Any] = {}
    exec("\n".join(example), namespace)
    assert isinstance(namespace["ds"], type(dicomdask.open_dataset(str(store))))
    assert run("verify", store, "--sample", "10").exit_code == 0
