"""A frame as a person would see it, in 8 bits: what a look for text is given."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pydicom

from dicomdask.pixels.form import Form
from dicomdask.pixels.meaning import (
    modality_parameters,
    read_display,
    read_modality_lut,
)
from dicomdask.values import Display, Transform

Array = np.ndarray[Any, np.dtype[Any]]
Picture = np.ndarray[Any, np.dtype[np.uint8]]

_TAILS: Final = (0.5, 99.5)
"""Percentiles between which a frame is stretched."""
_ALIKE: Final = 4.0
"""Pictures that differ less on average, of 255, show the same."""


def pictures(
    dataset: pydicom.Dataset, form: Form, values: Array, frame: int
) -> list[Picture]:
    """Return a decoded frame in the contrasts in which text on it may be seen.

    Colour is only scaled. Monochrome is shown as the header wants it, MONOCHROME1
    inverted; from its least to its largest value, since text may be brighter than any
    window; and stretched between percentiles, since one pixel may be far out. Pictures
    that show what another does are left out.

    Parameters
    ----------
    dataset
        What the frame stands in: its windows and tables count.
    form
        How its pixels are written.
    values
        A decoded frame, shape (rows, columns), or (rows, columns, 3) of RGB.
    frame
        Which, from 0: functional groups tell of it by its number.

    Raises
    ------
    InputError
        With the code ``bad-image`` or ``modality-lut``.
    """
    display, _ = read_display(dataset, form, frame)
    if values.ndim == 3:
        return [_to_bytes(display.apply(values, (0.0, 1.0)))]
    slope, intercept = modality_parameters(dataset, frame)
    transform = Transform(slope, intercept, read_modality_lut(dataset), display)
    found: list[Picture] = []
    for picture in _contrasts(np.nan_to_num(transform.to_modality(values)), display):
        if all(_difference(picture, other) >= _ALIKE for other in found):
            found.append(picture)
    return found


def _contrasts(values: Array, display: Display) -> Iterator[Picture]:
    span = float(values.min()), float(values.max())
    yield _to_bytes(display.apply(values, span))
    plain = Display(inverted=display.inverted)
    yield _to_bytes(plain.apply(values, span))
    low, high = np.percentile(values, _TAILS)
    if high > low:
        yield _to_bytes(plain.apply(values, (float(low), float(high))))


def _to_bytes(shown: Array) -> Picture:
    picture: Picture = np.rint(np.clip(shown, 0.0, 1.0) * 255).astype(np.uint8)
    return picture


def _difference(one: Picture, other: Picture) -> float:
    return float(np.abs(one.astype(np.int16) - other).mean())
