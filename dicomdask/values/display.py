"""From modality values to what a screen shows (PS3.3 section C.11.2): 0 to 1."""

import json
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final, Self

import numpy as np

from dicomdask.values.modality import Lut

Array = np.ndarray[Any, np.dtype[Any]]
Window = tuple[float, float]
"""Centre and width, in modality values."""

FUNCTIONS: Final = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


@dataclass(frozen=True, slots=True, eq=False)
class Display:
    """How a frame is to be shown.

    Attributes
    ----------
    windows
        In the order of the header; None for one that is not valid.
    function
        One of `FUNCTIONS`: VOI LUT Function.
    luts
        VOI LUTs; where there are some, they are meant before windows.
    inverted
        Whether low values are bright: MONOCHROME1.
    bits
        Of colour, how many bits a sample has; else None.
    """

    windows: tuple[Window | None, ...] = ()
    function: str = "LINEAR"
    luts: tuple[Lut, ...] = ()
    inverted: bool = False
    bits: int | None = None

    def to_text(self) -> str:
        """Return plain text, as `tables/volumes` holds it."""
        told = {
            "windows": self.windows,
            "function": self.function,
            "luts": [lut.to_json() for lut in self.luts],
            "inverted": self.inverted,
            "bits": self.bits,
        }
        return json.dumps(told, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return what `to_text` told of."""
        told = json.loads(text)
        return cls(
            windows=tuple(one and (one[0], one[1]) for one in told["windows"]),
            function=told["function"],
            luts=tuple(map(Lut.from_json, told["luts"])),
            inverted=told["inverted"],
            bits=told["bits"],
        )

    def apply(
        self, values: Array, span: Window, window: int | Window | None = None
    ) -> Array:
        """Return values from 0, black, to 1, white.

        Parameters
        ----------
        values
            Modality values, or colour, which is only scaled.
        span
            The least and the largest value of the whole volume: what is black and white
            where there is no valid window.
        window
            Which of the VOI LUTs or, without any, of the windows; or a centre and a
            width. By default the first.

        Returns
        -------
        shown : ndarray of float32
            Same shape.

        Raises
        ------
        ValueError
            If there is no such window, or it is not valid.
        """
        if self.bits is not None:
            return (values / ((1 << self.bits) - 1)).astype(np.float32)
        shown = self._shown(values, span, window)
        if self.inverted:
            shown = 1.0 - shown
        return shown.astype(np.float32)

    def _shown(self, values: Array, span: Window, window: int | Window | None) -> Array:
        if isinstance(window, tuple):
            if not is_valid(window, self.function):
                raise ValueError("a window is a finite centre and a width above 0")
            return _windowed(values, window, self.function)
        n = len(self.luts or self.windows)
        number = window or 0
        if not 0 <= number < max(n, 1):
            raise ValueError(f"there is no window {number}; the volume has {n}")
        if self.luts:
            lut = self.luts[number]
            return lut.apply(values) / ((1 << lut.bits) - 1)
        chosen = self.windows[number] if self.windows else None
        if chosen is None:
            return _spread(values, span)
        return _windowed(values, chosen, self.function)


def is_valid(window: Window, function: str) -> bool:
    """Tell whether a window can be applied (PS3.3 section C.11.2.1.2)."""
    center, width = window
    least = width >= 1 if function == "LINEAR" else width > 0
    return isfinite(center) and isfinite(width) and least and function in FUNCTIONS


def _windowed(values: Array, window: Window, function: str) -> Array:
    center, width = window
    offset = values.astype(np.float64) - center
    if function == "SIGMOID":
        with np.errstate(over="ignore"):  # what is far below is 0
            return np.asarray(1 / (1 + np.exp(-4 * offset / width)))
    if function == "LINEAR":  # C.11.2.1.2.1: pixels have a width of their own
        offset, width = offset + 0.5, width - 1
    if width == 0:
        return (offset > 0).astype(np.float64)
    return np.clip(offset / width + 0.5, 0.0, 1.0)


def _spread(values: Array, span: Window) -> Array:
    low, high = span
    if not high > low:
        return np.zeros(values.shape)
    return np.clip((values.astype(np.float64) - low) / (high - low), 0.0, 1.0)
