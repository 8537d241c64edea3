"""What stored values mean, as a data set says: modality and VOI LUT modules.

PS3.3 sections C.11.1, C.11.2 and C.7.6.16.2.11. What is read here is kept beside the
pixels, so that who reads them needs no DICOM.
"""

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from math import isfinite
from typing import Any, Final

import numpy as np
import pydicom

from dicomdask.errors import InputError
from dicomdask.model import Meaning
from dicomdask.pixels.excerpt import REMEMBERED, Excerpt, excerpt, tags_of
from dicomdask.pixels.form import FLOATS, PALETTE, Form
from dicomdask.pixels.frames import HOSTILE, FrameDecoder
from dicomdask.pixels.palette import palette_dtype
from dicomdask.values import FUNCTIONS, Display, Lut, Window, is_valid, lut_text

_READ: Final = tags_of(
    (
        *("RescaleSlope", "RescaleIntercept", "VOILUTFunction", "WindowCenter"),
        *("WindowWidth", "LossyImageCompression"),
    )
)
_TABLES: Final = tags_of(
    (
        *("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"),
        *("PixelValueTransformationSequence", "FrameVOILUTSequence"),
        *("ModalityLUTSequence", "VOILUTSequence", "RealWorldValueMappingSequence"),
    )
)
"""Sequences of which one tells something else than the elements of `_READ`."""
_UCUM: Final = re.compile(r"[A-Za-z0-9./\[\]{}%*^()'_-]{1,16}")


def read_meaning(
    dataset: pydicom.Dataset, decoder: FrameDecoder, frame: int
) -> Meaning:
    """Return what the stored values of a frame mean.

    Parameters
    ----------
    dataset
        What the frame stands in; its functional groups count, if it has any.
    decoder
        Has decoded the frame.
    frame
        Which, from 0.

    Raises
    ------
    InputError
        With the code ``bad-image`` or ``modality-lut``.
    """
    form, is_lossy = decoder.form, decoder.is_lossy
    told = None if form.photometric == PALETTE else excerpt(dataset, _READ, _TABLES)
    if told is None:
        return _meaning_of(dataset, form, is_lossy=is_lossy, frame=frame)
    return _remembered_meaning(told, form, is_lossy)


@lru_cache(REMEMBERED)
def _remembered_meaning(told: Excerpt, form: Form, is_lossy: bool) -> Meaning:
    """Return what stored values mean where all frames of a data set share it."""
    return _meaning_of(told.dataset(), form, is_lossy=is_lossy, frame=0)


def _meaning_of(
    dataset: pydicom.Dataset, form: Form, *, is_lossy: bool, frame: int
) -> Meaning:
    slope, intercept = modality_parameters(dataset, frame)
    lut = read_modality_lut(dataset)
    display, warnings = read_display(dataset, form, frame)
    if is_lossy or _says_lossy(dataset):
        warnings.append("lossy")
    return Meaning(
        slope=slope if lut is None else None,
        intercept=intercept if lut is None else None,
        modality_lut=None if lut is None else lut_text(lut),
        display=display.to_text(),
        real_world_values=real_world_values(dataset, frame),
        warnings=tuple(warnings),
    )


def modality_parameters(
    dataset: pydicom.Dataset, frame: int = 0
) -> tuple[float, float]:
    """Return slope and intercept of a frame as pydicom's `apply_rescale` uses them.

    In an object with functional groups they are those of the Pixel Value Transformation
    (PS3.3 section C.7.6.16.2.9), the frame's own or the shared one. Without both values
    there is no rescale, so slope 1 and intercept 0 are returned; a slope of 0 is
    returned as it is (PS3.3 section C.11.1.1.2).

    Raises
    ------
    InputError
        With the code ``bad-image`` where one of them cannot be read.
    """
    try:
        told = _group(dataset, frame, "PixelValueTransformationSequence")
        values = told.get("RescaleSlope"), told.get("RescaleIntercept")
        if None in values or "" in values:
            return 1.0, 0.0
        slope, intercept = (float(value) for value in values)
    except HOSTILE:
        raise InputError("bad-image") from None
    if not (isfinite(slope) and isfinite(intercept)):
        raise InputError("bad-image")
    return slope, intercept


def _group(dataset: pydicom.Dataset, frame: int, keyword: str) -> pydicom.Dataset:
    """Return what tells something of a frame: a functional group, or the data set."""
    return next(iter(_items(dataset, frame, keyword)), dataset)


def _items(dataset: pydicom.Dataset, frame: int, keyword: str) -> list[pydicom.Dataset]:
    """Return a sequence of the frame's own group, of the shared one, or at the top."""
    own = (dataset.get("PerFrameFunctionalGroupsSequence") or [])[frame : frame + 1]
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    for holder in (*own, *shared, dataset):
        found = holder.get(keyword)
        if found:
            return list(found)
    return []


def read_modality_lut(dataset: pydicom.Dataset) -> Lut | None:
    """Return the Modality LUT, which takes the place of slope and intercept.

    Raises
    ------
    InputError
        With the code ``modality-lut`` where it cannot be read.
    """
    try:
        sequence = dataset.get("ModalityLUTSequence")
        if not sequence:
            return None
        if any(word in dataset for word in FLOATS):
            raise InputError("modality-lut")
        return _read_lut(dataset, sequence[0])
    except HOSTILE:
        raise InputError("modality-lut") from None


