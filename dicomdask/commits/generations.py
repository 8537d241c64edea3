"""Commits: read them, and make the next one whoever else does."""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Final

import pandas as pd

from dicomdask import storage, tables
from dicomdask.commits.parts import Later, TablePart, read_part
from dicomdask.commits.runs import next_parts
from dicomdask.errors import CommitConflictError, DicomDaskError, StoreError
from dicomdask.model import FORMAT

RETRIES: Final = 20
N_NAMED: Final = 3
"""How many commits a message names."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One state of the dataset.

    `settings` are the user's decisions, `policy` and `key_fingerprint` what they were
    resolved to; a run with others is refused. `forgotten` are keyed digests of the
    patients that no later run may store.
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
    forgotten: tuple[str, ...] = ()


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
        document = json.loads(storage.read(commit_url(store, n)))
        check_format(document.pop("format"), f"commit {n} of {store}")
        return _parse(document)
    except FileNotFoundError:
        there = ", ".join(map(str, list_commits(store)[-N_NAMED:])) or "none"
        raise StoreError(
            f"{store} has no commit {n}; the last that it has: {there}"
        ) from None
    except StoreError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError):
        raise StoreError(
            f"commit {n} of {store} is damaged; restore commits/{n}.json, or remove it "
            "to fall back to the commit before it"
        ) from None


def require_dataset(store: str) -> None:
    """Check that a store is a dataset that this version reads, in one request.

    Raises
    ------
    StoreError
        If it is not; the message says what there is instead.
    """
    try:
        document = json.loads(storage.read(storage.join(store, "zarr.json")))
        check_format(document["attributes"]["dicomdask"]["format"], store)
    except DicomDaskError:  # access is denied, or nobody answers, or it is newer
        raise
    except PermissionError:
        raise StoreError(f"{store} may not be read; check its permissions") from None
    except (OSError, ValueError, KeyError, TypeError):
        if not storage.exists(store):
            raise StoreError(
                f"there is no dataset at {store}; check the path"
            ) from None
        raise StoreError(
            f"{store} exists and is no dicomdask dataset; give another path"
        ) from None


def check_format(found: Any, what: str) -> None:
    """Refuse what another version of the format wrote, or raise StoreError."""
    if found == FORMAT:
        return
    if not isinstance(found, int):
        raise ValueError("no format number")
    raise StoreError(
        f"{what} is of format {found}, and this version of dicomdask reads format "
        f"{FORMAT}; use the version that wrote it"
    )


def _parse(document: dict[str, Any]) -> Commit:
    parts = {
        name: tuple(TablePart(**part) for part in rows)
        for name, rows in document.pop("tables").items()
    }
    forgotten = tuple(document.pop("forgotten", ()))
    return Commit(tables=parts, forgotten=forgotten, **document)


def _to_json(commit: Commit) -> bytes:
    text = json.dumps(_document(commit), indent=1, sort_keys=True)
    return (text + "\n").encode()


def _document(commit: Commit) -> dict[str, Any]:
    # Not `asdict`: it copies the statistics, which takes as long as all else here.
    document = {"format": FORMAT, **_fields_of(commit)}
    document["tables"] = {
        name: [_fields_of(part) for part in parts]
        for name, parts in commit.tables.items()
    }
    return document


def _fields_of(record: Commit | TablePart) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in fields(record)}


def identity(commit: Commit) -> str:
    """Return a digest that no other commit has."""
    text = json.dumps(_document(commit), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read_table(store: str, commit: Commit, name: str) -> tables.Table:
    """Return one table of a commit in its order, its parts' digests checked.

    Raises
    ------
    ReadError
        If a part is missing or damaged.
    """
    parts = [read_part(store, part) for part in commit.tables.get(name, ())]
    return tables.sort(name, tables.concat(name, parts))


def read_frame(store: str, commit: Commit, name: str) -> pd.DataFrame:
    """Return one table of a commit as a dataframe; see `tables.lazy_frame`.

    All digests are checked. One request a part, several at once from a distant store;
    one more a part when heavy columns are looked at.

    Raises
    ------
    ReadError
        If a part is missing or damaged; also later, when a heavy column is looked at.
    """
    parts = commit.tables.get(name, ())
    columns = tables.light_columns(name)
    read = partial(
        read_part, store, columns=columns, dictionaries=tables.REPEATING.get(name, ())
    )
    found = storage.ahead(
        read,
        parts,
        is_remote=lambda _: not storage.is_local(store),
        nbytes=lambda part: part.bytes,
    )
    light = (result() for _, result in found)
    later = Later(store, name)
    loads = [partial(later.column, part) for part in parts]
    return tables.lazy_frame(name, light, loads)


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


@dataclass(frozen=True, slots=True)
class Change:
    """What a commit does to the tables: rows to add, and whose rows go.

    `rows` come in batches, some rows of some tables each. Where batches are made only
    when they are asked for, no more than one is held; of each table, no batch has keys
    below those of the batch before. `forgotten` are the patients to keep out from now
    on; None: those of the parent.
    """

    rows: Collection[Mapping[str, tables.Table]] = ()
    dropped_series: frozenset[str] = frozenset()
    dropped_sources: frozenset[str] = frozenset()
    forgotten: frozenset[str] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing would change."""
        dropped = self.dropped_series or self.dropped_sources
        return not (self.rows or dropped or self.forgotten is not None)


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
        parts = next_parts(
            store,
            parent.tables if parent else {},
            change.rows,
            dropped_series=change.dropped_series,
            dropped_sources=change.dropped_sources,
        )
        commit = describe(parent.n + 1 if parent else 0, parts)
        before = parent.forgotten if parent else ()
        names = before if change.forgotten is None else change.forgotten
        commit = replace(commit, forgotten=tuple(sorted(names)))
        try:
            with storage.room_at(store):
                storage.create(commit_url(store, commit.n), _to_json(commit))
        except FileExistsError:
            continue
        return commit
    raise CommitConflictError(
        f"other runs kept committing to {store} first; run again when they are done"
    )
