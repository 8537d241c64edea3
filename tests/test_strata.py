"""The strata: what is drawn is there, of its kind, and its halves share no font."""

import numpy as np
import pytest

from tests import burned, strata


@pytest.mark.parametrize("name", strata.STRATA)
@pytest.mark.parametrize("held_back", [False, True])
def test_lines_lie_in_their_images_and_differ_from_what_is_around(name, held_back):
    stratum = strata.STRATA[name]
    made = list(strata.scenes(stratum, 6, held_back=held_back))
    if not made:
        pytest.skip("its fonts are not installed")
    lines = [line for scene in made for line in scene.lines]
    assert len(lines) >= 6
    for scene in made:
        assert max(scene.image.shape[:2]) <= stratum.side
        for line in scene.lines:
            box = line.box
            there = scene.image[box.top : box.bottom, box.left : box.right]
            assert there.shape[:2] == line.ink.shape
            assert line.ink.any()
            assert np.ptp(there) >= line.contrast >= burned.LEGIBLE


def test_halves_share_no_font():
    for stratum in strata.STRATA.values():
        tuned, held_back = stratum.fonts or ((), ())
        assert not set(tuned) & set(held_back)


def one_line(name: str) -> burned.Line:
    """Return the first line of a stratum."""
    return next(strata.scenes(strata.STRATA[name], 1, held_back=False)).lines[0]


def test_turned_lines_are_the_same_lines_turned():
    quarter, half, three = (one_line(f"turned by {angle}") for angle in (90, 180, 270))
    assert quarter.text == half.text == three.text
    assert np.array_equal(np.rot90(quarter.ink), half.ink)
    assert np.array_equal(np.rot90(half.ink), three.ink)
    assert np.array_equal(np.flipud(half.ink), one_line("mirrored").ink)


def test_large_letters_take_a_quarter_of_the_image():
    for scene in strata.scenes(
        strata.STRATA["over 1/4 of the image"], 6, held_back=True
    ):
        for line in scene.lines:
            rows = np.flatnonzero(line.ink.any(axis=1))
            assert np.ptp(rows) > scene.image.shape[0] / 5


def test_cut_lines_touch_each_border_in_turn():
    made = strata.scenes(strata.STRATA["cut by the border"], 8, held_back=False)
    touched = set()
    for scene in made:
        [line] = scene.lines
        mask = np.zeros(scene.image.shape[:2], bool)
        box = line.box
        mask[box.top : box.bottom, box.left : box.right] = line.ink
        sides = {"top": mask[0], "left": mask[:, 0]}
        sides |= {"bottom": mask[-1], "right": mask[:, -1]}
        touched |= {name for name, side in sides.items() if side.any()}
    assert touched == {"top", "left", "bottom", "right"}


def test_a_font_that_is_not_installed_leaves_its_stratum_out():
    stratum = strata.Stratum(fonts=(("DejaVuSans",), ("NotThere.ttf",)))
    assert list(strata.scenes(stratum, 1, held_back=True)) == []
    assert next(strata.scenes(stratum, 1, held_back=False)).lines
