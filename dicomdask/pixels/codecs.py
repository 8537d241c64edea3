"""One seam for all decoders: the fastest that is right first, pydicom's behind it.

A decoder is first in line only where it must give the same values as pydicom's
plug-ins: for lossless streams and JPEG-LS, whose arithmetic is of integers. Tests hold
them against each other. What the first refuses, or gives in another shape, is left to
pydicom's.
"""

import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import imagecodecs
import jpeg_ls
import numpy as np
import pydicom
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from dicomdask.errors import InputError
from dicomdask.pixels.form import Form
from dicomdask.pixels.streams import Stream, mend_scan

Array = np.ndarray[Any, np.dtype[Any]]

DEFLATED_FRAMES: Final = "1.2.840.10008.1.2.8.1"
"""Deflated Image Frame Compression (PS3.5 section A.4.14)."""

# Retired: spectral selection and full progression, which pydicom names no decoder for;
# what decodes extended JPEG decodes them.
_RETIRED: Final = {
    UID(f"1.2.840.10008.1.2.4.{end}"): JPEGExtended12Bit for end in (53, 55)
}
J2K: Final = frozenset(
    {JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K}
)
JPEG_LS: Final = frozenset({JPEGLSLossless, JPEGLSNearLossless})
_LOSSY: Final = frozenset(
    {JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, *_RETIRED}
)
_MAYBE_LOSSY: Final = frozenset({JPEG2000, HTJ2K})

UNFIT: Final = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, ImportError),
    *(LookupError, OSError, RuntimeError, TypeError, ValueError, zlib.error),
)
"""What decoders raise about a stream that they cannot decode."""


@lru_cache(maxsize=128)
def find_decoder(uid: str) -> Decoder | None:
    """Return pydicom's decoder of a transfer syntax, if it can be used here."""
    known = UID(uid, validation_mode=pydicom.config.IGNORE)
    if not known.is_valid:
        return None
    try:
        decoder = get_decoder(_RETIRED.get(known, known))
    except NotImplementedError:
        return None
    return decoder if decoder.is_available else None


def is_lossy(uid: UID, stream: Stream | None) -> bool:
    """Tell whether a frame was compressed with loss, by its syntax and its stream."""
    if uid in _MAYBE_LOSSY:
        return stream is None or stream.reversible is not True
    return uid in _LOSSY


def decode(form: Form, data: bytes, stream: Stream | None) -> tuple[Array, str]:
    """Decode one compressed frame.

    Parameters
    ----------
    form
        How the frame is written.
    data
        Its stream.
    stream
        What the stream says of itself.

    Returns
    -------
    values : ndarray, shape (rows, columns) or (rows, columns, samples)
        Samples with the sign of the header, unused bits replaced.
    photometric : str
        What the samples are: YBR_ICT and YBR_RCT have become RGB.
    """
    fast = _fast_decoder(form, stream)
    if fast is not None:
        try:
            return fast(form, data, stream)
        except UNFIT:
            pass
    return decode_by_pydicom(form, mend_scan(data))


Decode = Callable[[Form, bytes, Any], tuple[Array, str]]


def _fast_decoder(form: Form, stream: Stream | None) -> Decode | None:
    if form.allocated not in {8, 16, 32}:
        return None
    if form.syntax == RLELossless:
        return _decode_rle
    if stream is None or stream.precision > form.allocated:
        return None
    if form.syntax in J2K:  # where floats are rounded, builds differ by one at times
        whole = stream.reversible and not stream.subsampled
        return _decode_j2k if whole else None
    if form.syntax in JPEG_LS:
        return _decode_jpeg_ls
    if form.syntax in {JPEGLossless, JPEGLosslessSV1} and stream.components == 1:
        return _decode_jpeg_lossless
    return None


def _decode_rle(form: Form, data: bytes, _: object) -> tuple[Array, str]:
    check_rle(form, data)
    dtype = form.dtype.newbyteorder("<")
    # Into what is as long as the image: then it does not count what it decodes first.
    n = form.samples * form.rows * form.columns
    out = np.empty(n * dtype.itemsize, np.uint8).data
    found = imagecodecs.dicomrle_decode(data, f"<u{dtype.itemsize}", out=out)
    planes = np.frombuffer(found, dtype)
    values = planes.reshape(form.samples, form.rows, form.columns)
    if form.samples > 1:
        values = np.moveaxis(values, 0, -1)
    values = values.reshape(form.shape)
    return replace_unused(values, form.stored), form.photometric


