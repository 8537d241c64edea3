"""The functional groups of a multi-frame object (PS3.3 C.7.6.16), for each frame.

Macros that tell where a frame lies or what sets it apart are read; what one frame does
not say of its own, the shared groups say.
"""

from collections.abc import Iterator
from math import isfinite
from typing import Any, Final

from pydicom.datadict import dictionary_VR, tag_for_keyword

from dicomdask.errors import InputError
from dicomdask.header.elements import Element, Syntax, walk_items
from dicomdask.header.values import CHARACTER_SET, Header
from dicomdask.limits import MAX_FRAMES

SHARED: Final = 0x52009229
PER_FRAME: Final = 0x52009230
DIMENSIONS: Final = 0x00209222


def _tags(*keywords: str) -> tuple[int, ...]:
    found = [tag_for_keyword(keyword) for keyword in keywords]
    if None in found:
        raise KeyError(f"one of {keywords} is no keyword of PS3.6")
    return tuple(tag for tag in found if tag is not None)


Elements = dict[int, Element]

_MACROS: Final = frozenset(
    _tags(
        "FrameContentSequence",
        "PlanePositionSequence",
        "PlaneOrientationSequence",
        "PixelMeasuresSequence",
        "PixelValueTransformationSequence",
        "CTImageFrameTypeSequence",
        "CTReconstructionSequence",
        "MRImageFrameTypeSequence",
        "MRTimingAndRelatedParametersSequence",
        "MREchoSequence",
        "MRModifierSequence",
        "MRDiffusionSequence",
        "DiffusionGradientDirectionSequence",
        "PETFrameTypeSequence",
        "XRay3DFrameTypeSequence",
        "XAXRFFrameCharacteristicsSequence",
        "CardiacSynchronizationSequence",
        "UnassignedSharedConvertedAttributesSequence",
        "UnassignedPerFrameConvertedAttributesSequence",
    )
)
_DEPTH: Final = 4

_FACTS: Final[dict[str, tuple[str, tuple[int, ...]]]] = {
    "pixel_spacing": ("numbers", _tags("PixelSpacing")),
    "image_position_patient": ("numbers", _tags("ImagePositionPatient")),
    "image_orientation_patient": ("numbers", _tags("ImageOrientationPatient")),
    "slice_thickness": ("number", _tags("SliceThickness")),
    "convolution_kernel": ("texts", _tags("ConvolutionKernel")),
    "acquisition_number": (
        "integer",
        _tags("FrameAcquisitionNumber", "AcquisitionNumber"),
    ),
    "instance_number": ("integer", _tags("InstanceNumber")),
    "echo_numbers": ("integer", _tags("EchoNumbers")),
    "echo_time": ("number", _tags("EffectiveEchoTime", "EchoTime")),
    "repetition_time": ("number", _tags("RepetitionTime")),
    "inversion_time": ("number", _tags("InversionTimes", "InversionTime")),
    "flip_angle": ("number", _tags("FlipAngle")),
    "diffusion_b_value": ("number", _tags("DiffusionBValue")),
    "diffusion_gradient_orientation": (
        "numbers",
        _tags("DiffusionGradientOrientation"),
    ),
    "temporal_position_identifier": (
        "integer",
        _tags("TemporalPositionIndex", "TemporalPositionIdentifier"),
    ),
    "acquisition_time": (
        "text",
        _tags("FrameAcquisitionDateTime", "FrameReferenceDateTime", "AcquisitionTime"),
    ),
    "content_time": ("text", _tags("ContentTime")),
    "trigger_time": ("number", _tags("NominalCardiacTriggerDelayTime", "TriggerTime")),
    "stack_id": ("text", _tags("StackID")),
    "rescale_slope": ("number", _tags("RescaleSlope")),
    "rescale_intercept": ("number", _tags("RescaleIntercept")),
}
"""Where each fact is told, the better place first."""

_FRAME_TYPE, _IMAGE_TYPE, _COMPONENT = _tags(
    "FrameType", "ImageType", "ComplexImageComponent"
)
_INDICES, _POINTER = _tags("DimensionIndexValues", "DimensionIndexPointer")
_OF_PLACE: Final = frozenset(
    _tags("InStackPositionNumber", "ImagePositionPatient", "StackID")
)
"""Dimensions that say where a frame lies, which its position says better."""

