"""From stored values to modality values (PS3.3 section C.11.1)."""

import base64
import json
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

Array = np.ndarray[Any, np.dtype[Any]]
Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True, eq=False)
class Lut:
    """A lookup table, as the modality and the VOI LUT modules have them.

    Attributes
    ----------
    first
        The input that the first entry is for; less is mapped as it, and more than there
        are entries as the last one.
    bits
        How many bits an entry has.
    entries
        Unsigned.
    """

    first: int
    bits: int
    entries: Array

    def apply(self, values: Array) -> Array:
        """Return the entry of each value; of floats the whole part counts."""
        places = np.floor(values.astype(np.float64) - self.first)
        np.clip(places, 0, self.entries.size - 1, out=places)
        found: Array = self.entries[places.astype(np.int64)]
        return found

    def to_json(self) -> dict[str, Any]:
        """Return plain data; the entries are packed."""
        packed = zlib.compress(self.entries.astype("<u2").tobytes(), 9)
        data = base64.b64encode(packed).decode("ascii")
        return {"first": self.first, "bits": self.bits, "entries": data}

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> "Lut":
        """Return the table that `to_json` told of."""
        packed = zlib.decompress(base64.b64decode(told["entries"]))
        return cls(told["first"], told["bits"], np.frombuffer(packed, "<u2"))


def lut_text(lut: Lut) -> str:
    """Return a table as text, as `tables/volumes` holds it."""
    return json.dumps(lut.to_json(), sort_keys=True, separators=(",", ":"))


def parse_lut(text: str) -> Lut:
    """Return the table of a text."""
    return Lut.from_json(json.loads(text))


def to_modality(stored: Array, slope: ArrayLike, intercept: ArrayLike) -> Floats:
    """Return modality values: stored value times slope plus intercept.

    The Modality LUT Module, PS3.3 C.11.1, with Rescale Slope and Rescale Intercept:
    Hounsfield units in CT, the value in Units in PET. Equals pydicom's `apply_rescale`
    bit for bit: one product, then one sum, in float64.

    Parameters
    ----------
    stored
        Stored values, shape (..., rows, columns).
    slope, intercept
        Scalars; or arrays of one value a frame, whose shape is the first axes of
        `stored`.
    """
    values: Floats = stored.astype(np.float64)
    values *= _per_frame(slope, values.ndim)
    values += _per_frame(intercept, values.ndim)
    return values


def _per_frame(factor: ArrayLike, ndim: int) -> Floats:
    values = np.asarray(factor, np.float64)
    if values.ndim == 0:
        return values
    return values.reshape(values.shape + (1,) * (ndim - values.ndim))
