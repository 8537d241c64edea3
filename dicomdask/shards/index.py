"""Indexes of shards, and a cache of them."""

from typing import NamedTuple


class Index(NamedTuple):
    """Starts and sizes of a shard's chunks, and which of them were checked."""

    entries: memoryview
    checked: bytearray


class Recent:
    """A cache of indexes with a budget in bytes, in two generations.

    What was used since the last turn survives the next. Each step is one operation on a
    dict, so threads need no lock and a fork cannot catch one held.
    """

    def __init__(self, budget: int) -> None:
        self._budget, self._size = budget, 0
        self._young: dict[str, Index] = {}
        self._old: dict[str, Index] = {}

    def __reduce__(self) -> tuple[type["Recent"], tuple[int]]:
        return Recent, (self._budget,)  # what was checked, was checked here

    def get(self, key: str) -> Index | None:
        """Return an index that is still there, and keep it for longer."""
        found = self._young.get(key)
        if found is None and (found := self._old.get(key)) is not None:
            self.put(key, found)
        return found

    def put(self, key: str, index: Index) -> None:
        """Keep an index; the oldest go where it is too much."""
        size = index.entries.nbytes + len(index.checked) + len(key) + 500
        if self._size + size > self._budget // 2:
            self._old, self._young, self._size = self._young, {}, 0
        self._young[key] = index
        self._size += size
