"""What a reviewer is shown: chosen, sorted, and written into a page and into rules."""

import re
import tomllib
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import imagecodecs
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomdask.model import Box, Redaction
from dicomdask.pixels import to_jpeg
from dicomdask.policy import load_policy
from dicomdask.report import page
from dicomdask.report.devices import (
    FEW_VOLUMES,
    MANY_SIZES,
    Device,
    Looked,
    group,
    name_device,
)
from dicomdask.report.frames import Frame
from dicomdask.report.page import Heading, page_html, policy_start
from dicomdask.report.pictures import (
    N_PLACES,
    OF_A_VOLUME,
    Picture,
    Places,
    pictures_of,
    with_doubt,
)
from dicomdask.report.review import N_BLANKED, N_EMPTY, Review, make_review
from dicomdask.report.reviewed import About
from dicomdask.report.rules import rule_text

DEVICE = Device("Acme", "Echo 7", "US", 480, 640, None, is_named=True)
ABOUT = About("a.zarr", "volume", "commit 3 of 2026-01-02", "research", (), {})
HEADING = Heading(ABOUT, is_identified=False, has_before=False)


def looked(name: str = "a", n_frames: int = 1, **fields: Any) -> Looked:
    return Looked(name, 480, 640, n_frames, replace(DEVICE, **fields))


def found(
    top: int = 10,
    left: int = 20,
    height: int = 12,
    width: int = 90,
    *,
    frames: tuple[int, ...] = (0,),
    way: str = "detector",
    score: float | None = 0.9,
) -> Redaction:
    box = Box(top, left, top + height, left + width)
    return Redaction(box, frames, way, score if way == "detector" else None)  # type: ignore[arg-type]


def picture(*redactions: Redaction, name: str = "a") -> Picture:
    shown = ("1.2", 0) if redactions else None
    return Picture(looked(name), shown, 1, redactions)


boxes = st.builds(
    found,
    top=st.integers(0, 400),
    left=st.integers(0, 500),
    height=st.integers(4, 60),
    width=st.integers(4, 130),
    frames=st.sets(st.integers(0, 5), min_size=1).map(lambda s: tuple(sorted(s))),
    way=st.sampled_from(["detector", "region", "rule"]),
    score=st.floats(0, 1),
)


# --- pictures -----------------------------------------------------------------


@given(st.lists(boxes, max_size=5))
def test_each_frame_is_in_one_picture(redactions):
    volume = looked(n_frames=6)
    made = pictures_of(volume, [("1.2", one) for one in redactions])
    blanked = {number for one in redactions for number in one.frames}
    assert len(made) <= OF_A_VOLUME
    if len(made) < OF_A_VOLUME:
        assert sum(one.n_frames for one in made) == 6
    empty = [one for one in made if not one.redactions]
    assert [one.n_frames for one in empty] == [6 - len(blanked)] * (len(blanked) < 6)
    for one in made:
        if one.shown is not None:  # what is shown is what is blanked in that frame
            wanted = [r for r in redactions if one.shown[1] in r.frames]
            assert Counter(one.redactions) == Counter(wanted)


def test_frames_that_are_blanked_alike_are_one_picture_of_the_least_score():
    volume = looked(n_frames=3)
    sure, unsure = found(frames=(0, 2), score=0.9), found(frames=(1,), score=0.4)
    [made] = pictures_of(volume, [("1.2", sure), ("1.2", unsure)])
    assert made.n_frames == 3
    assert made.shown == ("1.2", 1)


# --- places -------------------------------------------------------------------


@given(st.lists(st.lists(boxes, max_size=4), min_size=1, max_size=6))
def test_a_place_holds_its_boxes_and_counts_their_pictures(several):
    pictures = [picture(*ones, name=str(n)) for n, ones in enumerate(several)]
    places = Places(pictures)
    assert len(places.found) <= N_PLACES
    holders: dict[int, set[str]] = {}
    for one in pictures:
        for redaction in one.redactions:
            number = places.number(redaction)
            place, box = places.found[number], redaction.box
            assert place.way == redaction.way
            assert place.box.top <= box.top <= box.bottom <= place.box.bottom
            assert place.box.left <= box.left <= box.right <= place.box.right
            holders.setdefault(number, set()).add(one.volume.volume_id)
    counts = [len(holders[n]) for n in range(len(places.found))]
    assert counts == [one.n_pictures for one in places.found]
    scores = [
        r.score for one in pictures for r in one.redactions if r.score is not None
    ]
    told = [one.score for one in places.found if one.score is not None]
    assert min(told, default=None) == min(scores, default=None)
    assert Places(pictures[::-1]).found == places.found


