"""What verify must find, and what it must let pass."""

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest

import dicomdask
from dicomdask import layout, shards, verify
from dicomdask.errors import StoreError
from dicomdask.model import Layout
from dicomdask.pseudonym import Key
from dicomdask.work import Work
from tests.builders import make_series, write_series
from tests.conftest import SECRET

KEY = Key(SECRET.encode())


def check(store, **options):
    return verify.verify(str(store), work=Work(f"{store}.work"), key=KEY, **options)


def problems_of(store, **options):
    return " | ".join(check(store, **options).problems)


def shard_of(store):
    [path] = store.glob("volumes/*/*/*/0/c/*/*/*")
    return path


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_good_dataset_passes(store):
    report = check(store)
    assert report.problems == ()
    assert (report.n_parts, report.n_volumes, report.n_frames) == (5, 1, 5)
    assert report.n_unavailable == 0


def test_a_sample_is_drawn_by_its_seed(store):
    assert check(store, sample=2).n_frames == 2
    assert check(store, sample=2, seed=1).problems == ()
    assert check(store, sample=99).n_frames == 5


def test_without_work_checksums_are_still_proved(store):
    report = verify.verify(str(store))
    assert (report.n_frames, report.n_unavailable, report.problems) == (0, 5, ())
    flip(shard_of(store), 40)
    assert "cannot be read" in " ".join(verify.verify(str(store)).problems)


def test_real_files_pass(real_store):
    report = check(real_store, sample=60)
    assert report.problems == ()
    assert report.n_frames == 60


@pytest.mark.parametrize("at", [0, 17, 100, -1, -10, -30])
def test_one_flipped_bit_of_a_shard(at, store):
    flip(shard_of(store), at)
    found = problems_of(store)
    assert "cannot be read" in found
    assert dicomdask.open_dataset(str(store)).volumes["volume_id"][0] in found


def test_a_deleted_shard(store):
    shard_of(store).unlink()
    assert "cannot be read (FileNotFoundError)" in problems_of(store)


def test_a_shard_cut_short(store):
    path = shard_of(store)
    path.write_bytes(path.read_bytes()[:-7])
    assert "cannot be read" in problems_of(store)


@pytest.mark.parametrize("name", ["volumes", "frames", "instances", "inputs"])
def test_an_edited_table(name, store):
    [path] = (store / "tables" / name).iterdir()
    flip(path, path.stat().st_size // 2)
    found = problems_of(store)
    assert f"tables/{name}/{path.name}" in found
    assert "is damaged" in found


@pytest.mark.parametrize("name", ["volumes", "frames", "instances", "inputs"])
def test_a_deleted_table(name, store):
    [path] = (store / "tables" / name).iterdir()
    path.unlink()
    assert f"tables/{name}/{path.name}" in problems_of(store)


def array_json(store):
    [path] = store.glob("volumes/*/*/*/0/zarr.json")
    return path


def test_an_edited_zarr_json(store):
    path = array_json(store)
    document = json.loads(path.read_bytes())
    document["attributes"] = {"edited": True}
    path.write_text(json.dumps(document))
    assert "zarr.json differs from tables/volumes" in problems_of(store)


def test_a_shape_that_was_edited(store):
    path = array_json(store)
    document = json.loads(path.read_bytes())
    document["shape"][0] = 4
    path.write_text(json.dumps(document))
    assert "shape or dtype differ" in problems_of(store)


@pytest.mark.parametrize("text", ["", "{}", "not JSON"])
def test_a_broken_zarr_json(text, store):
    array_json(store).write_text(text)
    assert problems_of(store)


def test_a_deleted_zarr_json(store):
    array_json(store).unlink()
    assert "cannot be opened" in problems_of(store)


def group_json(store):
    [path] = store.glob("volumes/*/*/*/zarr.json")
    return path


def test_an_edited_affine_in_the_group(store):
    path = group_json(store)
    document = json.loads(path.read_bytes())
    document["attributes"]["dicomdask"]["affine"][3] += 100
    path.write_text(json.dumps(document))
    assert "zarr.json" in problems_of(store)


def test_a_deleted_group(store):
    group_json(store).unlink()
    assert "zarr.json" in problems_of(store)


def layout_of(row):
    chunks, cut = tuple(row["chunks"]), tuple(row["shards"])
    return Layout(chunks, cut, row["codec"])


def rewrite(store, change):
    """Write the volume anew, all its checksums right, with other voxels."""
    ds = dicomdask.open_dataset(str(store))
    row = ds.volumes.iloc[0]
    values = change(ds.read(row["volume_id"]).copy())
    cut = layout_of(row)
    data = shards.encode_shard(values, cut.chunks, cut.shards, cut.codec)
    shard_of(store).write_bytes(data)


def test_rewriting_changes_nothing_by_itself(store):
    before = shard_of(store).read_bytes()
    rewrite(store, lambda values: values)
    assert shard_of(store).read_bytes() == before
    assert problems_of(store) == ""


def test_two_swapped_slices(store):
    rewrite(store, lambda values: values[[0, 3, 2, 1, 4]])
    found = check(store).problems
    assert len(found) == 2
    assert "z=1: voxels differ from the source" in found[0]
    assert "z=3: voxels differ from the source" in found[1]


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values[:, ::-1],
        lambda values: values[:, :, ::-1],
        lambda values: values[::-1],
        lambda values: values + np.int16(1),
        lambda values: np.zeros_like(values),
    ],
    ids=["rows", "columns", "order", "offset", "zeros"],
)
def test_other_voxels(change, store):
    rewrite(store, change)
    assert "voxels differ from the source" in problems_of(store)


