"""All that turns the stored values of a frame into those that are wanted."""

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from dicomdask.values.display import Display, Window
from dicomdask.values.distribution import Distribution, distribution
from dicomdask.values.modality import Lut, parse_lut, to_modality
from dicomdask.values.statistics import Statistics

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Transform:
    """From stored values to modality and display values, of one frame or of many.

    A lookup table takes the place of slope and intercept (PS3.3 section C.11.1).
    """

    slope: float
    intercept: float
    lut: Lut | None = None
    display: Display = field(default_factory=Display)

    @classmethod
    def of(
        cls,
        slope: float,
        intercept: float,
        lut: str | None,
        display: str | None = None,
    ) -> Self:
        """Return the transform that columns of a table tell of."""
        return cls(
            float(slope),
            float(intercept),
            parse_lut(lut) if lut else None,
            Display.from_text(display) if display else Display(),
        )

    def to_modality(self, stored: Array) -> Array:
        """Return modality values as float64."""
        if self.lut is not None:
            return self.lut.apply(stored).astype(np.float64)
        return to_modality(stored, self.slope, self.intercept)

    def distribution(self, stored: Statistics) -> Distribution:
        """Return how many modality values lie where, padding left out."""
        return distribution(self.to_modality(stored.values), stored.counts)

    def to_display(
        self, stored: Array, span: Window, window: int | Window | None = None
    ) -> Array:
        """Return what a screen shows, as float32 from 0 to 1; see `Display.apply`."""
        is_colour = self.display.bits is not None
        values = stored if is_colour else self.to_modality(stored)
        return self.display.apply(values, span, window)

    def span(self, low: float, high: float) -> Window:
        """Return the least and largest modality value of stored ones between two."""
        if self.lut is not None:
            ends = self.lut.apply(np.arange(int(low), int(high) + 1))
            return float(ends.min()), float(ends.max())
        ends = to_modality(np.array([low, high]), self.slope, self.intercept)
        return float(ends.min()), float(ends.max())