def test_a_longer_name_at_the_same_place_is_the_same_place():
    pictures = [picture(found(width=60)), picture(found(width=200), name="b")]
    [place] = Places(pictures).found
    assert place.box == Box(10, 20, 22, 220)
    assert place.n_pictures == 2


def test_a_box_around_the_whole_frame_swallows_no_line_of_text():
    whole = found(0, 0, 480, 640)
    assert len(Places([picture(whole, found())]).found) == 2


# --- doubt --------------------------------------------------------------------


def doubt(one: Picture, *others: Picture) -> float:
    return with_doubt(one, Places([one, *others])).doubt


def test_doubt_grows_as_the_score_falls():
    doubts = [doubt(picture(found(score=s))) for s in (1.0, 0.9, 0.7, 0.4, 0.1)]
    assert all(a < b for a, b in pairwise(doubts))


def test_doubt_grows_with_the_size_of_a_box():
    doubts = [doubt(picture(found(height=h, width=300))) for h in (60, 120, 240)]
    assert all(a < b for a, b in pairwise(doubts))


def test_a_box_within_the_ultrasound_region_is_more_doubtful_than_one_without():
    region = found(0, 0, 8, 640, way="region")
    assert doubt(picture(found(), region)) > doubt(picture(found()))


def test_rules_and_regions_leave_no_doubt():
    rule = found(0, 0, 240, 640, way="rule")
    told = with_doubt(picture(rule), Places([picture(rule)]))
    assert (told.doubt, told.because) == (0.0, "by rule or region")


def test_a_picture_that_lacks_what_the_others_have_is_doubtful():
    others = [picture(found(), name=str(n)) for n in range(9)]
    empty = picture(name="empty")
    told = with_doubt(empty, Places([*others, empty]))
    assert told.doubt == 0.9
    assert "90% of the pictures have text" in told.because
    lone = with_doubt(empty, Places([empty]))
    assert (lone.doubt, lone.because) == (0.0, "nothing was found")


# --- devices ------------------------------------------------------------------


def test_rare_sizes_of_a_device_of_many_sizes_are_one_group():
    rare = [looked(f"r{n}", rows=100 + n) for n in range(MANY_SIZES)]
    usual = [looked(f"u{n}") for n in range(FEW_VOLUMES)]
    groups = group([*rare, *usual])
    assert {device.rows: len(them) for device, them in groups.items()} == {
        None: len(rare),
        480: len(usual),
    }
    assert len(group([*rare[1:], *usual])) == MANY_SIZES


@pytest.mark.parametrize(
    ("key", "names", "wanted"),
    [
        ("k", ("Acme", "Echo"), ("Acme", "Echo", True)),
        ("k", ("Acme", None), ("Acme", None, False)),  # removed, or never there
        ("k", (None, None), (None, None, False)),
        ("told", (None, None), ("Own", None, True)),
        (None, (None, None), (None, None, True)),  # the key is of the names
    ],
)
def test_when_the_names_of_a_device_are_known(key, names, wanted):
    assert name_device(key, names, {"told": ("Own", "")}) == wanted


# --- rules --------------------------------------------------------------------

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).map(
    str.strip
)


@given(names, names, st.sampled_from(["US", None]))
def test_a_rule_is_for_its_device_and_no_other(manufacturer, model, modality):
    device = replace(
        DEVICE, manufacturer=manufacturer, model=model or None, modality=modality
    )
    places = Places([picture(found(), name=str(n)) for n in range(3)])
    text = f"{policy_start('research', ())}\n{rule_text(device, places)}"
    [rule] = [one for one in load_policy("x", text=text).devices if "file" in one.told]
    assert rule.blank == (Box(10, 20, 22, 110),)
    assert not rule.keep
    assert not rule.is_looked
    texts = {"manufacturer": manufacturer, "model": model, "modality": modality}
    assert rule.is_for(texts, (480, 640))
    assert not rule.is_for(texts | {"manufacturer": f"{manufacturer}x"}, (480, 640))
    assert not rule.is_for(texts | {"model": f"x{model}"}, (480, 640))
    assert not rule.is_for(texts, (480, 641))


