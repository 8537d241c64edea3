"""Several at once: two that write, one that reads, and two in one work directory."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import dicomdask
from dicomdask import steps
from dicomdask.cli import main
from dicomdask.commits import list_commits
from dicomdask.errors import StoreError
from dicomdask.model import SourceFile
from dicomdask.steps import Summary
from dicomdask.work import Work
from tests.builders import make_instance, to_bytes
from tests.conftest import Convert
from tests.test_updates import check

ELSEWHERE = "series-elsewhere"


def write_slices(
    folder: Path, series: int, slices: range, *, revision: int = 0
) -> None:
    """Write slices of one patient's series; its pixels are the revision's number."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in slices:
        array = np.full((16, 12), revision, np.int16)
        ds = make_instance(series, instance=number, pixels=array)
        path = folder / f"{series}-{number}.dcm"
        path.write_bytes(to_bytes(ds))
        seconds = 1_600_000_000 + revision
        os.utime(path, (seconds, seconds))  # so that a listing tells


def n_frames(store: Path) -> Counter[int]:
    return Counter(dicomdask.open_dataset(str(store)).volumes["n_frames"].astype(int))


# --- two work directories, one store ------------------------------------------


def write_pile(folder: Path) -> None:
    """Write what both have, what each has alone, and a series that is cut in two."""
    write_slices(folder / "a", 1, range(1, 4))
    write_slices(folder / "b", 2, range(1, 5))
    write_slices(folder / "both", 3, range(1, 6))
    write_slices(folder / "a", 4, range(1, 7))
    write_slices(folder / "b", 4, range(7, 9))


def convert_rounds(name: str, folder: Path, rounds: int, barrier: Any) -> None:
    """Convert into one store after another, each together with another process."""
    sources = [str(folder / "in" / one) for one in (name, "both")]
    for number in range(rounds):
        barrier.wait(120)
        dicomdask.convert(
            sources,
            str(folder / f"{number}.zarr"),
            work=str(folder / f"{number}-{name}.work"),
            key_file=str(folder / "key"),
            scheduler="synchronous",
        )


def test_two_at_once_commit_one_after_the_other(
    tmp_path: Path, key_file: Path, convert: Convert, full: bool
) -> None:
    rounds = 12 if full else 2
    write_pile(tmp_path / "in")
    shutil.copy(key_file, tmp_path / "key")
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    processes = [
        context.Process(target=convert_rounds, args=(one, tmp_path, rounds, barrier))
        for one in ("a", "b")
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, 0]
    for number in range(rounds):
        store = tmp_path / f"{number}.zarr"
        assert list_commits(str(store)) == [0, 1]
        dataset = dicomdask.open_dataset(str(store))
        check(dataset)
        codes = dict(dataset.commit.codes)
        whole, cut = n_frames(store), {6: 2, 2: 6}
        [first] = set(whole) - {3, 4, 5}
        assert whole == Counter([3, 4, 5, first])
        assert codes == {"stored": 12 + first, ELSEWHERE: cut[first]}
    one_run_over_all(tmp_path, convert)


def one_run_over_all(folder: Path, convert: Convert) -> None:
    """Check that what was refused is stored by one run that knows all sources."""
    store = folder / "0.zarr"
    summary = convert(folder / "in", store, work=str(folder / "all.work"))
    assert summary.commit.n == 2
    assert n_frames(store) == Counter([3, 4, 5, 8])
    assert dict(summary.commit.codes) == {"stored": 20}
    check(dicomdask.open_dataset(str(store)))


class Lab:
    """Two work directories that take turns."""

    def __init__(self, folder: Path, convert: Convert) -> None:
        self.folder, self._convert = folder, convert
        self.store = folder / "store.zarr"

    def run(self, name: str) -> Summary:
        """Convert what one of them has."""
        folder, work = self.folder / name, self.folder / f"{name}.work"
        return self._convert(folder, self.store, work=str(work))

    def codes(self) -> dict[str, int]:
        dataset = dicomdask.open_dataset(str(self.store))
        check(dataset)
        return dict(dataset.commit.codes)


@pytest.fixture
def lab(tmp_path: Path, convert: Convert) -> Lab:
    return Lab(tmp_path, convert)


