"""How many values lie where: exact while few differ, then in bins; it merges."""

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import frexp, isqrt
from typing import Any, Final, Self

import numpy as np

from dicomdask.values.statistics import percentile

Array = np.ndarray[Any, np.dtype[Any]]
Integers = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]

MAX_BINS: Final = 1 << 13
"""As many different values are told apart; CT of 12 bits has 4096."""


@dataclass(frozen=True, slots=True, eq=False)
class Distribution:
    """How many values lie where, and their exact sums.

    Up to `MAX_BINS` different values are counted one by one. Of more, those are counted
    together that lie between the same two multiples of a power of two: of the least one
    that leaves so few bins. So of several distributions the sum is that of all values,
    whatever the order in which they are added.

    Attributes
    ----------
    lows, highs
        Between which values those of each bin lie, both inclusive; ascending.
    counts
        How many there are, all above 0.
    exponent
        The power of two that bins are cut at; None where each bin is one value.
    total, squares
        The sums of the values and of their squares.
    """

    lows: Floats
    highs: Floats
    counts: Integers
    exponent: int | None = None
    total: Fraction = Fraction(0)
    squares: Fraction = Fraction(0)

    @property
    def n_values(self) -> int:
        """Return how many values were counted."""
        return int(self.counts.sum())

    @property
    def mean(self) -> float | None:
        """Return the mean of all values, or None without any."""
        return float(self.total / self.n_values) if self.counts.size else None

    @property
    def std(self) -> float | None:
        """Return the standard deviation of all values, or None without any."""
        if not self.counts.size:
            return None
        variance = self.squares / self.n_values - (self.total / self.n_values) ** 2
        return _root(max(variance, Fraction(0)))

    def percentile(self, level: float) -> tuple[float, float]:
        """Return numpy's linear percentile, and by how much it may be off at most.

        It is exact, to the last bit, where the bins that it falls into are of one value
        each.
        """
        low = percentile(self.lows, self.counts, level)
        high = percentile(self.highs, self.counts, level)
        return low + (high - low) / 2, (high - low) / 2

    def less(self, other: "Distribution") -> "Distribution":
        """Return what is left without values that were counted.

        Bins stay as wide as they are.

        Raises
        ------
        ValueError
            If some of these values were not counted.
        """
        keys = _keys(self.lows, self.exponent)
        gone = _keys(other.lows, self.exponent)
        places = np.minimum(np.searchsorted(keys, gone), max(0, keys.size - 1))
        counts = self.counts.copy()
        is_there = np.array_equal(keys[places], gone) if keys.size else not gone.size
        if is_there:
            np.subtract.at(counts, places, other.counts)
        if not is_there or (counts < 0).any():
            raise ValueError("values that were not counted cannot be taken away")
        left = counts > 0
        return Distribution(
            self.lows[left],
            self.highs[left],
            counts[left],
            self.exponent,
            self.total - other.total,
            self.squares - other.squares,
        )

    def to_record(self) -> dict[str, Any]:
        """Return plain fields, as tables hold them; `highs` where they are not lows."""
        return {
            "lows": self.lows,
            "highs": None if self.exponent is None else self.highs,
            "counts": self.counts,
            "exponent": self.exponent,
            "total": str(self.total),
            "squares": str(self.squares),
        }

    @classmethod
    def from_record(cls, told: Mapping[str, Any]) -> Self:
        """Return what `to_record` told of."""
        lows = np.asarray(told["lows"], np.float64)
        highs = lows if told["highs"] is None else np.asarray(told["highs"], np.float64)
        return cls(
            lows,
            highs,
            np.asarray(told["counts"], np.int64),
            told["exponent"],
            Fraction(told["total"]),
            Fraction(told["squares"]),
        )

    def to_text(self) -> str:
        """Return plain text, arrays packed, as a commit holds it."""
        told = self.to_record()
        packed = {
            name: None if told[name] is None else _pack(told[name])
            for name in ("lows", "highs", "counts")
        }
        return json.dumps(told | packed, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return what `to_text` told of."""
        told = json.loads(text)
        types = {"lows": "<f8", "highs": "<f8", "counts": "<i8"}
        arrays = {
            name: None if told[name] is None else _unpack(told[name], dtype)
            for name, dtype in types.items()
        }
        return cls.from_record(told | arrays)


def distribution(values: Array, counts: Integers | None = None) -> Distribution:
    """Return the distribution of values; infinities and NaN count for nothing.

    Parameters
    ----------
    values
        Of any shape and order; the same may stand there several times.
    counts
        How often each counts, same shape; once by default.
    """
    flat = values.astype(np.float64).ravel()
    often = np.ones(flat.size, np.int64) if counts is None else counts.ravel()
    kept = np.isfinite(flat) & (often > 0)
    flat, often = flat[kept], often[kept]
    total, squares = _sums(flat, often)
    return _cut(flat, flat, often, None, total, squares)


def pool(several: Sequence[Distribution]) -> Distribution:
    """Return the distribution of all values together."""
    exponents = [one.exponent for one in several if one.exponent is not None]
    return _cut(
        np.concatenate([np.empty(0), *(one.lows for one in several)]),
        np.concatenate([np.empty(0), *(one.highs for one in several)]),
        np.concatenate([np.empty(0, np.int64), *(one.counts for one in several)]),
        max(exponents, default=None),
        sum((one.total for one in several), Fraction(0)),
        sum((one.squares for one in several), Fraction(0)),
    )


def _sums(values: Floats, counts: Integers) -> tuple[Fraction, Fraction]:
    """Return the sums of values and of squares, by mean and variance rounded once."""
    n = int(counts.sum())
    if not n:
        return Fraction(0), Fraction(0)
    largest = float(np.abs(values).max()) or 1.0
    parts = values / largest
    mean = float(np.dot(parts, counts)) / n
    variance = float(np.dot((parts - mean) ** 2, counts)) / n
    whole, scale = Fraction(mean), Fraction(largest)
    return n * whole * scale, n * (Fraction(variance) + whole**2) * scale**2


def _root(square: Fraction) -> float:
    """Return the root of a fraction that may be no float itself."""
    shift = 64 + square.denominator.bit_length()
    whole = (square.numerator << 2 * shift) // square.denominator
    return float(Fraction(isqrt(whole), 1 << shift))


def _cut(
    lows: Floats,
    highs: Floats,
    counts: Integers,
    exponent: int | None,
    total: Fraction,
    squares: Fraction,
) -> Distribution:
    """Join what falls into one bin, and widen bins until there are few enough."""
    order = np.argsort(lows, kind="stable")
    lows, highs, counts = lows[order] + 0.0, highs[order] + 0.0, counts[order]
    starts = _starts(lows, exponent)
    if starts.size > MAX_BINS:
        exponent = _least_exponent(lows, exponent)
        starts = _starts(lows, exponent)
    if starts.size < lows.size:
        highs = np.maximum.reduceat(highs, starts)
        counts = np.add.reduceat(counts, starts)
        lows = lows[starts]
    return Distribution(lows, highs, counts, exponent, total, squares)


def _keys(values: Floats, exponent: int | None) -> Floats:
    """Return which bin each value falls into."""
    if exponent is None:
        return values
    return np.floor(np.ldexp(values, -exponent))


def _starts(lows: Floats, exponent: int | None) -> Integers:
    """Return where in ascending values each bin begins."""
    keys = _keys(lows, exponent)
    return np.flatnonzero(np.r_[keys.size > 0, keys[1:] != keys[:-1]])


def _least_exponent(lows: Floats, above: int | None) -> int:
    """Return the least power of two that leaves no more than `MAX_BINS`.

    Wider bins are whole numbers of narrower ones, so there are never more of them.
    """
    _, top = frexp(float(np.abs(lows).max()))
    low = top - 53 if above is None else max(above, top - 53)
    high = top + 1
    while low < high:
        middle = (low + high) // 2
        if _starts(lows, middle).size > MAX_BINS:
            low = middle + 1
        else:
            high = middle
    return low


def _pack(array: Array) -> str:
    """Return an array as text: bytes of one rank together, then compressed."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    ranks = little.view(np.uint8).reshape(-1, 8).T
    return base64.b64encode(zlib.compress(ranks.tobytes(), 9)).decode("ascii")


def _unpack(text: str, dtype: str) -> Array:
    ranks = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    return np.ascontiguousarray(ranks.reshape(8, -1).T).view(dtype).ravel()
