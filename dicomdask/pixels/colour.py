"""Colour, held as RGB: converted exactly once, whatever it was written as."""

from typing import Any, Final

import numpy as np
from pydicom.pixels.processing import convert_color_space

from dicomdask.errors import InputError
from dicomdask.pixels.form import Form
from dicomdask.pixels.streams import Stream

Array = np.ndarray[Any, np.dtype[Any]]

_RGB_NAMES: Final = (b"RGB", b"rgb")
# PS3.3 section C.7.6.3.1.2: R, G, B to Y, CB, CR that keep to 16..235 and 16..240.
_PARTIAL: Final = np.array(
    [
        [0.2568, 0.5041, 0.0979],
        [-0.1482, -0.2910, 0.4392],
        [0.4392, -0.3678, -0.0714],
    ]
)
_PARTIAL_OFFSET: Final = np.array([16.0, 128.0, 128.0])


def told_photometric(form: Form, stream: Stream | None) -> str:
    """Return what the components of a JPEG are, as header and stream say together.

    Components named R, G and B are RGB, a JFIF stream holds YBR: so pydicom. What an
    Adobe marker, the chroma's sampling or a transform of JPEG 2000 contradict is
    refused: PS3.5 section 8.2.1 wants the header to say what the stream holds.

    Raises
    ------
    InputError
        With the code ``bad-image``.
    """
    told = form.photometric
    if stream is None or form.samples != 3:
        return told
    if stream.transformed is not None:
        if told.startswith("YBR_FULL") and stream.transformed:
            raise InputError("bad-image", CONTRADICTION)
        return told
    if stream.identifiers in _RGB_NAMES:
        told = "RGB"
    elif stream.jfif and not told.startswith("YBR"):
        told = "YBR_FULL"
    is_rgb = told == "RGB"
    if stream.adobe == (1 if is_rgb else 0) or (is_rgb and stream.subsampled):
        raise InputError("bad-image", CONTRADICTION)
    return told


CONTRADICTION: Final = (
    "PhotometricInterpretation and the compressed stream contradict each other."
)


def to_rgb(values: Array, photometric: str, stored: int) -> Array:
    """Return RGB from three samples of what the photometric interpretation says.

    Parameters
    ----------
    values
        Shape (rows, columns, 3), chroma not subsampled.
    stored
        Bits Stored.
    """
    if photometric in {"RGB", "YBR_ICT", "YBR_RCT"}:
        return values
    if values.dtype.kind != "u":
        raise InputError("bad-image")
    if photometric.startswith("YBR_PARTIAL"):
        return _partial_to_rgb(values, stored)
    if stored == 8:
        rgb: Array = convert_color_space(values, photometric, "RGB")
        return rgb
    return _full_to_rgb(values, stored)


def _full_to_rgb(values: Array, stored: int) -> Array:
    """Convert YBR_FULL of any depth: PS3.3 section C.7.6.3.1.2, not rounded."""
    y, cb, cr = np.moveaxis(values.astype(np.float64), -1, 0)
    cb -= 1 << stored - 1
    cr -= 1 << stored - 1
    red, blue = y + 1.402 * cr, y + 1.772 * cb
    green = (y - 0.299 * red - 0.114 * blue) / 0.587
    return _rounded(np.stack([red, green, blue], axis=-1), stored, values.dtype)


def _partial_to_rgb(values: Array, stored: int) -> Array:
    scale = 1 << stored - 8
    centred = values.astype(np.float64) - _PARTIAL_OFFSET * scale
    return _rounded(centred @ np.linalg.inv(_PARTIAL).T, stored, values.dtype)


def _rounded(values: Array, stored: int, dtype: np.dtype[Any]) -> Array:
    return np.clip(np.floor(values + 0.5), 0, (1 << stored) - 1).astype(dtype)


def spread_chroma(samples: Array, rows: int, columns: int) -> Array:
    """Return three samples a pixel from the Y, Y, CB, CR of each two.

    PS3.3 section C.7.6.3.1.2: chroma is that of the left pixel, and repeated.
    """
    if columns % 2:
        raise InputError("bad-image")
    pairs = samples.reshape(rows, columns // 2, 4)
    values = np.empty((rows, columns // 2, 2, 3), samples.dtype)
    values[..., 0] = pairs[..., :2]
    values[..., 1] = pairs[..., 2:3]
    values[..., 2] = pairs[..., 3:4]
    return values.reshape(rows, columns, 3)