_LEAVES: Final = frozenset(
    {
        *(tag for _, tags in _FACTS.values() for tag in tags),
        *(_FRAME_TYPE, _IMAGE_TYPE, _COMPONENT, _INDICES, _POINTER),
    }
)
_VRS: Final = {tag: dictionary_VR(tag)[:2] for tag in _LEAVES}


def read_columns(header: Header, n: int) -> dict[str, list[Any]]:
    """Return the facts of all frames, one list for each.

    Without functional groups, or if they are not as many as the frames, it is {}.

    Parameters
    ----------
    header
        A header that was parsed up to the pixels.
    n
        How many frames it claims.

    Raises
    ------
    InputError
        `too-large` for more than `MAX_FRAMES`.
    """
    if PER_FRAME not in header.elements:
        return {}
    if n > MAX_FRAMES:
        raise InputError("too-large", f"More than {MAX_FRAMES} frames in one object.")
    shared = next(items(header, SHARED), {})
    wanted = _kept_dimensions(header)
    columns: dict[str, list[Any]] = {}
    seen: dict[Any, Any] = {}
    read = 0
    for read, own in enumerate(items(header, PER_FRAME), 1):
        if read > n:
            break
        for field, value in _facts(header, {**shared, **own}, wanted, seen).items():
            columns.setdefault(field, []).append(value)
    return columns if read == n else {}


def items(header: Header, tag: int) -> Iterator[Elements]:
    """Yield the wanted elements of each item of a sequence, in whatever macro."""
    if tag in header.elements:
        for item in walk_items(header.prefix, header.elements[tag], header.syntax):
            found: Elements = {}
            _collect(header, item, found, _DEPTH)
            yield found


def _collect(
    header: Header, item: Iterator[tuple[Element, Syntax]], into: Elements, depth: int
) -> None:
    for element, syntax in item:
        if element.tag in _LEAVES:
            into.setdefault(element.tag, element)
        elif element.tag in _MACROS and depth:
            for inner in walk_items(header.prefix, element, syntax):
                _collect(header, inner, into, depth - 1)


def _kept_dimensions(header: Header) -> tuple[int, ...]:
    """Return the places of the dimensions that are not about the position."""
    pointers = []
    for item in items(header, DIMENSIONS):
        view = header.view(item)
        raw = view.raw(_POINTER) or b""
        order = "little" if header.endian == "<" else "big"
        parts = [int.from_bytes(raw[i : i + 2], order) for i in (0, 2)]  # type: ignore[arg-type]
        pointers.append(parts[0] << 16 | parts[1])
    return tuple(k for k, tag in enumerate(pointers) if tag not in _OF_PLACE)


def _facts(
    header: Header, elements: Elements, wanted: tuple[int, ...], seen: dict[Any, Any]
) -> dict[str, Any]:
    """Return the facts of one frame; what was read before is not read again."""
    view = header.view(elements)
    facts = {
        field: _read(view, kind, tag, seen)
        for field, (kind, tags) in _FACTS.items()
        for tag in [next((tag for tag in tags if tag in elements), tags[0])]
    }
    kinds = _FRAME_TYPE if _FRAME_TYPE in elements else _IMAGE_TYPE
    image_type = _read(view, "texts", kinds, seen)
    facts["image_type"] = (*image_type, *_read(view, "texts", _COMPONENT, seen))
    indices = _read(view, "numbers", _INDICES, seen)
    if not all(map(isfinite, indices)):
        raise InputError("bad-header")
    kept = tuple(int(indices[k]) for k in wanted if k < len(indices))
    facts["dimension_index_values"] = kept
    return facts


def _read(view: Header, kind: str, tag: int, seen: dict[Any, Any]) -> Any:
    key = (kind, tag, view.raw(tag))
    if key not in seen:
        seen[key] = _value(view, kind, tag)
    return seen[key]


def _value(view: Header, kind: str, tag: int) -> Any:
    if kind == "texts":
        return view.texts(tag)
    if kind == "text":
        return view.text(tag)
    numbers = tuple(map(float, view.numbers_at(tag, _VRS[tag])))
    if kind == "numbers":
        return numbers
    if not numbers:
        return None
    if kind == "integer":
        return int(numbers[0]) if numbers[0].is_integer() else None
    return numbers[0]


WANTED: Final = (SHARED, PER_FRAME, DIMENSIONS, CHARACTER_SET)
