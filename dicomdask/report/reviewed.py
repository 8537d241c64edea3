"""What can be reviewed, as the page sees it: a dataset, or files of `deidentify`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import pandas as pd

from dicomdask.pixels import to_jpeg
from dicomdask.report.devices import Unit
from dicomdask.report.pictures import Picture
from dicomdask.values import Window

LONGEST: Final = 1024
"""Pixels of the longer side of a picture: text of usual size can still be read."""
APART: Final = 4 / 255
"""Views that differ less on average show the same."""

Array = np.ndarray[Any, np.dtype[Any]]
View = tuple[str, bytes]
"""What a view of a frame is called, and its JPEG."""


@dataclass(frozen=True, slots=True)
class About:
    """What was written, and how.

    Attributes
    ----------
    name
        The last part of its URL.
    unit
        What its pictures are of.
    state
        Which state of it is shown, for people.
    policy, codes
        The policy's name, and the codes of what it applied.
    rejected
        How many inputs were refused for text in their pixels, by code.
    n_passed
        How many files passed without a look, where no table tells of each.
    """

    name: str
    unit: Unit
    state: str
    policy: str
    codes: tuple[str, ...]
    rejected: Mapping[str, int]
    n_passed: int = 0


@dataclass(frozen=True, slots=True)
class Located:
    """Where the frame lies that stands for a picture.

    Attributes
    ----------
    source_key, number
        The source, and the number of the frame in it, from 0.
    told
        What a person finds it by.
    axes
        Its place in a volume.
    is_tile
        Whether it is only a part of a frame of the source.
    """

    source_key: str
    number: int
    told: str
    axes: Mapping[str, int]
    is_tile: bool = False


class Reviewed(Protocol):
    """What was written, with its tables in the columns of `review`."""

    @property
    def url(self) -> str:
        """Where it lies."""

    @property
    def about(self) -> About:
        """What the page says of it."""

    @property
    def volumes(self) -> pd.DataFrame:
        """One row for each volume, or each file: `VOLUME_COLUMNS`."""

    @property
    def redactions(self) -> pd.DataFrame:
        """One row for each region that was blanked: `REDACTION_COLUMNS`."""

    def source_of(self, volume_id: str) -> str:
        """Return the keyed name of one of its sources."""

    def locate(self, picture: Picture) -> Located:
        """Return the frame that stands for a picture."""

    def after(self, picture: Picture, located: Located) -> list[View]:
        """Return the views of a frame as it was written.

        Raises
        ------
        ReadError
            If it cannot be read.
        """

    def before(self, picture: Picture, located: Located, stored: Array) -> list[View]:
        """Return the view of the stored values of its source; colour is last there."""


def views(show: Callable[[Window | None], Array], values: Array) -> list[View]:
    """Return a frame as it is displayed and, where that shows less, from end to end.

    A window makes all alike that lies beyond it, text as well.

    Parameters
    ----------
    show
        Returns the frame as a window shows it, colour last.
    values
        Its modality values.
    """
    shown = show(None)
    found = [("after", jpeg(shown))]
    finite = values[np.isfinite(values)]
    if shown.ndim == 2 and finite.size:
        low, high = float(finite.min()), float(finite.max())
        window = ((low + high + 1) / 2, high - low + 1)  # PS3.3 C.11.2.1.2.1
        whole = show(window)
        if np.abs(whole - shown).mean() >= APART:
            found.append(("after, full range", jpeg(whole)))
    return found


def jpeg(shown: Array) -> bytes:
    """Return what is shown, 0 to 1 and colour last, as JPEG."""
    return to_jpeg(shown, longest=LONGEST)
