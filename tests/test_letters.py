"""Large letters: drawn in one grey and thin; what is thick, rough or smooth is none."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from dicomdask.burnedin.letters import are_letters
from dicomdask.model import Box
from tests.burned import text_mask

BOX = Box(40, 40, 168, 232)


def ground(seed: int = 0) -> np.ndarray:
    """Return a rough plane of 208 rows and 272 columns."""
    chance = np.random.default_rng(seed)
    return np.clip(chance.normal(110, 25, (208, 272)), 0, 255)


def put(plane: np.ndarray, mask: np.ndarray, grey: float) -> np.ndarray:
    """Return the plane with a mask, from 0 to 1, drawn into the middle of the box."""
    drawn = plane.copy()
    top, left = 104 - mask.shape[0] // 2, 136 - mask.shape[1] // 2
    there = np.s_[top : top + mask.shape[0], left : left + mask.shape[1]]
    drawn[there] = drawn[there] * (1 - mask) + mask * grey
    return drawn.astype(np.uint8)


@pytest.mark.parametrize("font", ["DejaVuSans", "DejaVuSerif-Bold", "STIXGeneralBol"])
@pytest.mark.parametrize("grey", [0, 235])
@pytest.mark.parametrize("rough", [False, True])
def test_letters_are(font, grey, rough):
    plane = ground() if rough else np.full((208, 272), 60.0)
    image = put(plane, text_mask("PR", font, 110, sharp=False), grey)
    assert are_letters(image, BOX)
    assert are_letters(np.rot90(image).copy(), Box(40, 40, 232, 168))
    assert are_letters(np.stack([image // 3, image, image // 2], axis=-1), BOX)


def test_a_disc_is_none():
    rows, columns = np.mgrid[:120, :120]
    disc = ((rows - 60) ** 2 + (columns - 60) ** 2 < 58**2).astype(float)
    assert not are_letters(put(ground(), disc, 235), BOX)
    assert not are_letters(put(np.full((208, 272), 60.0), disc, 235), BOX)


@pytest.mark.parametrize("smooth", [0, 2, 6, 20])
def test_tissue_is_none(smooth):
    field = gaussian_filter(np.random.default_rng(3).normal(size=(208, 272)), smooth)
    shown = np.clip(128 + 50 * field / field.std(), 0, 255).astype(np.uint8)
    assert not are_letters(shown, BOX)


def test_nothing_and_a_slope_are_none():
    assert not are_letters(np.full((208, 272), 60, np.uint8), BOX)
    slope = np.tile(np.linspace(0, 255, 272).astype(np.uint8), (208, 1))
    assert not are_letters(slope, BOX)


def test_what_fills_the_image_is_none():
    image = put(ground(), text_mask("PR", "DejaVuSans", 110, sharp=False), 235)
    assert not are_letters(image[40:168, 40:232], Box(0, 0, 128, 192))
