"""Tell large letters from bodies: letters are drawn, thin, and of one grey."""

from typing import Any, Final

import cv2
import numpy as np

from dicomdask.model import Box

Array = np.ndarray[Any, np.dtype[Any]]

_HIGHEST: Final = 0.9
"""Of the shortest side of the image; what is higher is never text."""
_GREYS: Final = 3
"""So many of the most frequent greys may be the ink."""
_NEAR: Final = 8
"""Levels, of 255, that ink differs from its grey; compression blurs its edges."""
_ALIKE: Final = 2
_MOST_ALIKE: Final = 0.7
"""The share of what is near that is even nearer; tissue has all greys about equally."""
_CRUMB: Final = 0.01
"""The share of the box that a piece of ink takes at least."""
_IN_PIECES: Final = 0.75
"""The share of the ink that is in such pieces; in noise it is scattered."""
_INKED: Final = 0.1, 0.55
"""The share of the box that ink takes."""
_REACH: Final = 0.45
"""Of the box's height and width, from the first to the last ink."""
_THIN: Final = 0.16
"""Half of the widest stroke, of the height of the box."""
_OF_BORDER: Final = 0.3
"""The share of the border that is ink; a background has most of it."""


def are_letters(image: Array, box: Box) -> bool:
    """Tell whether what a box of an image holds is drawn like letters.

    Parameters
    ----------
    image : ndarray of uint8, shape (rows, columns) or (rows, columns, 3)
    box
        Around one line, without much else.
    """
    there = image[box.top : box.bottom, box.left : box.right]
    if min(there.shape[:2]) > _HIGHEST * min(image.shape[:2]):
        return False
    planes = there.reshape(*there.shape[:2], -1)
    plane = planes[..., int(np.argmax(planes.std(axis=(0, 1))))]
    return any(_is_ink(mask) for mask in _frequent(plane))


def _frequent(plane: Array) -> list[Array]:
    """Return which pixels have one of the most frequent greys, if sharply one."""
    counts = np.bincount(plane.ravel(), minlength=256).astype(float)
    near, alike = (
        np.convolve(counts, np.ones(2 * reach + 1), "same") for reach in (_NEAR, _ALIKE)
    )
    masks = []
    left = near.copy()
    for _ in range(_GREYS):
        grey = int(np.argmax(left))
        around = slice(max(0, grey - _NEAR), grey + _NEAR + 1)
        left[max(0, grey - 3 * _NEAR) : grey + 3 * _NEAR + 1] = 0
        if alike[around].max() >= _MOST_ALIKE * near[grey]:
            masks.append(np.abs(plane.astype(np.int16) - grey) <= _NEAR)
    return masks


def _is_ink(mask: Array) -> bool:
    """Tell whether pixels make strokes, and not a surface, a frame or noise."""
    n, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    large = np.flatnonzero(stats[1:n, cv2.CC_STAT_AREA] >= _CRUMB * mask.size) + 1
    ink = np.isin(labels, large)
    low, high = _INKED
    if not low <= ink.mean() <= high or ink.sum() < _IN_PIECES * mask.sum():
        return False
    border = np.concatenate([ink[0], ink[-1], ink[:, 0], ink[:, -1]])
    reach = (np.ptp(np.flatnonzero(ink.any(axis=n))) + 1 for n in (1, 0))
    far = all(one >= _REACH * n for one, n in zip(reach, ink.shape, strict=True))
    widest = cv2.distanceTransform(
        np.pad(ink, 1).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_3
    ).max()
    thin = widest <= _THIN * min(ink.shape)
    return bool(far and thin and border.mean() <= _OF_BORDER)
