"""Which volumes may show a face, by what their headers say and how large they are."""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

MODALITIES: Final = frozenset({"CT", "MR", "PT"})
"""Whose volumes may show the skin of a head."""
PICTURES: Final = frozenset({"XC"})
"""Photographs of the outside of a body."""
LEAST_MM: Final = 30.0
"""A piece of a head that is less high than this shows no face."""


def may_show_face(
    modality: str | None,
    regions: Iterable[str],
    affine: Sequence[float],
    extents: Sequence[int],
) -> bool:
    """Tell whether a volume may show a face, which anybody could recognise.

    It may unless it is of another modality, its header says that all of it is of
    another part of the body, or it is less than 30 mm high along the patient.

    Parameters
    ----------
    regions
        What the headers of its instances are of.
    affine
        4x4, row-major, from (z, y, x, 1) to mm, LPS; empty where it is not known.
    extents
        The number of slices, rows and columns.
    """
    if modality in PICTURES:
        return True
    if modality not in MODALITIES or set(regions) == {"other"}:
        return False
    if not affine:
        return True
    steps = np.asarray(affine, float).reshape(4, 4)[2, :3]
    return float(np.abs(steps) @ np.asarray(extents, float)) >= LEAST_MM
