"""Growing for years: a day costs what it changes, not what there is.

The world is made smaller: parts of tables are full with some tens of rows, so that
after a few days there are as many as years would bring. `--full` runs 60 days.
"""

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dicomdask
from dicomdask import header, pixels, plan, storage, tables
from dicomdask.commits import runs
from dicomdask.dataset import Dataset
from tests.builders import make_instance, to_bytes
from tests.conftest import Convert
from tests.test_updates import check

SLICES = 3
PART_ROWS = {
    "volumes": 16,
    "frames": 64,
    "instances": 32,
    "inputs": 64,
    "fingerprints": 16,
    "redactions": 64,
}
COUNTS = (
    "objects read",
    "objects written",
    "bytes read",
    "bytes written",
    "headers",
    "series",
    "frames",
    "rows",
)
LISTED = ("manifest", "changed.parquet")


def add_slice(folder: Path, patient: int, instance: int) -> None:
    array = np.full((4, 4), 100 * patient + instance, np.int16)
    path = folder / f"{patient:03d}" / f"{instance}.dcm"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(to_bytes(make_instance(patient, instance=instance, pixels=array)))


def grow(folder: Path, day: int) -> None:
    """Add what one day brings: two series, and a late slice of an older one."""
    for patient in (2 * day, 2 * day + 1):
        for instance in range(1, SLICES + 1):
            add_slice(folder, patient, instance)
    if day:
        add_slice(folder, 2 * day - 2, SLICES + 1)


@contextmanager
def counted(store: Path) -> Iterator[Counter[str]]:
    """Count what a run reads, writes and does; listing and manifest left out."""
    found: Counter[str] = Counter()
    with pytest.MonkeyPatch.context() as patch:

        def watch(room: object, name: str, note: Callable[[Any, Any], object]) -> None:
            original = getattr(room, name)

            def call(*args: Any, **options: Any) -> Any:
                result = original(*args, **options)
                note(args, result)
                return result

            patch.setattr(room, name, call)

        def count(verb: str, url: str, data: bytes) -> None:
            if not url.removeprefix(f"{store}.work/").startswith(LISTED):
                found[f"objects {verb}"] += 1
                found[f"bytes {verb}"] += len(data)

        watch(storage, "read", lambda args, data: count("read", args[0], data))
        for name in ("write", "create"):
            watch(storage, name, lambda args, _: count("written", *args))
        watch(storage.Ranges, "get_range", lambda _, data: count("read", "", data))
        watch(header, "read_instance", lambda *_: found.update(["headers"]))
        watch(pixels.FrameDecoder, "decode", lambda *_: found.update(["frames"]))
        watch(plan, "plan_instances", lambda _, made: found.update(of_series(made)))
        watch(runs, "write_part", lambda _, part: found.update({"rows": part.rows}))
        yield found


def of_series(made: plan.Plan) -> dict[str, int]:
    return {"series": len({volume.series_key for volume in made.volumes})}


@dataclass(frozen=True)
class Grown:
    """A pile and a store that grew, and what each day cost."""

    pile: Path
    store: Path
    costs: list[Counter[str]]


@pytest.fixture(scope="module")
def grown(
    tmp_path_factory: pytest.TempPathFactory, convert: Convert, full: bool
) -> Grown:
    folder = tmp_path_factory.mktemp("growth")
    pile, store, costs = folder / "in", folder / "store.zarr", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "PART_ROWS", PART_ROWS)
        patch.setattr(os, "fsync", lambda _: None)
        for day in range(60 if full else 12):
            grow(pile, day)
            with counted(store) as cost:
                summary = convert(pile, store)
            assert summary.commit.n == day
            costs.append(cost)
    return Grown(pile, store, costs)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", COUNTS)
def test_a_day_costs_what_it_changes(grown: Grown, name: str, full: bool) -> None:
    """Runs are merged in cycles of 4 and 16 days, so whole cycles are compared."""
    cycle = 16 if full else 4
    costs = [cost[name] for cost in grown.costs]
    early, late = sum(costs[4 : 4 + cycle]), sum(costs[-cycle:])
    assert early > 0
    assert late <= 1.3 * early, f"{costs}"


