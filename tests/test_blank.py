"""Blank pixels: inside the boxes nothing is left, outside of them nothing changes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from dicomdask.model import Box
from dicomdask.pixels import blank

SHAPE = (9, 12)
sides = st.integers(-3, 15)
boxes_of_frames = st.lists(st.builds(Box, sides, sides, sides, sides), max_size=4)
monochrome = npst.arrays(
    st.sampled_from(["uint8", "int16", "uint16", "float32"]),
    SHAPE,
    elements=st.integers(0, 100),
)
colour = npst.arrays("uint8", (*SHAPE, 3))


def is_inside(row, column, boxes):
    return any(
        box.top <= row < box.bottom and box.left <= column < box.right for box in boxes
    )


def inside_of(boxes, shape=SHAPE):
    return np.array(
        [[is_inside(r, c, boxes) for c in range(shape[1])] for r in range(shape[0])]
    )


@given(monochrome, boxes_of_frames, st.sampled_from(["MONOCHROME1", "MONOCHROME2"]))
def test_monochrome_is_blanked_to_what_displays_darkest_outside(
    frame, boxes, photometric
):
    inside = inside_of(boxes)
    before = frame.copy()
    after = blank(frame, boxes, photometric)
    np.testing.assert_array_equal(frame, before)
    np.testing.assert_array_equal(after[~inside], frame[~inside])
    seen = frame if inside.all() else frame[~inside]
    expected = seen.max() if photometric == "MONOCHROME1" else seen.min()
    assert after.dtype == frame.dtype
    assert set(after[inside].tolist()) <= {expected}


@given(colour, boxes_of_frames, st.sampled_from(["RGB", "YBR_FULL_422", "YBR_RCT"]))
def test_colour_is_blanked_to_black(frame, boxes, photometric):
    inside = inside_of(boxes)
    after = blank(frame, boxes, photometric)
    np.testing.assert_array_equal(after[~inside], frame[~inside])
    assert not after[inside].any()


@given(colour, boxes_of_frames)
def test_a_palette_is_blanked_to_a_colour_of_its_own(frame, boxes):
    inside = inside_of(boxes)
    after = blank(frame, boxes, "PALETTE COLOR")
    np.testing.assert_array_equal(after[~inside], frame[~inside])
    seen = frame.reshape(-1, 3) if inside.all() else frame[~inside]
    colours = {tuple(map(int, colour)) for colour in seen}
    luma = {c: 299 * c[0] + 587 * c[1] + 114 * c[2] for c in colours}
    found = {tuple(map(int, colour)) for colour in after[inside]}
    assert len(found) <= 1
    assert all(luma[colour] == min(luma.values()) for colour in found)


def test_a_missing_number_is_not_what_floats_are_blanked_to():
    frame = np.array([[np.nan, 2.0, 3.0]], "float32")
    after = blank(frame, [Box(0, 2, 1, 3)], "MONOCHROME2")
    np.testing.assert_array_equal(after, [[np.nan, 2, 2]])


@pytest.mark.parametrize("box", [Box(-5, -5, 0, 0), Box(4, 4, 4, 9), Box(7, 3, 2, 9)])
def test_an_empty_box_blanks_nothing(box):
    frame = np.arange(108, dtype="uint8").reshape(SHAPE)
    np.testing.assert_array_equal(blank(frame, [box], "MONOCHROME2"), frame)
