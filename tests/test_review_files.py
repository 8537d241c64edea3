"""The same loop for whoever releases DICOM files: deidentify, look, rule, again."""

import json
import re
import shutil
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from click.testing import CliRunner

import dicomdask
from dicomdask import tables
from dicomdask.burnedin import detector
from dicomdask.cli import main
from dicomdask.errors import OptionError, ReadError, StoreError
from dicomdask.model import Box
from dicomdask.pseudonym import Key
from dicomdask.report import Sources, report_redactions
from dicomdask.tasks.record import LOOKS, RECORD, FileLook, read_rows, write_rows
from dicomdask.work import Work
from tests.browser import browse
from tests.builders import make_instance, write_series
from tests.test_review import (
    BONE,
    KNOWN,
    MISSED,
    NAME,
    PLANTED,
    UNKNOWN,
    browser,
    found,
    pictures_on,
    rule_of,
    within,
    write_cine,
    write_images,
)

__all__ = ["browser", "found"]

pytestmark = pytest.mark.usefixtures("nothing_apart")


@pytest.fixture
def deidentify(tmp_path: Path, key_file: Path) -> Any:
    def run(name: str = "out", **options: Any) -> Path:
        options = {"options": ["clean-pixels"], **options}
        dicomdask.deidentify(
            str(tmp_path / "images"),
            str(tmp_path / name),
            key_file=str(key_file),
            scheduler="synchronous",
            **options,
        )
        return tmp_path / name

    return run


@pytest.fixture
def dest(tmp_path: Path, deidentify: Any, found: list[Any]) -> Path:
    write_images(tmp_path / "images", 3)
    return deidentify()


def files_of(dest: Path) -> list[Path]:
    return sorted(dest.glob("*/*/*/*.dcm"))


def sources_of(dest: Path, key: Key) -> Sources:
    return Sources(Work(f"{dest}.work"), key)


def blanked(dest: Path, box: Box) -> list[bool]:
    """Tell of each file whether a box of it is blank; all of it or nothing is."""
    told = []
    for path in files_of(dest):
        pixels = pydicom.dcmread(path).pixel_array
        levels = np.unique(pixels[within(box)])
        assert len(levels) == 1
        told.append(bool(levels[0] < 60))
    return told


# --- the loop -----------------------------------------------------------------


def test_a_rule_drops_a_false_box_and_adds_a_missed_one(
    dest: Path, tmp_path: Path, deidentify: Any
) -> None:
    assert blanked(dest, NAME) == blanked(dest, BONE) == [True] * 3
    assert blanked(dest, MISSED) == [False] * 3
    rule = rule_of(report_redactions(str(dest), str(tmp_path / "page.html")))
    [line] = re.findall(r"^  \[1[12]\d, .*\n", rule, re.MULTILINE)  # that of BONE
    own = f"  [{MISSED.top}, {MISSED.left}, {MISSED.bottom}, {MISSED.right}],\n"
    changed = rule.replace(line, own).replace("keep = []", f"keep = [\n{line}]")
    policy = tmp_path / "ours.toml"
    policy.write_text(
        'extends = "research"\nname = "ours"\noptions = ["clean-pixels"]\n' + changed
    )
    again = deidentify("again", policy=str(policy), options=[])
    assert blanked(again, NAME) == blanked(again, MISSED) == [True] * 3
    assert blanked(again, BONE) == [False] * 3
    names = [[p.relative_to(d) for p in files_of(d)] for d in (dest, again)]
    assert names[0] == names[1]