def test_only_what_is_new_is_read_planned_and_decoded(grown: Grown) -> None:
    """The late slice's series is decoded again, and planned with its bucket."""
    for cost in grown.costs[1:]:
        assert cost["headers"] == 2 * SLICES + 1
        assert cost["frames"] == 2 * SLICES + SLICES + 1
        assert 3 <= cost["series"] <= 5


def test_parts_stay_few(grown: Grown) -> None:
    commit = dicomdask.open_dataset(str(grown.store)).commit
    for name, parts in commit.tables.items():
        rows = sum(part.rows for part in parts)
        small = (runs.FACTOR - 1) * (math.log(max(rows, 1), runs.FACTOR) + 1)
        assert len(parts) <= small + 1.5 * rows / PART_ROWS[name]
        by_run: dict[int, list[str]] = {}
        for part in parts:
            assert part.rows <= PART_ROWS[name]
            assert part.run is not None
            assert part.low <= part.high
            ends = by_run.setdefault(part.run, [])
            assert not ends or ends[-1] <= part.low, "a run is in the order of its keys"
            ends += [part.low, part.high]


def test_the_sums_of_a_commit_are_those_of_its_tables(grown: Grown) -> None:
    dataset = dicomdask.open_dataset(str(grown.store))
    counts, volumes = dataset.commit.counts, dataset.volumes
    for name in tables.SCHEMAS:
        assert counts[name] == len(getattr(dataset, name))
    assert counts["stored"] == counts["inputs"] == counts["frames"]
    assert dataset.commit.codes == {"stored": counts["inputs"]}
    names = ("n_frames", "raw_bytes", "stored_bytes")
    wanted = {name: int(volumes[name].sum()) for name in names}
    found = dict(dataset.commit.statistics["CT"])
    [told] = found.pop("fingerprints")
    assert found == {"volumes": len(volumes), **wanted}
    assert told["n_volumes"] == told["n_pooled"] == len(volumes)
    counted = [one["n_values"] for one in volumes["statistics"]]
    assert told["n_values"] == sum(counted)
    assert list(volumes["volume_id"]) == sorted(volumes["volume_id"])


def test_the_dataset_equals_one_made_from_scratch(
    grown: Grown, tmp_path: Path, convert: Convert
) -> None:
    fresh = tmp_path / "store.zarr"
    convert(grown.pile, fresh)
    found, wanted = (dicomdask.open_dataset(str(one)) for one in (grown.store, fresh))
    for name in tables.SCHEMAS:
        assert rows_of(found, name) == rows_of(wanted, name)
    assert found.commit.counts == wanted.commit.counts
    assert found.commit.statistics == wanted.commit.statistics
    n_days = len(grown.costs)
    frames = Counter(found.volumes["n_frames"].astype(int))
    assert frames == {SLICES + 1: n_days - 1, SLICES: n_days + 1}
    for volume_id in wanted.volumes["volume_id"]:
        np.testing.assert_array_equal(found.read(volume_id), wanted.read(volume_id))
    check(found)


def rows_of(dataset: Dataset, name: str) -> list[Any]:
    table = getattr(dataset, name)
    return sorted(table.map(repr).to_records(index=False).tolist())


def test_the_same_history_gives_the_same_bytes(
    tmp_path: Path, convert: Convert, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "PART_ROWS", PART_ROWS)
    stores = [tmp_path / name for name in ("one.zarr", "two.zarr")]
    for day in range(5):
        grow(tmp_path / "in", day)
        for store in stores:
            convert(tmp_path / "in", store)
    one, two = (content(store) for store in stores)
    assert one == two


def content(store: Path) -> dict[str, Any]:
    """Return the bytes of all objects, and the commits but for their times."""
    found: dict[str, Any] = {}
    for path in store.rglob("*"):
        name = str(path.relative_to(store))
        if name.startswith("commits/"):
            found[name] = json.loads(path.read_text()) | {"created": None}
        elif path.is_file():
            found[name] = path.read_bytes()
    return found
