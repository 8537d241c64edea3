"""What the reader of shards is given: where bytes come from, and where they stay."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

Buffer = bytes | memoryview


class Source(Protocol):
    """Where the bytes of shards come from.

    All methods raise `FileNotFoundError` where there is no object, with its path as
    `filename`.
    """

    @property
    def is_distant(self) -> bool:
        """Whether a range costs a round trip, so that few and large ones are better."""

    def get_range(self, path: str, start: int, stop: int) -> Buffer:
        """Return these bytes of an object; fewer where it ends before."""

    def read_into(self, path: str, start: int, buffers: Sequence[Any]) -> int:
        """Fill writable buffers one after the other; return how many bytes came.

        Only called where the source is not distant.
        """

    def get_many(
        self, wanted: Sequence[tuple[str, int, int | None]]
    ) -> Iterator[tuple[int, Buffer]]:
        """Yield the number and the bytes of each range, in any order.

        A range is a path, start and stop; the last n bytes are a path, -n and None.
        """


class Kept(Protocol):
    """Ranges that were fetched before and are at hand, such as on a local disk."""

    def get(self, path: str, start: int, stop: int | None) -> memoryview | None:
        """Return the bytes of a range of `Source.get_many`, as they were put."""

    def put(self, path: str, start: int, stop: int | None, data: Any) -> None:
        """Keep the bytes of a range."""
