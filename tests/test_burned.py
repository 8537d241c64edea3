"""Text drawn into backgrounds: it is where it is said to be, and of what kind."""

import numpy as np
import pytest

from tests import burned
from tests.benchmarks.bench_text import bootstrap, masked, score, wilson


@pytest.fixture(scope="module", params=[False, True])
def made(request: pytest.FixtureRequest) -> list[burned.Scene]:
    return list(burned.scenes(60, held_back=request.param))


def test_there_are_as_many_lines_as_asked_for_and_of_all_kinds(made):
    lines = [line for scene in made for line in scene.lines]
    assert len(lines) >= 60
    assert {line.style for line in lines} == set(burned.STYLES)
    assert {line.size for line in lines} == set(burned.SIZES)
    assert {line.place for line in lines} <= set(burned.PLACES)
    assert len({line.font for line in lines}) == 6
    assert any(line.is_faint for line in lines)


def test_lines_lie_in_the_image_and_apart(made):
    for scene in made:
        taken = np.zeros(scene.image.shape[:2], int)
        for line in scene.lines:
            box = line.box
            assert line.ink.shape == (box.bottom - box.top, box.right - box.left)
            assert taken[box.top : box.bottom, box.left : box.right].shape == (
                line.ink.shape
            )
            taken[box.top : box.bottom, box.left : box.right] += 1
        assert taken.max() <= 1


def test_ink_differs_from_what_is_around_it_by_the_contrast(made):
    for scene in made:
        for line in scene.lines:
            box = line.box
            shown = scene.image[box.top : box.bottom, box.left : box.right].astype(int)
            grey = shown.reshape(*shown.shape[:2], -1)
            reach = np.ptp(grey.reshape(-1, grey.shape[-1]), axis=0).max()
            assert burned.LEGIBLE <= line.contrast <= reach


def test_the_seed_decides(made):
    again = list(burned.scenes(10, held_back=False))
    same = list(burned.scenes(10, held_back=False))
    other = list(burned.scenes(10, held_back=False, seed=1))
    assert all(
        np.array_equal(a.image, b.image) for a, b in zip(again, same, strict=True)
    )
    assert not np.array_equal(again[0].image, other[0].image)


def test_halves_share_no_font_and_no_background():
    assert not set(burned.TUNED_FONTS) & set(burned.HELD_BACK_FONTS)
    tuned = {one.path for one in burned.TUNED_ON}
    assert not tuned & {one.path for one in burned.HELD_BACK}


def test_text_is_drawn_over_real_frames_of_many_depths(data):
    for held_back in (False, True):
        fields = burned.backgrounds(held_back=held_back)
        assert len(fields) == 13
        assert len({field.largest for field in fields}) >= 3
        assert any(field.values.ndim == 3 for field in fields)
        assert all(np.ptp(field.shown()) > 100 for field in fields)


def test_a_finder_of_all_and_one_of_nothing_are_scored_so(made):
    images = [np.zeros((4, 4), np.uint8)]
    by_image = {id(scene.image): scene for scene in made}
    everything = score(
        lambda image: (
            [line.box for line in by_image[id(image)].lines]
            if id(image) in by_image
            else [burned.Box(0, 0, 2, 4)]
        ),
        made,
        images,
    )
    nothing = score(lambda _: [], made, images)
    assert everything.recall(lambda _: True)[0] == 1
    assert everything.masked == (0.5,)
    assert nothing.recall(lambda _: True)[0] == 0
    assert nothing.masked == (0,)


def test_half_of_a_line_is_not_found(made):
    line = made[0].lines[0]
    columns = np.flatnonzero(line.ink.any(axis=0))
    middle = line.box.left + int(np.median(columns))
    half = burned.Box(line.box.top, line.box.left, line.box.bottom, middle)
    assert 0.2 < line.covered(masked([half], made[0].image)) < 0.8


def test_intervals():
    assert wilson([True] * 8 + [False] * 2) == pytest.approx(
        (0.8, 0.4902, 0.9433), abs=1e-3
    )
    assert wilson([True] * 10)[2] == 1
    mean, low, high = bootstrap([0.0, 0.0, 0.1, 0.3])
    assert low < mean < high
    assert bootstrap([0.2] * 5) == pytest.approx((0.2, 0.2, 0.2))
