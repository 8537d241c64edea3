"""Blank pixels where they lie in uncompressed pixel data; no other bit changes."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dicomdask.errors import InputError
from dicomdask.pixels.colour import spread_chroma
from dicomdask.pixels.form import Form

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Place:
    """Which of the frames of some form it is, and in which order their bytes are.

    `words` tells that values of 8 bits lie in words of 16 with their bytes swapped.
    """

    form: Form
    number: int
    order: Literal["<", ">"] = "<"
    words: bool = False


def blank_native(data: bytearray, place: Place, inside: Array, value: Any) -> None:
    """Blank pixels of one frame (PS3.5 section 8.1.1, PS3.3 section C.7.6.3.1.3).

    Where two pixels share their chroma, that of both becomes grey.

    Parameters
    ----------
    data
        The frames, changed in place.
    place
        Which of them.
    inside
        The pixels to blank, shape (rows, columns).
    value
        What is written there: one value a sample.

    Raises
    ------
    InputError
        With the code ``unclean-pixels`` where values are not of whole bytes or bits.
    """
    form = place.form
    places = place.number * form.n_values + _places(form)
    if form.allocated == 1:
        _blank_bits(data, places[inside], int(value))
        return
    if form.allocated not in {8, 16, 32, 64}:
        raise InputError("unclean-pixels")
    dtype = form.dtype.newbyteorder(place.order)
    values = np.frombuffer(data, dtype, len(data) // dtype.itemsize)
    values[places[inside] ^ 1 if place.words else places[inside]] = value


def _places(form: Form) -> Array:
    """Return where the samples of each pixel are, counted in values from the first."""
    places = np.arange(form.n_values)
    if form.photometric.endswith("_422"):
        return spread_chroma(places, form.rows, form.columns)
    if form.samples > 1 and form.planar == 1:
        planes = places.reshape(form.samples, form.rows, form.columns)
        return np.moveaxis(planes, 0, -1)
    return places.reshape(form.shape)


def _blank_bits(data: bytearray, places: Array, value: int) -> None:
    """Set bits, the first in the lowest of each byte (PS3.5 section 8.1.1)."""
    octets = np.frombuffer(data, np.uint8)
    bits = np.left_shift(1, places % 8).astype(np.uint8)
    if value:
        np.bitwise_or.at(octets, places // 8, bits)
    else:
        np.bitwise_and.at(octets, places // 8, ~bits)
