"""Forget: of a patient no byte and no cell is left, and all others are as before."""

import copy
import io
import json
import os
import secrets
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from pydicom import Dataset

import dicomdask
from dicomdask import commits, plan, storage
from dicomdask.cli import main
from dicomdask.deid import patient_pseudonym, replace_uid
from dicomdask.errors import CODES, OptionError, PolicyError, ReadError, StoreError
from dicomdask.policy import patient_identity
from dicomdask.pseudonym import Key
from dicomdask.steps import Progress
from dicomdask.steps.session import locked
from dicomdask.tasks import places
from dicomdask.tasks.remembered import as_of, read_remembered
from dicomdask.verify import verify
from dicomdask.work import Work
from tests.builders import make_series, to_bytes

SECRET = "0123456789abcdef0123456789abcdef"
KEY = Key(SECRET.encode())
SR = "1.2.840.10008.5.1.4.1.1.88.11"


@dataclass
class Person:
    """A made patient: unique values, and the files that hold them."""

    issuer: str | None = None
    number: str = ""
    names: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    instances: list[Dataset] = field(default_factory=list)
    stored: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.number = self.number or f"Q{secrets.token_hex(6).upper()}"
        self.names = [self.number, f"Zz{secrets.token_hex(6)}"]
        self.root = f"1.2.826.0.1.3680043.8.498.{secrets.randbelow(10**20)}"

    @property
    def pseudonym(self) -> str:
        return patient_pseudonym(patient_identity(self.number, self.issuer, ""), KEY)

    def make(self, n: int, study: int = 1, **elements: Any) -> Iterator[Dataset]:
        """Yield the slices of a series of this patient."""
        base = f"{self.root}.{study}"
        for ds in make_series(n, **{"StudyInstanceUID": base, **elements}):
            ds.PatientID, ds.PatientName = self.number, f"{self.names[1]}^X"
            if self.issuer:
                ds.IssuerOfPatientID = self.issuer
            ds.SeriesInstanceUID = f"{base}.1"
            ds.SOPInstanceUID = f"{base}.1.{ds.InstanceNumber}"
            ds.FrameOfReferenceUID = f"{base}.0"
            ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
            yield ds

    def write(self, path: Path, ds: Dataset) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(to_bytes(ds))
        self.files.append(path)
        self.instances.append(ds)
        return path

    def source_keys(self) -> set[bytes]:
        """Return the keyed names of the files, whole and as in places."""
        keys = [plan.source_key(str(path), KEY) for path in self.files]
        return {name[:n].encode() for name in keys for n in (16, 32)}

    def secrets(self) -> set[bytes]:
        """Return all that may not be found: originals, pseudonyms, keyed names."""
        found = {*self.names, self.root, self.pseudonym, *self.stored}
        for ds in self.instances:
            uids = [ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID]
            found |= {replace_uid(uid, KEY) for uid in uids}
            identity = patient_identity(self.number, self.issuer, "")
            found.add(KEY.digest("series", identity, *uids[:2]))
        for ds in self.instances:
            found.add(f"{places.instance_digest(ds.SOPInstanceUID, KEY):016x}")
        return {text.encode() for text in found} | self.source_keys()


