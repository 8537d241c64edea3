"""The loop of a person who releases a dataset: convert, look, write a rule, again."""

import base64
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from click.testing import CliRunner

import dicomdask
from dicomdask.burnedin import detector
from dicomdask.cli import main
from dicomdask.errors import OptionError
from dicomdask.model import Box
from dicomdask.pseudonym import Key
from dicomdask.report import Sources, report_redactions
from dicomdask.work import Work
from tests.browser import browse, find_browser
from tests.builders import make_instance, to_bytes
from tests.conftest import Convert

US_IMAGE, US_CINE = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("6.1", "3.1"))
SHAPE = (240, 320)
NAME, BONE, MISSED = (
    Box(8, 20, 24, 160),
    Box(120, 150, 140, 210),
    Box(200, 40, 214, 150),
)
"""Where a name is found, what is taken for text, and where text is missed."""
KNOWN, UNKNOWN = "Philips Medical Systems", "Doctor Nobody's own"
"""A maker whom the policy names, and one whom it does not."""


def within(box: Box) -> tuple[slice, slice]:
    return slice(box.top, box.bottom), slice(box.left, box.right)


def write_cine(folder: Path) -> None:
    """Write an ultrasound cine of five frames, with a name in three of them."""
    pixels = np.full((5, *SHAPE), 40, np.uint8)
    pixels[:, 0, 0], pixels[:, 0, 1] = np.arange(5), 250  # all differ, none is bright
    pixels[[0, 1, 4], NAME.top : NAME.bottom, NAME.left : NAME.right] = 210
    ds = make_instance(
        pixels=pixels,
        SOPClassUID=US_CINE,
        Modality="US",
        ImagePositionPatient=None,
        ImageOrientationPatient=None,
    )
    folder.mkdir()
    (folder / "a.dcm").write_bytes(to_bytes(ds))


def write_images(folder: Path, n: int, manufacturer: str = KNOWN) -> Path:
    """Write ultrasound images of `n` patients with what `NAME` and others stand for."""
    folder.mkdir()
    for number in range(1, n + 1):
        rng = np.random.default_rng(number)
        pixels = rng.integers(20, 90, SHAPE).astype(np.uint8)
        for box in (NAME, BONE, MISSED):
            pixels[within(box)] = 200 + number
        ds = make_instance(
            patient=number,
            pixels=pixels,
            SOPClassUID=US_IMAGE,
            Modality="US",
            Manufacturer=manufacturer,
            ManufacturerModelName="CX50",
            InstitutionName="Planted Hospital",
            ImagePositionPatient=None,
            ImageOrientationPatient=None,
            RescaleSlope=None,
            RescaleIntercept=None,
        )
        (folder / f"planted{number}.dcm").write_bytes(to_bytes(ds))
    return folder


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Let a detector find what is bright at two places; return what it was shown."""
    seen: list[Any] = []

    def find_text(image: Any, _: float) -> list[tuple[Box, float]]:
        seen.append(image)
        pairs = ((NAME, 0.9), (BONE, 0.4))
        return [(box, score) for box, score in pairs if image[within(box)].min() > 128]

    monkeypatch.setattr(detector, "find_text", find_text)
    return seen


@pytest.fixture
def store(tmp_path: Path, convert: Convert, found: list[Any]) -> Path:
    """Return the dataset of three images of a device that the policy keeps."""
    path = tmp_path / "store.zarr"
    convert(write_images(tmp_path / "images", 3), path, options=("clean-pixels",))
    return path


def sources_of(store: Path, key: Key) -> Sources:
    return Sources(Work(f"{store}.work"), key)


def pictures_on(page: Path) -> list[np.ndarray]:
    found = re.findall(r"data:image/jpeg;base64,([^\"]+)", page.read_text())
    return [imagecodecs.jpeg8_decode(base64.b64decode(one)) for one in found]


def boxes_of(store: Path) -> list[list[tuple[str, Box]]]:
    """Return how and what is blanked, of each volume."""
    table = dicomdask.open_dataset(str(store)).redactions
    return [
        [
            (row.way, Box(row.top, row.left, row.bottom, row.right))
            for row in rows.itertuples()
        ]
        for _, rows in table.groupby("volume_id")
    ]


def check_blanked(store: Path, boxes: Sequence[Box]) -> None:
    """Check that of the sources' pixels these and no others are blank."""
    dataset = dicomdask.open_dataset(str(store))
    assert len(dataset.volumes) == 3
    blank = np.zeros(SHAPE, bool)
    for box in boxes:
        blank[within(box)] = True
    levels = set()
    for volume_id in dataset.volumes["volume_id"]:
        array = dataset.read(volume_id)
        assert (array[blank] == array[~blank].min()).all()
        rest = [box for box in (NAME, BONE, MISSED) if not blank[within(box)].any()]
        [level] = np.unique(np.concatenate([array[within(b)].ravel() for b in rest]))
        number = int(level) - 200
        levels.add(number)
        noise = np.random.default_rng(number).integers(20, 90, SHAPE)
        for box in rest:
            noise[within(box)] = level
        assert (array[~blank] == noise[~blank]).all()
    assert levels == {1, 2, 3}


