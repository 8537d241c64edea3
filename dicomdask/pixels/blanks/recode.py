"""Encode a frame anew without loss, in the transfer syntax that it has.

JPEG 2000, HTJ2K and JPEG-LS can be written without loss where they were with loss, so
what was decoded stays exactly as it is.
"""

import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import imagecodecs
import jpeg_ls
import numpy as np
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from dicomdask.errors import InputError
from dicomdask.pixels.blanks.dct import SCAN, segments_of
from dicomdask.pixels.blanks.sof3 import encode_sof3
from dicomdask.pixels.codecs import decode_by_pydicom, inflate
from dicomdask.pixels.form import Form
from dicomdask.pixels.streams import Stream, read_stream

Array = np.ndarray[Any, np.dtype[Any]]


def recode(form: Form, old: bytes, samples: Array) -> bytes:
    """Return a frame's stream that holds other samples.

    Parameters
    ----------
    form
        How the frame is written.
    old
        The stream that was: its precision and its transform of colours are kept.
    samples
        As `FrameDecoder.samples` gives them.

    Raises
    ------
    InputError
        With the code ``unclean-pixels`` where that cannot be coded, or another decoder
        than the one of `FrameDecoder` gets something else.
    """
    if form.syntax == RLELossless:
        return _encode_rle(samples, form)
    encode = _ENCODERS.get(form.syntax)
    stream = read_stream(_codestream(old))
    if encode is None or stream is None or stream.subsampled or not stream.precision:
        raise InputError("unclean-pixels")
    new = encode(samples, stream, old)
    again, _ = decode_by_pydicom(form, new, "pylibjpeg")
    if not np.array_equal(again, samples):
        raise InputError("unclean-pixels")
    return new


def to_lossless(samples: Array, precision: int) -> bytes:
    """Return grey samples as JPEG lossless of some precision."""
    return encode_sof3(_unsigned(samples, precision), precision, b"\1")


def _codestream(stream: bytes) -> bytes:
    """Return the JPEG 2000 codestream inside the boxes of a JP2 file, or the stream."""
    is_jp2 = stream.startswith(b"\0\0\0\x0cjP  ")
    return stream[max(0, stream.find(b"\xff\x4f\xff\x51")) :] if is_jp2 else stream


def inflated(form: Form, data: bytes) -> bytearray:
    """Return the bytes of a deflated frame (PS3.5 section A.4.14)."""
    return bytearray(inflate(data, -(-form.frame_bits // 8)))


def deflated(data: bytes) -> bytes:
    """Return a deflated frame."""
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


def _unsigned(samples: Array, precision: int) -> Array:
    """Return the bits of samples that a stream of some precision holds."""
    bits = samples.view(f"u{samples.itemsize}").astype(np.uint32)
    kept = bits & (1 << precision) - 1
    return np.ascontiguousarray(kept.astype("u1" if precision <= 8 else "u2"))


def _signed(samples: Array, precision: int) -> Array:
    """Return samples as a stream in two's complement holds them."""
    shift = 32 - precision
    spread = _unsigned(samples, precision).astype(np.uint32) << shift
    return spread.view(np.int32) >> shift


def _encode_jpeg_ls(samples: Array, stream: Stream, old: bytes) -> bytes:
    """Encode by planes, lines or pixels, as it was: Planar Configuration says so."""
    values = _unsigned(samples, stream.precision)
    rows, columns = values.shape[:2]
    mode = next(part[-2] for kind, part, _ in segments_of(old) if kind == SCAN)
    if mode == 0 and values.ndim == 3:
        values = np.moveaxis(values, -1, 0)
    encoded = jpeg_ls.encode_buffer(
        *(values.tobytes(), rows, columns, stream.components),
        *(stream.precision, 0, mode),
    )
    return bytes(encoded)


def _encode_jpeg_lossless(samples: Array, stream: Stream, _: bytes) -> bytes:
    values = _unsigned(samples, stream.precision)
    return encode_sof3(values, stream.precision, stream.identifiers)


def _encode_j2k(samples: Array, stream: Stream, _: bytes) -> bytes:
    coded = _signed if stream.signed else _unsigned
    values = coded(samples, stream.precision)
    if stream.signed:
        values = values.astype("i1" if stream.precision <= 8 else "i2")
    encoded = imagecodecs.jpeg2k_encode(
        values,
        level=0,
        codecformat="j2k",
        bitspersample=stream.precision,
        reversible=True,
        mct=bool(stream.transformed),
        planar=False,
    )
    return bytes(encoded)


def _encode_htj2k(samples: Array, stream: Stream, _: bytes) -> bytes:
    """Encode by a library that knows 8 and 16 bits only.

    Values around 0 are given to it, which it does not shift (ISO/IEC 15444-1 annex
    G.1), then SIZ tells the precision: so the decoder shifts them.
    """
    half = 0 if stream.signed else 1 << stream.precision - 1
    coded = _signed if stream.signed else _unsigned
    values = coded(samples, stream.precision).astype(np.int32) - half
    encoded = bytearray(
        imagecodecs.htj2k_encode(
            values.astype("i1" if stream.precision <= 8 else "i2"),
            reversible=True,
            rgb=bool(stream.transformed) if values.ndim == 3 else None,
            planar=False if values.ndim == 3 else None,
            tlm=True,
        )
    )
    sign = 0x80 if stream.signed else 0
    for component in range(stream.components):  # Ssiz (annex A.5.1)
        encoded[42 + 3 * component] = sign | stream.precision - 1
    return bytes(encoded)


def _encode_rle(samples: Array, form: Form) -> bytes:
    """Encode by rows (PS3.5 annex G): segments from the highest byte to the lowest."""
    if form.allocated == 1:
        packed = np.packbits(samples.reshape(-1), bitorder="little")
        segments = [_pack_rows(packed.reshape(1, -1))]
    else:
        values = samples.reshape(form.rows, form.columns, form.samples)
        big = np.ascontiguousarray(values.astype(form.dtype.newbyteorder(">")))
        octets = big.view(np.uint8).reshape(form.rows, form.columns, -1)
        segments = [_pack_rows(octets[..., n]) for n in range(octets.shape[-1])]
    places = [64 + sum(map(len, segments[:n])) for n in range(len(segments))]
    header = np.zeros(16, "<u4")
    header[: len(places) + 1] = [len(places), *places]
    return header.tobytes() + b"".join(segments)


def _pack_rows(plane: Array) -> bytes:
    packed = imagecodecs.packbits_encode(np.ascontiguousarray(plane), axis=-1)
    return bytes(packed) + b"\0" * (len(packed) % 2)


_ENCODERS: Final[Mapping[str, Callable[[Array, Stream, bytes], bytes]]] = {
    **dict.fromkeys((JPEGLossless, JPEGLosslessSV1), _encode_jpeg_lossless),
    **dict.fromkeys((JPEGLSLossless, JPEGLSNearLossless), _encode_jpeg_ls),
    **dict.fromkeys((JPEG2000Lossless, JPEG2000), _encode_j2k),
    **dict.fromkeys((HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K), _encode_htj2k),
}
