"""Deidentify with clean-faces: the same pixels go as from arrays, and nothing else."""

from functools import cache

import numpy as np
import pydicom
import pytest

import dicomdask
from dicomdask.tasks.forgotten_files import drop_files
from dicomdask.work import Work
from tests import heads
from tests.builders import make_instance, write_series

pytestmark = pytest.mark.timeout(240)
CLEAN = {"options": ["clean-faces"]}


@cache
def head(contrast):
    return heads.scan(contrast, spacing=(6.0, 4.0, 4.0))


@pytest.fixture
def pile(tmp_path):
    def write(contrast="CT", **elements):
        write_series(
            tmp_path / "in", heads.slices(head(contrast), contrast, **elements)
        )
        return tmp_path / "in"

    return write


@pytest.fixture
def deidentify(tmp_path, key_file):
    def run(name="out", **options):
        found = {"scheduler": "synchronous", **CLEAN, **options}
        return dicomdask.deidentify(
            str(tmp_path / "in"), str(tmp_path / name), key_file=str(key_file), **found
        )

    return run


def files_of(folder):
    found = sorted(folder.glob("*/*/*/*.dcm"))
    return sorted(map(pydicom.dcmread, found), key=lambda one: one.InstanceNumber)


@pytest.mark.parametrize("contrast", ["CT", "T1"])
def test_files_hold_what_arrays_hold(tmp_path, pile, deidentify, convert, contrast):
    source = pile(contrast)
    n = len(head(contrast).values)
    assert deidentify().codes == {"stored": n}
    found = {str(one.SOPInstanceUID): one for one in files_of(tmp_path / "out")}
    convert(source, tmp_path / "a.zarr", **CLEAN)
    ds = dicomdask.open_dataset(str(tmp_path / "a.zarr"))
    [row] = ds.volumes.itertuples()
    array = np.asarray(ds.read(row.volume_id))
    assert len(found) == n
    stored = [one.pixel_array for one in found.values()]
    by_plane = {plane.tobytes() for plane in array}
    assert {one.astype(array.dtype).tobytes() for one in stored} == by_plane
    before = {pydicom.dcmread(p).pixel_array.tobytes() for p in source.glob("*.dcm")}
    assert 0 < len(by_plane - before) < n + 1
    for one in found.values():
        assert one.RecognizableVisualFeatures == "NO"
        codes = [c.CodeValue for c in one.DeidentificationMethodCodeSequence]
        assert "113102" in codes


def test_what_has_gaps_is_refused_where_arrays_are(tmp_path, pile, deidentify, convert):
    source = pile()
    (source / "0020.dcm").unlink()
    codes = deidentify().codes
    convert(source, tmp_path / "a.zarr", **CLEAN)
    ds = dicomdask.open_dataset(str(tmp_path / "a.zarr"))
    assert codes == ds.inputs["code"].value_counts().to_dict()
    found = files_of(tmp_path / "out")
    assert len(found) == codes["stored"] > 0
    assert {one.RecognizableVisualFeatures for one in found} == {"NO"}


def test_two_workers_write_the_same_bytes(tmp_path, pile, deidentify):
    pile()
    deidentify()
    deidentify("other", scheduler="threads")
    one, other = (
        {p.relative_to(folder): p.read_bytes() for p in folder.glob("*/*/*/*.dcm")}
        for folder in (tmp_path / "out", tmp_path / "other")
    )
    assert len(one) == len(head("CT").values)
    assert one == other


def test_the_lowest_slice_of_a_real_head_is_no_exception(tmp_path, data, deidentify):
    source = data / "Slicer__Slicer/Testing/Data/Input/CTHeadAxialDicom"
    (tmp_path / "in").symlink_to(source)
    before = {pydicom.dcmread(p).pixel_array.tobytes() for p in source.glob("*.dcm")}
    assert deidentify().codes == {"stored": len(before)}
    found = {one.pixel_array.tobytes() for one in files_of(tmp_path / "out")}
    assert len(found) == len(before)
    assert not found & before