def rule_of(report: Any) -> str:
    [device] = report.document()["devices"]
    return str(device["rule"])


def margin_of(store: Path, box: Box) -> Box:
    """Return a box as it was blanked after a look: with a margin."""
    [grown] = {
        one
        for boxes in boxes_of(store)
        for way, one in boxes
        if way == "detector" and one.top <= box.top and box.bottom <= one.bottom
    }
    return grown


# --- the loop -----------------------------------------------------------------


@pytest.mark.parametrize("looked", [False, True])
def test_a_rule_drops_a_false_box_and_adds_a_missed_one(
    store: Path, tmp_path: Path, convert: Convert, found: list[Any], looked: bool
) -> None:
    name, bone = margin_of(store, NAME), margin_of(store, BONE)
    check_blanked(store, [name, bone])
    made = report_redactions(str(store), str(tmp_path / "page.html"))
    rule = rule_of(made)
    # What a person does: move a line, add a line.
    [line] = re.findall(rf"^  \[{bone.top}, {bone.left},.*\n", rule, re.MULTILINE)
    own = f"  [{MISSED.top}, {MISSED.left}, {MISSED.bottom}, {MISSED.right}],\n"
    changed = rule.replace(line, own).replace("keep = []", f"keep = [\n{line}]")
    if looked:
        changed = changed.replace("# looked = true", "looked = true")
    policy = tmp_path / "ours.toml"
    policy.write_text(
        'extends = "research"\nname = "ours"\noptions = ["clean-pixels"]\n' + changed
    )
    found.clear()
    again = tmp_path / "again.zarr"
    convert(tmp_path / "images", again, policy=str(policy))
    check_blanked(again, [name, MISSED])
    assert boxes_of(again) == [[("rule", name), ("rule", MISSED)]] * 3
    assert bool(found) is not looked
    looks = dicomdask.open_dataset(str(again)).volumes["text_look"]
    assert set(looks) == {"person" if looked else "detector"}


@pytest.fixture
def browser() -> str:
    path = find_browser()
    if path is None:
        pytest.skip("no browser is installed: chromium, or google-chrome")
    return path