def test_the_loop_in_a_browser(
    browser: str, dest: Path, tmp_path: Path, deidentify: Any
) -> None:
    page = tmp_path / "page.html"
    rule = rule_of(report_redactions(str(dest), str(page)))
    with browse(browser, tmp_path / "profile") as tab:
        tab.resize(1300, 900)
        tab.open(page)
        assert tab.run("document.querySelector('.group pre').textContent") == rule
        assert tab.run("document.querySelectorAll('figure').length") == 3
        bone = "document.querySelector('tr[data-place=\"1\"] select')"
        tab.run(f"{bone}.value = 'not'")
        tab.run(f"{bone}.dispatchEvent(new Event('change'))")
        policy = tab.run("document.querySelector('#policy pre').textContent")
        tab.run("for (const one of document.querySelectorAll('details')) one.open = 1")
        for width in (1300, 390):
            tab.resize(width, 800)
            fits = tab.run("document.documentElement.scrollWidth <= innerWidth")
            assert fits, f"the page is wider than a window of {width}"
        assert not tab.complaints()
        assert tab.requests() <= {"file", "data"}
    (tmp_path / "ours.toml").write_text(policy)
    again = deidentify("again", policy=str(tmp_path / "ours.toml"), options=[])
    assert blanked(again, NAME) == [True] * 3
    assert blanked(again, BONE) == [False] * 3


# --- what the page shows ------------------------------------------------------


