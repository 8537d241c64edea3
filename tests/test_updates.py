"""Running again: what is done stays done, and only what changed is replaced."""

import os
import shutil
from pathlib import Path
from threading import Barrier
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import RLELossless

import dicomdask
from dicomdask import header, pixels, steps
from dicomdask.dataset import Dataset as Store
from dicomdask.steps import Summary
from dicomdask.work import Work
from tests.builders import make_series, other_series, to_bytes, write_series


@pytest.fixture(autouse=True)
def _no_key_in_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DICOMDASK_KEY", raising=False)


class Lab:
    """A pile, a store, and the conversion of one into the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pile = folder / "pile"
        self.store = folder / "o.zarr"
        self.key = folder / "key"
        self.key.write_text("k" * 32)
        write_series(self.pile / "one", make_series(4))
        write_series(self.pile / "two", other_series(3, 2))

    def convert(self, **options: Any) -> Summary:
        return dicomdask.convert(
            str(self.pile),
            str(self.store),
            **{"key_file": str(self.key), "scheduler": "synchronous", **options},
        )

    def open(self) -> Store:
        return dicomdask.open_dataset(str(self.store))

    def codes(self) -> dict[str, int]:
        return dict(self.open().commit.codes)

    def shards(self) -> dict[str, tuple[int, bytes]]:
        """Return time and content of everything that readers read as pixels."""
        return {
            str(path): (path.stat().st_mtime_ns, path.read_bytes())
            for path in (self.store / "volumes").rglob("c/**/*")
            if path.is_file()
        }


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def by_frames(dataset: Store) -> dict[int, Any]:
    """Return the volumes by their number of frames."""
    return {int(row["n_frames"]): row for _, row in dataset.volumes.iterrows()}


def check(dataset: Store) -> None:
    """Check that the tables of one commit agree with each other."""
    names = ["volume_id", "revision"]
    volumes = set(map(tuple, dataset.volumes[names].to_numpy()))
    assert len(volumes) == len(dataset.volumes)
    assert not dataset.volumes["volume_id"].duplicated().any()
    for table in (dataset.frames, dataset.instances):
        assert set(map(tuple, table[names].to_numpy())) == volumes
    inputs = dataset.inputs
    assert not inputs["source_key"].duplicated().any()
    stored = set(inputs.loc[inputs["outcome"] == "stored", "source_key"])
    assert set(dataset.instances["source_key"]) == stored
    assert set(dataset.frames["source_key"]) == stored
    assert not dataset.instances["SOPInstanceUID"].duplicated().any()
    assert sum(dataset.commit.codes.values()) == len(inputs)
    assert dataset.volumes["n_frames"].sum() == len(dataset.frames)
    for volume_id in dataset.volumes["volume_id"]:
        dataset.read(volume_id)


def change_pixel(path: Path, value: int = 77) -> None:
    """Change one pixel of a file: the same size, and a new time."""
    before = path.stat()
    ds = dcmread(path)
    array = ds.pixel_array.copy()
    array[3, 3] = value
    ds.PixelData = array.tobytes()
    path.write_bytes(to_bytes(ds))
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000_000))


# --- nothing new --------------------------------------------------------------


def test_the_finished_job_again_does_no_work(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    (lab.pile / "notes.txt").write_text("buy milk")
    first = lab.convert()
    assert (first.is_new, first.n_indexed, first.n_encoded) == (True, 8, 2)
    before = {p: p.stat().st_mtime_ns for p in lab.store.rglob("*")}
    stages: list[str] = []

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a file was opened")

    for name in ("read_instance", "read_dataset"):
        monkeypatch.setattr(header, name, refuse)
    monkeypatch.setattr(pixels.FrameDecoder, "decode", refuse)
    again = lab.convert(progress=lambda progress: stages.append(progress.stage))
    assert (again.is_new, again.n_indexed, again.n_encoded) == (False, 0, 0)
    assert again.commit.created == first.commit.created
    assert stages == ["list"]
    assert {p: p.stat().st_mtime_ns for p in lab.store.rglob("*")} == before


def test_a_file_that_disappeared_deletes_nothing(lab: Lab) -> None:
    lab.convert()
    before = lab.shards()
    (lab.pile / "one" / "0002.dcm").unlink()
    shutil.rmtree(lab.pile / "two")
    again = lab.convert()
    assert (again.is_new, again.commit.n) == (False, 0)
    assert len(lab.open()) == 2
    assert lab.shards() == before
    check(lab.open())


def test_a_lost_work_directory_gives_the_same_dataset(lab: Lab) -> None:
    lab.convert()
    before = lab.open().volumes["revision"].to_list()
    shutil.rmtree(f"{lab.store}.work")
    again = lab.convert()
    assert (again.is_new, again.n_encoded) == (False, 2)
    assert lab.open().volumes["revision"].to_list() == before
    check(lab.open())


# --- more ---------------------------------------------------------------------


def test_only_a_new_series_is_encoded(lab: Lab) -> None:
    lab.convert()
    old, before = lab.open(), lab.shards()
    write_series(lab.pile / "three", other_series(5, 3))
    again = lab.convert()
    assert (again.is_new, again.n_indexed, again.n_encoded) == (True, 5, 1)
    assert again.commit.n == 1
    new = lab.open()
    rows = by_frames(new)
    assert sorted(rows) == [3, 4, 5]
    for n, row in by_frames(old).items():
        assert str(rows[n].to_dict()) == str(row.to_dict())
    after = lab.shards()
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 1
    check(new)


def test_a_late_slice_replaces_its_series_only(lab: Lab) -> None:
    late = lab.pile / "one" / "0004.dcm"
    data = late.read_bytes()
    late.unlink()
    (lab.pile / "two" / "0003.dcm").unlink()
    lab.convert()
    old, before = by_frames(lab.open()), lab.shards()
    assert sorted(old) == [2, 3]
    late.write_bytes(data)
    again = lab.convert()
    assert (again.commit.n, again.n_indexed, again.n_encoded) == (1, 1, 1)
    new = by_frames(lab.open())
    assert sorted(new) == [2, 4]
    assert str(new[2].to_dict()) == str(old[2].to_dict())
    assert new[4]["volume_id"] == old[3]["volume_id"]
    assert new[4]["revision"] != old[3]["revision"]
    after = lab.shards()
    assert {name: after[name] for name in before} == before
    assert lab.codes() == {"stored": 6}
    check(lab.open())


def test_a_late_slice_while_a_stored_source_is_gone_loses_no_slice(lab: Lab) -> None:
    late = lab.pile / "one" / "0004.dcm"
    data = late.read_bytes()
    late.unlink()
    lab.convert()
    old = by_frames(lab.open())[3]
    first = lab.pile / "one" / "0001.dcm"
    gone = first.read_bytes()
    first.unlink()
    late.write_bytes(data)
    lab.convert()
    rows = lab.open().volumes
    mine = rows[rows["volume_id"] == old["volume_id"]]
    assert list(mine["n_frames"]) == [3], "a source that disappeared deletes nothing"
    assert list(mine["revision"]) == [old["revision"]]
    check(lab.open())
    first.write_bytes(gone)
    lab.convert()
    assert lab.codes() == {"stored": 7}
    check(lab.open())


def test_a_changed_file_replaces_its_series(lab: Lab) -> None:
    lab.convert()
    old = by_frames(lab.open())
    change_pixel(lab.pile / "one" / "0002.dcm")
    again = lab.convert()
    assert (again.commit.n, again.n_indexed, again.n_encoded) == (1, 1, 1)
    new = by_frames(lab.open())
    assert str(new[3].to_dict()) == str(old[3].to_dict())
    assert new[4]["volume_id"] == old[4]["volume_id"]
    assert new[4]["revision"] != old[4]["revision"]
    voxels = lab.open().read(new[4]["volume_id"])
    assert voxels[1, 3, 3] == 77
    assert list(voxels[:, 0, 0]) == [1, 2, 3, 4]
    assert lab.codes() == {"stored": 7}
    check(lab.open())
    assert not lab.convert().is_new
    change_pixel(lab.pile / "one" / "0002.dcm", 78)
    assert lab.convert().commit.n == 2
    assert lab.open().read(new[4]["volume_id"])[1, 3, 3] == 78
    check(lab.open())


def test_a_reader_of_an_old_commit_reads_old_bytes(lab: Lab) -> None:
    lab.convert()
    old = lab.open()
    name = by_frames(old)[4]["volume_id"]
    before = old.read(name)
    for value in (70, 71):
        change_pixel(lab.pile / "one" / "0002.dcm", value)
        write_series(lab.pile / str(value), other_series(2, value))
        lab.convert()
        for reader in (old, dicomdask.open_dataset(str(lab.store), commit=0)):
            np.testing.assert_array_equal(reader.read(name), before)
            assert len(reader.volumes) == 2
            check(reader)
    assert lab.open().commit.n == 2
    assert lab.open().read(name)[1, 3, 3] == 71
    assert len(lab.open()) == 4


# --- copies -------------------------------------------------------------------


def n_duplicates(lab: Lab) -> list[int]:
    volumes = lab.open().volumes
    return sorted(int(n) for n in volumes["n_duplicates"])


def test_line_10_a_copy_under_another_name_is_a_duplicate(lab: Lab) -> None:
    shutil.copy(lab.pile / "one" / "0002.dcm", lab.pile / "again.dcm")
    lab.convert()
    assert lab.codes() == {"stored": 7, "duplicate": 1}
    assert n_duplicates(lab) == [0, 1]
    check(lab.open())


def test_line_10_a_transcoded_copy_is_a_duplicate(lab: Lab) -> None:
    ds = dcmread(lab.pile / "one" / "0002.dcm")
    ds.compress(RLELossless, generate_instance_uid=False)
    (lab.pile / "0-first.dcm").write_bytes(to_bytes(ds))
    lab.convert()
    assert lab.codes() == {"stored": 7, "duplicate": 1}
    dataset = lab.open()
    assert n_duplicates(lab) == [0, 1]
    assert "1.2.840.10008.1.2.5" not in set(dataset.instances["TransferSyntaxUID"])
    check(dataset)


def test_line_10_the_stored_copy_wins_over_a_later_one(lab: Lab) -> None:
    """The later copy would win by its syntax and its name."""
    path = lab.pile / "one" / "0002.dcm"
    plain = path.read_bytes()
    ds = dcmread(path)
    ds.compress(RLELossless, generate_instance_uid=False)
    path.write_bytes(to_bytes(ds))
    lab.convert()
    old = set(lab.open().instances["source_key"])
    (lab.pile / "0-first.dcm").write_bytes(plain)
    lab.convert()
    assert lab.codes() == {"stored": 7, "duplicate": 1}
    assert set(lab.open().instances["source_key"]) == old
    assert "1.2.840.10008.1.2.5" in set(lab.open().instances["TransferSyntaxUID"])
    check(lab.open())
    assert not lab.convert().is_new


def test_a_copy_that_comes_later_is_counted(lab: Lab) -> None:
    lab.convert()
    before = lab.shards()
    source = lab.pile / "one" / "0002.dcm"
    (lab.pile / "later.dcm").write_bytes(source.read_bytes())
    lab.convert()
    assert sorted(n_duplicates(lab)) == [0, 1]
    assert lab.shards() == before
    check(lab.open())


def test_a_part_of_the_plan_that_is_deleted_takes_nothing_out(lab: Lab) -> None:
    lab.convert()
    for path in (lab.folder / "o.zarr.work" / "plan").iterdir():
        path.unlink()
    assert not lab.convert().is_new
    assert lab.codes() == {"stored": 7}


def test_line_10_a_conflict_ends_when_the_wrong_copy_is_removed(lab: Lab) -> None:
    path, wrong = lab.pile / "one" / "0002.dcm", lab.pile / "wrong.dcm"
    shutil.copy(path, wrong)
    change_pixel(wrong)
    lab.convert()
    assert lab.codes() == {"stored": 6, "conflict": 2}
    check(lab.open())
    assert not lab.convert().is_new
    wrong.unlink()
    lab.convert()
    dataset = lab.open()
    row = by_frames(dataset)[4]
    stored = dataset.read(row["volume_id"])
    np.testing.assert_array_equal(stored[1], dcmread(path).pixel_array)
    assert lab.codes()["stored"] == 7
    assert "conflict" not in lab.codes()
    check(dataset)
    assert not lab.convert().is_new


# --- what does not decode -----------------------------------------------------


def break_stream(path: Path) -> bytes:
    """Compress a file and cut its stream within a valid element; return the file."""
    ds = dcmread(path)
    ds.compress(RLELossless, generate_instance_uid=False)
    whole = to_bytes(ds)
    (stream,) = pixels_of(ds)
    cut = stream[: len(stream) // 2 & ~1]
    at = whole.index(stream)
    length = len(cut).to_bytes(4, "little")
    data = whole[: at - 4] + length + cut + whole[at + len(stream) :]
    path.write_bytes(data)
    return whole


def pixels_of(ds: Dataset) -> list[bytes]:
    """Return the encoded frames of a data set of one frame: all after the offsets."""
    data = ds.PixelData
    offsets = int.from_bytes(data[4:8], "little")
    start = 8 + offsets
    length = int.from_bytes(data[start + 4 : start + 8], "little")
    return [data[start + 8 : start + 8 + length]]


def test_a_file_that_does_not_decode_is_rejected_and_its_series_stored(
    lab: Lab,
) -> None:
    whole = break_stream(lab.pile / "one" / "0004.dcm")
    lab.convert()
    codes = lab.codes()
    assert codes.pop("stored") == 6
    (code,) = codes
    assert code in {"truncated", "bad-pixels"}
    rejected = lab.open().inputs.query("outcome == 'rejected'").iloc[0]
    assert rejected["stage"] == "encode"
    assert list(lab.open().volumes["n_frames"]) == [3, 3]
    check(lab.open())
    assert not lab.convert().is_new
    (lab.pile / "one" / "0004.dcm").write_bytes(whole)
    lab.convert()
    assert lab.codes() == {"stored": 7}
    check(lab.open())


def test_a_source_that_was_away_for_a_moment_is_stored_by_the_next_run(
    lab: Lab,
) -> None:
    """Its outcome says: run again."""
    path = lab.pile / "one" / "0004.dcm"
    away = lab.folder / "away.dcm"

    def steal(progress: steps.Progress) -> None:
        if progress.stage == "encode" and path.exists() and not progress.done:
            path.rename(away)

    lab.convert(progress=steal)
    assert lab.codes() == {"stored": 6, "source-changed": 1}
    away.rename(path)
    lab.convert()
    assert lab.codes() == {"stored": 7}
    check(lab.open())


def test_a_file_that_was_locked_for_a_moment_is_stored_by_the_next_run(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its outcome says: check its permissions, then run again."""
    opened = dicomdask.storage.open_blocks

    def locked(url: str, size: int | None = None) -> Any:
        if url.endswith("one/0004.dcm"):
            raise PermissionError(13, "Permission denied")
        return opened(url, size)

    with monkeypatch.context() as patch:
        patch.setattr(dicomdask.storage, "open_blocks", locked)
        lab.convert()
    assert lab.codes() == {"stored": 6, "unreadable": 1}
    lab.convert()
    assert lab.codes() == {"stored": 7}
    check(lab.open())


