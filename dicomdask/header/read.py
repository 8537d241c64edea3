"""Read a header into an `Instance`: strict about structure, lenient about values.

The header is walked element by element, by a parser of our own (PS3.5 section 7) that
keeps some fifty values and skips the rest; it stops in front of the pixels. Nothing of
a file ever enters a message.
"""

import hashlib
import io
import re
import struct
import zlib
from contextlib import suppress
from math import isfinite, nan
from typing import Any, BinaryIO, Final

import pydicom
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.errors import InvalidDicomError

from dicomdask.errors import InputError
from dicomdask.header.elements import (
    BIG_ENDIAN,
    EXPLICIT,
    IMPLICIT,
    ITEM,
    UNDEFINED,
    Element,
    Prefix,
    Syntax,
    guess_syntax,
    inflated,
    is_implicit,
    walk_elements,
)
from dicomdask.limits import MAX_HEADER_BYTES, MAX_VALUE_BYTES
from dicomdask.model import Instance, SourceFile, column_name

MAX_INFLATED_BYTES: Final = 1 << 30
"""A deflated data set that inflates to more is refused."""

_PIXELS: Final = {
    0x7FE00008: "FloatPixelData",
    0x7FE00009: "DoubleFloatPixelData",
    0x7FE00010: "PixelData",
}
_META_CLASS, _META_SYNTAX = 0x00020002, 0x00020010
_CHARACTER_SET, _DIRECTORY = 0x00080005, 0x00041220
_MODALITY_LUT, _SPECTRUM = 0x00283000, 0x56000020
_DICOMDIR_CLASS: Final = "1.2.840.10008.1.3.10"
# PS3.5 sections A.5, A.7 and A.11: the data set itself is deflated.
_DEFLATED: Final = {
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.4.95",
    "1.2.840.10008.1.2.4.205",
}
_BINARY: Final = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d"}
_UID: Final = re.compile(r"[0-2](\.\d+)+")
# Not 1,234: that may as well be a thousand.
_DECIMAL_COMMA: Final = re.compile(r"[+-]?(0?,\d+|\d+,(\d{1,2}|\d{4,}))")
_ARCHIVES: Final = (
    *(b"PK\3\4", b"PK\5\6", b"\x1f\x8b", b"7z\xbc\xaf\x27\x1c", b"BZh"),
    *(b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"Rar!\x1a\x07"),
)
_HOSTILE: Final = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError),
    *(OSError, RuntimeError, TypeError, ValueError, struct.error, zlib.error),
    InvalidDicomError,
)

_UIDS: Final = (
    *("study_instance_uid", "series_instance_uid"),
    *("sop_instance_uid", "sop_class_uid"),
)
_TEXT: Final = (
    *("modality", "conversion_type", "burned_in_annotation", "frame_of_reference_uid"),
    *("photometric_interpretation", "acquisition_time", "content_time", "stack_id"),
    *("rescale_type", "units"),
)
_WHOLE_TEXT: Final = ("patient_id", "issuer_of_patient_id")
_TEXTS: Final = ("image_type", "convolution_kernel")
_INTEGER: Final = (
    *("instance_number", "acquisition_number", "images_in_acquisition", "rows"),
    *("columns", "samples_per_pixel", "bits_allocated", "bits_stored", "high_bit"),
    *("pixel_representation", "echo_numbers", "temporal_position_identifier"),
)
_PADDING: Final = ("pixel_padding_value", "pixel_padding_range_limit")
_NUMBER: Final = (
    *("slice_thickness", "spacing_between_slices", "gantry_detector_tilt"),
    *("echo_time", "repetition_time", "inversion_time", "flip_angle", "trigger_time"),
    *("diffusion_b_value", "rescale_slope", "rescale_intercept"),
)
_NUMBERS: Final = (
    *("pixel_spacing", "imager_pixel_spacing", "image_position_patient"),
    *("image_orientation_patient", "diffusion_gradient_orientation"),
)


def _tag(field: str) -> int:
    """Return the tag of a field, which is its keyword in snake case."""
    tag = tag_for_keyword(column_name(field))
    if tag is None:
        raise KeyError(f"{field} is no keyword of PS3.6")
    return tag


