"""Deidentify: DICOM in, DICOM out, resumable, and nothing unaccounted for."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import distributed
import numpy as np
import pydicom
import pytest
from click.testing import CliRunner
from pydicom import Dataset
from pydicom.uid import JPEGLSLossless, RLELossless

import dicomdask
from dicomdask import storage
from dicomdask.cli import main
from dicomdask.errors import (
    NoDicomError,
    OptionError,
    PlanError,
    PolicyError,
    StoreError,
)
from dicomdask.tasks import files
from tests.builders import make_instance, make_series, to_bytes, write_series

SR = "1.2.840.10008.5.1.4.1.1.88.11"
PDF = "1.2.840.10008.5.1.4.1.1.104.1"
GSPS = "1.2.840.10008.5.1.4.1.1.11.1"


@pytest.fixture
def run(key_file):
    def deidentify(source, dest, **options):
        found = {"scheduler": "synchronous", "key_file": str(key_file), **options}
        return dicomdask.deidentify(str(source), str(dest), **found)

    return deidentify


def dicom(dest):
    return sorted(dest.rglob("*.dcm"))


def digests(dest):
    return {
        str(path.relative_to(dest)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in dest.rglob("*")
        if path.is_file() and path.name != "record.json"
    }


def report(**elements):
    ds = make_instance(SOPClassUID=SR, Modality="SR", **elements)
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored"):
        delattr(ds, keyword)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    item = Dataset()
    item.ValueType, item.RelationshipType = "TEXT", "CONTAINS"
    item.TextValue = "Mr Zaphod has a nodule"
    ds.ValueType, ds.ContentSequence = "CONTAINER", [item]
    return ds


def test_files_are_named_by_pseudonyms_and_say_so_themselves(series, tmp_path, run):
    done = run(series, tmp_path / "out")
    assert done.outcomes == {"stored": 5}
    assert len(dicom(tmp_path / "out")) == 5
    for path in dicom(tmp_path / "out"):
        ds = pydicom.dcmread(path)
        names = (ds.PatientID, ds.StudyInstanceUID, ds.SeriesInstanceUID)
        assert path.relative_to(tmp_path / "out").parts == (
            *names,
            f"{ds.SOPInstanceUID}.dcm",
        )
        raw = path.read_bytes()
        assert raw[:128] == bytes(128)
        assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
        assert ds.file_meta.MediaStorageSOPClassUID == ds.SOPClassUID
        assert ds.PatientIdentityRemoved == "YES"
        source = pydicom.dcmread(series / f"{ds.InstanceNumber:04d}.dcm")
        assert np.array_equal(ds.pixel_array, source.pixel_array)
        assert ds.ImagePositionPatient == source.ImagePositionPatient
        assert ds["PixelSpacing"].value == source["PixelSpacing"].value


def test_pseudonyms_are_those_of_convert(series, tmp_path, run, store):
    run(series, tmp_path / "out")
    dataset = dicomdask.open_dataset(str(store))
    found = {pydicom.dcmread(path).SOPInstanceUID for path in dicom(tmp_path / "out")}
    assert found == set(dataset.instances["SOPInstanceUID"])
    ds = pydicom.dcmread(dicom(tmp_path / "out")[0])
    row = dataset.volumes.iloc[0]
    assert (ds.PatientID, ds.StudyInstanceUID) == (
        row["PatientID"],
        row["StudyInstanceUID"],
    )


def test_every_input_has_one_outcome(tmp_path, run):
    folder = tmp_path / "in"
    write_series(folder, make_series(2))
    (folder / "text.txt").write_text("no DICOM")
    (folder / "empty").write_bytes(b"")
    us = make_instance(instance=7, Modality="US")
    (folder / "us.dcm").write_bytes(to_bytes(us))
    (folder / "sr.dcm").write_bytes(to_bytes(report(instance=8)))
    for number, uid in ((9, PDF), (10, GSPS)):
        other = report(instance=number)
        other.SOPClassUID = other.file_meta.MediaStorageSOPClassUID = uid
        (folder / f"{number}.dcm").write_bytes(to_bytes(other))
    shutil.copy(folder / "0001.dcm", folder / "copy.dcm")
    done = run(folder, tmp_path / "out")
    assert done.codes == {
        "burned-in-risk": 1,
        "duplicate": 1,
        "empty-file": 1,
        "not-dicom": 1,
        "stored": 3,
        "unsupported-object": 2,
    }
    record = json.loads((tmp_path / "out/_dicomdask/record.json").read_text())
    assert record["codes_found"] == done.codes
    assert record["codes"] == [["113100", record["codes"][0][1]], *record["codes"][1:]]
    trusted = run(folder, tmp_path / "more", trust_pixels=["us"])
    assert trusted.codes["stored"] == 4


def test_text_of_reports_goes_and_their_shape_stays(tmp_path, run):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "sr.dcm").write_bytes(to_bytes(report()))
    for options, wanted in (([], "REMOVED"), (["clean-structured-content"], "nodule")):
        dest = tmp_path / (options or ["plain"])[0]
        run(folder, dest, options=options)
        [item] = pydicom.dcmread(dicom(dest)[0]).ContentSequence
        assert (item.ValueType, item.RelationshipType) == ("TEXT", "CONTAINS")
        assert "Zaphod" not in item.TextValue
        assert wanted in item.TextValue


def test_copies_that_differ_are_all_rejected_until_one_is_gone(tmp_path, run):
    folder = tmp_path / "in"
    folder.mkdir()
    for name, value in (("a", 1), ("b", 2)):
        pixels = np.full((4, 4), value, np.int16)
        (folder / name).write_bytes(to_bytes(make_instance(pixels=pixels)))
    assert run(folder, tmp_path / "out").codes == {"conflict": 2}
    assert not dicom(tmp_path / "out")
    (folder / "b").unlink()
    assert run(folder, tmp_path / "out").outcomes["stored"] == 1
    [path] = dicom(tmp_path / "out")
    assert pydicom.dcmread(path).pixel_array[0, 0] == 1


def test_copies_that_are_compressed_without_loss_are_duplicates(tmp_path, run):
    folder = tmp_path / "in"
    folder.mkdir()
    for number, uid in enumerate((None, RLELossless, JPEGLSLossless)):
        ds = make_instance(pixels=np.arange(64, dtype=np.int16).reshape(8, 8))
        if uid:
            ds.compress(uid, generate_instance_uid=False)
        (folder / str(number)).write_bytes(to_bytes(ds))
    assert run(folder, tmp_path / "out").codes == {"duplicate": 2, "stored": 1}
    [path] = dicom(tmp_path / "out")
    assert pydicom.dcmread(path).pixel_array[7, 7] == 63
    other = make_instance(pixels=np.zeros((8, 8), np.int16))
    (folder / "other").write_bytes(to_bytes(other))
    assert run(folder, tmp_path / "out").codes == {"conflict": 4}
    assert not dicom(tmp_path / "out")


def test_a_finished_run_does_nothing_again_and_new_files_are_added(
    series, tmp_path, run
):
    assert run(series, tmp_path / "out").n_done == 5
    before = digests(tmp_path / "out")
    assert run(series, tmp_path / "out").n_done == 0
    assert digests(tmp_path / "out") == before
    (series / "more.dcm").write_bytes(to_bytes(make_instance(instance=77)))
    done = run(series, tmp_path / "out")
    assert (done.n_done, done.outcomes) == (1, {"stored": 6})


def test_a_changed_file_replaces_its_output(series, tmp_path, run):
    run(series, tmp_path / "out")
    changed = make_instance(instance=88, pixels=np.ones((8, 8), np.int16))
    (series / "0001.dcm").write_bytes(to_bytes(changed))
    assert run(series, tmp_path / "out").outcomes == {"stored": 5}
    numbers = {pydicom.dcmread(path).InstanceNumber for path in dicom(tmp_path / "out")}
    assert numbers == {2, 3, 4, 5, 88}


def test_a_run_that_is_cut_off_ends_like_an_undisturbed_one(
    series, tmp_path, run, monkeypatch
):
    run(series, tmp_path / "whole")
    original, seen = storage.write, []

    def fail(url, data):
        seen.append(url)
        if len(seen) == 9:
            raise KeyboardInterrupt
        original(url, data)

    for n_writes in (4, 9, 12):
        seen[:] = [""] * (9 - n_writes)
        monkeypatch.setattr(storage, "write", fail)
        with pytest.raises(KeyboardInterrupt):
            run(series, tmp_path / f"cut{n_writes}")
        monkeypatch.setattr(storage, "write", original)
        run(series, tmp_path / f"cut{n_writes}")
        assert digests(tmp_path / f"cut{n_writes}") == digests(tmp_path / "whole")


@pytest.mark.parametrize("n_workers", [1, 2, 8])
def test_any_number_of_workers_writes_the_same_bytes(
    n_workers, series, tmp_path, run, monkeypatch
):
    monkeypatch.setattr(files, "BATCH_FILES", 1)
    run(series, tmp_path / "one")
    with distributed.Client(
        n_workers=n_workers,
        threads_per_worker=1,
        processes=False,
        dashboard_address=None,
    ):
        run(series, tmp_path / "many", scheduler=None)
    assert digests(tmp_path / "many") == digests(tmp_path / "one")


def test_another_key_gives_other_names_and_is_refused_in_one_place(
    series, tmp_path, run
):
    other = tmp_path / "other.key"
    other.write_text("f" * 40)
    run(series, tmp_path / "a")
    run(series, tmp_path / "b", key_file=str(other))
    names = [{path.name for path in dicom(tmp_path / one)} for one in "ab"]
    assert not names[0] & names[1]
    with pytest.raises(PolicyError, match="another key"):
        run(series, tmp_path / "a", key_file=str(other))
    with pytest.raises(PlanError, match="policy digest"):
        run(series, tmp_path / "a", policy="basic")
    work = str(tmp_path / "w")
    with pytest.raises(PlanError, match="another key"):
        run(series, tmp_path / "a", key_file=str(other), work=work)


def test_what_cannot_be_a_destination_is_refused(series, tmp_path, run, store):
    with pytest.raises(StoreError, match="not made by"):
        run(series, store, work=str(tmp_path / "w"))
    with pytest.raises(StoreError, match="belongs to another store"):
        run(series, tmp_path / "out", work=f"{store}.work")
    with pytest.raises(OptionError, match="would copy"):
        run(series, tmp_path / "out", policy="none")
    (tmp_path / "none").mkdir()
    (tmp_path / "none/a.txt").write_text("no DICOM")
    with pytest.raises(NoDicomError):
        run(tmp_path / "none", tmp_path / "out")


def test_the_crosswalk_lies_in_the_work_directory_only(series, tmp_path, run):
    done = run(series, tmp_path / "out", crosswalk=True)
    ds = pydicom.dcmread(dicom(tmp_path / "out")[0])
    pairs = {}
    for url in done.mappings:
        path = url.removeprefix("file://")
        assert path.startswith(f"{tmp_path / 'out'}.work/")
        lines = Path(path).read_text().splitlines()
        assert lines[0] == "id_old,id_new"
        pairs |= dict(line.split(",") for line in lines[1:])
    assert pairs["PAT0001"] == ds.PatientID
    source = pydicom.dcmread(series / f"{ds.InstanceNumber:04d}.dcm")
    for keyword in ("SOPInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert pairs[source[keyword].value] == ds[keyword].value
    assert not list((tmp_path / "out").rglob("*mapping*"))
    plain = run(series, tmp_path / "plain")
    assert plain.mappings == ()
    assert not list((tmp_path / "plain.work").rglob("*crosswalk*"))


def test_a_number_that_two_issuers_gave_stands_in_the_crosswalk_twice(tmp_path, run):
    folder = tmp_path / "in"
    folder.mkdir()
    for number, issuer in enumerate(("A", "B")):
        ds = make_instance(instance=number, study=number, IssuerOfPatientID=issuer)
        (folder / f"{number}.dcm").write_bytes(to_bytes(ds))
    done = run(folder, tmp_path / "out", crosswalk=True)
    [url] = [url for url in done.mappings if "patient_mapping" in url]
    lines = Path(url.removeprefix("file://")).read_text().splitlines()[1:]
    names = {pydicom.dcmread(path).PatientID for path in dicom(tmp_path / "out")}
    assert len(names) == 2
    assert sorted(lines) == sorted(f"PAT0001,{name}" for name in names)


def test_references_resolve_across_objects_and_tables(tmp_path, run, convert):
    folder = tmp_path / "in"
    write_series(folder, make_series(3))
    target = pydicom.dcmread(folder / "0002.dcm")
    item = Dataset()
    item.ReferencedSOPClassUID = target.SOPClassUID
    item.ReferencedSOPInstanceUID = target.SOPInstanceUID
    contour = Dataset()
    contour.ContourGeometricType, contour.NumberOfContourPoints = "POINT", 1
    contour.ContourData, contour.ContourImageSequence = ["1", "2", "3"], [item]
    roi = Dataset()
    roi.ReferencedROINumber, roi.ContourSequence = 1, [contour]
    struct = report(instance=50, ROIContourSequence=[roi])
    struct.SOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    struct.Modality = "RTSTRUCT"
    struct.ReferencedFrameOfReferenceUID = target.FrameOfReferenceUID
    content = Dataset()
    content.ValueType, content.RelationshipType = "IMAGE", "CONTAINS"
    content.ReferencedSOPSequence = [item]
    text = report(instance=51)
    text.ContentSequence = [content]
    mask = make_instance(
        instance=52, series=3, Modality="SEG", pixels=np.ones((4, 4), np.uint8)
    )
    mask.SOPClassUID = "1.2.840.10008.5.1.4.1.1.66.4"
    source = Dataset()
    source.SourceImageSequence = [item]
    mask.DerivationImageSequence = [source]
    for number, ds in enumerate((struct, text, mask)):
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
        (folder / f"{number}.dcm").write_bytes(to_bytes(ds))
    run(folder, tmp_path / "out", trust_pixels=["SEG"])
    found = {}
    for path in dicom(tmp_path / "out"):
        ds = pydicom.dcmread(path)
        found[ds.Modality if ds.Modality != "CT" else ds.InstanceNumber] = ds
    uid = found[2].SOPInstanceUID
    inner = found["RTSTRUCT"].ROIContourSequence[0].ContourSequence[0]
    assert inner.ContourImageSequence[0].ReferencedSOPInstanceUID == uid
    assert inner.ContourData == [1, 2, 3]
    reference = found["SR"].ContentSequence[0].ReferencedSOPSequence[0]
    assert reference.ReferencedSOPInstanceUID == uid
    mask = found["SEG"].DerivationImageSequence[0].SourceImageSequence[0]
    assert mask.ReferencedSOPInstanceUID == uid
    assert found["RTSTRUCT"].PatientID == found[2].PatientID
    convert(folder, tmp_path / "a.zarr")
    frames = dicomdask.open_dataset(str(tmp_path / "a.zarr")).frames
    assert uid in set(frames["SOPInstanceUID"])


def test_object_stores_are_places_like_any_other(s3, series, tmp_path, key_file):
    for path in series.iterdir():
        storage.write(f"{s3}/in/{path.name}", path.read_bytes())
    options = {"scheduler": "synchronous", "key_file": str(key_file)}
    done = dicomdask.deidentify(f"{s3}/in", f"{s3}/out", work=f"{s3}/work", **options)
    dicomdask.deidentify(str(series), str(tmp_path / "out"), **options)
    assert done.outcomes == {"stored": 5}
    for path in dicom(tmp_path / "out"):
        name = path.relative_to(tmp_path / "out").as_posix()
        assert storage.read(f"{s3}/out/{name}") == path.read_bytes()


def test_the_command(series, tmp_path):
    dest = str(tmp_path / "out")
    words = ["deidentify", str(series), dest, "--scheduler", "synchronous"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.stderr
    assert f"{dest}: 5 inputs: 5 stored" in done.stdout
    (series / "bad.dcm").write_bytes(to_bytes(make_instance(Modality="US")))
    again = CliRunner().invoke(main, [*words, "--json"])
    assert again.exit_code == 8
    assert json.loads(again.stdout)["codes"]["burned-in-risk"] == 1
    assert oct(os.stat(f"{dest}.work").st_mode)[-3:] == "700"


def test_another_process_and_another_day_give_the_same_bytes(
    series, tmp_path, key_file
):
    for seed in ("1", "2"):
        code = "from dicomdask.cli import main; main()"
        words = ["deidentify", str(series), str(tmp_path / seed)]
        words += ["--key-file", str(key_file), "--scheduler", "synchronous"]
        subprocess.run(
            [sys.executable, "-c", code, *words],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        )
    assert digests(tmp_path / "1") == digests(tmp_path / "2")
