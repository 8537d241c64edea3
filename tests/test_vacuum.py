"""Vacuum: what no recent commit names goes, and nothing that anybody reads."""

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from click.testing import CliRunner

import dicomdask
from dicomdask import commits, storage
from dicomdask.cli import main
from dicomdask.errors import OptionError, ReadError, StoreError
from dicomdask.pseudonym import Key
from dicomdask.steps import Progress
from dicomdask.steps.removal import parse_age
from dicomdask.tasks.vacuum import Vacuumed
from dicomdask.verify import verify
from dicomdask.work import Work
from tests.builders import make_series, other_series, to_bytes, write_series

SECRET = "0123456789abcdef0123456789abcdef"
DAY = 86400.0


class Lab:
    """A dataset of several commits, one day apart; the newest is a day old."""

    def __init__(self, folder: Path) -> None:
        self.pile, self.store = folder / "pile", folder / "o.zarr"
        self.key = folder / "key"
        self.key.write_text(SECRET)

    def convert(self, **options: Any) -> Any:
        given = {"key_file": str(self.key), "scheduler": "synchronous", **options}
        return dicomdask.convert(str(self.pile), str(self.store), **given)

    def vacuum(self, older_than: str = "0s", **options: Any) -> Vacuumed:
        return dicomdask.vacuum(str(self.store), older_than=older_than, **options)

    def open(self, n: int | None = None) -> Any:
        return dicomdask.open_dataset(str(self.store), commit=n)

    def add(self, number: int) -> None:
        """Add a slice to a series, which replaces it, and another series."""
        for ds in list(make_series(number + 2))[-1:]:
            (self.pile / "one" / f"{number:04d}.dcm").write_bytes(to_bytes(ds))
        write_series(self.pile / f"other{number}", other_series(2, number))

    def age(self, days: float) -> None:
        """Make all objects of the store older."""
        for path in self.store.rglob("*"):
            if path.is_file():
                moved = path.stat().st_mtime - days * DAY
                os.utime(path, (moved, moved))

    def files(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.store)): path.read_bytes()
            for path in self.store.rglob("*")
            if path.is_file()
        }

    def check(self) -> None:
        """Check all that the newest commit names, and the voxels of the sources."""
        work = Work(f"{self.store}.work")
        report = verify(str(self.store), work=work, key=Key(SECRET.encode()))
        assert report.problems == ()
        assert report.n_frames == len(self.open().frames)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Return a lab that is only copied."""
    folder = tmp_path_factory.mktemp("vacuum")
    lab = Lab(folder)
    write_series(lab.pile / "one", make_series(2))
    for number in range(4):
        if number:
            lab.add(number)
        lab.convert()
        lab.age(1)
    shutil.copytree(folder, f"{folder}-kept")
    return lab


@pytest.fixture
def lab(filled: Lab) -> Lab:
    """Return the lab as it was filled: in its place, for paths are in it."""
    folder = filled.store.parent
    shutil.rmtree(folder)
    shutil.copytree(f"{folder}-kept", folder)
    return filled


def leftovers(lab: Lab) -> list[str]:
    """Put down what runs leave that are cut off; return the paths."""
    newest = lab.open()
    part = newest.commit.tables["volumes"][0].path
    path = newest.volumes["path"].iloc[0]
    orphan = "volumes/ab/" + "ab" * 16
    names = [
        f"tables/volumes/{'a' * 32}.parquet",
        f"{part.rpartition('/')[0]}/.{'b' * 32}.parquet.01234567.tmp",
        f"{path}/0/c/0/0/.0.89abcdef.tmp",
        f"{orphan}/0123456789abcdef/0/c/0/0/0",
        f"{orphan}/0123456789abcdef/0/zarr.json",
        f"{orphan}/zarr.json",
        ".probe-0a1b2c3d",
        "commits/.9.json.01234567.tmp",
    ]
    for name in names:
        (lab.store / name).parent.mkdir(parents=True, exist_ok=True)
        (lab.store / name).write_bytes(b"left")
    return names


# --- what goes ----------------------------------------------------------------


def test_the_newest_commit_alone_stays(lab: Lab) -> None:
    before = lab.files()
    done = lab.vacuum()
    assert commits.list_commits(str(lab.store)) == [3]
    after = lab.files()
    assert done.n_deleted == len(before) - len(after)
    assert done.bytes_deleted == sum(map(len, before.values())) - sum(
        map(len, after.values())
    )
    assert (done.n_kept, done.bytes_kept) == (
        len(after),
        sum(map(len, after.values())),
    )
    assert {name: before[name] for name in after} == after
    assert done.kinds["commits"] == 3
    assert set(done.kinds) == {"commits", "tables", "volumes"}
    dataset = lab.open()
    paths = set(dataset.volumes["path"])
    revisions = {"/".join(name.split("/")[:4]) for name in after if "/0/c/" in name}
    assert revisions == paths
    lab.check()


def test_young_commits_stay_and_can_be_read(lab: Lab) -> None:
    old = {n: lab.open(n) for n in range(4)}
    voxels = {n: [ds.read(v) for v in ds.volumes["volume_id"]] for n, ds in old.items()}
    lab.vacuum("60h")  # they are 1, 2, 3 and 4 days old
    assert commits.list_commits(str(lab.store)) == [2, 3]
    for n in (2, 3):
        for dataset in (old[n], lab.open(n)):
            found = [dataset.read(v) for v in dataset.volumes["volume_id"]]
            assert len(dataset.frames) == sum(dataset.volumes["n_frames"])
            for one, other in zip(found, voxels[n], strict=True):
                np.testing.assert_array_equal(one, other)
    lab.check()
    gone = lab.vacuum("60h")
    assert gone.n_deleted == 0


def test_nothing_is_old_enough_by_default(lab: Lab) -> None:
    before = lab.files()
    assert lab.vacuum("7d").n_deleted == 0
    assert lab.files() == before


def test_a_reader_of_a_commit_that_went_is_told(lab: Lab) -> None:
    old = lab.open(0)
    [name] = old.volumes["volume_id"]
    lab.vacuum()
    with pytest.raises(ReadError):
        old.read(name)
    with pytest.raises(StoreError, match="has no commit 0"):
        lab.open(0)


def test_what_was_left_by_runs_that_were_cut_off(lab: Lab) -> None:
    lab.vacuum()
    before = lab.files()
    names = leftovers(lab)
    assert lab.vacuum("1h").n_deleted == 0, "a run may be under way"
    assert lab.files().keys() == before.keys() | set(names)
    lab.age(1)
    done = lab.vacuum("1h")
    assert done.n_deleted == len(names)
    assert lab.files() == before
    assert done.kinds == {"groups": 1, "tables": 1, "temporary": 4, "volumes": 2}
    assert not (lab.store / "volumes/ab" / ("ab" * 16)).exists()


def test_one_young_object_keeps_its_revision(lab: Lab) -> None:
    lab.vacuum()
    leftovers(lab)
    lab.age(1)
    shard = next(lab.store.glob("volumes/ab/*/*/0/c/0/0/0"))
    os.utime(shard)
    done = lab.vacuum("1h")
    assert shard.exists()
    assert (shard.parents[3] / "zarr.json").exists()
    assert "volumes" not in done.kinds


def test_what_is_not_ours_stays(lab: Lab) -> None:
    strange = ["notes.txt", "report.html", "tables/mine.parquet", "volumes/readme"]
    for name in strange:
        (lab.store / name).write_text("mine")
    lab.age(9)
    lab.vacuum()
    assert all((lab.store / name).exists() for name in strange)


def test_only_a_question_deletes_nothing(lab: Lab) -> None:
    before = lab.files()
    asked = lab.vacuum(dry_run=True)
    assert lab.files() == before
    done = lab.vacuum()
    assert set(asked.names) == before.keys() - lab.files().keys()
    assert asked.n_deleted == done.n_deleted
    assert (asked.bytes_deleted, asked.n_kept) == (done.bytes_deleted, done.n_kept)


# --- while others are at work -------------------------------------------------


def test_a_run_under_way_is_not_harmed(lab: Lab) -> None:
    """It has written arrays, and later parts of tables, that no commit names."""
    lab.add(4)
    seen: list[str] = []

    def vacuum(now: Progress) -> None:
        if now.stage == "encode":
            seen.append(now.stage)
            lab.vacuum("1h")

    lab.convert(progress=vacuum)
    assert len(seen) >= 2
    lab.check()
    assert len(lab.open()) == 5


def test_what_a_run_wrote_that_comes_back_late_is_written_anew(lab: Lab) -> None:
    class Cut(BaseException):
        """The process ends here."""

    def stop(now: Progress) -> None:
        if now.stage == "encode" and now.is_over:
            raise Cut

    lab.add(4)
    with pytest.raises(Cut):
        lab.convert(progress=stop)
    lab.age(30)
    assert lab.vacuum().kinds["volumes"] > 0
    assert lab.convert().n_encoded == 2
    lab.check()
    assert len(lab.open()) == 5


def test_cut_off_anywhere(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """No commit that is left names what is gone, whenever it ends."""

    class Cut(BaseException):
        """The process ends here."""

    real, count = storage.local.remove, 0

    def remove(url: str) -> None:
        nonlocal count
        count += 1
        if count % 3 == 0:
            raise Cut
        real(url)

    n_cut, before = 0, lab.files().keys()
    with monkeypatch.context() as patch:
        patch.setattr(storage.local, "remove", remove)
        while True:
            try:
                lab.vacuum()
                break
            except Cut:
                n_cut += 1
            for n in commits.list_commits(str(lab.store)):
                dataset = lab.open(n)
                for name in dataset.volumes["volume_id"]:
                    dataset.read(name)
            check_heads(lab, before)
    assert n_cut > 5
    lab.check()
    assert lab.vacuum().n_deleted == 0


def check_heads(lab: Lab, before: Iterable[str]) -> None:
    """Check that no array has its metadata and lacks a shard."""
    after = lab.files()
    for shard in {name for name in before if "/0/c/" in name} - after.keys():
        assert f"{shard.split('/0/c/')[0]}/0/zarr.json" not in after


# --- elsewhere, and refused ---------------------------------------------------


@pytest.fixture(params=["memory", "s3"])
def place(request: pytest.FixtureRequest) -> str:
    """Return the URL of a new place that is no local one."""
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}"
    return str(request.getfixturevalue("s3"))


def test_in_a_store_of_objects(tmp_path: Path, place: str) -> None:
    lab = Lab(tmp_path)
    url = f"{place}/o.zarr"
    options = {"work": str(tmp_path / "work"), "key_file": str(lab.key)}
    write_series(lab.pile / "one", make_series(2))
    for number in (3, 4):
        dicomdask.convert(str(lab.pile), url, scheduler="synchronous", **options)
        lab.add(number)
    storage.write(storage.join(url, "tables/volumes", "c" * 32 + ".parquet"), b"x")
    time.sleep(1.1 if url.startswith("s3") else 0.01)  # S3 tells whole seconds
    assert dicomdask.vacuum(url).n_deleted == 0
    done = dicomdask.vacuum(url, older_than="0s")
    assert done.kinds["commits"] == 1
    assert done.kinds["volumes"] >= 3
    dataset = dicomdask.open_dataset(url)
    for name in dataset.volumes["volume_id"]:
        dataset.read(name)
    again = dicomdask.vacuum(url, older_than="0s")
    assert (again.n_deleted, again.n_kept) == (0, done.n_kept)
    storage.remove_tree(place)


def test_one_request_removes_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is refused, they go one by one."""
    base = f"memory://{uuid.uuid4().hex}"
    urls = [storage.join(base, str(number)) for number in range(5)]
    filesystem = type(fsspec.filesystem("memory"))
    for is_refused in (False, True):
        for url in urls[:4]:
            storage.write(url, b"x")
        with monkeypatch.context() as patch:
            if is_refused:
                patch.setattr(filesystem, "rm", refuse)
            storage.remove_all(urls)
        assert not storage.list_names(base)


