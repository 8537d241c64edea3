"""The look at many frames: text is found wherever it is, at the cost of a few looks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from dicomdask import burnedin
from dicomdask.model import Box

SHAPE = (160, 240)
BRIGHT = 230


class Finder:
    """A detector that knows: what is brightest is text. It counts how it is asked."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, picture: np.ndarray, _: float = 1) -> list[tuple[Box, float]]:
        self.shapes.append(picture.shape)
        is_text = picture >= BRIGHT
        rows = np.nonzero(is_text.any(axis=1))[0]
        lines = np.split(rows, np.nonzero(np.diff(rows) > 4)[0] + 1)
        return [(self._box(is_text, line), 0.9) for line in lines if line.size]

    def _box(self, is_text: np.ndarray, rows: np.ndarray) -> Box:
        top, bottom = int(rows[0]), int(rows[-1]) + 1
        columns = np.nonzero(is_text[top:bottom].any(axis=0))[0]
        return Box(top, int(columns[0]), bottom, int(columns[-1]) + 1)


def write(plane: np.ndarray, text: str, at: tuple[int, int], fill: int = 250) -> None:
    image = Image.fromarray(plane)
    font = ImageFont.load_default(14)
    ImageDraw.Draw(image).text((at[1], at[0]), text, fill=fill, font=font)
    plane[:] = np.asarray(image)


def speckle(n: int, seed: int = 0) -> np.ndarray:
    """Return frames of smooth noise that moves, none of it bright."""
    rng = np.random.default_rng(seed)
    rough = rng.integers(0, 180, (n, SHAPE[0] // 8, SHAPE[1] // 8))
    return np.repeat(np.repeat(rough, 8, 1), 8, 2).astype(np.uint8)


def still(n: int) -> np.ndarray:
    return np.full((n, *SHAPE), 20, np.uint8)


def look(frames: np.ndarray, **ground):
    finder = Finder()
    found = burnedin.look(
        range(len(frames)),
        lambda number: [frames[number]],
        burnedin.Ground(**ground),
        finder,
    )
    return found, finder


def left(frames: np.ndarray, found) -> np.ndarray:
    """Return the frames with what was found blank."""
    rest = frames.copy()
    for one in found:
        box = one.box
        for number in one.frames:
            rest[number, box.top : box.bottom, box.left : box.right] = 0
    return rest


def test_text_that_stands_still_costs_one_look_and_is_one_region() -> None:
    frames = still(40)
    for plane in frames:
        write(plane, "DOE JANE", (40, 30))
    found, finder = look(frames)
    assert len(finder.shapes) == 1
    [one] = found
    assert one.frames == tuple(range(40))
    assert left(frames, found).max() < BRIGHT


def test_in_front_of_what_moves_it_costs_few_looks_more() -> None:
    frames = still(40)
    for number, plane in enumerate(frames):
        plane[100:150, 60 + number : 110 + number] = 90
        write(plane, "DOE JANE", (40, 30))
    found, finder = look(frames)
    assert 3 <= len(finder.shapes) < 40
    assert len([s for s in finder.shapes if s == SHAPE]) <= 4
    [one] = found
    assert one.frames == tuple(range(40))
    assert left(frames, found).max() < BRIGHT


@pytest.mark.parametrize("when", [1, 7, 19, 30, 38])
def test_text_that_comes_up_for_a_frame_is_found(when: int) -> None:
    frames = still(40)
    write(frames[when], "MRN 42", (80, 90))
    found, _ = look(frames)
    assert left(frames, found).max() < BRIGHT
    assert all(when in one.frames for one in found)


def test_text_that_moves_is_blank_where_it_is_and_not_where_it_is_not() -> None:
    frames = still(24)
    for number, plane in enumerate(frames):
        write(plane, "DOE", (70, 4 + 8 * number))
    found, _ = look(frames)
    rest = left(frames, found)
    assert rest.max() < BRIGHT
    assert (rest == 0).mean(axis=(1, 2)).max() < 0.25


def test_text_that_changes_in_its_place_is_found() -> None:
    frames = still(30)
    for number, plane in enumerate(frames):
        write(plane, f"{number:02d}:{59 - number}", (40, 30))
    found, _ = look(frames)
    assert left(frames, found).max() < BRIGHT


def test_what_is_blanked_anyway_needs_no_look() -> None:
    frames = still(30)
    for number, plane in enumerate(frames):
        write(plane, f"{number:02d}:{59 - number}", (2, 30))
    found, finder = look(frames, fixed=((Box(0, 0, 24, 240), "region"),))
    assert len(finder.shapes) == 1
    [one] = found
    assert (one.way, one.score) == ("region", None)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1 << 16),
    n=st.integers(1, 14),
    places=st.lists(
        st.tuples(st.integers(0, 13), st.integers(0, 140), st.integers(0, 190)),
        max_size=6,
    ),
    is_moving=st.booleans(),
)
def test_no_text_is_left_whenever_and_wherever_it_is(seed, n, places, is_moving):
    frames = speckle(n, seed) if is_moving else still(n)
    for number, top, left_ in places:
        write(frames[number % n], "AB 12", (top, left_))
    found, finder = look(frames)
    assert left(frames, found).max() < BRIGHT
    again, _ = look(frames)
    assert found == again
    assert len(finder.shapes) <= n


def test_a_flat_box_from_another_contrast_is_the_same_region() -> None:
    def find(picture, _):
        return [(Box(10, 10, 30, 100), 0.5 + picture[0, 0] / 10)]

    pictures = [np.zeros(SHAPE, np.uint8), np.ones(SHAPE, np.uint8)]
    [one] = burnedin.look([0], lambda _: pictures, burnedin.Ground(), find)
    assert (one.box, one.score) == (Box(8, 8, 32, 102), 0.6)
