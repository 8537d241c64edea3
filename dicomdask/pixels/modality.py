"""What the modality transform needs besides stored values (PS3.3 section C.11.1)."""

from math import isfinite

import pydicom

from dicomdask.errors import InputError
from dicomdask.pixels.frames import HOSTILE


def modality_parameters(dataset: pydicom.Dataset) -> tuple[float, float]:
    """Return slope and intercept as pydicom's `apply_rescale` uses them.

    Without both there is no rescale, so slope 1 and intercept 0 are returned; a slope
    of 0 is returned as it is (PS3.3 section C.11.1.1.2).

    Raises
    ------
    InputError
        With the code ``bad-image`` where one of them cannot be read.
    """
    try:
        values = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
        if None in values or "" in values:
            return 1.0, 0.0
        slope, intercept = (float(value) for value in values)
    except HOSTILE:
        raise InputError("bad-image") from None
    if not (isfinite(slope) and isfinite(intercept)):
        raise InputError("bad-image")
    return slope, intercept