def test_a_rule_blanks_what_most_pictures_have_and_leaves_the_rest_to_a_look():
    often, once = found(), found(300)
    places = Places([picture(often), picture(often, once, name="b"), picture(often)])
    text = rule_text(DEVICE, places)
    [rule] = tomllib.loads(text)["pixels"]
    assert rule["blank"] == [[10, 20, 22, 110]]
    assert "# [300, 20, 312, 110],  # detector, 1 of 3 pictures" in text
    assert "looked" not in rule
    few = Places([picture(often), picture(often, name="b")])
    assert not tomllib.loads(rule_text(DEVICE, few))["pixels"][0]["blank"]


def test_a_rule_becomes_final_by_one_line():
    text = rule_text(DEVICE, Places([picture(found())])).replace("# looked", "looked")
    policy = f"{policy_start('basic', ['113101'])}\n{text}"
    loaded = load_policy("x", text=policy)
    assert loaded.devices[-1].is_looked
    assert "clean-pixels" in loaded.options


# --- from tables --------------------------------------------------------------


def volumes_table(n: int, **columns: Any) -> pd.DataFrame:
    told = {
        "volume_id": [f"{i:032x}" for i in range(n)],
        "shape": [[3, 480, 640]] * n,
        "dimensions": [["c", "y", "x"]] * n,
        "n_frames": 1,
        "device_key": "k",
        "Manufacturer": "Acme",
        "ManufacturerModelName": "Echo 7",
        "Modality": "US",
        "text_look": "detector",
        "n_redactions": 0,
    }
    return pd.DataFrame(told | columns)


def redactions_table(volumes: pd.DataFrame, n: int) -> pd.DataFrame:
    ids = volumes["volume_id"].repeat(n).tolist()
    rng = np.random.default_rng(5)
    top = rng.integers(0, 400, len(ids))
    left = rng.integers(0, 400, len(ids))
    told = {
        "volume_id": ids,
        "SOPInstanceUID": [f"2.25.{name}" for name in ids],
        "frames": [[1]] * len(ids),
        "top": top,
        "left": left,
        "bottom": top + rng.integers(8, 30, len(ids)),
        "right": left + rng.integers(20, 200, len(ids)),
        "way": "detector",
        "score": rng.random(len(ids)),
    }
    return pd.DataFrame(told)


@pytest.mark.parametrize("look", ["not-needed", "trusted", "none", None])
def test_volumes_that_nobody_looked_at_are_only_counted(look):
    volumes = volumes_table(3, text_look=["detector", look, "person"])
    review = make_review(volumes, redactions_table(volumes[:0], 1), {})
    assert [one.n_volumes for one in review.groups] == [2]
    assert review.looks.get(look, 0) == (look is not None)


def test_the_most_doubtful_pictures_come_first_and_are_bounded():
    volumes = volumes_table(60)
    table = redactions_table(volumes[:40], 2)
    [made] = make_review(volumes, table, {}).groups
    assert (made.n_blanked, made.n_empty) == (40, 20)
    assert (len(made.blanked), len(made.empty)) == (N_BLANKED, N_EMPTY)
    doubts = [one.doubt for one in made.blanked]
    assert doubts == sorted(doubts, reverse=True)
    worst = table.loc[table["score"].idxmin(), "volume_id"]
    assert worst in {one.volume.volume_id for one in made.blanked}
    assert made.ways == {"detector": 80}


def test_a_large_dataset_makes_a_small_page():
    n = 20_000
    models = [f"Echo {i % 900}" for i in range(n)]
    volumes = volumes_table(n, ManufacturerModelName=models)
    review = make_review(volumes, redactions_table(volumes, 3), {})
    text = page_html(HEADING, review, {})
    assert len(review.groups) == 900
    assert len(text) < 20e6
    assert "400 more devices and sizes" in text