def test_one_other_voxel(store):
    def change(values):
        values[2, 3, 4] ^= 1
        return values

    rewrite(store, change)
    assert len(check(store).problems) == 1
    assert "z=2: voxels differ" in problems_of(store)


def source_of(series, number):
    return sorted(series.iterdir())[number]


def test_a_source_whose_pixel_changed(series, store):
    path = source_of(series, 3)
    ds = pydicom.dcmread(path)
    values = ds.pixel_array.copy()
    values[5, 6] += 1
    ds.PixelData = values.tobytes()
    ds.save_as(path)
    [found] = check(store).problems
    assert "z=3: voxels differ from the source" in found


def test_a_source_that_is_gone_is_counted(series, store):
    source_of(series, 0).unlink()
    report = check(store)
    assert (report.n_frames, report.n_unavailable, report.problems) == (4, 1, ())


def test_a_source_that_is_no_dicom_any_more(series, store):
    source_of(series, 2).write_bytes(b"something else")
    [found] = check(store).problems
    assert "z=2: its source cannot be read any more" in found
    assert str(series) not in found


def test_swapped_lineage(series, store):
    """The tables are as committed, but two sources changed places."""
    first, second = source_of(series, 0), source_of(series, 1)
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)
    assert len(check(store).problems) == 2


def test_problems_name_no_source(series, store):
    shard_of(store).unlink()
    source_of(series, 0).write_bytes(b"x")
    for found in check(store).problems:
        assert str(series) not in found
        assert "PAT0001" not in found


def test_several_shards(tmp_path, convert, monkeypatch):
    monkeypatch.setattr(layout, "SHARD_BYTES", 7000)
    store = tmp_path / "store.zarr"
    write_series(tmp_path / "in", make_series(40))
    convert(tmp_path / "in", store)
    assert check(store).problems == ()
    paths = sorted(store.glob("volumes/*/*/*/0/c/*/0/0"))
    assert len(paths) == 3
    paths[1].unlink()
    found = check(store).problems
    assert {text.split(": ")[1] for text in found} == {
        "cannot be read (FileNotFoundError)"
    }
    assert 12 <= len(found) <= 16


def test_a_store_without_a_commit(store):
    for path in (store / "commits").iterdir():
        path.unlink()
    with pytest.raises(StoreError, match="nothing to verify"):
        check(store)


def test_work_without_the_manifest_compares_nothing(store):
    for path in Path(f"{store}.work/manifest").iterdir():
        path.unlink()
    report = check(store)
    assert (report.n_frames, report.n_unavailable) == (0, 5)
