"""Small pictures of frames, for people to look at."""

from typing import Any, Final

import imagecodecs
import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

QUALITY: Final = 85


def to_jpeg(shown: Array, *, longest: int) -> bytes:
    """Return a frame as a JPEG that any browser shows.

    Parameters
    ----------
    shown
        Display values from 0, black, to 1, white: shape (rows, columns), or
        (rows, columns, 3).
    longest
        The longer side has at most so many pixels; each is the mean of some.
    """
    reduced = _reduce(shown, -(-max(shown.shape[:2]) // longest))
    levels = np.round(np.clip(reduced, 0.0, 1.0) * 255).astype(np.uint8, order="C")
    return bytes(imagecodecs.jpeg8_encode(levels, level=QUALITY))


def _reduce(shown: Array, factor: int) -> Array:
    """Return the means of squares of pixels; those at the far edges are smaller."""
    if factor == 1:
        return shown
    edges = [(0, -extent % factor) for extent in shown.shape[:2]]
    padded = np.pad(shown, [*edges, (0, 0)][: shown.ndim], mode="edge")
    rows, columns = (extent // factor for extent in padded.shape[:2])
    squares = padded.reshape(rows, factor, columns, factor, *shown.shape[2:])
    found: Array = squares.mean((1, 3))
    return found
