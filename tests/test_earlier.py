"""Datasets of earlier versions, whose tables lack columns that came later."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from click.testing import CliRunner

import dicomdask
from dicomdask import tables
from dicomdask.cli import main
from dicomdask.dataset import Dataset
from dicomdask.report import report_redactions
from dicomdask.tables import from_parquet, to_parquet
from dicomdask.verify import verify
from dicomdask.work import Work
from tests.builders import make_instance, make_series, write_series
from tests.conftest import Convert
from tests.test_fingerprint import without_fingerprints
from tests.test_multiframe import KEY

LATER = {
    "volumes": (
        *("missing_slices", "modality_lut", "display", "real_world_values"),
        *("text_look", "n_redactions", "ImageLaterality"),
    ),
    "frames": ("tile", "modality_lut", "display", "time_ms", "header"),
    "instances": ("InstanceNumber", "text_look", "n_redactions"),
}
"""Columns that the first version had not; of instances one that stands for such."""
OF_PARTS = ("run", "low", "high", "summary")
"""What a commit did not tell of its parts once."""


def without_columns(name: str, table: pa.Table) -> pa.Table:
    """Return a table as an earlier version wrote it."""
    table = table.drop_columns(list(LATER.get(name, ())))
    if name == "volumes":
        rows = table["statistics"].to_pylist()
        fields = [one for one in tables.STATISTICS if one.name != "n_nonfinite"]
        early = pa.array([{f.name: row[f.name] for f in fields} for row in rows])
        early = early.cast(pa.struct(fields))
        place = table.column_names.index("statistics")
        table = table.set_column(place, "statistics", early)
    return table


def make_early(store: Path) -> None:
    """Make the newest commit, and all its parts, those of an earlier version."""
    without_fingerprints(store)
    path = max((store / "commits").iterdir(), key=lambda one: int(one.stem))
    document = json.loads(path.read_text())
    document["tables"].pop("redactions", None)
    for name, parts in document["tables"].items():
        for part in parts:
            old = store / part["path"]
            data = to_parquet(without_columns(name, from_parquet(old.read_bytes())))
            part["sha256"] = hashlib.sha256(data).hexdigest()
            part["bytes"] = len(data)
            part["path"] = f"tables/{name}/{part['sha256'][:32]}.parquet"
            for word in OF_PARTS:
                part.pop(word)
            old.unlink()
            (store / part["path"]).write_bytes(data)
    path.write_text(json.dumps(document))


@pytest.fixture
def early(tmp_path: Path, convert: Convert) -> Dataset:
    """Return a dataset of an earlier version: a CT, and a PET whose slope varies."""
    write_series(tmp_path / "in" / "a", make_series(4))
    pet = [
        make_instance(instance=n + 1, series=3, Modality="PT", RescaleSlope=n + 1)
        for n in range(3)
    ]
    write_series(tmp_path / "in" / "b", iter(pet))
    convert(tmp_path / "in", tmp_path / "store.zarr")
    make_early(tmp_path / "store.zarr")
    return dicomdask.open_dataset(str(tmp_path / "store.zarr"))


def test_tables_have_all_columns_and_empty_values(early: Dataset) -> None:
    for name, columns in LATER.items():
        table = getattr(early, name)
        assert list(table.columns) == tables.SCHEMAS[name].names
        assert len(table) == {"volumes": 2, "frames": 7, "instances": 7}[name]
        for column in columns:
            assert table[column].isna().all(), column
    told = early.row(early.volumes["volume_id"][0])["statistics"]
    assert told["n_values"] > 0


def test_values_are_read(early: Dataset) -> None:
    for row in early.volumes.to_dict("records"):
        name = row["volume_id"]
        stored = early.read(name)
        frames = early.frames_of(name)
        slopes = frames["slope"].to_numpy()[:, np.newaxis, np.newaxis]
        values = early.read(name, values="modality")
        np.testing.assert_array_equal(values, stored * slopes - 1024)
        many = early.read_many([(name, (slice(0, 1), slice(0, 4), slice(0, 4)))])
        np.testing.assert_array_equal(many[0], stored[:1, :4, :4])
        shown = early.read(name, values="display")
        assert (shown.min(), shown.max()) == (0, 1)


def test_it_is_looked_at_and_verified(early: Dataset) -> None:
    for options in ([], ["--json"], ["--fingerprint"]):
        done = CliRunner().invoke(main, ["info", early.store, *options])
        assert done.exit_code == 0, done.output
    told = early.fingerprint().set_index("Modality")
    assert list(told["n_pooled"]) == [1, 0]
    report = verify(early.store, work=Work(f"{early.store}.work"), key=KEY)
    assert report.problems == ()
    assert report.n_frames == 7


def test_nothing_was_blanked_in_it(early: Dataset, tmp_path: Path) -> None:
    assert len(early.redactions) == 0
    done = report_redactions(early.store, str(tmp_path / "page.html"))
    assert "Nothing was looked at" in (tmp_path / "page.html").read_text()
    assert done.n_shown == 0


def test_it_is_extended_and_slices_are_added(
    early: Dataset, tmp_path: Path, convert: Convert
) -> None:
    write_series(tmp_path / "in" / "c", make_series(2, series=5))
    late = make_instance(instance=5)
    write_series(tmp_path / "in" / "d", iter([late]))
    done = convert(tmp_path / "in", tmp_path / "store.zarr")
    assert done.commit.n == 1
    grown = dicomdask.open_dataset(early.store)
    assert sorted(grown.volumes["n_frames"]) == [2, 3, 5]
    assert grown.frames["display"].isna().sum() >= 3
    assert grown.volumes["display"].notna().sum() == 2, "those that were written anew"
    report = verify(grown.store, work=Work(f"{grown.store}.work"), key=KEY)
    assert report.problems == ()
    assert report.n_frames == 10
    statistics = [row["statistics"] for row in grown.volumes.to_dict("records")]
    assert all(one["n_values"] > 0 for one in statistics)
    dicomdask.vacuum(grown.store, older_than="0s")
    again = dicomdask.open_dataset(early.store)
    pd.testing.assert_frame_equal(
        again.frames.drop(columns="header"), grown.frames.drop(columns="header")
    )


def test_it_is_extended_from_another_place(
    early: Dataset, tmp_path: Path, convert: Convert
) -> None:
    write_series(tmp_path / "other", make_series(2, series=6))
    convert(
        tmp_path / "other", tmp_path / "store.zarr", work=str(tmp_path / "other.work")
    )
    grown = dicomdask.open_dataset(early.store)
    assert sorted(grown.volumes["n_frames"]) == [2, 3, 4]
    kept = early.volumes.set_index("volume_id")["revision"]
    now = grown.volumes.set_index("volume_id")["revision"]
    assert dict(kept).items() <= dict(now).items()


def test_a_patient_is_forgotten(early: Dataset, tmp_path: Path, key_file: Any) -> None:
    dicomdask.forget(early.store, "PAT0001", key_file=str(key_file))
    left = dicomdask.open_dataset(early.store)
    assert len(left.volumes) == len(left.frames) == len(left.instances) == 0