def test_the_loop_in_a_browser(
    browser: str, store: Path, tmp_path: Path, convert: Convert
) -> None:
    name, bone = margin_of(store, NAME), margin_of(store, BONE)
    page = tmp_path / "page.html"
    rule = rule_of(report_redactions(str(store), str(page)))
    with browse(browser, tmp_path / "profile") as tab:
        tab.resize(1200, 900)
        tab.open(page)
        assert tab.run("document.querySelector('.group pre').textContent") == rule
        assert tab.run("document.querySelectorAll('figure').length") == 3
        assert tab.run("document.querySelector('#policy').offsetParent === null")
        tab.run("document.querySelector('button.open').click()")

        def place(row: float, column: float) -> tuple[float, float]:
            x, y = tab.run(
                "(() => { const p = new DOMPoint("
                f"{column}, {row}).matrixTransform("
                "document.querySelector('.stage svg').getScreenCTM());"
                " return [p.x, p.y] })()"
            )
            return x, y

        middle = place(bone.top + 8, bone.left + 30)
        tab.drag(middle, middle)
        tab.drag(place(MISSED.top, MISSED.left), place(MISSED.bottom, MISSED.right))
        policy = tab.run("document.querySelector('#policy pre').textContent")
        tab.run("document.querySelector('#viewer').close()")
        tab.run("for (const one of document.querySelectorAll('details')) one.open = 1")
        tab.resize(380, 800)
        narrow = tab.run("document.documentElement.scrollWidth <= innerWidth")
        assert narrow, "the page is wider than a narrow window"
        assert not tab.complaints()
        assert tab.requests() <= {"file", "data"}
    (tmp_path / "ours.toml").write_text(policy)
    again = tmp_path / "again.zarr"
    convert(tmp_path / "images", again, policy=str(tmp_path / "ours.toml"))
    check_blanked(again, [name, MISSED])


# --- what the page shows ------------------------------------------------------

PLANTED = ("Family", "PAT000", "Planted", "planted", "19700102")