# --- keys ---------------------------------------------------------------------


def test_two_keys_have_no_id_in_common(lab: Lab) -> None:
    lab.convert()
    first = lab.open()
    lab.key.write_text("another key, long enough")
    lab.store = lab.folder / "other.zarr"
    lab.convert()
    second = lab.open()
    assert first.commit.key_fingerprint != second.commit.key_fingerprint
    for table, names in {
        "volumes": ["volume_id", "revision", "series_key", "PatientID", "path"],
        "instances": ["source_key", "SOPInstanceUID", "SeriesInstanceUID"],
        "frames": ["source_key", "SOPInstanceUID"],
        "inputs": ["source_key"],
    }.items():
        for name in names:
            ours = set(getattr(first, table)[name])
            assert not ours & set(getattr(second, table)[name]), name
    row, other = by_frames(first)[4], by_frames(second)[4]
    assert row["StudyInstanceUID"] != other["StudyInstanceUID"]
    np.testing.assert_array_equal(
        first.read(row["volume_id"]), second.read(other["volume_id"])
    )


def test_rows_in_a_distant_work_directory_are_fetched_many_at_once(
    tmp_path: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three reads that wait for each other end only if all three are under way."""
    kernels = {"B": "1", "C": "2", "D": "3"}
    for kernel, number in kernels.items():
        slices = list(make_series(2, ConvolutionKernel=kernel))
        for ds in slices:
            ds.SOPInstanceUID = f"{ds.SOPInstanceUID}.{number}"
        write_series(tmp_path / "in" / kernel, iter(slices))
    together, read = Barrier(len(kernels)), Work.read_part

    def wait_and_read(work: Work, task: str) -> dict[str, Any]:
        together.wait(10)
        return read(work, task)

    monkeypatch.setattr(Work, "read_part", wait_and_read)
    place = f"memory://{uuid4().hex}"
    made = dicomdask.convert(
        str(tmp_path / "in"),
        f"{place}/o.zarr",
        work=f"{place}/w",
        key_file=str(key_file),
        scheduler="synchronous",
    )
    assert made.commit.counts["volumes"] == len(kernels)
