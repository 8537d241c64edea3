"""Say by its header whether an instance can be stored, and as what."""

from math import isfinite, prod
from typing import Final

import numpy as np
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicomdask.errors import InputError
from dicomdask.limits import MAX_FRAMES
from dicomdask.model import Instance
from dicomdask.pixels.codecs import DEFLATED_FRAMES, find_decoder
from dicomdask.pixels.form import FLOATS, PALETTE, depth_code, image_code
from dicomdask.pixels.palette import palette_dtype

_STORAGE: Final = "1.2.840.10008.5.1.4.1.1."
_SEGMENTATIONS: Final = {_STORAGE + end for end in ("66.4", "66.7")}
# Those of PS3.4 table B.5-1 whose frames are described by functional groups.
_ENHANCED: Final = {
    _STORAGE + end
    for end in (
        *("2.1", "2.2", "4.1", "4.3", "4.4", "130", "128.1", "30"),
        *("12.1.1", "12.2.1", "13.1.1", "13.1.2", "13.1.3", "13.1.4", "13.1.5"),
    )
}
# Their frames lie in another space than the patient's: slides, eyes, vessels, beams.
_OTHER_ENHANCED: Final = {
    _STORAGE + end
    for end in (
        *("6.2", "6.3", "14.1", "14.2", "77.1.5.4", "77.1.5.8", "77.1.6", "77.1.8"),
        *("77.1.9", "481.23", "481.24", "481.25"),
    )
}
_DOSE: Final = _STORAGE + "481.2"
_UNCOMPRESSED: Final = {
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
}
_BITS: Final = {1: 8, 12: 16}
"""Bits of the values that are stored where they are not those of Bits Allocated."""


def check_pixels(instance: Instance, *, limit: int | None = None) -> None:
    """Refuse, by the header alone, what cannot be stored.

    Parameters
    ----------
    instance
        The instance.
    limit
        The most bytes that its decoded frames may take; by default any number.

    Raises
    ------
    InputError
        With the code ``segmentation``, ``enhanced-multiframe``, ``bad-image``,
        ``colour``, ``mosaic``, ``bit-depth``, ``multiframe``, ``no-decoder``,
        ``too-large`` or ``truncated``.
    """
    code = _kind_code(instance) or _image_code(instance) or _bytes_code(instance, limit)
    if code:
        raise InputError(code)


def stored_dtype(instance: Instance) -> str:
    """Return the dtype, such as ``int16``, that `decode_frames` will give.

    It depends on Bits Allocated and Pixel Representation (PS3.5 section 8.1.1), not on
    Bits Stored nor on what a compressed stream says; of a palette, on its entries.

    Raises
    ------
    InputError
        With the code ``bad-image`` or ``colour`` where the header does not tell.
    """
    if instance.pixel_keyword in FLOATS:
        return FLOATS[instance.pixel_keyword]
    if instance.photometric_interpretation == PALETTE:
        descriptor = instance.red_palette_color_lookup_table_descriptor
        return palette_dtype(descriptor[2] if len(descriptor) > 2 else None).name
    sign = {0: "uint", 1: "int"}.get(_or(instance.pixel_representation, -1))
    bits = _or(instance.bits_allocated, 0)
    bits = _BITS.get(bits, bits)
    if sign is None or bits not in {8, 16, 32, 64}:
        raise InputError("bad-image")
    return f"{sign}{bits}"


def stored_samples(instance: Instance) -> int:
    """Return how many values a stored pixel has: 3 of colour, else 1."""
    is_colour = instance.photometric_interpretation == PALETTE
    return 3 if is_colour or instance.samples_per_pixel == 3 else 1


def decoded_bytes(instance: Instance) -> int:
    """Return how many bytes all frames of an instance take, decoded.

    Raises
    ------
    InputError
        As `stored_dtype`.
    """
    n = prod(instance.shape) * instance.number_of_frames * stored_samples(instance)
    return n * np.dtype(stored_dtype(instance)).itemsize


def _kind_code(instance: Instance) -> str | None:
    """Return the code of a kind of object that is not stored yet."""
    if instance.sop_class_uid in _SEGMENTATIONS:
        return "segmentation"
    if instance.sop_class_uid in _OTHER_ENHANCED:
        return "enhanced-multiframe"
    if instance.sop_class_uid in _ENHANCED and not instance.frame_facts:
        return "functional-groups"
    is_vague = instance.is_mosaic and not instance.frame_facts
    return "mosaic" if is_vague else None


def _image_code(instance: Instance) -> str | None:
    """Return the code of an Image Pixel Module (PS3.3 section C.7.6.3) not stored."""
    photometric = instance.photometric_interpretation
    if not all(instance.shape) or instance.number_of_frames < 1:
        return "bad-image"
    code = image_code(photometric, instance.samples_per_pixel)
    if code:
        return code
    rescale = instance.rescale_slope, instance.rescale_intercept
    if not all(value is None or isfinite(value) for value in rescale):
        return "bad-image"
    code = _depth_code(instance)
    if not code and instance.number_of_frames > MAX_FRAMES:
        return "too-large"
    is_vague = instance.number_of_frames > 1 and not instance.frame_facts
    is_other = instance.modality == "NM" or instance.sop_class_uid == _DOSE
    return code or ("multiframe" if is_vague and is_other else None)


def _depth_code(instance: Instance) -> str | None:
    allocated, stored = instance.bits_allocated, instance.bits_stored
    keyword, photometric = instance.pixel_keyword, instance.photometric_interpretation
    if keyword in FLOATS:
        return depth_code(keyword, _or(allocated, 0), 0, str(photometric))
    if allocated is None or stored is None:
        return "bad-image"
    if instance.pixel_representation not in {0, 1}:
        return "bad-image"
    # PS3.5 section 8.1.1: anything else is retired, and readers disagree about it.
    if _or(instance.high_bit, stored - 1) != stored - 1:
        return "bit-depth"
    return depth_code(keyword, allocated, stored, str(photometric))


def _bytes_code(instance: Instance, limit: int | None) -> str | None:
    """Return the code of pixels that cannot be decoded, or not here."""
    uid = instance.transfer_syntax_uid
    if uid != DEFLATED_FRAMES and find_decoder(uid) is None:
        return "no-decoder"
    if limit is not None and decoded_bytes(instance) > limit:
        return "too-large"
    short = uid in _UNCOMPRESSED and instance.size < _written_bytes(instance)
    return "truncated" if short or instance.pixel_keyword is None else None


def _written_bytes(instance: Instance) -> int:
    """Return how many bytes uncompressed frames take."""
    n = prod(instance.shape) * instance.number_of_frames
    n *= _or(instance.samples_per_pixel, 1)
    if str(instance.photometric_interpretation).endswith("_422"):
        n = n // 3 * 2
    return -(-n * _or(instance.bits_allocated, 0) // 8)


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
