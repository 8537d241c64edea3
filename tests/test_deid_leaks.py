"""Markers in a pile of files: none is left in what `deidentify` writes or says."""

import io
import json
import secrets
import traceback
from pathlib import Path

import numpy as np
import pydicom
import pytest

import dicomdask
from dicomdask import deid, header
from dicomdask.deid import clean, file, rules
from dicomdask.errors import DicomDaskError, InputError
from dicomdask.policy import load_policy
from dicomdask.pseudonym import Key
from dicomdask.tasks import files
from tests.builders import make_instance, to_bytes
from tests.marked import write_pile
from tests.markers import Markers
from tests.planted import KINDS, plant_kinds
from tests.told import Told, all_bytes, assert_clean, assert_keyless, decoded, listening

KEY = Key(b"0123456789abcdef")


@pytest.fixture(scope="module")
def pile(tmp_path_factory):
    return write_pile(tmp_path_factory.mktemp("pile"))


@pytest.fixture(scope="module")
def run(pile, tmp_path_factory, key_file):
    """De-identify the pile in this process, other modalities and all."""
    dest, told = tmp_path_factory.mktemp("out") / "a", Told()
    with listening(told):
        told.summary = dicomdask.deidentify(
            str(pile.root),
            str(dest),
            key_file=str(key_file),
            trust_pixels=["US", "SC", "OT"],
            options=["clean-descriptors", "clean-structured-content", "clean-graphics"],
            scheduler="synchronous",
            progress=told.note,
        )
    told.note(told.summary)
    told.store, told.work = dest, Path(f"{dest}.work")
    return told


def test_much_is_stored_and_all_is_told(run, pile):
    outcomes = run.summary.outcomes
    assert sum(outcomes.values()) == sum(pile.count.values()) + 1  # the strange name
    assert outcomes["stored"] >= pile.count["stored"]


def test_no_byte_of_the_files_their_names_and_the_record(run, pile):
    assert_clean(pile.markers, all_bytes(run.store).items())
    assert_clean(pile.markers, decoded(run.store))
    assert_keyless(*all_bytes(run.store).values())


def texts(ds):
    for element in ds.iterall():
        if element.VR != "SQ" and element.keyword != "PixelData":
            yield f"{element.value}".encode()


def test_no_decoded_value(run, pile):
    for path in run.store.rglob("*.dcm"):
        ds = pydicom.dcmread(path)
        assert not pile.markers.find(b"\n".join(texts(ds))), path.name
        if "PixelData" in ds:
            array = ds.pixel_array
            assert not pile.markers.find(array.tobytes())
            halves = [array.astype(np.int64) >> shift & 255 for shift in (0, 4, 8)]
            for half in halves:
                assert not pile.markers.find(half.astype(np.uint8).tobytes())


def test_no_log_no_warning_no_receipt(run, pile):
    assert not pile.markers.find_in_text("\n".join(run.text))
    assert_clean(pile.markers, all_bytes(run.work / "log").items())
    [target] = (run.work / "files").iterdir()
    assert_clean(pile.markers, all_bytes(target / "receipts").items())


# --- fail closed --------------------------------------------------------------

STEPS = [
    (clean, "clean_element"),
    (clean, "decoded"),
    (rules, "replace_uid"),
    (rules, "patient_pseudonym"),
    (clean, "patient_pseudonym"),
    (file, "clean_level"),
    (file, "mark"),
    (file, "clean_pixels"),
    (file, "write_file"),
    (header, "read_dataset"),
    (files, "Target"),
]


@pytest.mark.parametrize(("home", "name"), STEPS[:-1], ids=lambda one: str(one)[-30:])
def test_a_fault_in_any_step_lets_nothing_through(
    home, name, tmp_path, key_file, monkeypatch
):
    marker = f"Q{secrets.token_hex(4)[:7].upper()}"
    folder = tmp_path / "in"
    folder.mkdir()
    ds = make_instance(PatientName=marker, PatientID=marker, StudyDescription=marker)
    (folder / "a.dcm").write_bytes(to_bytes(ds))
    if "patient_pseudonym" in name and home is rules:
        home = clean  # one name for both

    def fail(*_, **__):
        raise ValueError(f"Invalid value: {marker}")

    monkeypatch.setattr(home, name, fail)
    told = Told()
    with listening(told):
        try:
            done = dicomdask.deidentify(
                str(folder),
                str(tmp_path / "out"),
                key_file=str(key_file),
                scheduler="synchronous",
            )
            told.note(done)
            assert set(done.codes) <= {"deid-failed", "unexpected"}
            assert done.outcomes == {"rejected": 1}
        except DicomDaskError:
            told.note(traceback.format_exc())
    assert not list((tmp_path / "out").rglob("*.dcm"))
    assert marker not in "\n".join(told.text)
    for name, content in all_bytes(tmp_path / "out").items():
        assert marker.encode() not in content, name


@pytest.mark.parametrize("name", ["clean_element", "clean_private", "decoded"])
def test_a_fault_in_the_walk_of_a_header_is_an_error_without_value(name, monkeypatch):
    def fail(*_, **__):
        raise ValueError("Zaphod")

    policy = load_policy("research", options=["retain-safe-private"])
    monkeypatch.setattr(clean, name, fail)
    with pytest.raises(InputError) as caught:
        deid.clean_header(make_instance(PatientName="Zaphod"), policy, KEY)
    assert caught.value.code == "deid-failed"
    assert caught.value.__context__ is None


def test_what_a_file_keeps_is_what_the_policy_shows():
    ds = make_instance(StationName="x", KVP="120", ConvolutionKernel="B30f")
    policy = load_policy("research")
    made = deid.clean_file(header.read_dataset(to_bytes(ds)), policy, KEY)
    read = pydicom.dcmread(io.BytesIO(made.data))
    shown = {one.name: one.action for one in deid.explain(ds, policy)}
    for name in ("KVP", "ConvolutionKernel", "Rows", "StudyDate"):
        assert shown[name] != "X"
        assert name in read
    assert shown["StationName"] == "X"
    assert "x" not in json.dumps(str(read.get("StationName")))


# --- kinds of objects ---------------------------------------------------------


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    folder, markers = tmp_path_factory.mktemp("kinds"), Markers()
    for number, data in enumerate(plant_kinds(markers).values()):
        (folder / f"{number} {markers.word()}.dcm").write_bytes(data)
    return folder, markers


def test_ten_kinds_of_objects_hold_many_markers(kinds):
    folder, markers = kinds
    for path in folder.iterdir():
        assert len(markers.find(path.read_bytes())) >= 120
    assert len(KINDS) == 10
    assert len(markers.words) >= 4000


def test_no_marker_of_any_kind_is_left(kinds, tmp_path, key_file, convert):
    folder, markers = kinds
    trusted = ["US", "OT", "SEG"]
    done = dicomdask.deidentify(
        str(folder),
        str(tmp_path / "out"),
        key_file=str(key_file),
        scheduler="synchronous",
        trust_pixels=trusted,
        options=["retain-safe-private", "clean-descriptors"],
    )
    assert done.codes["unsupported-object"] == 1  # the PDF
    assert done.outcomes["stored"] == len(KINDS) - 1
    convert(folder, tmp_path / "a.zarr", trust_pixels=trusted)
    for place in ("out", "a.zarr"):
        assert_clean(markers, all_bytes(tmp_path / place).items())
        assert_clean(markers, decoded(tmp_path / place))
