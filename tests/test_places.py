"""Places: a few digests cost a few ranges of a run, many cost one pass over it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicomdask.tasks import places
from dicomdask.work import Work


@pytest.fixture
def work(tmp_path: Path) -> Work:
    """Return an empty work directory."""
    return Work(str(tmp_path / "w"))


def make_records(seed: int, n: int, *, shared: np.ndarray | None = None) -> np.ndarray:
    """Return `n` sorted records, of which some have the digests of others."""
    rng = np.random.default_rng(seed)
    records = np.empty(n, places.RECORD)
    records["digest"] = rng.integers(0, 2**64, n, np.uint64)
    records["bucket"] = rng.integers(0, 4096, n)
    if shared is not None:
        records["digest"][: len(shared)] = shared
    return np.sort(records)


def write_runs(work: Work, runs: dict[str, np.ndarray]) -> None:
    for part, records in runs.items():
        places.write(work, part, records)


def as_set(records: np.ndarray) -> set[tuple[int, int]]:
    return {(int(digest), int(bucket)) for digest, bucket in records.tolist()}


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    sizes=st.lists(st.integers(0, 30_000), min_size=1, max_size=3),
    n_wanted=st.integers(0, 60),
    seed=st.integers(0, 99),
)
def test_what_is_found_is_what_is_there(tmp_path_factory, sizes, n_wanted, seed):
    work = Work(str(tmp_path_factory.mktemp("w")))
    runs = {f"{i:06d}": make_records(seed + i, n) for i, n in enumerate(sizes)}
    write_runs(work, runs)
    every = np.concatenate(list(runs.values()))
    rng = np.random.default_rng(seed)
    there = rng.choice(every["digest"], min(n_wanted, len(every)), replace=False)
    wanted = [*there.tolist(), *rng.integers(0, 2**63, 3).tolist()]
    expected = every[np.isin(every["digest"], np.array(wanted, np.uint64))]
    assert as_set(places.find(work, wanted)) == as_set(expected)


def test_others_are_those_of_other_parts_only(work):
    old = make_records(1, 5000)
    fresh = make_records(2, 4000, shared=old["digest"][:7])
    write_runs(work, {"000001": old, "000002": fresh})
    found = places.find_others(work, places.read_parts(work, ["000002"]), ["000002"])
    assert as_set(found) == as_set(old[:7])


@pytest.fixture
def reads(monkeypatch):
    """Return a list that gets the number of records of each read."""
    counted = []
    read = places._Run._read

    def count(self, start, stop):
        counted.append(stop - start)
        return read(self, start, stop)

    monkeypatch.setattr(places._Run, "_read", count)
    return counted


def test_many_digests_cost_one_pass_over_each_run(work, reads):
    runs = {f"{i:06d}": make_records(i, 3000) for i in range(20)}
    write_runs(work, runs)
    fresh = make_records(99, 50_000)
    assert len(places.find_others(work, fresh, [])) == 0
    assert sum(reads) == 20 * 3000
    assert len(reads) == 20


def test_a_few_digests_cost_a_few_ranges_of_a_long_run(work, reads):
    records = make_records(3, 2_000_000)
    write_runs(work, {"000001": records})
    wanted = records["digest"][[5, 1_000_000, 1_999_990]].tolist()
    assert as_set(places.find(work, wanted)) >= as_set(records[[5, 1_000_000]])
    assert sum(reads) < len(records) // 20


def test_the_first_parts_are_read_once(work, reads):
    runs = {f"{i:06d}": make_records(i, 2000) for i in range(10)}
    write_runs(work, runs)
    fresh = places.read_parts(work, list(runs))
    assert len(fresh) == 20_000
    assert len(places.find_others(work, fresh, list(runs))) == 0
    assert reads == []