# --- the page -----------------------------------------------------------------

VOID = {"meta", "input", "br", "img", "link"}
ALONE = {"image", "rect"}


class Reader(HTMLParser):
    """Checks that elements are closed in order; keeps what refers to elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.handlers: list[str] = []
        self.texts: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self._note(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        assert tag in ALONE
        self._note(tag, attrs)

    def _note(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute of {tag} stands twice"
        for name, value in attrs:
            if name in {"href", "src", "action", "srcset", "data", "poster"}:
                self.references.append(str(value))
            if name.startswith("on") or name == "style":
                self.handlers.append(name)
            if name == "id":
                self.ids.append(str(value))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            told = self.texts.get(self.open[-1], "")
            self.texts[self.open[-1]] = told + data


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert not reader.open
    return reader


def made_page(
    device: Device = DEVICE, about: dict[str, Any] | None = None, **heading: Any
) -> str:
    volumes = volumes_table(
        4,
        Manufacturer=device.manufacturer,
        ManufacturerModelName=device.model,
        Modality=device.modality,
    )
    review = make_review(volumes, redactions_table(volumes[:3], 2), {})
    shown = [one for g in review.groups for one in (*g.blanked, *g.empty)]
    jpeg = to_jpeg(np.zeros((480, 640)), longest=64)
    frames = {one: Frame("volume a", (("after", jpeg),)) for one in shown}
    made = replace(HEADING, **heading, about=replace(ABOUT, **about or {}))
    return page_html(made, review, frames)


def test_the_page_is_well_formed_and_refers_to_nothing_else():
    text = made_page()
    reader = read(text)
    assert len(set(reader.ids)) == len(reader.ids)
    assert len(reader.references) == 4
    assert all(one.startswith("data:image/jpeg;base64,") for one in reader.references)
    assert not reader.handlers
    plain = re.sub(r"http://www\.w3\.org/2000/svg", "", text)  # a name, not an address
    assert "http:" not in plain
    assert "https:" not in plain
    assert "url(" not in text


def test_the_page_runs_its_own_script_only():
    reader = read(made_page())
    [policy] = re.findall(r'Content-Security-Policy" content="([^"]*)"', made_page())
    rights = dict(one.strip().split(" ", 1) for one in policy.split(";"))
    assert rights["default-src"] == "'none'"
    assert rights["script-src"] == f"'{page._digest(reader.texts['script'])}'"
    assert rights["style-src"] == f"'{page._digest(reader.texts['style'])}'"
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    "text",
    ['"><script>alert(1)</script>', "</section></style>", "' onload=x y='", "&lt;"],
)
def test_what_tables_hold_is_text_on_the_page(text):
    hostile = replace(DEVICE, manufacturer=text, model=text, modality="U<S")
    made = made_page(hostile, about={"name": text, "policy": text, "state": text})
    reader = read(made)
    assert made.count("<script>") == 1
    assert not reader.handlers
    assert reader.texts["h2"].startswith(f"{text} {text} · U<S")


def test_a_page_from_the_sources_says_so():
    assert "IDENTIFIED" in made_page(is_identified=True)
    assert "IDENTIFIED" not in made_page()


def test_a_dataset_at_which_nobody_looked_has_a_page_that_says_so():
    assert "Nothing was looked at" in page_html(HEADING, Review((), {}), {})


# --- JPEG ---------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(7, 5), (300, 200), (301, 1999, 3), (64, 64, 3)])
def test_a_picture_is_small_and_shows_what_the_frame_does(shape):
    ramp = np.linspace(0, 1, shape[1])[None, :]
    shown = np.broadcast_to(ramp if len(shape) == 2 else ramp[..., None], shape)
    decoded = imagecodecs.jpeg8_decode(to_jpeg(shown, longest=256)) / 255
    factor = -(-max(shape[:2]) // 256)
    assert decoded.shape[:2] == tuple(-(-extent // factor) for extent in shape[:2])
    assert decoded.shape[2:] == shape[2:]
    wanted = np.linspace(0, 1, decoded.shape[1])
    means = decoded.reshape(decoded.shape[0], decoded.shape[1], -1).mean((0, 2))
    assert np.abs(means - wanted).max() < 0.06
