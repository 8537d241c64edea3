"""The values of a header's elements, read leniently."""

import re
import struct
from math import isfinite, nan
from typing import Any, Final

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
        return (self._decode(raw).strip(" \0") or None) if raw else None

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
        return self.numbers_at(TAGS[field], _VRS[field])

    def numbers_at(self, tag: int, expected: str) -> tuple[float, ...]:
        """Return the values of a number by its tag, and the VR that it should have."""
        raw = self.raw(tag)
        if raw is None:
            return ()
        vr = (self.elements[tag].vr or b"UN").decode("latin-1")
        code = _BINARY.get(expected if vr in {"UN", "OB", "OW"} else vr)
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
        values: dict[str, Any] = {f: self.text(TAGS[f]) for f in (*UIDS, *_TEXT)}
        values |= {f: self.whole_text(TAGS[f]) for f in WHOLE_TEXT}
        values |= {f: self.texts(TAGS[f]) for f in _TEXTS}
        values |= {f: self.integer(f) for f in _INTEGER}
        values |= {f: self.padding(f) for f in _PADDING}
        values |= {f: self.number(f) for f in _NUMBER}
        return values | {f: tuple(map(float, self.numbers(f))) for f in _NUMBERS}

    def _decode(self, raw: bytes) -> str:
        if raw.isascii() and b"\x1b" not in raw:
            return raw.decode("ascii")
        terms = (self.raw(CHARACTER_SET) or b"").decode("latin-1").strip(" \0")
        try:
            encodings = convert_encodings(terms.split("\\"))
            return decode_bytes(raw, encodings, {0x5C})
        except (LookupError, ValueError, Warning):
            return raw.decode("latin-1")


def _number(text: str) -> float:
    """Read a number, also one with a decimal comma; NaN where that fails."""
    if _DECIMAL_COMMA.fullmatch(text):
        text = text.replace(",", ".")
    try:
        return float(text)
    except ValueError:
        return nan