_FIELDS: Final = (
    *(*_UIDS, *_TEXT, *_WHOLE_TEXT, *_TEXTS, *_INTEGER, *_PADDING, *_NUMBER),
    *(*_NUMBERS, "number_of_frames"),
)
_TAGS: Final = {field: _tag(field) for field in _FIELDS}
_VRS: Final = {field: dictionary_VR(tag)[:2] for field, tag in _TAGS.items()}
_WANTED: Final = frozenset(
    (
        *(*_TAGS.values(), _META_CLASS, _META_SYNTAX, _CHARACTER_SET),
        *(_DIRECTORY, _MODALITY_LUT, _SPECTRUM),
    )
)


class _Header:
    """The wanted elements of a header, and their values: none of them is long."""

    def __init__(self, prefix: Prefix) -> None:
        self.elements: dict[int, Element] = {}
        self.endian = "<"
        self.prefix = prefix

    def raw(self, tag: int) -> bytes | None:
        """Return the bytes of a value; `None` where it is absent."""
        element = self.elements.get(tag)
        if element is None or element.length == UNDEFINED:
            return None
        if element.length > MAX_VALUE_BYTES:
            raise InputError("bad-header")
        return bytes(self.prefix.data[element.start : element.start + element.length])

    def whole_text(self, tag: int) -> str | None:
        """Return a text, with all its values; `None` where it is empty."""
        return self._decode(self.raw(tag) or b"").strip(" \0") or None

    def texts(self, tag: int) -> tuple[str, ...]:
        """Return the values of a text."""
        text = self.whole_text(tag)
        return tuple(part.strip(" \0") for part in text.split("\\")) if text else ()

    def text(self, tag: int) -> str | None:
        """Return the first value of a text; `None` where it is empty."""
        text = self.whole_text(tag)
        return (text.partition("\\")[0].strip(" \0") or None) if text else None

    def numbers(self, field: str) -> tuple[float, ...]:
        """Return the values of a number; those that cannot be read are NaN."""
        tag = _TAGS[field]
        raw = self.raw(tag)
        if raw is None:
            return ()
        vr = (self.elements[tag].vr or b"UN").decode("latin-1")
        code = _BINARY.get(_VRS[field] if vr in {"UN", "OB", "OW"} else vr)
        if code is None:
            return tuple(_number(part) for part in self.texts(tag))
        n = len(raw) // struct.calcsize(code)
        return struct.unpack_from(f"{self.endian}{n}{code}", raw)

    def number(self, field: str) -> float | None:
        """Return the first value of a number; `None` where it is empty."""
        numbers = self.numbers(field)
        return float(numbers[0]) if numbers else None

    def integer(self, field: str) -> int | None:
        """Return a whole number of up to 32 bits; `None` where there is none."""
        numbers = self.numbers(field)
        if not numbers or not isfinite(numbers[0]) or numbers[0] % 1:
            return None
        return int(numbers[0]) if -(2**31) <= numbers[0] < 2**32 else None

    def padding(self, field: str) -> int | None:
        """Return a pixel value in the sign that the pixels have.

        PS3.3 section C.7.5.1.1.2. Writers in explicit VR confuse US and SS.
        """
        value = self.integer(field)
        if value is None or not -(2**15) <= value < 2**16:
            return value
        signed = self.integer("pixel_representation") == 1
        return (value + 2**15) % 2**16 - 2**15 if signed else value % 2**16

    def n_frames(self) -> int:
        """Return the number of frames; 1 where the header does not say."""
        n = self.integer("number_of_frames")
        if n is None and self.numbers("number_of_frames"):
            raise InputError("bad-header")
        return n or 1

    def has_items(self, tag: int) -> bool:
        """Tell whether a sequence has an item."""
        element = self.elements.get(tag)
        if element is None or element.length < 8:
            return False
        code = f"{self.endian}HH"
        return struct.unpack_from(code, self.prefix.data, element.start) == (
            ITEM >> 16,
            ITEM & 0xFFFF,
        )

    def values(self) -> dict[str, Any]:
        """Return the fields of an `Instance` that are attributes."""
        values: dict[str, Any] = {f: self.text(_TAGS[f]) for f in (*_UIDS, *_TEXT)}
        values |= {f: self.whole_text(_TAGS[f]) for f in _WHOLE_TEXT}
        values |= {f: self.texts(_TAGS[f]) for f in _TEXTS}
        values |= {f: self.integer(f) for f in _INTEGER}
        values |= {f: self.padding(f) for f in _PADDING}
        values |= {f: self.number(f) for f in _NUMBER}
        return values | {f: tuple(map(float, self.numbers(f))) for f in _NUMBERS}

    def _decode(self, raw: bytes) -> str:
        if raw.isascii() and b"\x1b" not in raw:
            return raw.decode("ascii")
        terms = (self.raw(_CHARACTER_SET) or b"").decode("latin-1").strip(" \0")
        try:
            encodings = convert_encodings(terms.split("\\"))
            return decode_bytes(raw, encodings, {0x5C})
        except (LookupError, ValueError, Warning):
            return raw.decode("latin-1")


