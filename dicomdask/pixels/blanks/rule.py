"""What a blanked pixel becomes: the darkest that is displayed, of one rule for all."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from pydicom import Dataset

from dicomdask.errors import InputError
from dicomdask.model import Box
from dicomdask.pixels.form import MONOCHROME, PALETTE
from dicomdask.pixels.palette import apply_palette

Array = np.ndarray[Any, np.dtype[Any]]

_LUMA: Final = np.array([299, 587, 114])
"""Thousandths of Y that R, G and B give (PS3.3 section C.7.6.3.1.2)."""


def blank(frame: Array, boxes: Sequence[Box], photometric: str) -> Array:
    """Return a decoded frame with its boxes blank; the frame itself stays.

    Monochrome becomes what displays darkest of the frame: its smallest value outside
    the boxes, of MONOCHROME1 its largest. Colour becomes black; what had a palette the
    darkest colour outside the boxes, so that an index of the palette has it too. Where
    boxes cover the frame, its own pixels tell instead of those outside.

    Parameters
    ----------
    frame
        Shape (rows, columns), or (rows, columns, 3) of RGB, as `decode_frame` gives.
    boxes
        Parts of a box beyond the frame are passed over.
    photometric
        The PhotometricInterpretation that the frame was stored in.
    """
    return blank_mask(frame, mask_of(frame.shape[:2], boxes), photometric)


def blank_mask(frame: Array, inside: Array, photometric: str) -> Array:
    """Return a decoded frame with some of its pixels blank, as `blank` does it."""
    if not inside.any():
        return frame
    blanked = frame.copy()
    blanked[inside] = blank_value(frame, inside, photometric)
    return blanked


def mask_of(shape: tuple[int, ...], boxes: Sequence[Box] | Array) -> Array:
    """Return which pixels of a frame lie in any box, or are true in a mask.

    Parameters
    ----------
    shape
        Rows and columns.
    """
    if isinstance(boxes, np.ndarray):
        if boxes.shape != shape or boxes.dtype != bool:
            raise InputError("unclean-pixels")
        return boxes
    inside = np.zeros(shape, bool)
    for box in boxes:
        rows = slice(max(0, box.top), max(0, box.bottom))
        inside[rows, max(0, box.left) : max(0, box.right)] = True
    return inside


def widened(mask: Array, n: int) -> Array:
    """Return a mask with all pixels within `n` rows and columns of it."""
    padded = np.pad(mask, n)
    wide = padded.copy()
    for step in range(1, n + 1):
        wide |= np.roll(padded, step, axis=0) | np.roll(padded, -step, axis=0)
    padded = wide.copy()
    for step in range(1, n + 1):
        wide |= np.roll(padded, step, axis=1) | np.roll(padded, -step, axis=1)
    return wide[n : n + mask.shape[0], n : n + mask.shape[1]]


def blank_value(frame: Array, inside: Array, photometric: str) -> Any:
    """Return the value of blank pixels: one, or one for each of R, G and B.

    Parameters
    ----------
    frame
        A decoded frame; of a palette its colours, in RGB.
    inside
        The pixels to blank, shape (rows, columns).
    """
    told = frame if inside.all() else frame[~inside]
    if photometric in MONOCHROME:
        darkest = np.fmax if photometric == "MONOCHROME1" else np.fmin
        return darkest.reduce(told, axis=None)
    if photometric == PALETTE:
        return _darkest(told.reshape(-1, 3))
    return np.zeros(3, frame.dtype)


def stored_blank(
    samples: Array, inside: Array, photometric: str, stored: int, dataset: Dataset
) -> Any:
    """Return what blank pixels are stored as: `blank_value` before its conversion.

    Of a palette that is an index, the least outside the boxes that has the colour; of
    YBR black is 0, or 16 where its range is partial, with chroma in the middle of its
    range (PS3.3 section C.7.6.3.1.2).

    Parameters
    ----------
    samples
        A frame as `FrameDecoder.samples` gives it.
    inside
        The pixels to blank, shape (rows, columns).
    photometric
        What the samples are.
    stored
        Bits Stored.
    dataset
        Holds the palette.
    """
    if photometric in MONOCHROME:
        return blank_value(samples, inside, photometric)
    if photometric == PALETTE:
        colours = apply_palette(samples, dataset)
        wanted = (colours == blank_value(colours, inside, photometric)).all(axis=-1)
        return samples[wanted if inside.all() else wanted & ~inside].min()
    middle = 1 << stored - 1
    if photometric.startswith("YBR_PARTIAL"):
        return np.array([16 << stored - 8, middle, middle], samples.dtype)
    if photometric.startswith("YBR_FULL"):
        return np.array([0, middle, middle], samples.dtype)
    return np.zeros(3, samples.dtype)


def _darkest(colours: Array) -> Array:
    """Return the colour of least luma; of equals the one with least R, then G."""
    luma = colours @ _LUMA
    found = colours[luma == luma.min()]
    first: Array = found[np.lexsort(found.T[::-1])[0]]
    return first