def decode_rle_bits(form: Form, data: bytes) -> bytes:
    """Return the packed bits of a frame: one segment of bytes."""
    check_rle(form, data)
    n = -(-form.frame_bits // 8)
    found = bytes(imagecodecs.dicomrle_decode(data, "u1"))
    if len(found) not in {n, n + 1}:
        raise InputError("bad-pixels")
    return found


def check_rle(form: Form, data: bytes) -> None:
    """Refuse an RLE frame whose segments are not those of the image (PS3.5 annex G)."""
    header = np.frombuffer(data, "<u4", count=16)
    n, offsets = int(header[0]), header[1:].tolist()
    wanted = form.samples * -(-form.allocated // 8)
    starts = offsets[:n]
    ordered = all(a < b for a, b in zip(starts, [*starts[1:], len(data)], strict=True))
    if n != wanted or not ordered or starts[0] < 64:
        raise InputError("bad-pixels")


def _decode_j2k(form: Form, data: bytes, stream: Stream) -> tuple[Array, str]:
    high = form.syntax not in {JPEG2000Lossless, JPEG2000}
    decoder = imagecodecs.htj2k_decode if high else imagecodecs.jpeg2k_decode
    values = _shaped(decoder(data, planar=False), form)
    values = values.view(f"{'i' if form.signed else 'u'}{values.itemsize}")
    if stream.signed != form.signed:
        values = replace_unused(values, stream.precision)
    photometric = "RGB" if form.photometric in {"YBR_ICT", "YBR_RCT"} else ""
    return values.astype(form.dtype, copy=False), photometric or form.photometric


def _decode_jpeg_ls(form: Form, data: bytes, stream: Stream) -> tuple[Array, str]:
    buffer, told = jpeg_ls.decode_pixel_data(data)
    nbytes = 1 if stream.precision <= 8 else 2
    values = np.frombuffer(buffer, f"<{'i' if form.signed else 'u'}{nbytes}")
    if form.samples > 1 and told["interleave_mode"] == 0:
        planes = values.reshape(form.samples, form.rows, form.columns)
        values = np.moveaxis(planes, 0, -1)
    values = replace_unused(_shaped(values, form), stream.precision)
    return values.astype(form.dtype, copy=False), form.photometric


def _decode_jpeg_lossless(form: Form, data: bytes, _: object) -> tuple[Array, str]:
    values = _shaped(imagecodecs.ljpeg_decode(data), form)
    values = values.astype(f"u{form.dtype.itemsize}", copy=False).view(form.dtype)
    return replace_unused(values, form.stored), form.photometric


def _shaped(values: Array, form: Form) -> Array:
    """Return decoded values in the shape of the header, or refuse them."""
    n = form.rows * form.columns * form.samples
    if values.size != n or values.dtype.kind not in "iu":
        raise ValueError("not the image that the header describes")
    return values.reshape(form.shape)


def replace_unused(values: Array, n_bits: int) -> Array:
    """Replace the bits above the first `n_bits` by the sign (PS3.5 section 8.1.1)."""
    shift = 8 * values.itemsize - n_bits
    if not shift:
        return values
    values = values if values.flags.writeable else values.copy()
    if values.dtype.kind == "u":
        values &= values.dtype.type((1 << n_bits) - 1)
        return values
    np.left_shift(values, shift, out=values)
    np.right_shift(values, shift, out=values)
    return values


def plugin_of(uid: str) -> str:
    """Return the plug-in that pydicom is to use; empty for all, in its own order.

    pylibjpeg-rle panics on damaged frames, which no handler of errors catches.
    """
    return "pydicom" if uid == RLELossless else ""


def decode_by_pydicom(form: Form, data: bytes, plugin: str = "") -> tuple[Array, str]:
    """Decode by what plug-ins pydicom finds, one after the other, or by one of them."""
    decoder = find_decoder(form.syntax)
    if decoder is None:
        raise InputError("no-decoder")
    options: Any = {
        "rows": form.rows,
        "columns": form.columns,
        "samples_per_pixel": form.samples,
        "photometric_interpretation": form.photometric,
        "bits_allocated": form.allocated,
        "bits_stored": form.stored,
        "pixel_representation": int(form.signed),
        "planar_configuration": form.planar,
        "number_of_frames": 1,
        "allow_excess_frames": False,
        "pixel_keyword": "PixelData",
        "decoding_plugin": plugin or plugin_of(form.syntax),
    }
    values, told = decoder.as_array(encapsulate([data]), index=0, raw=True, **options)
    native = values.astype(form.dtype, copy=False)
    return native, str(told["photometric_interpretation"])


def inflate(data: bytes, length: int) -> bytes:
    """Return the bytes of a deflated frame, refused where they are not `length`.

    One byte of padding is let pass.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    found = inflater.decompress(data, length + 2)
    if len(found) < length:
        raise InputError("truncated")
    if len(found) > length + 1:
        raise InputError("bad-pixels")
    return found
