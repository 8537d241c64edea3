"""The generations of a dataset: immutable table parts, and commits that name them.

A commit is one exclusive creation of `commits/<n>.json`; the highest n is the dataset.
Nothing that a commit names ever changes, so a reader of an old commit reads old bytes.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from dicomdask import storage, tables
from dicomdask.errors import CommitConflictError, ReadError, StoreError
from dicomdask.model import FORMAT

MERGE_ROWS: Final = 1 << 16
"""A commit rewrites parts with fewer rows, so that their number stays small."""
MAX_ROWS: Final = 1 << 20
"""No part has more rows."""
RETRIES: Final = 20


@dataclass(frozen=True, slots=True)
class TablePart:
    """One Parquet file of a table."""

    path: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Commit:
    """One state of the dataset.

    `settings` are the user's decisions, `policy` and `key_fingerprint` what they were
    resolved to; a run with others is refused.
    """

    n: int
    created: str
    tables: Mapping[str, tuple[TablePart, ...]]
    counts: Mapping[str, int]
    codes: Mapping[str, int]
    settings: Mapping[str, Any]
    policy: Mapping[str, Any]
    key_fingerprint: str
    versions: Mapping[str, str]
    statistics: Mapping[str, Any]


def commit_url(store: str, n: int) -> str:
    """Return where commit `n` of a store lies."""
    return storage.join(store, "commits", f"{n}.json")


def list_commits(store: str) -> list[int]:
    """Return the numbers of a store's commits, oldest first."""
    names = storage.list_names(storage.join(store, "commits"))
    stems = (name.removesuffix(".json") for name in names if name.endswith(".json"))
    return sorted(int(stem) for stem in stems if stem.isdecimal())


def read_commit(store: str, n: int | None = None) -> Commit | None:
    """Return commit `n`, or the newest; None where there is no commit yet.

    Raises
    ------
    StoreError
        If the commit is damaged, missing or of another format.
    """
    if n is None:
        numbers = list_commits(store)
        if not numbers:
            return None
        n = numbers[-1]
    try:
        return _parse(storage.read(commit_url(store, n)))
    except FileNotFoundError:
        raise StoreError(f"{store} has no commit {n}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise StoreError(
            f"commit {n} of {store} is damaged or of another format; remove "
            f"commits/{n}.json to fall back to the commit before it"
        ) from None


def _parse(data: bytes) -> Commit:
    document = json.loads(data)
    if document.pop("format") != FORMAT:
        raise ValueError("format")
    parts = {
        name: tuple(TablePart(**part) for part in rows)
        for name, rows in document.pop("tables").items()
    }
    return Commit(tables=parts, **document)


def _to_json(commit: Commit) -> bytes:
    document = {"format": FORMAT, **asdict(commit)}
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


def read_table(store: str, commit: Commit, name: str) -> tables.Table:
    """Return one table of a commit, its parts' digests checked.

    Raises
    ------
    ReadError
        If a part is missing or damaged.
    """
    parts = [read_part(store, part) for part in commit.tables.get(name, ())]
    return tables.concat(name, parts)


def read_rows(store: str, commit: Commit, name: str) -> list[dict[str, Any]]:
    """Return one table of a commit as plain rows; see `read_table`."""
    found: list[dict[str, Any]] = read_table(store, commit, name).to_pylist()
    return found


def read_columns(
    store: str, commit: Commit, name: str, columns: Sequence[str]
) -> Iterator[tuple[Any, ...]]:
    """Yield columns of one table of a commit, row by row; see `read_table`."""
    for part in commit.tables.get(name, ()):
        table = read_part(store, part, columns=columns)
        yield from zip(*(table[one].to_pylist() for one in columns), strict=True)


def read_part(
    store: str, part: TablePart, *, columns: Sequence[str] | None = None
) -> tables.Table:
    """Return one part of a table; raise ReadError if it is missing or damaged."""
    try:
        data = storage.read(storage.join(store, part.path))
    except FileNotFoundError:
        raise ReadError(
            f"{part.path} is named by the commit but missing in {store}; restore it, "
            "or convert again from the sources"
        ) from None
    if hashlib.sha256(data).hexdigest() != part.sha256:
        raise ReadError(
            f"{part.path} in {store} is damaged (its digest is not the commit's); "
            "restore it, or convert again from the sources"
        )
    return tables.from_parquet(data, columns)


@dataclass(frozen=True, slots=True)
class Change:
    """What a commit does to the tables: rows to add, and whose rows go."""

    rows: Mapping[str, tables.Table]
    dropped_series: frozenset[str]
    dropped_sources: frozenset[str]

    @property
    def is_empty(self) -> bool:
        """Whether nothing would change."""
        added = sum(table.num_rows for table in self.rows.values())
        return not (added or self.dropped_series or self.dropped_sources)


def publish(
    store: str,
    change_of: Callable[[Commit | None], Change],
    describe: Callable[[int, Mapping[str, tuple[TablePart, ...]]], Commit],
) -> Commit | None:
    """Make the next commit, and return it; None where nothing changes.

    Parameters
    ----------
    change_of
        Returns what changes against the commit that is the newest at this moment; it
        is asked again whenever another run commits first.
    describe
        Makes the commit from its number and tables.

    Raises
    ------
    CommitConflictError
        If other runs kept committing first.
    """
    for _ in range(RETRIES):
        parent = read_commit(store)
        change = change_of(parent)
        if parent is not None and change.is_empty:
            return None
        parts = {
            name: _next_parts(store, parent, name, change) for name in tables.SCHEMAS
        }
        commit = describe(parent.n + 1 if parent else 0, parts)
        try:
            with storage.room_at(store):
                storage.create(commit_url(store, commit.n), _to_json(commit))
        except FileExistsError:
            continue
        return commit
    raise CommitConflictError(
        f"other runs kept committing to {store} first; run again when they are done"
    )


def _next_parts(
    store: str, parent: Commit | None, name: str, change: Change
) -> tuple[TablePart, ...]:
    """Keep the large parts that nothing leaves; write the other rows anew."""
    kept: list[TablePart] = []
    loose: list[tables.Table] = []
    touched = change.rows[name].num_rows > 0
    for part in parent.tables.get(name, ()) if parent else ():
        table = read_part(store, part)
        rest = _without(name, table, change)
        if rest.num_rows == table.num_rows and part.rows >= MERGE_ROWS:
            kept.append(part)
        else:
            loose.append(rest)
            touched |= rest.num_rows < table.num_rows
    if not touched and parent is not None:
        return parent.tables.get(name, ())
    merged = tables.sort(name, tables.concat(name, [*loose, change.rows[name]]))
    written = [
        write_part(store, name, merged.slice(start, MAX_ROWS))
        for start in range(0, merged.num_rows, MAX_ROWS)
    ]
    return (*kept, *written)


def _without(name: str, table: tables.Table, change: Change) -> tables.Table:
    column, dropped = (
        ("source_key", change.dropped_sources)
        if name == "inputs"
        else ("series_key", change.dropped_series)
    )
    return tables.drop_rows(table, column, dropped)


def write_part(store: str, name: str, table: tables.Table) -> TablePart:
    """Write one part of a table under the digest of its content."""
    data = tables.to_parquet(table)
    sha256 = hashlib.sha256(data).hexdigest()
    path = f"tables/{name}/{sha256[:32]}.parquet"
    with storage.room_at(store):
        storage.write(storage.join(store, path), data)
    return TablePart(path, table.num_rows, len(data), sha256)
