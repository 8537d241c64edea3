"""From the look to what is stored: nothing at risk passes, what is found is blank."""

import dataclasses
import io
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
from PIL import Image, ImageDraw, ImageFont

import dicomdask
from dicomdask import burnedin, plan
from dicomdask import verify as verify_module
from dicomdask.burnedin import detector
from dicomdask.errors import InputError, OptionError
from dicomdask.header import read_instance
from dicomdask.model import Box, Settings, SourceFile
from dicomdask.policy import load_policy
from dicomdask.pseudonym import Key, resolve_key
from dicomdask.show import info_text
from dicomdask.tasks import attempts
from dicomdask.tasks.policies import seeing
from dicomdask.verify import verify
from dicomdask.work import Work
from tests.builders import make_instance, to_bytes
from tests.strategies import make_stack

US = "1.2.840.10008.5.1.4.1.1.6.1"
HEAD = 'extends = "research"\n'
DEVICE = 'manufacturer = "acme"\nmodel = "echo.*"\nrows = 200\ncolumns = 320\n'


def drawn(*lines: str, at: tuple[int, int] = (100, 60)) -> np.ndarray:
    """Return a plane of 200 x 320 with lines of text on dark noise."""
    noise = np.random.default_rng(3).integers(0, 24, (200, 320)).astype(np.uint8)
    plane = Image.fromarray(noise)
    for number, line in enumerate(lines):
        place = (at[1], at[0] + 30 * number)
        font = ImageFont.load_default(18)
        ImageDraw.Draw(plane).text(place, line, fill=235, font=font)
    return np.asarray(plane)


def ultrasound(pixels: np.ndarray, *, patient: int = 1, **elements):
    """Return an ultrasound image of a maker and a model."""
    wanted = {
        "Modality": "US",
        "SOPClassUID": US,
        "ImageType": ["ORIGINAL", "PRIMARY"],
        "Manufacturer": "ACME",
        "ManufacturerModelName": "Echo 7",
        "RescaleSlope": None,
        "RescaleIntercept": None,
    }
    return make_instance(patient, pixels=pixels, **wanted | elements)


def instance_of(ds):
    data = to_bytes(ds)
    return read_instance(io.BytesIO(data), SourceFile("a", len(data), "e"))


def store_of(tmp_path: Path, *datasets, **options):
    """Return the dataset that some DICOM becomes."""
    folder = tmp_path / "in"
    folder.mkdir(exist_ok=True)
    for number, ds in enumerate(datasets):
        (folder / f"{number}.dcm").write_bytes(to_bytes(ds))
    store = str(tmp_path / "a.zarr")
    dicomdask.convert(str(folder), store, scheduler="synchronous", **options)
    return dicomdask.open_dataset(store)


def policy_file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "ours.toml"
    path.write_text(HEAD + text)
    return str(path)


# --- who is looked at ----------------------------------------------------------


def test_a_detector_looks_where_the_option_is_in_force() -> None:
    one = instance_of(ultrasound(drawn()))
    assert burnedin.look_of(one, load_policy("research")) is None
    policy = load_policy("research", options=["clean-pixels"])
    assert burnedin.look_of(one, policy) == "detector"
    assert burnedin.look_of(instance_of(make_instance()), policy) == "not-needed"
    trusting = load_policy("research", trusted_pixels=["US"])
    assert burnedin.look_of(one, trusting) == "trusted"
    assert burnedin.look_of(one, load_policy("none")) == "none"


@pytest.mark.parametrize(
    "added",
    [
        'modalities = ["ct"]',
        'image_types = ["AXIAL"]',
        'sop_classes = ["1.2.840.10008.5.1.4.1.1.2"]',
    ],
)
def test_a_policy_file_has_more_looked_at(added: str) -> None:
    one = instance_of(make_instance())
    strict = load_policy("custom", text=f"{HEAD}[look]\n{added}\n")
    assert burnedin.look_of(one, load_policy("research")) == "not-needed"
    assert burnedin.look_of(one, strict) is None
    assert strict.digest != load_policy("custom", text=HEAD).digest


