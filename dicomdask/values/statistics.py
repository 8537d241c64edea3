"""How often each stored value occurs: statistics that are exact, and merge."""

from dataclasses import dataclass, replace
from math import floor, fsum, sqrt
from typing import Any, Final

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Integers = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]

PERCENTILES: Final = (0.5, 5.0, 25.0, 50.0, 75.0, 95.0, 99.5)
N_BINS: Final = 64
BLOCK: Final = 1 << 20
SUMMARY: Final = (
    "min",
    "max",
    "mean",
    "std",
    "percentile_levels",
    "percentiles",
    "histogram",
    "histogram_edges",
    "nonzero_fraction",
)


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """How often each stored value occurs, padding left out; exact, and mergeable.

    Attributes
    ----------
    values
        The distinct stored values, ascending: int64, or float64 of float pixels.
    counts
        How often each occurs, same shape, all above 0.
    n_padding
        How many voxels hold padding.
    n_nonfinite
        How many hold NaN or an infinity; they are no values either.
    """

    values: Array
    counts: Integers
    n_padding: int
    n_nonfinite: int = 0

    @property
    def n_values(self) -> int:
        """Return how many voxels were counted, padding left out."""
        return int(self.counts.sum())

    def without(self, value: float, n: int) -> "Statistics":
        """Return the statistics without `n` voxels that hold one value.

        Parameters
        ----------
        value
            A stored value, of padding too.
        n
            How many voxels, which were counted.
        """
        if not n:
            return self
        at = self.values == value
        if not at.any():
            return replace(self, n_padding=self.n_padding - n)
        counts = self.counts - n * at
        left = counts > 0
        return replace(self, values=self.values[left], counts=counts[left])

    def summary(self) -> dict[str, Any]:
        """Summarise the stored values, as plain numbers and lists.

        Returns
        -------
        dict
            min, max, mean, std; percentiles at percentile_levels, as numpy's linear
            ones; histogram of `N_BINS` counts between histogram_edges;
            nonzero_fraction; n_values, n_padding, n_nonfinite. Where nothing is a
            value, the last three are numbers and the others None. The histogram is None
            where floats lie too far apart for edges between them.
        """
        sizes = {
            "n_values": self.n_values,
            "n_padding": self.n_padding,
            "n_nonfinite": self.n_nonfinite,
        }
        if not self.n_values:
            return dict.fromkeys(SUMMARY) | sizes
        levels = self.values.astype(np.float64)
        histogram, edges = _histogram(levels, self.counts)
        is_float = self.values.dtype.kind == "f"
        mean, std = _float_moments(self) if is_float else _moments(self)
        found = (
            float(levels[0]),
            float(levels[-1]),
            mean,
            std,
            list(PERCENTILES),
            [percentile(levels, self.counts, level) for level in PERCENTILES],
            histogram,
            edges,
            int(self.counts[self.values != 0].sum()) / self.n_values,
        )
        return dict(zip(SUMMARY, found, strict=True)) | sizes


def statistics(stored: Array, padding: tuple[float, ...] = ()) -> Statistics:
    """Count the values of an array; NaN and infinities apart.

    Parameters
    ----------
    stored
        Stored values, of any shape.
    padding
        (), (value,), or the two ends of a range, both inclusive, in any order (Pixel
        Padding Value and Pixel Padding Range Limit, PS3.3 C.7.5.1.1.2).
    """
    narrow = stored.dtype.itemsize <= 2
    values, counts = _count_narrow(stored) if narrow else _count_wide(stored)
    n_nonfinite = stored.size - int(counts.sum())
    if not padding:
        return Statistics(values, counts, 0, n_nonfinite)
    padded = (values >= min(padding)) & (values <= max(padding))
    n_padding = int(counts[padded].sum())
    return Statistics(values[~padded], counts[~padded], n_padding, n_nonfinite)


