"""Batches: many boxes in one call, against numpy and against reads one by one."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dicomdask
from dicomdask import batch, layout, storage
from dicomdask.errors import BatchError
from tests.builders import make_instance, write_series

PT = "1.2.840.10008.5.1.4.1.1.128"


def series(patient, planes, **elements):
    return (
        make_instance(patient, instance=z + 1, pixels=plane, **elements)
        for z, plane in enumerate(planes)
    )


@pytest.fixture(scope="module")
def volumes(tmp_path_factory, convert):
    """Return a dataset, and the arrays of its volumes by volume_id.

    Two signed of 12 slices; one unsigned of 7, whose slope varies; one projection.
    """
    folder = tmp_path_factory.mktemp("batch")
    rng = np.random.default_rng(0)
    planes = {
        "a": rng.integers(-1000, 3000, (12, 70, 60)).astype(np.int16),
        "b": rng.integers(-1000, 3000, (12, 70, 60)).astype(np.int16),
        "c": rng.integers(0, 3000, (7, 70, 60)).astype(np.uint16),
        "d": rng.integers(0, 200, (1, 30, 20)).astype(np.uint8),
    }
    write_series(folder / "in" / "a", series(1, planes["a"], RescaleSlope=2))
    write_series(folder / "in" / "b", series(2, planes["b"], RescaleSlope=3))
    slices = [
        make_instance(
            3,
            instance=z + 1,
            pixels=plane,
            Modality="PT",
            SOPClassUID=PT,
            RescaleSlope=1 + z,
            RescaleIntercept=0,
        )
        for z, plane in enumerate(planes["c"])
    ]
    write_series(folder / "in" / "c", iter(slices))
    write_series(folder / "in" / "d", series(4, planes["d"]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "SHARD_BYTES", 1 << 16)
        convert(folder / "in", folder / "store.zarr", profile="patch")
    ds = dicomdask.open_dataset(str(folder / "store.zarr"))
    found = {}
    for row in ds.volumes.itertuples():
        whole = ds.read(row.volume_id)
        [name] = [
            n for n, one in planes.items() if np.array_equal(np.squeeze(one), whole)
        ]
        found[name] = row.volume_id
    return ds, {found[name]: np.squeeze(one) for name, one in planes.items()}, found


def box_at(start, shape):
    return tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))


def expected(array, box, fill, dtype):
    out = np.full([piece.stop - piece.start for piece in box], fill, dtype)
    source = [slice(max(0, one.start), max(0, one.stop)) for one in box]
    part = array[tuple(source)]
    target = [max(0, -one.start) for one in box]
    if part.size:
        out[box_at(target, part.shape)] = part
    return out


@pytest.mark.parametrize("seed", range(40))
def test_a_batch_is_what_numpy_cuts(seed, volumes):
    ds, arrays, names = volumes
    rng = random.Random(seed)
    shape = [rng.randint(1, 14), rng.randint(1, 80), rng.randint(1, 70)]
    requests = []
    for _ in range(rng.randint(1, 9)):
        start = [rng.randint(-9, 13), rng.randint(-20, 75), rng.randint(-20, 65)]
        requests.append((names[rng.choice("ab")], box_at(start, shape)))
    found = ds.read_many(requests, fill=-5)
    wanted = [expected(arrays[name], box, -5, "i2") for name, box in requests]
    np.testing.assert_array_equal(found, np.stack(wanted), strict=True)


@pytest.mark.parametrize("values", ["stored", "modality"])
@pytest.mark.parametrize("dtype", [None, "float32", "float64"])
def test_a_batch_is_what_reads_one_by_one_give(values, dtype, volumes):
    ds, _arrays, names = volumes
    box = (slice(1, 5), slice(0, 70), slice(3, 60))
    for chosen in ("aab", "c", "abc") if dtype or values == "modality" else ("aab",):
        requests = [(names[one], box) for one in chosen]
        found = ds.read_many(requests, values=values, dtype=dtype)
        ones = [
            ds.read(name, z=box[0], y=box[1], x=box[2], values=values)
            for name, _ in requests
        ]
        wanted = np.stack(ones).astype(dtype or ones[0].dtype)
        np.testing.assert_array_equal(found, wanted, strict=True)


def test_what_is_outside_is_the_fill_in_the_units_of_the_result(volumes):
    ds, arrays, names = volumes
    found = ds.read_many(
        [(names["a"], (slice(-1, 1), slice(0, 70), slice(0, 60)))],
        values="modality",
        fill=-1024.5,
    )
    assert (found[0, 0] == -1024.5).all()
    np.testing.assert_array_equal(found[0, 1], arrays[names["a"]][0] * 2.0 - 1024)


def test_ends_may_be_left_out(volumes):
    ds, arrays, names = volumes
    found = ds.read_many([(names["b"], (slice(3, None), slice(None), slice(None, 9)))])
    np.testing.assert_array_equal(found[0], arrays[names["b"]][3:, :, :9])


def test_an_array_that_is_given_is_filled(volumes):
    ds, _arrays, names = volumes
    requests = [
        (names[one], (slice(z, z + 2), slice(0, 70), slice(0, 60)))
        for one in "ab"
        for z in range(3)
    ]
    out = np.full((6, 2, 70, 60), 7.5, np.float32)
    assert ds.read_many(requests, out=out) is out
    np.testing.assert_array_equal(out, ds.read_many(requests))
    strided = np.zeros((6, 2, 70, 120), np.int16)[..., ::2]
    ds.read_many(requests, out=strided)
    np.testing.assert_array_equal(strided, out)
    with pytest.raises(ValueError, match=r"shape \(5, 2, 70, 60\); the batch has \(6,"):
        ds.read_many(requests, out=out[:5])


def test_boxes_that_are_refused(volumes):
    ds, _, names = volumes
    plane = (slice(0, 70), slice(0, 60))
    with pytest.raises(
        ValueError, match=f"11:13 along z reaches over volume {names['a']}"
    ):
        ds.read_many([(names["a"], (slice(11, 13), *plane))])
    with pytest.raises(
        ValueError, match=r"-1:1 along z .*; give fill, or a box within"
    ):
        ds.read_many([(names["a"], (slice(-1, 1), *plane))])
    with pytest.raises(ValueError, match="has the axes z, y, x; give one slice each"):
        ds.read_many([(names["a"], plane)])
    with pytest.raises(ValueError, match="along z has step 1"):
        ds.read_many([(names["a"], (slice(0, 4, 2), *plane))])
    with pytest.raises(ValueError, match="stored, modality"):
        ds.read_many([(names["a"], (slice(0, 1), *plane))], values="other")
    with pytest.raises(KeyError, match="no volume 00"):
        ds.read_many([("00", (slice(0, 1), *plane))])


def test_batches_that_are_refused_say_which_and_what(volumes):
    ds, _, names = volumes
    box = (slice(0, 1), slice(0, 30), slice(0, 20))
    with pytest.raises(
        BatchError,
        match=f"int16: volume {names['a']}; uint16: volume {names['c']}.*; give dtype",
    ):
        ds.read_many([(names["a"], box), (names["c"], box)])
    with pytest.raises(BatchError, match=r"1x30x20: .*; 30x20: .* crop or pad"):
        ds.read_many([(names["a"], box), (names["d"], box[1:])], dtype="f4")
    with pytest.raises(
        BatchError,
        match=f"int16 cannot hold all values of volume {names['c']}, which are uint16",
    ):
        ds.read_many([(names["c"], box)], dtype="int16")
    with pytest.raises(BatchError, match="give one box or more"):
        ds.read_many([])
    for fill, dtype in ((-1, None), (0.5, None), (1 << 16, None), (np.nan, None)):
        with pytest.raises(ValueError, match="uint16 cannot hold the fill"):
            ds.read_many([(names["c"], box)], fill=fill, dtype=dtype)
    assert ds.read_many([(names["c"], box)], fill=np.nan, dtype="f4").shape[0] == 1


def test_a_chunk_that_several_boxes_need_is_fetched_once(volumes, monkeypatch):
    ds, arrays, names = volumes
    asked = []
    original = storage.Ranges.get_many

    def get_many(self, wanted):
        asked.extend(wanted)
        return original(self, wanted)

    monkeypatch.setattr(storage.Ranges, "get_many", get_many)
    box = (slice(0, 2), slice(0, 16), slice(0, 16))
    ds.read_many([(names["a"], box)])
    once = len(asked)
    asked.clear()
    found = ds.read_many([(names["a"], box)] * 5)
    assert len(asked) == once
    np.testing.assert_array_equal(found, np.stack([arrays[names["a"]][box]] * 5))


def test_what_our_reader_does_not_know_is_read_by_zarr(volumes, monkeypatch):
    ds, _arrays, names = volumes
    requests = [(names[one], box_at((-1, 2, 3), (5, 70, 58))) for one in "abca"]
    wanted = ds.read_many(requests, fill=0, dtype="f4")
    monkeypatch.setattr("dicomdask.dataset.opened.parse_metadata", lambda _: None)
    other = dicomdask.open_dataset(ds.store)
    mixed = dicomdask.open_dataset(ds.store)
    mixed._opened[names["c"]] = ds._open(names["c"])
    for one in (other, mixed):
        if one is mixed:
            monkeypatch.undo()
        found = one.read_many(requests, fill=0, dtype="f4")
        np.testing.assert_array_equal(found, wanted, strict=True)


# --- arithmetic ---------------------------------------------------------------


@given(st.integers(0, 9), st.integers(-15, 15), st.integers(0, 15))
def test_what_is_inside_and_what_is_not(extent, start, size):
    item = batch.item_of(
        "v", ("x",), (extent,), (slice(start, start + size),), may_reach_over=True
    )
    numbers = np.arange(extent)
    wanted = [n if 0 <= n < extent else -1 for n in range(start, start + size)]
    out = np.full(item.shape, -1)
    out[item.target] = numbers[item.inside]
    assert out.tolist() == wanted
    assert item.is_whole == (-1 not in wanted) or size == 0
