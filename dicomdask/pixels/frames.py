"""Decode the frames of a data set: the stored values, held as RGB where it is colour.

Damaged data never become pixels: not zeros where bytes are missing, not one image in
the shape of another.
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, TypeVar

import numpy as np
import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.errors import InvalidDicomError
from pydicom.uid import ExplicitVRBigEndian, RLELossless

from dicomdask.errors import InputError
from dicomdask.pixels import codecs, colour, palette, streams
from dicomdask.pixels.form import PALETTE, Form, read_form

Array = np.ndarray[Any, np.dtype[Any]]
Decoded = TypeVar("Decoded")

HOSTILE: Final = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, ImportError),
    *(LookupError, OSError, RuntimeError, TypeError, ValueError, struct.error),
    *(zlib.error, InvalidDicomError),
)
"""What pydicom and decoders raise about damaged data."""


def _pixel_bytes(dataset: pydicom.Dataset, keyword: str) -> bytes:
    element = dataset.get_item(keyword)
    if isinstance(element, RawDataElement) and element.VR in {"OB", "OW", None}:
        return element.value or b""  # bytes as they are, for which pydicom takes long
    return dataset[keyword].value or b""


class FrameDecoder:
    """The frames of one data set, decoded one at a time.

    What is known of all frames is worked out once, so that a frame of a long file costs
    its own decoding only.

    Parameters
    ----------
    dataset
        A data set with its file meta.

    Raises
    ------
    InputError
        With the code ``no-decoder``, ``truncated``, ``colour``, ``bit-depth``,
        ``bad-image`` or ``bad-pixels``.
    """

    def __init__(self, dataset: pydicom.Dataset) -> None:
        self.is_lossy = False
        try:
            self._open(dataset)
        except InputError:
            raise
        except HOSTILE:
            raise InputError("bad-pixels") from None

    def _open(self, dataset: pydicom.Dataset) -> None:
        self._dataset = dataset
        syntax = dataset.file_meta.TransferSyntaxUID
        self._deflated = syntax == codecs.DEFLATED_FRAMES
        decoder = codecs.find_decoder(syntax)
        if decoder is None and not self._deflated:
            raise InputError("no-decoder")
        self._packed = decoder is None or decoder.is_encapsulated
        self.form = read_form(dataset)
        self._value: bytes = _pixel_bytes(dataset, self.form.keyword)
        self._fragments: list[list[streams.Fragment]] = []
        if self._packed:
            tables = _extended_tables(dataset)
            n = self.form.n_frames
            self._fragments = streams.split_frames(self._value, n, tables)
        elif len(self._value) < -(-self.form.frame_bits * self.form.n_frames // 8):
            raise InputError("truncated")

    def __len__(self) -> int:
        return self.form.n_frames

    def decode(self, number: int) -> Array:
        """Decode one frame.

        Parameters
        ----------
        number
            Which, from 0.

        Returns
        -------
        frame : ndarray, shape (rows, columns), or (rows, columns, 3) of colour
            Stored values in the machine's byte order.

        Raises
        ------
        InputError
            With the code ``truncated``, ``bad-image``, ``bad-pixels``, ``colour`` or
            ``too-large``.
        IndexError
            If there is no such frame.
        """
        return self._guarded(self._decode, number)

    def samples(self, number: int) -> tuple[Array, str]:
        """Decode one frame and leave its colours as they are stored.

        Parameters
        ----------
        number
            Which, from 0.

        Returns
        -------
        samples : ndarray, shape (rows, columns) or (rows, columns, samples)
            Stored values; of a palette its indices, of YBR luma and chroma, the latter
            spread to all pixels.
        photometric : str
            What the samples are: YBR_ICT and YBR_RCT have become RGB.

        Raises
        ------
        InputError
            As `decode`.
        IndexError
            If there is no such frame.
        """
        return self._guarded(self._samples, number)

    def stream(self, number: int) -> bytes:
        """Return the stream of one compressed frame."""
        return streams.join(self._value, self._fragments[number])

    def _guarded(self, decode: Callable[[int], Decoded], number: int) -> Decoded:
        if not 0 <= number < len(self):
            raise IndexError(f"frame {number} is none of {len(self)}")
        try:
            return decode(number)
        except InputError:
            raise
        except MemoryError:
            raise InputError("too-large") from None
        except HOSTILE:
            raise InputError("bad-pixels") from None

    def _decode(self, number: int) -> Array:
        form = self.form
        values, photometric = self._samples(number)
        if form.samples == 3:
            return colour.to_rgb(values, photometric, form.stored)
        if form.photometric == PALETTE:
            return palette.apply_palette(values, self._dataset)
        return values

    def _samples(self, number: int) -> tuple[Array, str]:
        if not self._packed:
            return self._decode_native(number), self.form.photometric
        return self.samples_of(self.stream(number))

    def _decode_native(self, number: int) -> Array:
        if self.form.syntax == ExplicitVRBigEndian:
            return _decode_big_endian(self._dataset, self.form, number)
        return native_frame(self._value, self.form, number)

    def samples_of(self, data: bytes) -> tuple[Array, str]:
        """Decode any stream as one of these frames; see `samples`."""
        form = self.form
        if self._deflated:
            inflated = codecs.inflate(data, -(-form.frame_bits // 8))
            return native_frame(inflated, form, 0), form.photometric
        if form.allocated == 1 and form.syntax == RLELossless:
            bits = codecs.decode_rle_bits(form, data)
            return native_frame(bits, form, 0), form.photometric
        stream = None if form.syntax == RLELossless else _check_stream(data, form)
        told = colour.told_photometric(form, stream)
        self.is_lossy = self.is_lossy or codecs.is_lossy(form.syntax, stream)
        if told != form.photometric:
            form = replace(form, photometric=told)
        return codecs.decode(form, data, stream)


def decode_frame(dataset: pydicom.Dataset, number: int) -> Array:
    """Decode one frame of a data set; see `FrameDecoder`."""
    return FrameDecoder(dataset).decode(number)


def cut_tile(mosaic: Array, tile: int, shape: tuple[int, ...]) -> Array:
    """Return one tile of a mosaic.

    Parameters
    ----------
    mosaic
        Shape (rows, columns); tiles stand in it row by row, as many down as across.
    tile
        Which, from 0.
    shape
        Rows and columns of a tile.
    """
    height, width = shape
    down, right = divmod(tile, max(1, mosaic.shape[1] // width))
    return mosaic[down * height : (down + 1) * height, right * width :][:, :width]


def decode_frames(dataset: pydicom.Dataset) -> Array:
    """Decode the stored values of all frames; they equal pydicom's `pixel_array`.

    Colour is RGB. Unused high bits are replaced by the sign (PS3.5 section 8.1.1), and
    a JPEG 2000 or JPEG-LS stream whose sign is not the header's is corrected, as
    pydicom does both. Bytes behind the last frame that the header claims are left
    alone.

    Parameters
    ----------
    dataset
        A data set with its file meta.

    Returns
    -------
    frames : ndarray, shape (frames, rows, columns) or (frames, rows, columns, 3)
        Stored values in the machine's byte order.

    Raises
    ------
    InputError
        As `FrameDecoder`.
    """
    decoder = FrameDecoder(dataset)
    if len(decoder) == 1:
        return decoder.decode(0)[np.newaxis]
    return np.stack([decoder.decode(number) for number in range(len(decoder))])


def native_frame(value: bytes, form: Form, number: int) -> Array:
    """Return a frame of uncompressed little endian pixels (PS3.5 section 8.1.1)."""
    first, n = number * form.n_values, form.n_values
    if form.allocated == 1:
        values = _unpack_bits(value, first, n)
    elif form.allocated == 12:
        values = _unpack_twelve(value, first, n).astype(form.dtype)
    else:
        dtype = form.dtype.newbyteorder("<")
        values = np.frombuffer(value, dtype, n, first * dtype.itemsize)
    native = values.astype(form.dtype, copy=False)
    if form.dtype.kind in "iu" and form.allocated > 1:
        native = codecs.replace_unused(native, form.stored)
    if form.photometric.endswith("_422"):
        return colour.spread_chroma(native, form.rows, form.columns)
    if form.samples > 1 and form.planar == 1:
        planes = native.reshape(form.samples, form.rows, form.columns)
        return np.moveaxis(planes, 0, -1)
    return native.reshape(form.shape)


def _unpack_bits(value: bytes, first: int, n: int) -> Array:
    """Return bits, which go on from frame to frame within a byte."""
    start, stop = first // 8, -(-(first + n) // 8)
    packed = np.frombuffer(value, np.uint8, stop - start, start)
    return np.unpackbits(packed, bitorder="little")[first % 8 :][:n]


def _unpack_twelve(value: bytes, first: int, n: int) -> Array:
    """Return cells of 12 bits, two in three bytes, the first in the lower bits."""
    places = np.arange(first, first + n)
    starts = places * 3 // 2
    data = np.frombuffer(value, np.uint8)
    words = data[starts] | data[starts + 1].astype(np.uint16) << 8
    return np.where(places % 2, words >> 4, words & 0xFFF).astype(np.uint16)


def _decode_big_endian(dataset: pydicom.Dataset, form: Form, number: int) -> Array:
    if form.allocated == 12:
        raise InputError("bit-depth")
    decoder = codecs.find_decoder(form.syntax)
    if decoder is None:
        raise InputError("no-decoder")
    options: Any = {"allow_excess_frames": False}
    values, _ = decoder.as_array(dataset, index=number, raw=True, **options)
    return values.astype(form.dtype, copy=False)


def _check_stream(data: bytes, form: Form) -> streams.Stream | None:
    """Refuse a stream that is cut short, or of another image; decoders fill in."""
    if not streams.has_end(data):
        raise InputError("truncated")
    stream = streams.read_stream(data)
    if stream is None:
        return None
    if (stream.rows or form.rows, stream.columns) != (form.rows, form.columns):
        raise InputError("bad-image")
    if stream.components != form.samples or stream.precision > 8 * form.dtype.itemsize:
        raise InputError("bad-image")
    return stream


def _extended_tables(dataset: pydicom.Dataset) -> tuple[bytes, bytes] | None:
    words = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
    tables = dataset.get(words[0]), dataset.get(words[1])
    return tables if all(tables) else None
