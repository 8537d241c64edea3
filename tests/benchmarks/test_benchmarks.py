"""Benchmarks run at a tiny size: contenders agree and tables are whole. No timing."""

import re
from unittest.mock import patch

import numpy as np
import pytest

from tests.benchmarks import bench_convert
from tests.benchmarks.__main__ import BENCHMARKS, main
from tests.benchmarks.contest import Contender, Report, compete
from tests.benchmarks.goals import GOALS, Goal, goal_table

READERS = (
    *("memmap (limit)", "dicomdask", "dicomdask, first touch"),
    *("dicomdask, read_many of 16", "dicomdask, read_many of 32"),
    *("zarr-python", "tensorstore", "h5py", "pydicom, raw DICOM"),
)
N_CONTESTS = {"slices": 6, "patches": 12}


@pytest.fixture(scope="module", params=list(BENCHMARKS))
def benchmark(request: pytest.FixtureRequest) -> tuple[str, Report]:
    with patch("os.fsync"):  # most of the time of so small a size
        return request.param, BENCHMARKS[request.param]("tiny")


def test_contenders_return_the_same(benchmark):
    _, report = benchmark
    for contest in report.contests:
        if contest.title.startswith("deidentify"):  # tools differ, and should
            continue
        assert len(contest.outputs) >= 2
        assert all(len(output) for output in contest.outputs.values())
        assert contest.differing() == []


def test_a_contender_that_returns_something_else_is_named():
    contenders = {
        name: Contender(lambda n=n: [np.arange(n)], 1)
        for name, n in (("a", 3), ("b", 3), ("c", 4))
    }
    contest = compete("t", contenders, unit="calls", reference="a", rounds=1)
    assert contest.differing() == ["c"]


def test_tables_are_whole(benchmark):
    name, report = benchmark
    assert {goal for goal in GOALS if goal.startswith(name)} == set(report.measures)
    assert all(value > 0 for value in report.measures.values())
    titles = " ".join(contest.title for contest in report.contests)
    if name in N_CONTESTS:
        assert len(report.contests) == N_CONTESTS[name]
        assert all(codec in titles for codec in ("none", "lz4", "zstd"))
        for contest in report.contests:
            assert contest.timings.keys() == set(READERS)
    if name == "layout":
        assert report.text().count("least share") == 4 * 3  # kinds, codecs
    for contest in report.contests:
        lines = contest.table().splitlines()
        assert len(lines) == 2 + len(contest.timings)
        assert all(any(n in line for line in lines) for n in contest.timings)
    if name == "convert":
        check_stages(report.text())


def check_stages(text: str) -> None:
    for stage in bench_convert.UNAVOIDABLE:
        assert text.count(f"\n{stage} ") in {2, 4}  # with real files too, twice
    for stage, *_ in bench_convert.STAGES:
        assert f"\n{stage} " in text or stage in bench_convert.LOOK
    assert text.count("% of convert") == text.count("stages of convert")
    assert ("looking for text is " in text) == ("real files" in text)
    assert re.search(r"^de-identification is \d+\.\d% of convert$", text, re.M)
    assert "finished job again" in text


def test_main_prints_the_goals(capsys):
    main(["--scale", "tiny", "--only", "index"])
    printed = capsys.readouterr().out
    assert "pydicom full" in printed
    assert "index / pydicom full" in printed.splitlines()[-1]


def test_contenders_run_interleaved():
    order = []
    contenders = {n: Contender(lambda n=n: order.append(n), 1) for n in "abc"}
    contest = compete("t", contenders, unit="calls", reference="a", rounds=2)
    assert "".join(order) == "abcabcabc"
    assert contest.ratio("a", "a") == 1
    assert len(contest.timings["b"].wall) == 2


def test_goals_tell_how_well_they_are_met():
    goal = Goal(10, 15)
    assert [goal.verdict(x) for x in (9, 10, 15)] == ["missed", "met", "stretch"]
    assert Goal(0.02, at_most=True).verdict(0.03) == "missed"
    assert Goal(0.02, at_most=True).verdict(0.02) == "met"
    assert len(goal_table(dict.fromkeys(GOALS, 1.0)).splitlines()) == 1 + len(GOALS)