def merge(a: Statistics, b: Statistics) -> Statistics:
    """Return the statistics of what `a` and `b` counted, together."""
    values, places = np.unique(
        np.concatenate([a.values, b.values]), return_inverse=True
    )
    counts = np.zeros(values.size, np.int64)
    np.add.at(counts, places, np.concatenate([a.counts, b.counts]))
    return Statistics(
        values, counts, a.n_padding + b.n_padding, a.n_nonfinite + b.n_nonfinite
    )


def _count_narrow(stored: Array) -> tuple[Integers, Integers]:
    """Count by table, in blocks: `bincount` widens what it is given to 8 bytes."""
    dtype = np.dtype(np.uint8) if stored.dtype.kind == "b" else stored.dtype
    bits = 8 * dtype.itemsize
    flat = np.ascontiguousarray(stored, stored.dtype.newbyteorder("=")).reshape(-1)
    flat = flat.view(f"u{dtype.itemsize}")
    counts = np.zeros(1 << bits, np.int64)
    for start in range(0, flat.size, BLOCK):
        counts += np.bincount(flat[start : start + BLOCK], minlength=1 << bits)
    values = np.arange(1 << bits, dtype=np.int64)
    if dtype.kind == "i":  # the upper half of the table is the negative values
        values, counts = values - (1 << bits - 1), np.roll(counts, 1 << bits - 1)
    return values[counts > 0], counts[counts > 0]


def _count_wide(stored: Array) -> tuple[Array, Integers]:
    """Count by sorting: what `np.unique` does, with less held at once.

    Of floats only finite ones are counted; sorting puts the others at the ends.
    """
    ordered = np.sort(stored, axis=None)
    is_float = ordered.dtype.kind == "f"
    if is_float:
        start = np.searchsorted(ordered, -np.inf, side="right")
        stop = np.searchsorted(ordered, np.inf, side="left")
        ordered = ordered[start:stop]
    starts = np.flatnonzero(np.r_[ordered.size > 0, ordered[1:] != ordered[:-1]])
    values: Array = ordered[starts].astype(np.float64 if is_float else np.int64)
    if is_float:
        values = values + 0.0  # there is one zero, not two
    size = ordered.size
    del ordered
    counts = np.empty_like(starts)
    np.subtract(starts[1:], starts[:-1], out=counts[:-1])
    counts[-1:] = size - starts[-1:]
    return values, counts.astype(np.int64, copy=False)


def _moments(statistics: Statistics) -> tuple[float, float]:
    """Return mean and standard deviation of the stored values, from exact sums."""
    values, counts = statistics.values.astype(object), statistics.counts.astype(object)
    n, total = statistics.n_values, int(np.dot(values, counts))
    squares = int(np.dot(values * values, counts))
    return total / n, sqrt(n * squares - total * total) / n


def _float_moments(statistics: Statistics) -> tuple[float, float]:
    """Return mean and standard deviation of floats, from sums rounded once."""
    values, n = statistics.values, statistics.n_values
    largest = float(np.abs(values).max()) or 1.0
    parts = values / largest
    mean = fsum((parts * statistics.counts).tolist()) / n
    squares = fsum(((parts - mean) ** 2 * statistics.counts).tolist())
    return mean * largest, sqrt(squares / n) * largest


def _histogram(
    levels: Floats, counts: Integers
) -> tuple[list[int] | None, list[float] | None]:
    try:
        histogram, edges = np.histogram(levels, N_BINS, weights=counts)
    except ValueError:  # no 64 floats between, or their distance is none
        return None, None
    return histogram.astype(np.int64).tolist(), edges.tolist()


def percentile(levels: Floats, counts: Integers, level: float) -> float:
    """Return what `np.percentile` does with each level repeated `count` times."""
    ends = np.cumsum(counts)
    rank = (int(ends[-1]) - 1) * (level / 100)
    below = floor(rank)
    places = np.searchsorted(ends, [below, min(below + 1, ends[-1] - 1)], side="right")
    low, high = levels[places]
    part = rank - below
    if part < 0.5:  # numpy measures from the nearer end, and so do we, to the last bit
        return float(low + (high - low) * part)
    return float(high - (high - low) * (1 - part))