def _read_lut(dataset: pydicom.Dataset, item: pydicom.Dataset) -> Lut:
    """Return the table of an item (PS3.3 section C.11.1.1.1)."""
    n, first, bits = (int(value) for value in item.LUTDescriptor)
    n = n % (1 << 16) or 1 << 16
    bits %= 1 << 16
    if not 8 <= bits <= 16:
        raise ValueError("entries of so many bits are none of the standard")
    data = item["LUTData"].value
    little = dataset.file_meta.TransferSyntaxUID.is_little_endian
    if not isinstance(data, bytes):
        entries = np.atleast_1d(np.asarray(data, np.int64)) % (1 << 16)
    elif bits == 8 and len(data) in {n, n + 1} and len(data) < 2 * n:
        entries = np.frombuffer(data, np.uint8).astype(np.int64)
    else:
        entries = np.frombuffer(data, "<u2" if little else ">u2").astype(np.int64)
    entries = entries[:n]
    if entries.size < n or entries.max() >> bits:
        raise ValueError("the table is not what its descriptor says")
    return Lut(first, bits, entries.astype(np.uint16))


def read_display(
    dataset: pydicom.Dataset, form: Form, frame: int = 0
) -> tuple[Display, list[str]]:
    """Return how a data set is to be shown, and what there is to warn of.

    A window that is not valid is kept as None, which is shown from the least value to
    the largest; VOI LUTs that cannot be read are left out. Either is warned of.
    """
    if form.samples == 3:
        return Display(bits=form.stored), []
    if form.photometric == PALETTE:
        bits = dataset["RedPaletteColorLookupTableDescriptor"].value[2]
        return Display(bits=8 * palette_dtype(bits).itemsize), []
    try:
        told = _group(dataset, frame, "FrameVOILUTSequence")
    except HOSTILE:
        told = pydicom.Dataset()
    function, windows = _read_windows(told)
    luts, damaged = _read_voi_luts(dataset)
    warnings = []
    if None in windows:
        warnings.append("invalid-window")
    if damaged:
        warnings.append("invalid-voi-lut")
    inverted = form.photometric == "MONOCHROME1"
    return Display(tuple(windows), function, luts, inverted), warnings


def _read_windows(dataset: pydicom.Dataset) -> tuple[str, list[Window | None]]:
    try:
        function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
        centers = _numbers(dataset.get("WindowCenter"))
        widths = _numbers(dataset.get("WindowWidth"))
    except HOSTILE:
        return "LINEAR", [None]
    if function not in FUNCTIONS:
        return "LINEAR", [None]
    windows: list[Window | None] = [
        one if is_valid(one, function) else None
        for one in zip(centers, widths, strict=False)
    ]
    windows += [None] * abs(len(centers) - len(widths))
    return function, windows


def _numbers(value: Any) -> list[float]:
    if value is None or value == "":
        return []
    parts = [value] if isinstance(value, int | float | str) else value
    return [float(part) for part in parts]


def _read_voi_luts(dataset: pydicom.Dataset) -> tuple[tuple[Lut, ...], bool]:
    try:
        items = dataset.get("VOILUTSequence") or ()
        return tuple(_read_lut(dataset, item) for item in items), False
    except HOSTILE:
        return (), True


def _says_lossy(dataset: pydicom.Dataset) -> bool:
    """Tell whether the header says that pixels once were compressed with loss."""
    try:
        return str(dataset.get("LossyImageCompression") or "").strip() == "01"
    except HOSTILE:
        return False


def real_world_values(dataset: pydicom.Dataset, frame: int = 0) -> str | None:
    """Return the real world value maps as text; None where there is none.

    Each is a slope and an intercept, or a table, for stored values from `first` to
    `last`, in units of UCUM. They are recorded, never applied: Philips writes them
    beside another rescale.
    """
    try:
        items = _items(dataset, frame, "RealWorldValueMappingSequence")
        told = [*map(_real_world_map, items)]
    except HOSTILE:
        return None
    return json.dumps(told, sort_keys=True) if told else None


def _real_world_map(item: pydicom.Dataset) -> dict[str, Any]:
    slope, intercept = item.get("RealWorldValueSlope"), None
    if slope is not None:
        intercept = float(item.RealWorldValueIntercept)
    table = item.get("RealWorldValueLUTData")
    numbers = {
        "slope": None if slope is None else float(slope),
        "intercept": intercept,
        "first": _end(item, "First"),
        "last": _end(item, "Last"),
        "table": None if table is None else _numbers(table),
    }
    return numbers | {"units": next(_units(item), None)}


def _end(item: pydicom.Dataset, which: str) -> float | None:
    for keyword in ("", "DoubleFloat"):
        value = item.get(f"{keyword}RealWorldValue{which}ValueMapped")
        if value is not None and isfinite(float(value)):
            return float(value)
    return None


def _units(item: pydicom.Dataset) -> Iterator[str]:
    """Yield codes of UCUM; anything else might be a text about somebody."""
    for code in item.get("MeasurementUnitsCodeSequence") or ():
        value = str(code.get("CodeValue") or "")
        if code.get("CodingSchemeDesignator") == "UCUM" and _UCUM.fullmatch(value):
            yield value
