"""The page on text in pixels: its commands run, and what it says is so."""

import re
from pathlib import Path

import dicomdask
from dicomdask.report.frames import N_PICTURES, PAGE_BYTES
from tests.pages import commands, page_text, run_commands, without_cluster

PAGE = "pixels.md"


def test_the_commands_of_the_page_run(tmp_path: Path) -> None:
    done = run_commands(without_cluster(commands(PAGE)), tmp_path)
    assert re.search(r" 3  burned-in-risk ", done.stdout)
    assert done.stdout.count("3 inputs: 3 stored") == 2
    assert "regions found by the detector" in done.stdout
    assert "all is as it should be" in done.stdout
    pages = {one.relative_to(tmp_path).as_posix() for one in tmp_path.rglob("*.html")}
    before = {f"{one}.work/review/redactions.html" for one in ("scans.zarr", "files")}
    assert pages == {"review.html", "released.html", "files.html", *before}
    assert "1 files looked at" in done.stdout
    check_the_rule(tmp_path)


def check_the_rule(folder: Path) -> None:
    """Check that the second dataset is as the rule of the page has it."""
    scans, released = (
        dicomdask.open_dataset(str(folder / f"{name}.zarr")).redactions
        for name in ("scans", "released")
    )
    [ruled] = released.loc[released["way"] == "rule", "volume_id"].unique()
    mine = released[released["volume_id"] == ruled]
    box = mine.loc[mine["way"] == "rule", ["top", "left", "bottom", "right"]]
    assert box.to_numpy().tolist() == [[0, 0, 40, 640]]

    def on_the_scale(table):  # wholly within what is kept, margins left out
        inner = (table["top"] >= 64) & (table["right"] <= 56)
        return table[inner & (table["volume_id"] == ruled)]

    assert len(on_the_scale(scans))
    assert not len(on_the_scale(released))
    others = [table[table["volume_id"] != ruled] for table in (scans, released)]
    assert len(others[0]) == len(others[1]) > 0


def test_the_bounds_of_a_page_are_those_of_the_code() -> None:
    told = f"{N_PICTURES} and {PAGE_BYTES >> 20} MB in all"
    assert told in " ".join(page_text(PAGE).split())
