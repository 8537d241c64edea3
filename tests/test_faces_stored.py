"""From files to a dataset: who is flagged, whose face goes, and who is refused."""

import json
from collections import Counter
from functools import cache

import numpy as np
import pytest

import dicomdask
from dicomdask import layout
from dicomdask.errors import InputError, OptionError
from dicomdask.show import info_text
from dicomdask.verify import verify
from dicomdask.work import Work
from tests import heads
from tests.builders import make_instance, make_series, write_series

CLEAN = {"options": ["clean-faces"]}
SMALL = {"spacing": (6.0, 3.0, 3.0)}


@cache
def head(contrast):
    return heads.scan(contrast, **SMALL)


@pytest.fixture
def stored(tmp_path, key_file):
    def convert(slices, name="a", **options):
        write_series(tmp_path / f"in-{name}", slices)
        store = str(tmp_path / f"{name}.zarr")
        found = {"scheduler": "synchronous", "key_file": str(key_file), **options}
        dicomdask.convert(str(tmp_path / f"in-{name}"), store, **found)
        return dicomdask.open_dataset(store)

    return convert


def volume_of(ds):
    [row] = ds.volumes.itertuples()
    return row, np.asarray(ds.read(row.volume_id))


def header_of(row):
    return json.loads(row.header)


@pytest.mark.parametrize("contrast", ["CT", "T1"])
def test_a_face_is_flagged_and_goes_with_the_option(stored, contrast):
    scan = head(contrast)
    row, before = volume_of(stored(heads.slices(scan, contrast)))
    assert row.faces == "possible"
    assert "00280302" not in header_of(row)
    ds = stored(heads.slices(scan, contrast), "b", **CLEAN)
    row, after = volume_of(ds)
    assert row.faces == "cleaned"
    assert header_of(row)["00280302"]["Value"] == ["NO"]
    codes = json.dumps(header_of(row)["00120064"])
    assert "113102" in codes
    brain, nose = (scan.labels == part for part in (heads.BRAIN, heads.NOSE))
    assert np.array_equal(after[brain], before[brain])
    gone = after != before
    assert gone[nose].mean() > 0.9
    planes = [plane[mask] for plane, mask in zip(after, gone, strict=True)]
    assert all(len(np.unique(plane)) < 2 for plane in planes)
    assert "faces: 0 volumes may show one, 1 had theirs removed" in info_text(
        ds.commit, "x"
    )


def test_shards_find_the_same_face(stored, monkeypatch, tmp_path, key_file):
    scan = head("CT")
    _, whole = volume_of(stored(heads.slices(scan, "CT"), **CLEAN))
    monkeypatch.setattr(layout, "SHARD_BYTES", whole.nbytes // 3)
    ds = stored(heads.slices(scan, "CT"), "b", **CLEAN)
    row, cut = volume_of(ds)
    assert row.shards[0] < row.shape[0]
    assert row.faces == "cleaned"
    assert np.array_equal(whole, cut)


def test_verify_knows_what_was_removed(stored, tmp_path, key):
    stored(heads.slices(head("CT"), "CT"), **CLEAN)
    store = str(tmp_path / "a.zarr")
    work = Work(f"{store}.work")
    report = verify(store, work=work, key=key, sample=None)
    assert report.n_frames == len(head("CT").values)
    assert not report.problems
    path = tmp_path / "in-a" / "0020.dcm"
    data = bytearray(path.read_bytes())
    data[-2:] = b"\x07\x07"
    path.write_bytes(data)
    [problem] = verify(store, work=work, key=key, sample=None).problems
    assert "differ from the source" in problem


def test_what_holds_no_head_is_told_apart(stored):
    neck = heads.scan("CT", high=(105, 118, -66), low=(-105, -130, -205), **SMALL)
    ds = stored(heads.slices(neck, "CT", BodyPartExamined="KNEE"), **CLEAN)
    row, values = volume_of(ds)
    assert row.faces == "none"
    assert np.array_equal(values - 1024, neck.values)
    for body in ("NECK", None):
        elements = {} if body is None else {"BodyPartExamined": body}
        ds = stored(heads.slices(neck, "CT", **elements), f"n{body}", **CLEAN)
        assert Counter(ds.inputs["code"]) == {"unclean-faces": len(neck.values)}


def test_a_head_that_says_it_is_none_is_found_in_ct(stored):
    slices = heads.slices(head("CT"), "CT", BodyPartExamined="ABDOMEN")
    row, _ = volume_of(stored(slices, **CLEAN))
    assert row.faces == "cleaned"
    slices = heads.slices(head("CT"), "CT", BodyPartExamined="ABDOMEN")
    row, _ = volume_of(stored(slices, "b"))
    assert row.faces == "none"


def test_what_cannot_be_cleaned_is_refused(stored):
    slices = heads.slices(head("CT"), "CT", Modality="PT")
    ds = stored(slices, **CLEAN)
    assert set(ds.inputs["code"]) == {"unclean-faces"}
    slab = make_series(3)  # 7.5 mm high
    row, _ = volume_of(stored(slab, "b", **CLEAN))
    assert row.faces == "none"


@pytest.mark.parametrize("fault", [ValueError("SMITH"), InputError("unclean-faces")])
@pytest.mark.parametrize("place", ["find_face", "face_mask"])
def test_a_fault_rejects_the_volume(stored, monkeypatch, place, fault):
    def fail(*_):
        raise fault

    monkeypatch.setattr(f"dicomdask.faces.{place}", fail)
    ds = stored(heads.slices(head("CT"), "CT"), **CLEAN)
    assert set(ds.inputs["code"]) == {"unclean-faces"}
    assert not ds.inputs["reason"].str.contains("SMITH").any()


def test_without_scipy_the_option_is_refused_by_name(stored, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "scipy.ndimage", None)
    with pytest.raises(OptionError, match=r'pip install "dicomdask\[faces\]"'):
        stored(make_series(1), **CLEAN)


def test_policy_none_has_no_options(stored):
    with pytest.raises(OptionError, match="clean-faces"):
        stored(make_series(1), policy="none", **CLEAN)


def test_deidentify_refuses_what_may_be_of_a_head(tmp_path, key_file):
    bodies = {"BodyPartExamined": "HEAD"}, {}, {"BodyPartExamined": "KNEE"}
    made = [
        make_instance(series=n, instance=n, **body) for n, body in enumerate(bodies, 1)
    ]
    write_series(tmp_path / "in", made)
    found = dicomdask.deidentify(
        str(tmp_path / "in"),
        str(tmp_path / "out"),
        key_file=str(key_file),
        scheduler="synchronous",
        **CLEAN,
    )
    assert found.codes == {"stored": 1, "unclean-faces": 2}