def test_taking_turns_nobody_drops_what_the_other_stored(lab: Lab) -> None:
    write_slices(lab.folder / "a", 1, range(1, 4))
    write_slices(lab.folder / "b", 1, range(4, 9))
    write_slices(lab.folder / "b", 2, range(1, 3))
    lab.run("a")
    lab.run("b")
    assert n_frames(lab.store) == Counter([3, 2])
    assert lab.codes() == {"stored": 5, ELSEWHERE: 5}
    assert not lab.run("a").is_new
    assert not lab.run("b").is_new
    write_slices(lab.folder / "a", 3, range(1, 6))
    assert lab.run("a").is_new
    write_slices(lab.folder / "b", 4, range(1, 8))
    assert lab.run("b").is_new
    assert n_frames(lab.store) == Counter([3, 2, 5, 7])
    assert lab.codes() == {"stored": 17, ELSEWHERE: 5}
    write_slices(lab.folder / "a", 1, range(4, 5))
    assert lab.run("a").is_new
    assert n_frames(lab.store) == Counter([4, 2, 5, 7]), "its own series may grow"
    assert lab.codes() == {"stored": 18, ELSEWHERE: 5}


def test_slices_of_another_that_are_here_too_may_be_replaced(lab: Lab) -> None:
    write_slices(lab.folder / "a", 1, range(1, 4))
    write_slices(lab.folder / "b", 1, range(1, 6))
    lab.run("a")
    lab.run("b")
    assert n_frames(lab.store) == Counter([5])
    assert lab.codes() == {"stored": 5, "duplicate": 3}
    for name in ("a", "b", "a"):
        assert not lab.run(name).is_new


def test_the_same_slices_under_other_names_are_copies(lab: Lab) -> None:
    write_slices(lab.folder / "a", 1, range(1, 4))
    write_slices(lab.folder / "b", 1, range(1, 4))
    lab.run("a")
    before = dicomdask.open_dataset(str(lab.store)).volumes["revision"].tolist()
    lab.run("b")
    assert lab.codes() == {"stored": 3, "duplicate": 3}
    assert dicomdask.open_dataset(str(lab.store)).volumes["revision"].tolist() == before
    for name in ("b", "a"):
        assert not lab.run(name).is_new


def test_a_new_work_directory_with_fewer_sources_drops_nothing(lab: Lab) -> None:
    write_slices(lab.folder / "a", 1, range(1, 6))
    write_slices(lab.folder / "a", 2, range(1, 4))
    lab.run("a")
    shutil.rmtree(lab.folder / "a.work")
    (lab.folder / "a" / "1-5.dcm").unlink()
    assert not lab.run("a").is_new
    assert n_frames(lab.store) == Counter([5, 3])
    assert lab.codes() == {"stored": 8}