def test_a_real_server_takes_that_request(s3: str) -> None:
    urls = [storage.join(s3, "a", str(number)) for number in range(5)]
    for url in urls[:4]:
        storage.write(url, b"x")
    assert storage.remote.remove_at_once(urls)
    assert not storage.list_names(s3)


def refuse(*_: Any, **__: Any) -> None:
    raise OSError(22, "MalformedXML")


def test_ages_that_are_not_told(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    before = lab.files()
    real = storage.local.list_below

    def ageless(url: str) -> Iterator[Any]:
        for one in real(url):
            yield one._replace(modified=0.0)

    monkeypatch.setattr(storage.local, "list_below", ageless)
    with pytest.raises(StoreError, match="how old"):
        lab.vacuum()
    assert lab.files() == before


def test_what_is_refused(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no dicomdask dataset"):
        dicomdask.vacuum(str(lab.pile))
    with pytest.raises(StoreError, match="there is no dataset"):
        dicomdask.vacuum(str(tmp_path / "nothing"))
    before = lab.files()
    path = lab.store / lab.open().commit.tables["volumes"][0].path
    path.write_bytes(b"damaged")
    with pytest.raises(ReadError, match="damaged"):
        lab.vacuum()
    assert lab.files().keys() == before.keys()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0s", 0), ("30m", 1800), ("12h", 43200), ("7d", 604800), ("2w", 1209600)],
)
def test_an_age(text: str, seconds: float) -> None:
    assert parse_age(text) == seconds


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "1.5d", "7 d", "7days", "٣d"])
def test_no_age(text: str) -> None:
    with pytest.raises(OptionError, match="--older-than"):
        parse_age(text)


# --- the command --------------------------------------------------------------


def test_the_command(lab: Lab) -> None:
    asked = run("vacuum", str(lab.store), "--older-than", "0s", "--dry-run")
    assert asked.exit_code == 0, asked.output
    assert "commits/0.json\n" in asked.output
    assert "would be deleted" in asked.output
    done = run("vacuum", str(lab.store), "--older-than", "0s", "--json")
    document = json.loads(done.output)
    assert document["kinds"]["commits"] == 3
    assert not document["is_dry"]
    again = run("vacuum", str(lab.store))
    assert again.output.startswith("0 objects, 0 B deleted\n")
    wrong = run("vacuum", str(lab.store), "--older-than", "soon")
    assert wrong.exit_code == 2


def run(*args: str) -> Any:
    return CliRunner().invoke(main, list(args))
