"""The fingerprint of a dataset, against numpy over all of its voxels."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import dicomdask
from dicomdask import commits, storage
from dicomdask.cli import main
from tests.builders import make_instance, make_series, write_series
from tests.conftest import SECRET, Convert


@pytest.fixture
def ds(tmp_path: Path, convert: Any) -> Any:
    """Return a dataset of two CT series and a PET series whose slope varies."""
    write_series(tmp_path / "in" / "a", make_series(6, gap_mm=2.0))
    write_series(tmp_path / "in" / "b", make_series(3, gap_mm=3.0, series=2))
    pet = [
        make_instance(instance=n + 1, series=3, Modality="PT", RescaleSlope=n + 1)
        for n in range(3)
    ]
    write_series(tmp_path / "in" / "c", iter(pet))
    convert(tmp_path / "in", tmp_path / "store.zarr")
    return dicomdask.open_dataset(str(tmp_path / "store.zarr"))


def voxels_of(ds: Any, modality: str) -> Any:
    volumes = ds.volumes[ds.volumes["Modality"] == modality]
    return np.concatenate(
        [ds.read(name, values="modality").ravel() for name in volumes["volume_id"]]
    )


def check_intensities(row: Any, voxels: Any) -> None:
    """Compare a row of a fingerprint with numpy over all voxels."""
    assert row["n_values"] == voxels.size
    assert row["mean"] == pytest.approx(voxels.mean(), rel=1e-12)
    assert row["std"] == pytest.approx(voxels.std(), rel=1e-12)
    assert (row["min"], row["max"]) == (voxels.min(), voxels.max())
    for level in (0.5, 50, 99.5):
        off = row[f"percentile_{level:g}"] - np.percentile(voxels, level)
        assert abs(off) <= row["percentile_error"]


def test_issue_5_a_fingerprint_is_that_of_all_voxels(ds: Any) -> None:
    found = ds.fingerprint().set_index("Modality")
    row = found.loc["CT"]
    assert (row["n_volumes"], row["n_pooled"], row["units"]) == (2, 2, "HU")
    assert row["percentile_error"] == 0
    check_intensities(row, voxels_of(ds, "CT"))
    assert row["spacing_mm"] == [2.5, 0.5, 0.75]
    assert row["spacing_mm_10"] == pytest.approx([2.1, 0.5, 0.75])
    assert row["shape"] == [4.5, 16, 12]
    assert row["extent_mm"] == [10.5, 8, 9]


def test_issue_5_slopes_that_vary_count_frame_by_frame(ds: Any) -> None:
    row = ds.fingerprint().set_index("Modality").loc["PT"]
    assert (row["n_volumes"], row["n_pooled"]) == (1, 1)
    assert row["percentile_error"] == 0
    check_intensities(row, voxels_of(ds, "PT"))


def test_issue_5_the_commit_tells_it_without_tables(
    ds: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = ds.fingerprint()
    monkeypatch.setattr(storage, "read", None)
    monkeypatch.setattr(commits, "read_frame", None)
    pd.testing.assert_frame_equal(ds.fingerprint(), wanted)


def test_many_values_of_many_volumes(tmp_path: Path, convert: Convert) -> None:
    """More values than are told apart, padding, and a slope for each slice."""
    rng = np.random.default_rng(0)
    for series in range(1, 4):
        slices = [
            make_instance(
                series=series,
                instance=n + 1,
                pixels=rng.integers(-1000, 30000, (64, 64)).astype(np.int16),
                RescaleSlope=round(0.1 + 0.37 * n * series, 3),
                RescaleIntercept=-n,
                Modality="PT",
                PixelPaddingValue=7,
            )
            for n in range(4)
        ]
        slices[0].PixelData = np.full((64, 64), 7, np.int16).tobytes()
        write_series(tmp_path / "in" / str(series), iter(slices))
    convert(tmp_path / "in", tmp_path / "store.zarr")
    ds = dicomdask.open_dataset(str(tmp_path / "store.zarr"))
    [row] = ds.fingerprint().to_dict("records")
    stored = np.stack([ds.read(name) for name in ds.volumes["volume_id"]])
    read = [ds.read(name, values="modality") for name in ds.volumes["volume_id"]]
    voxels = np.stack(read)[stored != 7]
    assert 0 < row["percentile_error"] < np.ptp(voxels) / 4096
    check_intensities(row, voxels)


def without_fingerprints(store: Path) -> None:
    """Make a store one that an earlier version wrote."""
    for path in (store / "commits").iterdir():
        document = json.loads(path.read_text())
        document["tables"].pop("fingerprints")
        document["counts"].pop("fingerprints")
        for told in document["statistics"].values():
            told.pop("fingerprints")
        path.write_text(json.dumps(document))


def test_a_commit_of_an_earlier_version_is_worked_out(
    ds: Any, tmp_path: Path, convert: Convert
) -> None:
    wanted = ds.fingerprint().set_index("Modality")
    without_fingerprints(tmp_path / "store.zarr")
    old = dicomdask.open_dataset(ds.store)
    row = old.fingerprint().set_index("Modality").loc["CT"]
    assert row["n_pooled"] == 2
    voxels = voxels_of(ds, "CT")
    for name in ("mean", "std", "spacing_mm", "shape"):
        assert row[name] == pytest.approx(wanted.loc["CT", name], rel=1e-12)
    for level in (0.5, 50, 99.5):
        off = row[f"percentile_{level:g}"] - np.percentile(voxels, level)
        assert abs(off) < 60
    assert old.fingerprint().set_index("Modality").loc["PT", "n_pooled"] == 0
    write_series(tmp_path / "in" / "d", make_series(3, series=4))
    assert convert(tmp_path / "in", tmp_path / "store.zarr").commit.n == 1
    both = dicomdask.open_dataset(ds.store).fingerprint().set_index("Modality")
    assert both.loc["CT", "n_pooled"] == 3, "old volumes count as they always did"
    assert "percentile_error" not in both, "nobody knows it"


def test_issue_5_what_comes_and_goes_is_added_and_taken_away(
    ds: Any, tmp_path: Path, convert: Convert
) -> None:
    rng = np.random.default_rng(0)
    for instance in (1, 2):
        pixels = rng.integers(-99, 99, (16, 12)).astype(np.int16)
        one = make_instance(2, series=9, instance=instance, pixels=pixels)
        write_series(tmp_path / "in" / "d", iter([one]))
        convert(tmp_path / "in", tmp_path / "store.zarr")
    grown = dicomdask.open_dataset(ds.store)
    check_intensities(
        grown.fingerprint().set_index("Modality").loc["CT"], voxels_of(grown, "CT")
    )
    fresh = convert(tmp_path / "in", tmp_path / "fresh.zarr").commit
    assert grown.commit.statistics == fresh.statistics
    key = tmp_path / "key"
    key.write_text(SECRET)
    dicomdask.forget(ds.store, patients=["PAT0002"], key_file=str(key))
    left = dicomdask.open_dataset(ds.store)
    assert left.commit.statistics == ds.commit.statistics


def test_of_one_volume_percentiles_are_exact(tmp_path: Path, convert: Any) -> None:
    slices = make_series(4, RescaleSlope=-2, RescaleIntercept=7)
    write_series(tmp_path / "in", slices)
    convert(tmp_path / "in", tmp_path / "store.zarr")
    ds = dicomdask.open_dataset(str(tmp_path / "store.zarr"))
    voxels = ds.read(ds.volumes["volume_id"][0], values="modality")
    row = ds.fingerprint().iloc[0]
    for level in (0.5, 50, 99.5):
        wanted = np.percentile(voxels, level)
        assert row[f"percentile_{level:g}"] == wanted


def test_info_tells_the_fingerprint(ds: Any) -> None:
    done = CliRunner().invoke(main, ["info", ds.store, "--fingerprint"])
    assert done.exit_code == 0, done.output
    assert "2.5 x 0.5 x 0.75 mm" in done.output
    done = CliRunner().invoke(main, ["info", ds.store, "--fingerprint", "--json"])
    told = {one["Modality"]: one for one in json.loads(done.output)["fingerprint"]}
    assert told["CT"]["spacing_mm"] == [2.5, 0.5, 0.75]
    assert told["PT"]["n_pooled"] == 1


def floats(instance: int, pixels: Any, **elements: Any) -> Any:
    """Return a slice of floating point pixels (PS3.3 sections C.7.6.24 and 25)."""
    ds = make_instance(instance=instance, pixels=pixels, Modality="PT", **elements)
    name = "FloatPixelData" if pixels.itemsize == 4 else "DoubleFloatPixelData"
    setattr(ds, name, ds.PixelData)
    for word in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(ds, word)
    return ds


@pytest.mark.parametrize(
    ("dtype", "padding"),
    [
        ("float32", {"FloatPixelPaddingValue": -9999.1}),
        (
            "float32",
            {"FloatPixelPaddingValue": -5.0, "FloatPixelPaddingRangeLimit": -10000.0},
        ),
        ("float64", {"DoubleFloatPixelPaddingValue": -9999.1}),
        ("float64", {"FloatPixelPaddingValue": 1.5}),
        ("float32", {"FloatPixelPaddingValue": float("nan")}),
    ],
)
def test_line_21_padding_of_floats_counts_in_no_statistics(
    tmp_path: Path, convert: Convert, dtype: str, padding: dict[str, float]
) -> None:
    rng = np.random.default_rng(0)
    slices = []
    for n in (0, 1, 3):  # a slice is missing, and filled with padding
        pixels = rng.normal(3, 1, (16, 12)).astype(dtype)
        pixels[n] = -9999.1
        pixels[5, 5] = np.nan
        slices.append(floats(n + 1, pixels, **padding))
    write_series(tmp_path / "in", iter(slices))
    convert(tmp_path / "in", tmp_path / "store.zarr", on_irregular="pad")
    ds = dicomdask.open_dataset(str(tmp_path / "store.zarr"))
    [row] = ds.volumes.to_dict("records")
    assert (row["dtype"], row["n_missing"]) == (dtype, 1)
    stored = ds.read(row["volume_id"])[[0, 1, 3]]
    there = stored[np.isfinite(stored)].astype(float)
    means_padding = dtype == "float64" and "DoubleFloatPixelPaddingValue" in padding
    means_padding |= dtype == "float32" and padding["FloatPixelPaddingValue"] < 0
    values = there[there > -9000] if means_padding else there
    told = row["statistics"]
    assert told["n_values"] == values.size
    assert (told["n_padding"], told["n_nonfinite"]) == (there.size - values.size, 3)
    assert told["n_padding"] == (36 if means_padding else 0)
    assert (told["min"], told["max"]) == (values.min(), values.max())
    assert told["mean"] == pytest.approx(values.mean(), rel=1e-9)
    [found] = ds.fingerprint().to_dict("records")
    check_intensities(found, values - 1024)