def test_the_page_shows_what_is_stored_and_nothing_identified(
    store: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    done = CliRunner().invoke(
        main, ["report", str(store), "--redactions", "-o", str(page)]
    )
    assert done.exit_code == 0, done.output
    assert "6  regions found by the detector" in done.output
    pictures = pictures_on(page)
    assert len(pictures) == 3
    for picture in pictures:
        assert picture.shape == SHAPE
        assert picture[within(NAME)].max() < 60
        assert picture[within(BONE)].max() < 60
        assert picture[within(MISSED)].min() > 150
    for text in (page.read_text(), done.output):
        assert not [one for one in PLANTED if one in text]
        assert str(tmp_path / "images") not in text


def test_pictures_before_lie_in_the_work_directory(store: Path) -> None:
    done = CliRunner().invoke(main, ["report", str(store), "--redactions", "--before"])
    assert done.exit_code == 0, done.output
    assert "identified" in done.output
    page = Path(f"{store}.work/review/redactions.html")
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert stat.S_IMODE(page.parent.stat().st_mode) == 0o700
    assert not list(store.glob("*.html"))
    assert "IDENTIFIED" in page.read_text()
    pictures = pictures_on(page)
    assert len(pictures) == 6
    for before, after in zip(pictures[::2], pictures[1::2], strict=True):
        assert before[within(NAME)].min() > 150
        assert after[within(NAME)].max() < 60
        apart = np.abs(before[150:190].astype(int) - after[150:190])
        assert np.median(apart) < 3


def test_a_source_that_is_gone_is_shown_as_it_is_stored(
    store: Path, tmp_path: Path, key: Key
) -> None:
    (tmp_path / "images" / "planted1.dcm").unlink()
    dataset = dicomdask.open_dataset(str(store))
    made = report_redactions(dataset.store, sources=sources_of(store, key), before=True)
    assert len(pictures_on(Path(made.page))) == 5


def test_a_device_that_the_policy_does_not_name_has_its_rule_in_the_work_directory(
    tmp_path: Path, convert: Convert, key: Key, found: list[Any]
) -> None:
    store = tmp_path / "store.zarr"
    images = write_images(tmp_path / "images", 3, UNKNOWN)
    convert(images, store, options=("clean-pixels",))
    dataset = dicomdask.open_dataset(str(store))
    plain = report_redactions(dataset.store, str(tmp_path / "page.html"))
    assert rule_of(plain) == "None"
    text = (tmp_path / "page.html").read_text()
    assert "Run the report with --work" in text
    assert "Nobody" not in text
    made = report_redactions(dataset.store, sources=sources_of(store, key))
    told = Path(made.page).read_text()
    assert "manufacturer = &quot;Doctor Nobody&#x27;s own&quot;" in told
    assert "Nobody" not in made.text() + str(made.document())
    assert made.page == f"{store}.work/review/redactions.html"


def test_a_frame_in_which_nothing_is_blanked_is_shown_beside_the_others(
    tmp_path: Path, convert: Convert, found: list[Any]
) -> None:
    write_cine(tmp_path / "cine")
    store = tmp_path / "store.zarr"
    convert(tmp_path / "cine", store, options=("clean-pixels",))
    dataset = dicomdask.open_dataset(str(store))
    blanked = {int(n) for frames in dataset.redactions["frames"] for n in frames}
    assert 3 <= len(blanked) < 5, "what was not looked at may be blanked too"
    page = tmp_path / "page.html"
    [group] = report_redactions(dataset.store, str(page)).review.groups
    counts = [one.n_frames for one in (*group.blanked, *group.empty)]
    assert counts == [len(blanked), 5 - len(blanked)]
    shown = [int(n) for n in re.findall(r"frame (\d)", page.read_text())]
    assert shown[0] in blanked
    assert shown[1] in {1, 2, 3, 4, 5} - blanked


def test_what_a_window_hides_is_shown_too(
    tmp_path: Path, convert: Convert, found: list[Any]
) -> None:
    pixels = np.random.default_rng(3).integers(900, 1100, SHAPE).astype(np.uint16)
    pixels[:, 200:] = 3000  # what the window shows as white
    hidden = Box(100, 220, 120, 300)
    pixels[within(hidden)] = 4000
    ds = make_instance(
        pixels=pixels,
        SOPClassUID="1.2.840.10008.5.1.4.1.1.1",
        Modality="CR",
        WindowCenter=1000,
        WindowWidth=400,
        ImagePositionPatient=None,
        ImageOrientationPatient=None,
        RescaleIntercept=0,
    )
    (tmp_path / "cr").mkdir()
    (tmp_path / "cr" / "a.dcm").write_bytes(to_bytes(ds))
    convert(tmp_path / "cr", tmp_path / "store.zarr", options=("clean-pixels",))
    page = tmp_path / "page.html"
    report_redactions(str(tmp_path / "store.zarr"), str(page))
    windowed, whole = pictures_on(page)
    assert np.ptp(windowed[90:130, 210:310]) < 6
    assert np.ptp(whole[90:130, 210:310]) > 60


# --- where it may lie ---------------------------------------------------------


def test_no_page_goes_into_the_dataset(store: Path) -> None:
    dataset = dicomdask.open_dataset(str(store))
    with pytest.raises(OptionError, match="forget would not find"):
        report_redactions(dataset.store, str(store / "redactions.html"))
    with pytest.raises(OptionError, match="--work"):
        report_redactions(dataset.store, before=True)
    assert not list(store.glob("*.html"))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "say what the page is to be about: --redactions"),
        (["--redactions", "--before", "-o", "a.html"], "leave -o out"),
        (["--redactions", "--work", "elsewhere"], "is not a work directory"),
    ],
)
def test_what_is_refused(store: Path, options: list[str], told: str) -> None:
    done = CliRunner().invoke(main, ["report", str(store), *options])
    assert done.exit_code in (1, 2)
    assert told in done.output


def test_forget_removes_pages_from_the_work_directory(
    store: Path, key: Key, key_file: Path
) -> None:
    dataset = dicomdask.open_dataset(str(store))
    made = report_redactions(dataset.store, sources=sources_of(store, key), before=True)
    assert Path(made.page).exists()
    dicomdask.forget(str(store), ["PAT0001"], key_file=str(key_file))
    assert not Path(made.page).exists()