def test_a_person_who_has_looked_at_a_device_lets_it_pass() -> None:
    looked = f"[[pixels]]\n{DEVICE}blank = [[0, 0, 9, 320]]\nlooked = true\n"
    policy = load_policy("custom", text=HEAD + looked)
    one = instance_of(ultrasound(drawn()))
    assert burnedin.look_of(one, policy) == "person"
    for fields in (
        {"manufacturer": "ACME Inc"},
        {"manufacturer_model_name": None},
        {"rows": 201},
        {"columns": 321},
    ):
        other = dataclasses.replace(one, **fields)
        assert burnedin.look_of(other, policy) is None


def test_a_device_that_writes_somewhere_is_looked_at_whatever_it_is() -> None:
    text = f'{HEAD}[[pixels]]\nmodality = "CT"\nblank = [[0, 0, 4, 4]]\n'
    one = instance_of(make_instance())
    assert burnedin.look_of(one, load_policy("custom", text=text)) is None


def test_without_the_extra_the_option_is_refused_by_name(tmp_path, monkeypatch) -> None:
    def missing() -> None:
        raise OptionError('pip install "dicomdask[text]"')

    monkeypatch.setattr(detector, "require", missing)
    with pytest.raises(OptionError, match=r"dicomdask\[text\]"):
        store_of(tmp_path, ultrasound(drawn()), options=["clean-pixels"])
    assert not (tmp_path / "a.zarr").exists()


def test_without_the_option_the_reason_says_what_to_do(tmp_path) -> None:
    ds = store_of(tmp_path, ultrasound(drawn()), make_instance(series=2))
    [reason] = ds.inputs[ds.inputs["code"] == "burned-in-risk"]["reason"]
    for way in ("--option clean-pixels", "dicomdask[text]", "[[pixels]]", "--trust"):
        assert way in reason
    assert list(ds.volumes["text_look"]) == ["not-needed"]
    assert ds.redactions.empty


# --- what is stored ------------------------------------------------------------


def test_what_is_found_is_blank_and_in_the_tables(tmp_path) -> None:
    plane = drawn("DOE JANE", "1970-01-02")
    ds = store_of(tmp_path, ultrasound(plane), options=["clean-pixels"])
    [row] = ds.volumes.to_dict("records")
    stored = ds.read(row["volume_id"])
    rows = ds.redactions.to_dict("records")
    inside = np.zeros(plane.shape, bool)
    for one in rows:
        inside[one["top"] : one["bottom"], one["left"] : one["right"]] = True
        assert (one["way"], list(one["frames"])) == ("detector", [1])
        assert 0 < one["score"] <= 1
    assert (stored[inside] == plane[~inside].min()).all()
    assert np.array_equal(stored[~inside], plane[~inside])
    assert not (stored > 200).any()
    assert (plane > 200).any()
    assert row["text_look"] == "detector"
    assert row["n_redactions"] == len(rows) >= 2
    assert row["statistics"]["max"] == stored.max() < 40
    header = row["header"]
    assert '"00280301":{"Value":["NO"],"vr":"CS"}' in header
    assert "113101" in header
    [one] = ds.instances.to_dict("records")
    assert (one["text_look"], one["n_redactions"]) == ("detector", len(rows))


def test_what_a_person_saw_is_all_that_is_blanked(tmp_path) -> None:
    plane = drawn("DOE JANE")
    rule = f"[[pixels]]\n{DEVICE}blank = [[0, 5, 9, 330]]\nlooked = true\n"
    ds = store_of(tmp_path, ultrasound(plane), policy=policy_file(tmp_path, rule))
    [row] = ds.redactions.to_dict("records")
    box = [row[name] for name in ("top", "left", "bottom", "right")]
    assert (row["way"], box) == ("rule", [0, 5, 9, 320])
    stored = ds.read(ds.volumes["volume_id"][0])
    wanted = plane.copy()
    wanted[0:9, 5:] = stored[0, 5]
    assert np.array_equal(stored, wanted)


def test_what_is_found_in_a_box_to_keep_is_no_text(tmp_path) -> None:
    plane = drawn("DOE JANE")
    rule = f"[[pixels]]\n{DEVICE}keep = [[80, 20, 150, 300]]\n"
    ds = store_of(
        *(tmp_path, ultrasound(plane), ultrasound(drawn("MRN", at=(20, 10)), series=2)),
        policy=policy_file(tmp_path, rule),
        options=["clean-pixels"],
    )
    assert sorted(ds.volumes["n_redactions"]) == [0, 1]


