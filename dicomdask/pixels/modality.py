"""What the modality transform needs besides stored values (PS3.3 section C.11.1)."""

from math import isfinite

import pydicom

from dicomdask.errors import InputError
from dicomdask.pixels.frames import HOSTILE


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
        told = _transformation(dataset, frame)
        values = told.get("RescaleSlope"), told.get("RescaleIntercept")
        if None in values or "" in values:
            return 1.0, 0.0
        slope, intercept = (float(value) for value in values)
    except HOSTILE:
        raise InputError("bad-image") from None
    if not (isfinite(slope) and isfinite(intercept)):
        raise InputError("bad-image")
    return slope, intercept


def _transformation(dataset: pydicom.Dataset, frame: int) -> pydicom.Dataset:
    """Return what holds the rescale of a frame: a functional group, or the data set."""
    own = (dataset.get("PerFrameFunctionalGroupsSequence") or [])[frame : frame + 1]
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    for group in (*own, *shared):
        for found in group.get("PixelValueTransformationSequence") or ():
            return pydicom.Dataset(found)
    return dataset
