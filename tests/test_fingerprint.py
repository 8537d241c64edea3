"""The fingerprint of a dataset, against numpy over all of its voxels."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import dicomdask
from dicomdask.cli import main
from tests.builders import make_instance, make_series, write_series


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


def test_a_fingerprint_is_that_of_all_voxels(ds: Any) -> None:
    found = ds.fingerprint().set_index("Modality")
    volumes = ds.volumes[ds.volumes["Modality"] == "CT"]
    voxels = np.concatenate(
        [ds.read(name, values="modality").ravel() for name in volumes["volume_id"]]
    )
    row = found.loc["CT"]
    assert (row["n_volumes"], row["n_pooled"], row["n_values"]) == (2, 2, voxels.size)
    assert row["units"] == "HU"
    assert row["mean"] == pytest.approx(voxels.mean(), rel=1e-12)
    assert row["std"] == pytest.approx(voxels.std(), rel=1e-12)
    for level in (0.5, 50, 99.5):
        wanted = np.percentile(voxels, level)
        assert row[f"percentile_{level:g}"] == pytest.approx(wanted, abs=60)
    assert row["spacing_mm"] == [2.5, 0.5, 0.75]
    assert row["shape"] == [4.5, 16, 12]
    assert found.loc["PT", "n_pooled"] == 0
    assert np.isnan(found.loc["PT", "mean"])


def test_of_one_volume_percentiles_are_exact(tmp_path: Path, convert: Any) -> None:
    slices = make_series(4, RescaleSlope=-2, RescaleIntercept=7)
    write_series(tmp_path / "in", slices)
    convert(tmp_path / "in", tmp_path / "store.zarr")
    ds = dicomdask.open_dataset(str(tmp_path / "store.zarr"))
    voxels = ds.read(ds.volumes["volume_id"][0], values="modality")
    row = ds.fingerprint().iloc[0]
    for level in (0.5, 50, 99.5):
        wanted = np.percentile(voxels, level)
        assert row[f"percentile_{level:g}"] == pytest.approx(wanted, rel=1e-9)


def test_info_tells_the_fingerprint(ds: Any) -> None:
    done = CliRunner().invoke(main, ["info", ds.store, "--fingerprint"])
    assert done.exit_code == 0, done.output
    assert "2.5 x 0.5 x 0.75 mm" in done.output
    done = CliRunner().invoke(main, ["info", ds.store, "--fingerprint", "--json"])
    told = {one["Modality"]: one for one in json.loads(done.output)["fingerprint"]}
    assert told["CT"]["spacing_mm"] == [2.5, 0.5, 0.75]
    assert told["PT"]["mean"] is None