class Lab:
    """A pile with three patients, one dataset of it, and the way to convert again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pile = folder / "pile"
        self.store = folder / "o.zarr"
        self.work = folder / "o.zarr.work"
        self.key = folder / "key"
        self.key.write_text(SECRET)
        self.gone, self.other = Person(), Person()

    def convert(self, **options: Any) -> Any:
        given = {"key_file": str(self.key), "scheduler": "synchronous", **options}
        summary = dicomdask.convert(str(self.pile), str(self.store), **given)
        rows = self.open().volumes
        for who in (self.gone, self.other):
            mine = rows[rows["PatientID"] == who.pseudonym]
            who.stored |= set(mine[["volume_id", "revision"]].to_numpy().ravel())
        return summary

    def forget(self, who: str, **options: Any) -> Any:
        return dicomdask.forget(str(self.store), who, **options)

    def open(self) -> Any:
        return dicomdask.open_dataset(str(self.store))

    def codes(self) -> dict[str, int]:
        return dict(self.open().commit.codes)

    def fill(self) -> None:
        """Convert in two runs: two commits, and files of all outcomes."""
        for number, ds in enumerate(self.gone.make(3)):
            self.gone.write(self.path(self.gone, f"{number}.dcm"), ds)
        for number, ds in enumerate(self.other.make(4)):
            self.other.write(self.path(self.other, f"{number}.dcm"), ds)
        self.convert()
        self.add_later()
        self.convert()

    def path(self, who: Person, name: str) -> Path:
        return self.pile / f"{who.names[1]}_{name.split('.')[0]}" / name

    def add_later(self) -> None:
        """Add a late slice, a study, a copy, what is rejected and what has no image."""
        who = self.gone
        for number, ds in list(enumerate(who.make(4)))[3:]:
            who.write(self.path(who, f"late{number}.dcm"), ds)
        for number, ds in enumerate(who.make(2, 2)):
            who.write(self.path(who, f"two{number}.dcm"), ds)
        who.write(self.path(who, "copy.dcm"), who.instances[0])
        risky = next(who.make(1, 3, ImageType=["DERIVED", "SECONDARY"]))
        who.write(self.path(who, "risky.dcm"), risky)
        report = next(who.make(1, 4, SOPClassUID=SR, Rows=None, PixelData=None))
        who.write(self.path(who, "report.dcm"), report)
        damaged = next(who.make(1, 5))
        path = who.write(self.path(who, "damaged.dcm"), damaged)
        data = path.read_bytes()
        path.write_bytes(data[: data.index(b"19700102") + 20])
        os.utime(who.files[1], ns=(1, 1))  # listed in two states

    def everything(self) -> dict[str, bytes]:
        """Return all names, bytes and decoded cells below store and work."""
        found: dict[str, bytes] = {}
        for root in (self.store, self.work):
            for path in root.rglob("*"):
                name = str(path.relative_to(self.folder))
                found[name] = path.read_bytes() if path.is_file() else b""
                if path.suffix == ".parquet":
                    cells = pq.read_table(path).to_pylist()
                    found[name + " cells"] = repr(cells).encode()
                if path.suffix == ".bin":
                    records = np.frombuffer(found[name], places.RECORD)
                    digests = [f"{one:016x}" for one in records["digest"].tolist()]
                    found[name + " records"] = " ".join(digests).encode()
                if path.suffix == ".json":
                    text = json.dumps(json.loads(found[name]), ensure_ascii=False)
                    found[name + " text"] = text.encode()
        return found

    def leaks(self, who: Person) -> dict[str, list[bytes]]:
        """Return where something of a person is found."""
        secrets_ = who.secrets()
        leaks = {
            name: [one for one in secrets_ if one in name.encode() + b"\n" + data]
            for name, data in self.everything().items()
        }
        return {name: found for name, found in leaks.items() if found}

    def of(self, who: Person) -> dict[str, Any]:
        """Return rows and voxels of a person, by volume."""
        dataset = self.open()
        rows = dataset.volumes[dataset.volumes["PatientID"] == who.pseudonym]
        return {
            row["volume_id"]: (str(row.to_dict()), dataset.read(row["volume_id"]))
            for _, row in rows.iterrows()
        }

    def objects(self, who: Person) -> dict[str, bytes]:
        """Return all objects of a person's volumes."""
        return {
            str(path): path.read_bytes()
            for name in self.of(who)
            for path in (self.store / "volumes" / name[:2] / name).rglob("*")
            if path.is_file()
        }

    def check(self) -> None:
        report = verify(str(self.store), work=Work(str(self.work)), key=KEY)
        assert report.problems == ()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Return a lab whose dataset holds a patient who is to go; it is only copied."""
    lab = Lab(tmp_path_factory.mktemp("forget"))
    lab.fill()
    shutil.copytree(lab.folder, str(lab.folder) + "-kept")
    return lab


@pytest.fixture
def lab(filled: Lab) -> Lab:
    """Return the lab as it was filled: in its place, for paths are in it."""
    restore(filled)
    return copy.deepcopy(filled)


def restore(lab: Lab) -> None:
    shutil.rmtree(lab.folder)
    shutil.copytree(str(lab.folder) + "-kept", lab.folder)


# --- one patient goes ---------------------------------------------------------


def test_the_search_finds_a_patient_who_is_there(lab: Lab) -> None:
    names = lab.leaks(lab.gone)
    for part in ("o.zarr/volumes", "o.zarr/tables/volumes", "o.zarr/tables/instances"):
        assert any(name.startswith(part) for name in names), part
    for part in ("manifest", "index", "outcomes", "repeats", "verdicts", "plan"):
        assert any(name.startswith(f"o.zarr.work/{part}") for name in names), part
    for part in ("parts", "changed.parquet", "places", "committed"):
        assert any(name.startswith(f"o.zarr.work/{part}") for name in names), part
    found = {one for some in names.values() for one in some}
    missing = lab.gone.secrets() - found
    assert len(missing) < len(lab.gone.secrets()) / 3, "what is not stored has fewer"


@pytest.mark.parametrize("by", ["PatientID", "pseudonym"])
def test_nothing_is_left_of_a_patient(lab: Lab, by: str) -> None:
    lab.store.joinpath("report.html").write_text("a picture")
    before, objects = lab.of(lab.other), lab.objects(lab.other)
    who = lab.gone.number if by == "PatientID" else lab.gone.pseudonym
    done = lab.forget(who)
    assert lab.leaks(lab.gone) == {}
    assert [one.matched for one in done.patients] == [(by,)]
    assert (done.patients[0].n_series, done.patients[0].n_inputs) == (3, 10)
    assert not (lab.store / "report.html").exists()
    assert lab.objects(lab.other) == objects
    after = lab.of(lab.other)
    assert after.keys() == before.keys()
    for name, (row, voxels) in after.items():
        assert row == before[name][0]
        np.testing.assert_array_equal(voxels, before[name][1])
    lab.check()


def test_the_commit_tells_of_the_others_only(lab: Lab) -> None:
    lab.forget(lab.gone.number)
    commit = lab.open().commit
    assert commit.codes == {"stored": 4}
    assert commit.counts["stored"] == commit.counts["inputs"] == 4
    assert commit.statistics["CT"]["volumes"] == 1
    assert commit.statistics["CT"]["n_frames"] == 4
    assert commits.list_commits(str(lab.store)) == [commit.n]
    assert len(commit.forgotten) == 1


def test_again_changes_nothing(lab: Lab) -> None:
    first = lab.forget(lab.gone.number)
    before = lab.everything()
    again = lab.forget(lab.gone.number)
    assert again.commit == first.commit
    assert again.patients[0].was_forgotten
    assert (again.n_objects, again.n_records) == (0, 0)
    assert lab.everything() == before


def test_only_a_question_deletes_nothing(lab: Lab) -> None:
    before = lab.everything()
    done = lab.forget(lab.gone.number, dry_run=True)
    assert done.patients[0].n_volumes >= 2
    assert lab.everything() == before


def test_a_commit_without_the_patient_stays(lab: Lab) -> None:
    new = Person()
    for number, ds in enumerate(new.make(2)):
        new.write(lab.path(new, f"{number}.dcm"), ds)
    lab.convert()
    lab.forget(new.number)
    assert commits.list_commits(str(lab.store)) == [0, 1, 3]
    assert lab.leaks(new) == {}
    for n in (0, 1):
        old = dicomdask.open_dataset(str(lab.store), commit=n)
        for name in old.volumes["volume_id"]:
            old.read(name)


def test_readers_of_an_old_state(lab: Lab) -> None:
    old = lab.open()
    names = {who: list(lab.of(person)) for who, person in enumerate(people(lab))}
    other = old.read(names[1][0])
    assert len(old.frames)
    lab.forget(lab.gone.number)
    np.testing.assert_array_equal(old.read(names[1][0]), other)
    for name in names[0]:
        with pytest.raises(ReadError):
            old.read(name)


def people(lab: Lab) -> tuple[Person, Person]:
    return lab.gone, lab.other


def test_the_next_run_looks_at_what_is_new_only(lab: Lab) -> None:
    """Neither the plan nor the commit compares everything again."""
    lab.forget(lab.gone.number)
    for path in lab.gone.files:
        path.unlink()
    steps: list[str] = []
    done = lab.convert(progress=lambda now: steps.append(now.stage))
    assert set(steps) == {"list"}
    assert not done.is_new
    remembered = read_remembered(Work(str(lab.work)))
    assert remembered is not None
    assert as_of(remembered, lab.open().commit)
    new = Person()
    for number, ds in enumerate(new.make(2)):
        new.write(lab.path(new, f"{number}.dcm"), ds)
    assert lab.convert().n_encoded == 1
    assert lab.codes() == {"stored": 6}
    lab.check()


# --- and stays away -----------------------------------------------------------


def test_later_runs_keep_the_patient_out(lab: Lab) -> None:
    lab.forget(lab.gone.number)
    for turn in range(2):
        done = lab.convert()
        assert done.is_new == (turn == 0)
        codes = lab.codes()
        assert codes.pop("forgotten") == len(lab.gone.files)
        assert codes == {"stored": 4}
        assert lab.open().commit.forgotten
        leaks = {one for some in lab.leaks(lab.gone).values() for one in some}
        assert leaks <= lab.gone.source_keys(), "of a file, in its outcome"
        lab.check()
    inputs = lab.open().inputs
    row = inputs[inputs["code"] == "forgotten"].iloc[0]
    assert (row["outcome"], row["stage"]) == ("skipped", "index")
    assert row["reason"] == CODES["forgotten"]


def test_new_files_of_the_patient_are_kept_out(lab: Lab) -> None:
    lab.forget(lab.gone.pseudonym)
    shutil.rmtree(lab.pile)
    for number, ds in enumerate(lab.gone.make(2, 9)):
        lab.gone.write(lab.path(lab.gone, f"new{number}.dcm"), ds)
    lab.convert()
    assert lab.codes() == {"stored": 4, "forgotten": 2}
    assert not any("index" in name for name in lab.leaks(lab.gone))


def test_a_patient_who_is_not_there_is_kept_out_too(lab: Lab) -> None:
    new = Person()
    done = lab.forget(new.number)
    assert done.patients[0].matched == ()
    for number, ds in enumerate(new.make(2)):
        new.write(lab.path(new, f"{number}.dcm"), ds)
    lab.convert()
    assert lab.codes()["forgotten"] == 2


def test_another_work_directory_keeps_them_out(lab: Lab) -> None:
    second = lab.folder / "second"
    lab.convert(work=str(second))
    lab.forget(lab.gone.number)
    done = lab.convert(work=str(second))
    assert done.is_new
    assert lab.codes() == {
        "stored": 4,
        "forgotten": len(lab.gone.files) - 2,
        "no-pixels": 1,  # whose these are is in no index
        "missing-pixels": 1,
    }
    assert not lab.of(lab.gone)
    lab.forget(lab.gone.number, work=str(second))
    left = [name for name, _ in search(second, lab.gone.secrets())]
    assert left == []


def search(folder: Path, wanted: set[bytes]) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        if path.suffix == ".parquet":
            data += repr(pq.read_table(path).to_pylist()).encode()
        for one in wanted:
            if one in str(path).encode() + data:
                yield str(path), one


def test_undo_lets_them_come_back(lab: Lab) -> None:
    before, codes = lab.of(lab.gone), lab.codes()
    lab.forget(lab.gone.number)
    lab.convert()
    done = lab.forget(lab.gone.number, undo=True)
    assert done.patients[0].was_forgotten
    assert lab.open().commit.forgotten == ()
    lab.convert()
    assert lab.codes() == codes
    after = lab.of(lab.gone)
    assert after.keys() == before.keys()
    for name, (_, voxels) in after.items():
        np.testing.assert_array_equal(voxels, before[name][1])
    lab.check()
    again = lab.forget(lab.gone.number, undo=True)
    assert not again.patients[0].was_forgotten


def test_a_run_that_planned_before_commits_nothing_of_them(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own work directory knows nothing of it."""
    second = lab.folder / "second"

    def forget(now: Progress) -> None:
        if now.stage == "encode" and not now.done:
            lab.forget(lab.gone.number)

    new = Person()
    for number, ds in enumerate(new.make(2)):
        new.write(lab.path(new, f"{number}.dcm"), ds)
    with pytest.raises(StoreError, match="forgotten while this run went on"):
        lab.convert(work=str(second), progress=forget)
    assert not lab.of(lab.gone)
    lab.convert(work=str(second))
    assert not lab.of(lab.gone)
    assert lab.of(new)
    lab.check()