@pytest.mark.parametrize("place", ["find_face", "face_mask"])
def test_a_fault_rejects_every_file(pile, deidentify, monkeypatch, place):
    def fail(*_):
        raise ValueError("SMITH")

    pile()
    monkeypatch.setattr(f"dicomdask.faces.{place}", fail)
    assert deidentify().codes == {"unclean-faces": len(head("CT").values)}


def test_forgetting_removes_the_masks(tmp_path, pile, deidentify):
    pile()
    deidentify()
    work = Work(str(tmp_path / "out.work"))
    assert list((tmp_path / "out.work" / "faces" / "masks").rglob("*.npz"))
    drop_files(work, set(), None)
    assert not (tmp_path / "out.work" / "faces").exists()


# --- a pile that grows ----------------------------------------------------------


def hidden(source, slices):
    """Move slices of a pile away; return a function that brings them back."""
    away = source.with_name("away")
    away.mkdir()
    for number in slices:
        (source / f"{number:04d}.dcm").rename(away / f"{number:04d}.dcm")

    def bring_back():
        for path in sorted(away.iterdir()):
            path.rename(source / path.name)

    return bring_back


def by_name(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.glob("*/*/*/*.dcm")}


@pytest.mark.parametrize("late", [range(1, 16), range(6, 42)])
def test_files_added_to_a_head_mask_the_earlier_ones_anew(
    tmp_path, pile, deidentify, late
):
    """Some had another mask; of the piece of a head that had none all were refused."""
    source, n = pile(), len(head("CT").values)
    deidentify("whole", work=str(tmp_path / "own"))
    bring_back = hidden(source, late)
    first = deidentify(crosswalk=True)
    before = by_name(tmp_path / "out")
    assert first.codes == {"stored": len(before)} or not before
    bring_back()
    second = deidentify(crosswalk=True)
    assert second.codes == {"stored": n}
    assert second.n_done == n
    after = by_name(tmp_path / "out")
    assert after == by_name(tmp_path / "whole")
    assert before.items() != {k: after[k] for k in before}.items() or not before
    mapping = (tmp_path / "out.work").glob("files/*/uid_mapping.csv")
    [text] = [path.read_text() for path in mapping]
    assert text.count("\n") > n
    third = deidentify(crosswalk=True)
    assert (third.n_done, third.codes) == (0, {"stored": n})


def test_a_head_that_is_found_no_longer_takes_its_files_away(
    tmp_path, pile, deidentify, monkeypatch
):
    source, n = pile(), len(head("CT").values)
    bring_back = hidden(source, [n])
    assert deidentify().codes == {"stored": n - 1}
    bring_back()
    monkeypatch.setattr("dicomdask.faces.find_face", lambda *_: None)
    assert deidentify().codes == {"unclean-faces": n}
    assert by_name(tmp_path / "out") == {}
    inputs = dicomdask.tasks.record.INPUTS
    assert list((tmp_path / "out" / "_dicomdask" / inputs).glob("*.parquet"))


def test_another_series_is_left_alone(tmp_path, pile, deidentify):
    pile()
    write_series(tmp_path / "in" / "other", [make_instance(7, BodyPartExamined="KNEE")])
    bring_back = hidden(tmp_path / "in", [1])
    deidentify()
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*/*/*/*.dcm")}
    bring_back()
    assert set(deidentify().codes) == {"stored"}
    same = [path for path, time in times.items() if path.stat().st_mtime_ns == time]
    assert [pydicom.dcmread(path).Rows for path in same] == [make_instance().Rows]


def test_convert_removes_the_face_of_a_grown_head_anew(tmp_path, pile, convert):
    source = pile()
    convert(source, tmp_path / "whole.zarr", **CLEAN)
    bring_back = hidden(source, range(1, 16))
    convert(source, tmp_path / "a.zarr", **CLEAN)
    bring_back()
    convert(source, tmp_path / "a.zarr", **CLEAN)
    arrays = []
    for name in ("whole.zarr", "a.zarr"):
        ds = dicomdask.open_dataset(str(tmp_path / name))
        [row] = ds.volumes.itertuples()
        assert row.faces == "cleaned"
        arrays.append(np.asarray(ds.read(row.volume_id)))
    assert np.array_equal(*arrays)
