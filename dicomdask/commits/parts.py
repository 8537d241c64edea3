"""One Parquet file of a table, and rows of many of them by ranges of their keys."""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from dicomdask import storage, tables
from dicomdask.errors import ReadError

ABOVE_ALL: Final = "~"
"""Above each key: they are hexadecimal."""


@dataclass(frozen=True, slots=True)
class TablePart:
    """One Parquet file of a table.

    `low` and `high` are the first and the last key of its rows, `run` names the sorted
    run it is a piece of, `summary` holds the sums that a commit tells. Commits of
    earlier versions lack them: such a part is a run by itself, and may hold any key.
    """

    path: str
    rows: int
    bytes: int
    sha256: str
    run: int | None = None
    low: str = ""
    high: str = ABOVE_ALL
    summary: tables.Summary | None = None


def read_part(
    store: str,
    part: TablePart,
    *,
    columns: Sequence[str] | None = None,
    dictionaries: Sequence[str] = (),
) -> tables.Table:
    """Return one part of a table; raise ReadError if it is missing or damaged.

    `columns` and `dictionaries` are as in `tables.from_parquet`.
    """
    data = _read_bytes(store, part)
    return tables.from_parquet(data, columns, dictionaries=dictionaries)


def _read_bytes(store: str, part: TablePart) -> bytes:
    try:
        data = storage.read(storage.join(store, part.path))
    except FileNotFoundError:
        raise ReadError(
            f"{part.path} is named by the commit but missing in {store}: if the commit "
            "is not the newest, open the dataset again; else restore it, or convert "
            "again from the sources"
        ) from None
    if hashlib.sha256(data).hexdigest() != part.sha256:
        raise ReadError(
            f"{part.path} in {store} is damaged (its digest is not the commit's); "
            "restore it, or convert again from the sources"
        )
    return data


class Later:
    """Reads columns of parts when they are looked at.

    The bytes of the last part are at hand, so that a row of a dataframe, which has a
    value of each column, costs one request.
    """

    def __init__(self, store: str, name: str) -> None:
        self._store, self._name = store, name
        self._last: tuple[str, bytes] = ("", b"")

    def __reduce__(self) -> tuple[type["Later"], tuple[str, str]]:
        return type(self), (self._store, self._name)

    def column(self, part: TablePart, name: str) -> tables.Column:
        """Return a column of a part; one that it was written without is empty.

        Raises
        ------
        ReadError
            If the part is missing or damaged.
        """
        path, data = self._last
        if path != part.path:
            data = _read_bytes(self._store, part)
            self._last = part.path, data
        table = tables.from_parquet(data, [name])
        return tables.column_of(self._name, table, name, part.rows)


def write_part(
    store: str, name: str, table: tables.Table, *, run: int | None = None
) -> TablePart:
    """Write one part of a table under the digest of its content."""
    data = tables.to_parquet(table)
    sha256 = hashlib.sha256(data).hexdigest()
    path = f"tables/{name}/{sha256[:32]}.parquet"
    with storage.room_at(store):
        storage.write(storage.join(store, path), data)
    low, high = tables.key_range(name, table)
    summary = tables.summarize(name, table)
    return TablePart(path, table.num_rows, len(data), sha256, run, low, high, summary)


def total(store: str, name: str, parts: Iterable[TablePart]) -> tables.Summary:
    """Return the sums over all parts of a table."""
    return tables.add_summaries(
        tables.summarize(name, read_part(store, part))
        if part.summary is None
        else part.summary
        for part in parts
    )


def sweep(
    store: str,
    name: str,
    parts: Iterable[TablePart],
    ranges: Iterable[tuple[str, str]],
    *,
    columns: Sequence[str] | None = None,
) -> Iterator[tables.Table]:
    """Yield the rows within each of some ranges, whatever parts they lie in.

    A part is read once and let go when its last key is passed, so that about one part
    of each run is held at a time.

    Parameters
    ----------
    ranges
        From which key up to below which key; ascending, none overlaps the next.
    columns
        What to read of each row, the key among it; all of it by default.
    """
    key = tables.KEYS[name][0]
    waiting = deque(sorted(parts, key=lambda part: part.low))
    held: list[tuple[TablePart, tables.Table]] = []
    for low, high in ranges:
        held = [(part, table) for part, table in held if part.high >= low]
        while waiting and waiting[0].low < high:
            part = waiting.popleft()
            if part.high >= low:
                held.append((part, read_part(store, part, columns=columns)))
        found = [tables.within(table, key, low, high) for _, table in held]
        yield tables.concat(name, found, columns=columns)


def begins_with(text: str) -> tuple[str, str]:
    """Return the range of the keys that begin so."""
    return text, text + ABOVE_ALL
