"""A cache with a budget in bytes that needs no lock."""

from collections.abc import Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")

ENTRY_BYTES = 500
"""What an entry takes besides its value: the key and the place in the dictionary."""


class Recent(Generic[Value]):
    """What was used last, as much as a budget allows, in two generations.

    What was used since the last turn survives the next. Each step is one operation on a
    dict, so threads need no lock and a fork cannot catch one held.

    Parameters
    ----------
    budget
        Bounds the bytes of all that is kept.
    """

    def __init__(self, budget: int) -> None:
        self.budget, self._size = budget, 0
        self._young: dict[Hashable, tuple[Value, int]] = {}
        self._old: dict[Hashable, tuple[Value, int]] = {}

    def __reduce__(self) -> tuple[type["Recent[Value]"], tuple[int]]:
        return Recent, (self.budget,)  # what was checked, was checked here

    def get(self, key: Hashable) -> Value | None:
        """Return what is still there, and keep it for longer."""
        found = self._young.get(key)
        if found is None:
            found = self._old.get(key)
            if found is None:
                return None
            self._put(key, found)
        return found[0]

    def put(self, key: Hashable, value: Value, nbytes: int) -> None:
        """Keep a value of so many bytes; the oldest go where it is too much."""
        self._put(key, (value, nbytes + ENTRY_BYTES))

    def _put(self, key: Hashable, entry: tuple[Value, int]) -> None:
        if self._size + entry[1] > self.budget // 2:
            if entry[1] > self.budget // 2:
                return
            self._old, self._young, self._size = self._young, {}, 0
        self._young[key] = entry
        self._size += entry[1]

    @property
    def nbytes(self) -> int:
        """The bytes of all that is kept."""
        kept = {**self._old, **self._young}
        return sum(nbytes for _, nbytes in kept.values())