def test_marked_and_nothing_found_is_rejected(tmp_path) -> None:
    marked = ultrasound(drawn(), BurnedInAnnotation="YES")
    ds = store_of(tmp_path, marked, make_instance(series=2), options=["clean-pixels"])
    assert sorted(ds.inputs["code"]) == ["stored", "unclean-pixels"]


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory):
    """Return a dataset of a plane and one in colour with text, and its work."""
    folder = tmp_path_factory.mktemp("cleaned")
    plane = drawn("DOE JANE")
    colour = np.stack([plane, plane // 2, plane // 3], axis=-1)
    inverted = ultrasound(
        255 - plane, series=2, PhotometricInterpretation="MONOCHROME1"
    )
    rgb = ultrasound(plane, series=3)
    rgb.SamplesPerPixel, rgb.PlanarConfiguration = 3, 0
    rgb.PhotometricInterpretation, rgb.PixelData = "RGB", colour.tobytes()
    every = (ultrasound(plane), inverted, rgb)
    return folder, store_of(folder, *every, options=["clean-pixels"])


def test_verify_compares_what_is_left(cleaned) -> None:
    folder, ds = cleaned
    assert list(ds.volumes["n_redactions"]) == [1, 1, 1]
    work = Work(f"{folder}/a.zarr.work")
    key = resolve_key(work.require_job().key)
    found = verify(ds.store, work=work, key=key)
    assert found.problems == ()
    assert found.n_frames == 3


@pytest.mark.parametrize("n", range(3))
@pytest.mark.parametrize("with_work", [True, False])
def test_verify_sees_a_region_that_is_not_blank(cleaned, monkeypatch, n, with_work):
    folder, ds = cleaned
    row = ds.redactions.iloc[n]
    real = verify_module._read_plane

    def spoilt(store, path, frame):
        plane = real(store, path, frame)
        if row["volume_id"] in path:
            plane[..., row["top"] + 3, row["left"] + 3] = 77
        return plane

    monkeypatch.setattr(verify_module, "_read_plane", spoilt)
    work = Work(f"{folder}/a.zarr.work")
    key = resolve_key(work.require_job().key)
    found = verify(ds.store, work=work, key=key) if with_work else verify(ds.store)
    assert len(found.problems) == 1
    assert "not blank" in found.problems[0]


def test_verify_sees_a_pixel_beside_a_region(cleaned, monkeypatch) -> None:
    folder, ds = cleaned
    row = ds.redactions.iloc[0]
    real = verify_module._read_plane

    def spoilt(store, path, frame):
        plane = real(store, path, frame)
        if row["volume_id"] in path:
            plane[..., row["top"] - 1, row["left"]] ^= 1
        return plane

    monkeypatch.setattr(verify_module, "_read_plane", spoilt)
    work = Work(f"{folder}/a.zarr.work")
    key = resolve_key(work.require_job().key)
    [problem] = verify(ds.store, work=work, key=key).problems
    assert "differ from the source" in problem


# --- in DICOM ------------------------------------------------------------------


def cleaned_of(tmp_path: Path, *datasets, **options) -> dict[str, pydicom.Dataset]:
    """Return what `deidentify` writes, by modality; the destination is `out`."""
    folder = tmp_path / "in"
    folder.mkdir(exist_ok=True)
    for number, ds in enumerate(datasets):
        (folder / f"{number}.dcm").write_bytes(to_bytes(ds))
    out = tmp_path / "out"
    dicomdask.deidentify(str(folder), str(out), scheduler="synchronous", **options)
    found = [pydicom.dcmread(path) for path in out.rglob("*.dcm")]
    return {ds.Modality: ds for ds in found}


def told(tmp_path: Path, name: str) -> list[dict]:
    parts = (tmp_path / "out" / "_dicomdask" / name).glob("*.parquet")
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


def test_files_are_blank_where_arrays_are(tmp_path) -> None:
    plane = drawn("DOE JANE")
    one, other = ultrasound(plane), make_instance(series=2)
    found = cleaned_of(tmp_path, one, other, options=["clean-pixels"])
    ds = store_of(tmp_path, one, other, options=["clean-pixels"])
    [volume] = ds.volumes[ds.volumes["Modality"] == "US"]["volume_id"]
    assert np.array_equal(found["US"].pixel_array, ds.read(volume))
    assert found["US"].BurnedInAnnotation == "NO"
    codes = [c.CodeValue for c in found["US"].DeidentificationMethodCodeSequence]
    assert "113101" in codes
    assert "BurnedInAnnotation" not in found["CT"]
    assert found["CT"].PixelData == other.PixelData
    rows = told(tmp_path, "redactions")
    names = ("top", "left", "bottom", "right", "way", "score", "frames")
    wanted = ds.redactions[list(names)].to_dict("records")
    assert [{name: row[name] for name in names} for row in rows] == [
        {**row, "frames": list(row["frames"])} for row in wanted
    ]
    [look] = told(tmp_path, "looks")
    assert (look["text_look"], look["n_redactions"]) == ("detector", len(rows))
    assert look["SOPInstanceUID"] == found["US"].SOPInstanceUID


def test_a_file_in_which_nothing_is_found_keeps_its_bytes(tmp_path) -> None:
    plain = ultrasound(drawn())
    found = cleaned_of(tmp_path, plain, options=["clean-pixels"])
    assert found["US"].PixelData == plain.PixelData
    assert found["US"].BurnedInAnnotation == "NO"
    [look] = told(tmp_path, "looks")
    assert look["n_redactions"] == 0
    assert told(tmp_path, "redactions") == []


@pytest.mark.parametrize(
    "place",
    ["dicomdask.burnedin.detector.find_text", "dicomdask.pixels.blank_frames"],
)
@pytest.mark.usefixtures("nothing_apart")
def test_a_fault_rejects_the_file(tmp_path, monkeypatch, place) -> None:
    def broken(*_, **__):
        raise RuntimeError("SMITH")

    monkeypatch.setattr(place, broken)
    one = ultrasound(drawn("DOE JANE"))
    found = cleaned_of(tmp_path, one, make_instance(series=2), options=["clean-pixels"])
    assert set(found) == {"CT"}
    codes = {row["code"]: row["reason"] for row in told(tmp_path, "inputs")}
    assert set(codes) == {"stored", "unclean-pixels"}
    assert "SMITH" not in codes["unclean-pixels"]


def test_who_is_forgotten_leaves_no_row(tmp_path) -> None:
    every = [ultrasound(drawn("DOE JANE"), patient=number) for number in (1, 2)]
    cleaned_of(tmp_path, *every, options=["clean-pixels"])
    before = {name: told(tmp_path, name) for name in ("looks", "redactions")}
    dicomdask.forget(str(tmp_path / "out"), patients=["PAT0001"])
    [left] = (tmp_path / "out").rglob("*.dcm")
    for name, rows in before.items():
        after = told(tmp_path, name)
        assert {row["SOPInstanceUID"] for row in after} == {left.stem}
        assert len(after) * 2 == len(rows) > 0


# --- regions -------------------------------------------------------------------


def region(top, left, bottom, right):
    item = pydicom.Dataset()
    item.RegionLocationMinX0, item.RegionLocationMinY0 = left, top
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = right - 1, bottom - 1
    return item


@pytest.mark.parametrize(
    "regions",
    [
        [(20, 30, 150, 300)],
        [(20, 30, 100, 200), (120, 40, 180, 320)],
        [(20, 30, 100, 200), (60, 100, 180, 320), (0, 0, 10, 10)],
        [(0, 0, 200, 320)],
    ],
)
def test_outside_the_regions_is_all_that_is_in_none(regions) -> None:
    ds = ultrasound(drawn(), SequenceOfUltrasoundRegions=[region(*r) for r in regions])
    wanted = np.ones((200, 320), int)
    for top, left, bottom, right in regions:
        wanted[top:bottom, left:right] = 0
    found = np.zeros((200, 320), int)
    for box in burnedin.outside_regions(ds, (200, 320)):
        found[box.top : box.bottom, box.left : box.right] += 1
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize(
    "regions",
    [
        [(20, 30, 150, 400)],
        [(20, 30, 20, 300)],
        [(0, 0, 20, 30)],
        [(20, 30, 150, 300), (0, 0, 300, 10)],
    ],
)
def test_regions_that_cannot_be_meant_tell_nothing(regions) -> None:
    ds = ultrasound(drawn(), SequenceOfUltrasoundRegions=[region(*r) for r in regions])
    assert burnedin.outside_regions(ds, (200, 320)) == ()


# --- faults --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "fault"),
    [
        ("dicomdask.burnedin.detector.find_text", ZeroDivisionError("SMITH")),
        ("dicomdask.burnedin.detector.find_text", InputError("unclean-pixels")),
        ("dicomdask.pixels.blank", RuntimeError("SMITH")),
    ],
)
def test_a_fault_rejects_the_instance(tmp_path, monkeypatch, place, fault) -> None:
    def broken(*_, **__):
        raise fault

    monkeypatch.setattr(place, broken)
    ds = store_of(
        *(tmp_path, ultrasound(drawn("DOE JANE")), make_instance(series=2)),
        options=["clean-pixels"],
    )
    found = dict(zip(ds.inputs["code"], ds.inputs["reason"], strict=True))
    assert set(found) == {"stored", "unclean-pixels"}
    assert "SMITH" not in found["unclean-pixels"]


def test_a_look_that_takes_too_long_rejects_the_instance(monkeypatch) -> None:
    monkeypatch.setattr(sys.modules["dicomdask.burnedin.look"], "SECONDS", -1e9)
    with pytest.raises(InputError, match="took too long") as caught:
        burnedin.look([0], lambda _: [drawn()], burnedin.Ground(), lambda *_: [])
    assert caught.value.code == "unclean-pixels"


def test_boxes_have_a_margin_within_the_frame() -> None:
    found = burnedin.look(
        [4],
        lambda _: [np.zeros((50, 60), np.uint8)],
        burnedin.Ground(),
        lambda *_: [(Box(0, 10, 9, 60), 0.5)],
    )
    assert [one.box for one in found] == [Box(0, 8, 11, 60)]
    assert found[0].frames == (4,)


# --- what is said of it ----------------------------------------------------------


def test_info_and_commit_say_what_was_looked_at(cleaned) -> None:
    _, ds = cleaned
    assert ds.commit.counts["looked"] == 3
    assert ds.commit.counts["redactions"] == 3
    assert "3 instances looked at, 3 regions blanked" in info_text(ds.commit, ds.store)
    assert ds.commit.policy["detector"] == detector.identity()


def test_another_detector_is_another_policy(monkeypatch) -> None:
    policy = seeing(load_policy("research", options=["clean-pixels"]))
    monkeypatch.setattr(detector, "identity", lambda: "another")
    assert seeing(policy).digest != policy.digest
    assert seeing(load_policy("research")) == load_policy("research")


def test_a_look_is_in_the_bounds_of_memory() -> None:
    plain = make_stack(1)
    at_risk = [dataclasses.replace(one, modality="US") for one in plain]
    policy = load_policy("research", options=["clean-pixels"])
    needs = []
    for stack in (plain, at_risk):
        made = plan.plan_instances(
            stack, Settings(), policy=policy, key=Key(b"0123456789abcdef")
        )
        [volume] = made.volumes
        needs.append((volume.look, plan.memory_bytes(volume)))
    (by, less), (nobody, more) = needs
    assert (by, nobody) == ("not-needed", None)
    assert more - less > 300 << 20  # what was measured


def test_a_process_apart_finds_the_same(tmp_path, monkeypatch) -> None:
    one = ultrasound(drawn("DOE JANE"))
    (tmp_path / "b").mkdir()
    here = store_of(tmp_path, one, options=["clean-pixels"])
    monkeypatch.setattr(attempts, "TRIES", 0)
    monkeypatch.setattr(detector, "find_text", None)  # of this process
    apart = store_of(
        *(tmp_path / "b", one),
        options=["clean-pixels"],
        key_file=f"{tmp_path}/a.zarr.work/key",
    )
    found = [ds.redactions.drop(columns="source_key") for ds in (here, apart)]
    assert str(found[0].to_dict("records")) == str(found[1].to_dict("records"))
    assert len(found[0]) == 1
    [volume] = here.volumes["volume_id"]
    assert np.array_equal(here.read(volume), apart.read(volume))