def read_instance(
    file: BinaryIO, source: SourceFile, *, limit: int = MAX_HEADER_BYTES
) -> Instance:
    r"""Read a header, up to the pixels, into an `Instance`.

    Values are read leniently. An absent or empty one is `None` or ``()``; of several
    where one is wanted the first counts (`patient_id` and its issuer keep them all,
    with ``\``); a number that cannot be read is NaN, or `None` for a whole number.
    `header_digest` is that of all bytes in front of the pixels, inflated ones where
    they were deflated.

    Parameters
    ----------
    file
        A seekable stream over the object; only the header is read.
    source
        Where it comes from.
    limit
        The most bytes that the header may have.

    Raises
    ------
    InputError
        With the code ``empty-file``, ``archive``, ``not-dicom``, ``bad-header``,
        ``too-large``, ``dicomdir``, ``no-pixels`` or ``missing-uid``.
    """
    file.seek(0)
    header = _Header(Prefix(file, limit))
    start = _dataset_start(header.prefix)
    syntax, keyword, stop = _try_parse(header, start)
    values = header.values()
    _refuse_without_pixels(header, values, keyword)
    if not all(values[field] for field in _UIDS):
        raise InputError("missing-uid")
    return Instance(
        url=source.url,
        size=source.size,
        token=source.token,
        etag=source.etag,
        header_digest=_digest(header.prefix.data, stop),
        transfer_syntax_uid=syntax,
        number_of_frames=header.n_frames(),
        pixel_keyword=keyword,
        has_modality_lut=header.has_items(_MODALITY_LUT),
        is_mosaic="MOSAIC" in values["image_type"],
        header_bytes=stop,
        **values,
    )


def read_patient(file: BinaryIO) -> tuple[str | None, str | None, str]:
    """Return whose a file is, whether or not it is an image or whole.

    Returns
    -------
    tuple
        PatientID and its issuer, all their values, and the Study Instance UID; None
        and empty where the header does not say.

    Raises
    ------
    InputError
        If it cannot be DICOM.
    """
    file.seek(0)
    header = _Header(Prefix(file))
    start = _dataset_start(header.prefix)
    with suppress(InputError, ValueError, struct.error, zlib.error):
        _parse(header, start)
    number, issuer = (header.whole_text(_TAGS[field]) for field in _WHOLE_TEXT)
    return number, issuer, header.text(_TAGS["study_instance_uid"]) or ""


def read_dataset(
    data: bytes, *, limit: int = MAX_INFLATED_BYTES
) -> pydicom.dataset.FileDataset:
    """Read a whole file that `read_instance` accepted, pixels and all.

    A missing Transfer Syntax UID is set to the one that the elements are written in.

    Parameters
    ----------
    data
        The bytes of the file.
    limit
        The most bytes a deflated data set may inflate to.

    Raises
    ------
    InputError
        With the code ``empty-file``, ``archive``, ``not-dicom``, ``bad-header``,
        ``truncated`` or ``too-large``.
    """
    try:
        _refuse_bomb(data, limit)
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        # pydicom leaves out everything where compressed pixels lack their end.
        if len(dataset) == 0:
            raise InputError("truncated")
        if not dataset.file_meta.get("TransferSyntaxUID"):
            implicit, little = dataset.original_encoding
            explicit = EXPLICIT if little else BIG_ENDIAN
            uid = pydicom.uid.UID(IMPLICIT if implicit else explicit)
            dataset.file_meta.TransferSyntaxUID = uid
    except InputError:
        raise
    except _HOSTILE:
        raise InputError("bad-header") from None
    return dataset


def _refuse_bomb(data: bytes, limit: int) -> None:
    """Refuse a data set that inflates to more than `limit` bytes."""
    file = io.BytesIO(data)
    header = _Header(Prefix(file))
    start = _walk_meta(header, _dataset_start(header.prefix))
    if header.text(_META_SYNTAX) in _DEFLATED:
        n = 0
        for block in inflated(file, start):
            n += len(block)
            if n > limit:
                raise InputError("too-large", "The inflated data set is too large.")