# --- whose PatientID ----------------------------------------------------------


@pytest.fixture
def issued(tmp_path: Path) -> tuple[Lab, Person, Person, Person]:
    """Return three patients with one PatientID: of no issuer, and of two."""
    lab = Lab(tmp_path)
    first = Person()
    second, third = (Person(issuer, first.number) for issuer in ("HOSP1", "HOSP2"))
    for who in (first, second, third):
        for number, ds in enumerate(who.make(2)):
            who.write(lab.path(who, f"{number}.dcm"), ds)
    lab.convert()
    return lab, first, second, third


def test_without_an_issuer_all_of_them(issued: Any) -> None:
    lab, *three = issued
    lab.forget(three[0].number)
    assert not any(lab.leaks(who) for who in three)
    lab.convert()
    assert lab.codes() == {"forgotten": 6}


def test_with_an_issuer_that_one(issued: Any) -> None:
    lab, first, second, third = issued
    lab.forget(first.number, issuer="HOSP1")
    assert (len(lab.of(first)), len(lab.of(second)), len(lab.of(third))) == (1, 0, 1)
    lab.forget(first.number, issuer="")
    assert (len(lab.of(first)), len(lab.of(third))) == (0, 1)
    lab.convert()
    assert lab.codes() == {"stored": 2, "forgotten": 4}
    lab.forget(first.number, issuer="HOSP1", undo=True)
    lab.convert()
    assert lab.codes() == {"stored": 4, "forgotten": 2}