def test_the_page_shows_what_is_written_and_nothing_identified(
    dest: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    command = ["report", str(dest), "--redactions", "-o", str(page)]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert re.search(r" 3  files looked at", done.output)
    assert re.search(r" 6  regions found by the detector", done.output)
    assert f"{KNOWN} CX50 · US · 320 x 240: 3 files, 3 frames" in done.output
    text = page.read_text()
    shown = re.findall(r"file (\S+\.dcm), frame 1<", text)
    paths = {path.name: path for path in files_of(dest)}
    assert sorted(shown) == sorted(paths)
    for name, picture in zip(shown, pictures_on(page), strict=True):
        pixels = pydicom.dcmread(paths[name]).pixel_array
        low, high = int(pixels.min()), int(pixels.max())
        stretched = (pixels - low) * 255.0 / (high - low)
        assert np.median(np.abs(picture - stretched)) < 4
        assert picture[within(MISSED)].min() > 150
    for told in (text, done.output):
        assert not [one for one in PLANTED if one in told]
        assert str(tmp_path / "images") not in told


@pytest.mark.parametrize("name", ["jpeg2k", "palette", "rgb_color"])
def test_colour_is_shown_as_it_is_written(
    tmp_path: Path, deidentify: Any, key: Key, monkeypatch: Any, name: str
) -> None:
    folder = Path(pydicom.__file__).parent / "data/test_files"
    (tmp_path / "images").mkdir()
    shutil.copy(folder / f"examples_{name}.dcm", tmp_path / "images")
    box = Box(20, 30, 60, 200)
    monkeypatch.setattr(detector, "find_text", lambda image, *_: [(box, 0.8)])
    dest = deidentify()
    made = report_redactions(str(dest), sources=sources_of(dest, key), before=True)
    before, after = pictures_on(Path(made.page))
    source = pydicom.dcmread(folder / f"examples_{name}.dcm")
    pixels = source.pixel_array
    if name == "palette":
        pixels = pydicom.pixels.apply_color_lut(pixels, source) // 257
    assert before.shape == after.shape == pixels.shape
    assert np.abs(before.astype(int) - pixels).mean() < 5
    assert after[within(box)].max() < 30
    apart = np.abs(after.astype(int) - before)
    assert apart[100:].mean() < 1


def test_pictures_before_lie_in_the_work_directory(dest: Path, key_file: Path) -> None:
    done = CliRunner().invoke(main, ["report", str(dest), "--redactions", "--before"])
    assert done.exit_code == 0, done.output
    page = Path(f"{dest}.work/review/redactions.html")
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert "IDENTIFIED" in page.read_text()
    assert not list(dest.rglob("*.html"))
    pictures = pictures_on(page)
    assert len(pictures) == 6
    for before, after in zip(pictures[::2], pictures[1::2], strict=True):
        assert before[within(NAME)].min() > 150
        assert after[within(NAME)].max() < 60
    dicomdask.forget(str(dest), ["PAT0001"], key_file=str(key_file))
    assert not page.exists()
    report_redactions(str(dest), str(dest.parent / "page.html"))
    assert len(pictures_on(dest.parent / "page.html")) == 2


def test_a_device_that_the_policy_does_not_name_has_its_rule_in_the_work_directory(
    tmp_path: Path, deidentify: Any, key: Key, found: list[Any]
) -> None:
    write_images(tmp_path / "images", 3, UNKNOWN)
    dest = deidentify()
    page = tmp_path / "page.html"
    assert rule_of(report_redactions(str(dest), str(page))) == "None"
    assert "Nobody" not in page.read_text()
    assert not [one for one in dest.rglob("*") if one.is_file() and _names(one)]
    made = report_redactions(str(dest), sources=sources_of(dest, key))
    told = Path(made.page).read_text()
    assert "manufacturer = &quot;Doctor Nobody&#x27;s own&quot;" in told


def _names(path: Path) -> bool:
    return b"Nobody" in path.read_bytes()


def test_a_frame_in_which_nothing_is_blanked_is_shown_beside_the_others(
    tmp_path: Path, deidentify: Any, found: list[Any]
) -> None:
    write_cine(tmp_path / "images")
    dest = deidentify()
    page = tmp_path / "page.html"
    [group] = report_redactions(str(dest), str(page)).review.groups
    [blank], [empty] = group.blanked, group.empty
    assert blank.n_frames + empty.n_frames == 5
    shown = [int(n) for n in re.findall(r"frame (\d)[,<]", page.read_text())]
    frames = pydicom.dcmread(files_of(dest)[0]).pixel_array
    assert frames[shown[0] - 1][within(NAME)].max() < 60
    assert shown[1] - 1 not in blank.redactions[0].frames


# --- what else is told --------------------------------------------------------


def test_info_tells_what_was_done(
    dest: Path, tmp_path: Path, deidentify: Any, key_file: Path
) -> None:
    write_series(tmp_path / "images", [make_instance(patient=9)])
    deidentify()
    done = CliRunner().invoke(main, ["info", str(dest)])
    assert done.exit_code == 0, done.output
    assert "4 inputs: 4 stored" in done.output
    assert "113101  Clean Pixel Data Option" in done.output
    assert "3 files looked at, 6 regions blanked" in done.output
    report = ["report", str(dest), "--redactions", "-o", str(tmp_path / "a.html")]
    assert re.search(
        r" 1  files that passed without a look",
        CliRunner().invoke(main, report).output,
    )
    dicomdask.forget(str(dest), ["PAT0001"], key_file=str(key_file))
    told = CliRunner().invoke(main, ["info", str(dest), "--json"])
    document = json.loads(told.output)
    counts = {"inputs": 3, "stored": 3, "looked": 2, "redactions": 4}
    assert document["counts"] == counts
    assert len(document["record"]["forgotten"]) == 1
    refused = CliRunner().invoke(main, ["info", str(dest), "--fingerprint"])
    assert "no fingerprint" in refused.output


def test_no_page_goes_among_the_files(dest: Path) -> None:
    with pytest.raises(OptionError, match="forget would not find"):
        report_redactions(str(dest), str(dest / "redactions.html"))
    with pytest.raises(OptionError, match="--work"):
        report_redactions(str(dest), before=True)


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_file_that_is_gone_or_damaged_is_said(
    dest: Path, tmp_path: Path, damage: str
) -> None:
    one = files_of(dest)[0]
    one.unlink() if damage == "gone" else one.write_bytes(one.read_bytes()[:-900])
    told = "is gone" if damage == "gone" else "cannot be read"
    with pytest.raises(ReadError, match=told):
        report_redactions(str(dest), str(tmp_path / "page.html"))


def test_what_an_earlier_version_wrote_is_refused_by_name(
    dest: Path, tmp_path: Path
) -> None:
    for path in (dest / RECORD / LOOKS).glob("*.parquet"):
        rows = tables.records_from_parquet(FileLook, path.read_bytes())
        early = [
            FileLook(one.source_key, one.SOPInstanceUID, one.text_look, 2)
            for one in rows
        ]
        write_rows(str(dest), LOOKS, path.stem, FileLook, early)
    assert len(list(read_rows(str(dest), LOOKS, FileLook))) == 3
    with pytest.raises(StoreError, match="earlier version"):
        report_redactions(str(dest), str(tmp_path / "page.html"))