def _dataset_start(prefix: Prefix) -> int:
    """Return where the first element is; refuse what cannot be DICOM."""
    if not prefix.reach(1):
        raise InputError("empty-file")
    # PS3.10 section 7.1: the preamble may be another format's start, so DICM wins.
    if prefix.reach(132) and prefix.data[128:132] == b"DICM":
        return 132
    prefix.reach(512)
    if _is_nifti(prefix.data):
        raise InputError("not-dicom")
    if prefix.data.startswith(_ARCHIVES) or prefix.data[257:262] == b"ustar":
        raise InputError("archive")
    if not _starts_plausibly(prefix.data):
        raise InputError("not-dicom")
    return 0


def _is_nifti(data: bytearray) -> bool:
    """Tell a gzipped NIfTI, which is no archive of DICOM, by the magic inside."""
    if not data.startswith(b"\x1f\x8b"):
        return False
    try:
        head = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(data, 512)
    except zlib.error:
        return False
    return head[344:348] in {b"n+1\0", b"ni1\0"} or head[4:7] == b"n+2"


def _starts_plausibly(data: bytearray) -> bool:
    """Tell whether a file without preamble may start with an element of ours."""
    if len(data) < 8:
        return False
    little, big = struct.unpack_from("<H", data)[0], struct.unpack_from(">H", data)[0]
    if not is_implicit(data, 0):
        return little in {2, 8} or big == 8
    return bool(little == 8 and struct.unpack_from("<I", data, 4)[0] < 1 << 16)


def _try_parse(header: _Header, start: int) -> tuple[str, str | None, int]:
    """Parse; refuse what is damaged, and what has no preamble and no SOP class."""
    failure = None
    try:
        result = _parse(header, start)
    except InputError as error:
        failure = error
    except (ValueError, struct.error, zlib.error):
        failure = InputError("bad-header")
    uid = header.text(_TAGS["sop_class_uid"])
    if start == 0 and (uid is None or not _UID.fullmatch(uid)):
        raise InputError("not-dicom")
    if failure is not None:
        raise InputError(failure.code, failure.reason)
    return result


def _refuse_without_pixels(
    header: _Header, values: dict[str, Any], keyword: str | None
) -> None:
    """Refuse a DICOMDIR, and an object that is no image."""
    meta_class = header.text(_META_CLASS)
    if meta_class == _DICOMDIR_CLASS or _DIRECTORY in header.elements:
        raise InputError("dicomdir")
    if keyword or (values["rows"] and _SPECTRUM not in header.elements):
        return
    # An image that ends before its pixels is damaged, not an object without them.
    uid = values["sop_class_uid"] or meta_class
    if uid is None:
        raise InputError("missing-uid")
    name = pydicom.uid.UID(uid, validation_mode=pydicom.config.IGNORE).name
    raise InputError("missing-pixels" if "Image Storage" in name else "no-pixels")


def _parse(header: _Header, start: int) -> tuple[str, str | None, int]:
    """Read the elements; return transfer syntax, pixel keyword and where it stopped."""
    prefix = header.prefix
    start = _walk_meta(header, start)
    uid = header.text(_META_SYNTAX)
    if uid in _DEFLATED:
        prefix.inflate(start)
    prefix.reach(start + 8)
    uid = uid or guess_syntax(prefix.data, start)
    header.endian = ">" if uid == BIG_ENDIAN else "<"
    syntax = Syntax(header.endian, is_implicit(prefix.data, start))
    for element in walk_elements(prefix, start, syntax):
        if element.tag in _PIXELS:
            return uid, _PIXELS[element.tag], element.start
        if element.tag in _WANTED:
            header.elements[element.tag] = element
    return uid, None, len(prefix.data)


def _walk_meta(header: _Header, start: int) -> int:
    """Read group 0002 (PS3.10 section 7.1); return where the data set starts."""
    position = start
    for element in walk_elements(header.prefix, start, Syntax("<", implicit=False)):
        if element.tag >> 16 != 2 or element.length == UNDEFINED:
            break
        position = element.start + element.length
        header.prefix.need(position)
        header.elements[element.tag] = element
    return position


def _number(text: str) -> float:
    """Read a number, also one with a decimal comma; NaN where that fails."""
    if _DECIMAL_COMMA.fullmatch(text):
        text = text.replace(",", ".")
    try:
        return float(text)
    except ValueError:
        return nan


def _digest(data: bytearray, stop: int) -> str:
    """Return the hex BLAKE2b-128 of the first `stop` bytes."""
    return hashlib.blake2b(memoryview(data)[:stop], digest_size=16).hexdigest()
