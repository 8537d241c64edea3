"""The order of an epoch: a pure function of seed and epoch, for every framework.

Samples lie in blocks that share chunks. Blocks are shuffled, `window` of them make a
window, and samples are shuffled inside their window: who walks the order and keeps a
window's chunks decodes each chunk once. Nothing here depends on numpy's own random
streams, which may change between versions; `VERSION` names what is drawn.
"""

from collections.abc import Sequence
from math import isqrt
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from dicomdask.errors import OptionError

Integers = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]

VERSION: Final = 1
"""A resumed epoch of another version would be another epoch: it is refused."""

ROUNDS: Final = 12
MASK: Final = 2**64 - 1
GOLDEN: Final = 0x9E3779B97F4A7C15


def key_of(*parts: int) -> int:
    """Return 64 bits that depend on every bit and the place of each part."""
    key = 0
    for part in parts:
        key = _mix(key + GOLDEN ^ part & MASK)
    return key


def _mix(x: Any) -> Any:
    """Spread the bits of numbers below 2**64: of an int, or of an array of uint64."""
    x = ((x & MASK) ^ (x & MASK) >> 30) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
    return x ^ x >> 31


def uniform(key: int, numbers: ArrayLike) -> Floats:
    """Return one draw from [0, 1) for each number; same key and number, same draw."""
    counters = np.atleast_1d(numbers).astype(np.uint64) * GOLDEN
    drawn: Floats = (_mix(_mix(counters) ^ key) >> 11) * 2.0**-53
    return drawn


def permute(places: ArrayLike, n: int, key: int) -> Integers:
    """Return where a keyed permutation of `range(n)` puts each place; O(1) a place.

    Each place is a cell of a table that is hardly larger than `n`, and rows and columns
    are shifted by each other in turn, a Feistel network; a place that ends beyond `n`
    goes on until it falls below.
    """
    rows = isqrt(max(0, n - 1)) + 1
    columns = -(-n // rows)
    keys = [key_of(key, number) for number in range(ROUNDS)]
    moved = np.atleast_1d(places).astype(np.uint64)
    left = np.arange(moved.size)
    while left.size:
        moved[left] = _shift(moved[left], rows, columns, keys)
        left = left[moved[left] >= n]
    return moved.astype(np.int64)


def _shift(x: Any, rows: int, columns: int, keys: Sequence[int]) -> Any:
    row, column = np.divmod(x, columns)
    for one, other in zip(keys[::2], keys[1::2], strict=True):
        row = (row + _mix(column + one) % rows) % rows
        column = (column + _mix(row + other) % columns) % columns
    return row * columns + column


class Order:
    """All samples of one epoch, in the order in which they are consumed.

    Parameters
    ----------
    sizes
        How many samples each block has; samples are numbered block by block.
    seed, epoch
        Any two integers; they decide the order, with `sizes` and `window`.
    window
        So many blocks are mixed with each other; 0 leaves the samples in the order of
        their numbers.
    """

    def __init__(
        self,
        sizes: ArrayLike,
        *,
        seed: int,
        epoch: int,
        window: int = 8,
    ) -> None:
        if window < 0:
            raise OptionError("a window has 1 block or more, or 0 for no shuffling")
        self._sizes = np.asarray(sizes, np.int64)
        self._firsts = starts_of(self._sizes)
        self._key = key_of(VERSION, seed, epoch)
        self._window, n = window, self._sizes.size
        if window:
            self._blocks = permute(range(n), n, self._key)
            starts = starts_of(self._sizes[self._blocks])
            self._starts = np.append(starts[:-1:window], starts[-1])

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def at(self, places: ArrayLike) -> Integers:
        """Return the numbers of the samples at some places of the order."""
        wanted = np.atleast_1d(np.asarray(places, np.int64))
        if not self._window:
            return wanted.copy()
        windows = np.searchsorted(self._starts, wanted, side="right") - 1
        found = np.empty_like(wanted)
        for window in np.unique(windows):
            mine = windows == window
            found[mine] = self._within(int(window), wanted[mine])
        return found

    def _within(self, window: int, places: Integers) -> Integers:
        start, stop = self._starts[window : window + 2]
        key = key_of(self._key, window)
        moved = permute(places - start, int(stop - start), key)
        first = window * self._window
        blocks = self._blocks[first : first + self._window]
        starts = starts_of(self._sizes[blocks])
        which = np.searchsorted(starts, moved, side="right") - 1
        return self._firsts[blocks[which]] + moved - starts[which]


def starts_of(sizes: Integers) -> Integers:
    """Return where each of some runs starts, and where the last ends."""
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