def test_a_crash_after_the_commit_is_made_up_for(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is remembered is of an older commit then, so the tables are asked."""
    write_slices(lab.folder / "a", 1, range(1, 4))
    lab.run("a")
    write_slices(lab.folder / "a", 2, range(1, 5))
    with monkeypatch.context() as patch:
        patch.setattr("dicomdask.tasks.commit._remember", None)
        with pytest.raises(TypeError):
            lab.run("a")
    assert n_frames(lab.store) == Counter([3, 4])
    assert not lab.run("a").is_new
    write_slices(lab.folder / "a", 1, range(4, 6))
    assert lab.run("a").commit.n == 2
    assert n_frames(lab.store) == Counter([5, 4])
    assert lab.codes() == {"stored": 9}


# --- a reader meanwhile -------------------------------------------------------


def write_revisions(folder: Path, last: int) -> None:
    """Convert one revision of two series after another."""
    for revision in range(1, last + 1):
        for series, n in ((1, 3), (2, 5)):
            write_slices(folder / "in", series, range(1, n + 1), revision=revision)
        dicomdask.convert(
            str(folder / "in"),
            str(folder / "store.zarr"),
            key_file=str(folder / "key"),
            scheduler="synchronous",
        )


def test_a_reader_meanwhile_never_sees_half_an_update(
    tmp_path: Path, key_file: Path, full: bool
) -> None:
    last, store = (20 if full else 4), tmp_path / "store.zarr"
    shutil.copy(key_file, tmp_path / "key")
    write_revisions(tmp_path, 1)
    first = dicomdask.open_dataset(str(store))
    names = list(first.volumes["volume_id"])
    writer = multiprocessing.get_context("spawn").Process(
        target=write_revisions, args=(tmp_path, last)
    )
    writer.start()
    seen = [list(revisions_in(store, names))]
    while writer.is_alive() or seen[-1] != [last, last]:
        seen.append(list(revisions_in(store, names)))
        for name in names:
            assert np.all(first.read(name) == 1), "an old state is read as it was"
        assert writer.exitcode in (None, 0)
    assert all(one == other for one, other in seen), "one commit replaced both"
    assert seen == sorted(seen)
    assert len({one for one, _ in seen}) >= last // 2


def revisions_in(store: Path, names: list[str]) -> Iterator[int]:
    """Yield the revision of each volume of the newest commit; of all of its slices."""
    dataset = dicomdask.open_dataset(str(store))
    for name in names:
        [revision] = np.unique(dataset.read(name)).tolist()
        yield int(revision)


# --- one work directory -------------------------------------------------------


def command(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def test_a_second_run_in_one_work_directory_is_told(
    series: Path, store: Path, key_file: Path
) -> None:
    work = f"{store}.work"
    with steps.open_session(work, key_file=str(key_file)):
        for words in (
            ("convert", series, store),
            ("convert", series, store, "--overwrite"),
            ("index", series, "--work", work),
            ("encode", "--work", work, "--task-range", "0:1"),
        ):
            result = command(*words, "--key-file", key_file)
            assert result.exit_code == 1
            assert f"another run works in {work}; wait for its end" in result.output
    assert command("convert", series, store, "--key-file", key_file).exit_code == 0


def test_array_jobs_share_a_work_directory(store: Path, key_file: Path) -> None:
    work = f"{store}.work"
    options = ["--work", work, "--key-file", key_file, "--scheduler", "synchronous"]
    with steps.open_session(work, key_file=str(key_file), shared=True):
        job = command("encode", *options, "--task-range", "0:1")
        assert job.exit_code == 0, job.output
        assert command("encode", *options).exit_code == 1


HOLD = """
import sys, time
from dicomdask import steps
with steps.open_session(sys.argv[1], key_file=sys.argv[2]):
    print("in", flush=True)
    time.sleep(60)
"""


def test_a_run_that_was_killed_leaves_the_way_free(store: Path, key_file: Path) -> None:
    work = f"{store}.work"
    words = [sys.executable, "-c", HOLD, work, str(key_file)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"in\n"
        with pytest.raises(StoreError, match="another run"):
            steps.open_session(work, key_file=str(key_file))
        process.send_signal(signal.SIGKILL)
    with steps.open_session(work, key_file=str(key_file)):
        pass


def test_two_that_list_into_one_distant_work_directory() -> None:
    work = Work("memory://two-writers/work")
    work.create_manifest("000000", [SourceFile("a", 1, "")])
    with pytest.raises(StoreError, match="another run lists"):
        work.create_manifest("000000", [SourceFile("b", 1, "")])
    assert [file.url for file in work.read_manifest("000000")] == ["a"]


# --- shards that went meanwhile -----------------------------------------------


def shard_of(store: Path) -> Path:
    [path] = [path for path in store.rglob("c/**/*") if path.is_file()]
    return path


def test_a_shard_that_went_before_its_commit_is_encoded_again(
    series: Path, tmp_path: Path, key_file: Path, convert: Convert
) -> None:
    store, work = tmp_path / "store.zarr", tmp_path / "work"
    options = ["--work", work, "--key-file", key_file]
    here = ["--scheduler", "synchronous"]
    for words in (("index", series), ("plan", store), ("encode",)):
        assert command(*words, *options, *here).exit_code == 0
    shard_of(store).unlink()
    told = command("commit", *options)
    assert told.exit_code == 1
    assert "1 tasks of the plan have no receipt; run `dicomdask encode`" in told.output
    assert command("encode", *options, *here).exit_code == 0
    shard_of(store).unlink()
    summary = convert(series, store, work=str(work))
    assert (summary.is_new, summary.n_encoded) == (True, 1)
    check(dicomdask.open_dataset(str(store)))