def test_without_a_number_by_the_pseudonym(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    for number, ds in enumerate(lab.gone.make(2)):
        ds.PatientID = ""
        lab.gone.write(lab.path(lab.gone, f"{number}.dcm"), ds)
    lab.convert()
    [pseudonym] = set(lab.open().volumes["PatientID"])
    lab.forget(pseudonym)
    assert len(lab.open()) == 0
    lab.convert()
    assert lab.codes() == {"forgotten": 2}


def test_where_nothing_is_replaced(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    first = Person()
    second = Person("HOSP1", first.number)
    for who in (first, second):
        for number, ds in enumerate(who.make(2)):
            who.write(lab.path(who, f"{number}.dcm"), ds)
    lab.convert(policy="none")
    shutil.rmtree(lab.work)
    lab.forget(first.number, issuer="HOSP1", key_file=str(lab.key))
    assert len(lab.open()) == 1
    lab.forget(first.number, key_file=str(lab.key))
    assert len(lab.open()) == 0


# --- without a work directory, elsewhere, cut off -----------------------------


def test_without_the_work_directory(lab: Lab) -> None:
    shutil.rmtree(lab.work)
    with pytest.raises(PolicyError, match="no key"):
        lab.forget(lab.gone.number)
    done = lab.forget(lab.gone.number, key_file=str(lab.key))
    assert done.work is None
    assert not lab.of(lab.gone)
    leaks = {one for some in lab.leaks(lab.gone).values() for one in some}
    assert leaks <= lab.gone.source_keys(), "of rejected files and copies"


@pytest.fixture(params=["memory", "s3"])
def place(request: pytest.FixtureRequest) -> str:
    """Return the URL of a new place that is no local one."""
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}"
    return str(request.getfixturevalue("s3"))


def test_in_a_store_of_objects(lab: Lab, place: str) -> None:
    url = f"{place}/o.zarr"
    options = {"key_file": str(lab.key), "scheduler": "synchronous"}
    work = str(lab.folder / "mine")
    dicomdask.convert(str(lab.pile), url, work=work, **options)
    done = dicomdask.forget(url, lab.gone.number, work=work)
    assert done.n_objects > 5
    dataset = dicomdask.open_dataset(url)
    assert list(dataset.volumes["n_frames"]) == [4]
    wanted = lab.gone.secrets()
    names = [one.name for one in storage.list_below(place)]
    assert len(names) > 8
    for name in names:
        data = storage.read(storage.join(place, name))
        if name.endswith(".parquet"):
            data += repr(pq.read_table(io.BytesIO(data)).to_pylist()).encode()
        assert not [one for one in wanted if one in name.encode() + data], name
    storage.remove_tree(place)


class Cut(BaseException):
    """The process ends here."""


class Cutter:
    """Ends the process at one write or removal; counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
        self.n, self.at = 0, at
        for name in ("write", "create", "remove", "remove_tree"):
            self._wrap(monkeypatch, name)

    def _wrap(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        real = getattr(storage.local, name)

        def wrapped(*args: Any) -> Any:
            self.n += 1
            if self.n == self.at:
                raise Cut
            return real(*args)

        monkeypatch.setattr(storage.local, name, wrapped)


def test_cut_off_anywhere_and_run_again(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    """At some writes and removals; with --full at each."""
    with monkeypatch.context() as patch:
        cutter = Cutter(patch, 0)
        lab.forget(lab.gone.number)
    whole = lab.open().commit.codes
    assert cutter.n > 30
    every = range(1, cutter.n + 1)
    for at in every if full else every[1 :: cutter.n // 5]:
        restore(lab)
        with monkeypatch.context() as patch:
            Cutter(patch, at)
            with pytest.raises(Cut):
                lab.forget(lab.gone.number)
        assert lab.open().commit.n in (1, 2)
        for name in lab.open().volumes["volume_id"]:
            lab.open().read(name)
        lab.forget(lab.gone.number)
        assert lab.leaks(lab.gone) == {}, at
        assert lab.open().commit.codes == whole, at
        lab.check()


def test_what_was_encoded_and_not_committed_goes_too(lab: Lab) -> None:
    def stop(now: Progress) -> None:
        if now.stage == "encode" and now.is_over:
            raise Cut

    for number, ds in enumerate(lab.gone.make(2, 7)):
        lab.gone.write(lab.path(lab.gone, f"more{number}.dcm"), ds)
    with pytest.raises(Cut):
        lab.convert(progress=stop)
    lab.gone.stored |= {
        volume.volume_id
        for _, part in Work(str(lab.work)).read_plans()
        for volume in part.volumes
        if volume.frames[0].url in set(map(str, lab.gone.files))
    }
    assert any("/volumes/" in name for name in lab.leaks(lab.gone))
    lab.forget(lab.gone.number)
    assert lab.leaks(lab.gone) == {}


def test_parts_that_were_being_written_go_when_they_are_stale(lab: Lab) -> None:
    part = lab.store / lab.open().commit.tables["volumes"][0].path
    data = part.read_bytes()
    stale, live = (part.with_name(f".x.{n * 8}.tmp") for n in "ab")
    stale.write_bytes(data)
    live.write_bytes(b"")
    os.utime(stale, (1, time.time() - 4000))
    mine = lab.work / "index" / f".x.{'c' * 8}.tmp"
    mine.write_bytes(lab.gone.number.encode())
    lab.forget(lab.gone.number)
    assert lab.leaks(lab.gone) == {}
    assert live.exists()


def test_another_copy_under_another_patient_is_stored_instead(lab: Lab) -> None:
    """Two patients with one image: who stays gets it."""
    for number, ds in enumerate(lab.gone.make(2, 2)):
        ds.PatientID, ds.PatientName = lab.other.number, lab.other.names[1]
        for name in ("one", "again"):
            path = lab.path(lab.other, f"{name}{number}.dcm")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(to_bytes(ds))
    lab.convert()
    assert len(lab.of(lab.other)) == 1
    lab.forget(lab.gone.number)
    lab.convert()
    assert len(lab.of(lab.other)) == 2
    lab.check()


# --- refused ------------------------------------------------------------------


def test_what_is_refused(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no dicomdask dataset"):
        dicomdask.forget(str(lab.pile), "X")
    with pytest.raises(OptionError, match="no patient is named"):
        lab.forget("  ")
    other = tmp_path / "key"
    other.write_text("another key, which is long enough")
    with pytest.raises(PolicyError, match="another key"):
        lab.forget(lab.gone.number, key_file=str(other))
    with pytest.raises(StoreError, match="is not a work directory"):
        lab.forget(lab.gone.number, work=str(tmp_path))


def test_a_damaged_old_part_goes(lab: Lab) -> None:
    first = commits.read_commit(str(lab.store), 0)
    assert first is not None
    path = lab.store / first.tables["volumes"][0].path
    path.write_bytes(b"damaged")
    lab.forget(lab.gone.number)
    assert not path.exists()
    assert lab.leaks(lab.gone) == {}


# --- the command --------------------------------------------------------------


def run(*args: str, text: str | None = None) -> Any:
    return CliRunner().invoke(main, ["forget", *args], input=text)


def test_the_command_names_nobody(lab: Lab) -> None:
    names = f"{lab.gone.number}\n\nABSENT-{lab.other.number}\n"
    result = run(str(lab.store), "--patient-file", "-", text=names)
    assert result.exit_code == 8, result.output
    assert "patient 1: found by PatientID: 3 series" in result.output
    assert "patient 2: not in the dataset; kept out of later runs" in result.output
    assert lab.gone.number not in result.output
    assert lab.other.number not in result.output
    assert lab.leaks(lab.gone) == {}
    again = run(str(lab.store), "--patient", lab.gone.number, "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.output)["patients"][0]["was_forgotten"]
    undone = run(str(lab.store), "--patient", lab.gone.number, "--undo")
    assert "patient 1: may come back" in undone.output


def test_the_command_without_a_name(lab: Lab) -> None:
    result = run(str(lab.store))
    assert result.exit_code == 2
    assert "no patient is named" in result.output


def test_a_work_directory_in_use_is_left_alone(store, key_file):
    work = f"{store}.work"
    with locked(work), pytest.raises(StoreError, match="another run works in"):
        dicomdask.forget(str(store), "PAT0001", key_file=str(key_file))
    assert dicomdask.open_dataset(str(store)).commit.n == 0
    assert dicomdask.forget(str(store), "PAT0001", key_file=str(key_file)).commit == 1
