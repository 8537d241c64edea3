"""The values of a header's elements, read leniently."""

import re
import struct
from collections.abc import Callable
from functools import lru_cache
from math import isfinite, nan
from typing import Any, Final, NamedTuple

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import dictionary_VR, tag_for_keyword

from dicomdask.errors import InputError
from dicomdask.header.elements import ITEM, UNDEFINED, Element, Prefix, Syntax
from dicomdask.limits import MAX_VALUE_BYTES
from dicomdask.model import column_name

CHARACTER_SET: Final = 0x00080005
_BINARY: Final = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d"}
# Not 1,234: that may as well be a thousand.
_DECIMAL_COMMA: Final = re.compile(r"[+-]?(0?,\d+|\d+,(\d{1,2}|\d{4,}))")

UIDS: Final = (
    *("study_instance_uid", "series_instance_uid"),
    *("sop_instance_uid", "sop_class_uid"),
)
_TEXT: Final = (
    *("modality", "conversion_type", "burned_in_annotation", "frame_of_reference_uid"),
    *("photometric_interpretation", "acquisition_time", "content_time", "stack_id"),
    *("rescale_type", "units", "manufacturer", "manufacturer_model_name"),
    *("body_part_examined", "series_description", "study_date"),
)
WHOLE_TEXT: Final = ("patient_id", "issuer_of_patient_id")
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
    *("diffusion_b_value", "rescale_slope", "rescale_intercept", "frame_time"),
    *("float_pixel_padding_value", "float_pixel_padding_range_limit"),
    *("double_float_pixel_padding_value", "double_float_pixel_padding_range_limit"),
)
_NUMBERS: Final = (
    *("pixel_spacing", "imager_pixel_spacing", "image_position_patient"),
    *("image_orientation_patient", "diffusion_gradient_orientation"),
    "red_palette_color_lookup_table_descriptor",
)


def _tag(field: str) -> int:
    """Return the tag of a field, which is its keyword in snake case."""
    tag = tag_for_keyword(column_name(field))
    if tag is None:
        raise KeyError(f"{field} is no keyword of PS3.6")
    return tag


_FIELDS: Final = (
    *(*UIDS, *_TEXT, *WHOLE_TEXT, *_TEXTS, *_INTEGER, *_PADDING, *_NUMBER),
    *(*_NUMBERS, "number_of_frames"),
)
TAGS: Final = {field: _tag(field) for field in _FIELDS}
_VRS: Final = {field: dictionary_VR(tag)[:2] for field, tag in TAGS.items()}
_SHORT: Final = 64
"""Values of so many bytes are likely to come again, in the next file of a series."""
_CHEAP: Final = 1 << 16
_REMEMBERED: Final = 1 << 12
_CONTEXTS: Final = 16
_UNKNOWN: Final = object()


class Written(NamedTuple):
    """The bytes of a value, and what is needed to read them.

    `vr` is what the file says, `expected` what the standard does.
    """

    raw: bytes
    vr: bytes | None
    expected: str
    endian: str
    charset: bytes | None


class Header:
    """The wanted elements of a header, and their values: none of them is long."""

    def __init__(self, prefix: Prefix) -> None:
        self.elements: dict[int, Element] = {}
        self.endian = "<"
        self.syntax = Syntax("<", implicit=False)
        self.prefix = prefix

    def view(self, elements: dict[int, Element]) -> "Header":
        """Return the values of other elements of this header, of an item's say."""
        view = Header(self.prefix)
        view.endian, view.syntax = self.endian, self.syntax
        view.elements = elements
        charset = self.elements.get(CHARACTER_SET)
        if charset is not None:
            view.elements.setdefault(CHARACTER_SET, charset)
        return view

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
        raw = self.raw(tag)
        return _whole_text(raw, self.raw(CHARACTER_SET)) if raw else None

    def texts(self, tag: int) -> tuple[str, ...]:
        """Return the values of a text."""
        return _parts(self.whole_text(tag))

    def text(self, tag: int) -> str | None:
        """Return the first value of a text; `None` where it is empty."""
        return _first(self.whole_text(tag))

    def numbers(self, field: str) -> tuple[float, ...]:
        """Return the values of a number; those that cannot be read are NaN."""
        return self.numbers_at(TAGS[field], _VRS[field])

    def numbers_at(self, tag: int, expected: str) -> tuple[float, ...]:
        """Return the values of a number by its tag, and the VR that it should have."""
        raw = self.raw(tag)
        if raw is None:
            return ()
        vr, charset = self.elements[tag].vr, self.raw(CHARACTER_SET)
        return _numbers(Written(raw, vr, expected, self.endian, charset))

    def n_frames(self) -> int:
        """Return the number of frames; 1 where the header does not say."""
        numbers = self.numbers("number_of_frames")
        n = _integer(numbers)
        if n is None and numbers:
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
        values = dict(_NOTHING)
        endian, charset = self.endian, self.raw(CHARACTER_SET)
        data: bytes | bytearray = self.prefix.data
        if len(data) <= _CHEAP:
            data = bytes(data)  # pieces of it need no second copy
        known = known_values(endian, charset)
        for tag, vr, start, length in self.elements.values():
            if tag not in _FIELD_OF or length == UNDEFINED:
                continue
            if length > MAX_VALUE_BYTES:
                raise InputError("bad-header")
            field = _FIELD_OF[tag]
            key = tag, vr, bytes(data[start : start + length])
            value = known.get(key, _UNKNOWN)
            if value is _UNKNOWN:
                written = Written(key[2], vr, _VRS[field], endian, charset)
                value = _READ[field](written)
                if length <= _SHORT:
                    known[key] = value
            values[field] = value
        if len(known) > _REMEMBERED:
            known.clear()
        is_signed = values["pixel_representation"] == 1
        for field in _PADDING:
            values[field] = _padding(values[field], is_signed)
        return values


@lru_cache(_CONTEXTS)
def known_values(endian: str, charset: bytes | None) -> dict[Any, Any]:
    """Return what short values of a byte order and a character set were seen to mean.

    In a pile the same values come again and again; a key is tag, VR and bytes.
    """
    del endian, charset  # they tell one dictionary from another
    return {}


def _texts_of(written: Written) -> tuple[str, ...]:
    return _parts(_whole_text(written.raw, written.charset))


def _text_of(written: Written) -> str | None:
    return _first(_whole_text(written.raw, written.charset))


def _whole_text_of(written: Written) -> str | None:
    return _whole_text(written.raw, written.charset)


def _numbers_of(written: Written) -> tuple[float, ...]:
    return tuple(map(float, _numbers(written)))


def _number_of(written: Written) -> float | None:
    numbers = _numbers(written)
    return float(numbers[0]) if numbers else None


def _integer_of(written: Written) -> int | None:
    return _integer(_numbers(written))


_READ: Final[dict[str, Callable[[Written], Any]]] = {
    **dict.fromkeys((*UIDS, *_TEXT), _text_of),
    **dict.fromkeys(WHOLE_TEXT, _whole_text_of),
    **dict.fromkeys(_TEXTS, _texts_of),
    **dict.fromkeys((*_INTEGER, *_PADDING), _integer_of),
    **dict.fromkeys(_NUMBER, _number_of),
    **dict.fromkeys(_NUMBERS, _numbers_of),
}
"""How each field of an `Instance` that is an attribute is read."""
_FIELD_OF: Final = {TAGS[field]: field for field in _READ}
_NOTHING: Final[dict[str, Any]] = {
    field: () if field in (*_TEXTS, *_NUMBERS) else None for field in _READ
}


def _whole_text(raw: bytes, charset: bytes | None) -> str | None:
    """Return a text without what pads it; `None` where nothing is left."""
    return _decode(raw, charset).strip(" \0") or None


def _parts(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip(" \0") for part in text.split("\\")) if text else ()


def _first(text: str | None) -> str | None:
    return (text.partition("\\")[0].strip(" \0") or None) if text else None


def _decode(raw: bytes, charset: bytes | None) -> str:
    if raw.isascii() and b"\x1b" not in raw:
        return raw.decode("ascii")
    terms = (charset or b"").decode("latin-1").strip(" \0")
    try:
        encodings = convert_encodings(terms.split("\\"))
        return decode_bytes(raw, encodings, {0x5C})
    except (LookupError, ValueError, Warning):
        return raw.decode("latin-1")


def _numbers(written: Written) -> tuple[float, ...]:
    """Return numbers, packed or as text; those that cannot be read are NaN."""
    told = (written.vr or b"UN").decode("latin-1")
    is_told = told not in {"UN", "OB", "OW"}
    code = _BINARY.get(told if is_told else written.expected)
    if code is None:
        return tuple(map(_number, _parts(_whole_text(written.raw, written.charset))))
    n = len(written.raw) // struct.calcsize(code)
    return struct.unpack_from(f"{written.endian}{n}{code}", written.raw)


def _number(text: str) -> float:
    """Read a number, also one with a decimal comma; NaN where that fails."""
    try:
        return float(text)
    except ValueError:
        is_comma = _DECIMAL_COMMA.fullmatch(text)
        return float(text.replace(",", ".")) if is_comma else nan


def _integer(numbers: tuple[float, ...]) -> int | None:
    """Return a whole number of up to 32 bits; `None` where there is none."""
    if not numbers or not isfinite(numbers[0]) or numbers[0] % 1:
        return None
    return int(numbers[0]) if -(2**31) <= numbers[0] < 2**32 else None


def _padding(value: int | None, is_signed: bool) -> int | None:
    """Return a pixel value in the sign that the pixels have.

    PS3.3 section C.7.5.1.1.2. Writers in explicit VR confuse US and SS.
    """
    if value is None or not -(2**15) <= value < 2**16:
        return value
    return (value + 2**15) % 2**16 - 2**15 if is_signed else value % 2**16
