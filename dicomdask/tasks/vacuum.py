"""Vacuum: delete what no recent commit names, in an order that may break off anywhere.

Commits go first, then parts of tables, then arrays, so that no commit ever names what
was deleted. What no commit names yet may be of a run that is under way, so an object
goes only if it is itself older than the age that is given.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from dicomdask import commits, storage
from dicomdask.commits import Commit
from dicomdask.errors import StoreError
from dicomdask.storage import Listed

TEMPORARY: Final = re.compile(r"\..+\.[0-9a-f]{8}\.tmp|\.probe-[0-9a-f]{8}")
"""What a write leaves that was cut off: a part of an object, or an attempt to write."""
PART: Final = re.compile(r"tables/[a-z_]+/[0-9a-f]{32}\.parquet")
COMMIT: Final = re.compile(r"commits/(\d+)\.json")
ARRAY: Final = re.compile(r"volumes/[0-9a-f]{2}/[0-9a-f]{32}/[0-9a-f]+/.+")
KEPT, GROUPS = "kept", "groups"
GROUP: Final = re.compile(r"volumes/[0-9a-f]{2}/[0-9a-f]{32}/zarr\.json")


@dataclass(frozen=True, slots=True)
class Vacuumed:
    """What a vacuum deleted, or would delete, and what stays.

    `kinds` are the deleted objects by what they are: commits, tables, volumes, groups
    above them or temporary; `names` all of them, if it was only asked what would go.
    """

    store: str
    is_dry: bool
    n_deleted: int
    bytes_deleted: int
    n_kept: int
    bytes_kept: int
    kinds: Mapping[str, int]
    names: tuple[str, ...]


class _Tally:
    """Counts what goes and what stays."""

    def __init__(self) -> None:
        self.counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        self.names: list[str] = []

    def add(self, kind: str, found: Iterable[Listed]) -> None:
        for one in found:
            self.counts[kind][0] += 1
            self.counts[kind][1] += one.bytes

    def result(self, store: str, *, is_dry: bool) -> Vacuumed:
        n_kept, bytes_kept = self.counts.pop(KEPT, (0, 0))
        return Vacuumed(
            store=store,
            is_dry=is_dry,
            n_deleted=sum(n for n, _ in self.counts.values()),
            bytes_deleted=sum(nbytes for _, nbytes in self.counts.values()),
            n_kept=n_kept,
            bytes_kept=bytes_kept,
            kinds={kind: self.counts[kind][0] for kind in sorted(self.counts)},
            names=tuple(self.names),
        )


def vacuum(store: str, *, before: float, dry_run: bool = False) -> Vacuumed:
    """Delete what no recent commit names.

    Parameters
    ----------
    before
        Seconds since 1970. What was changed later stays, and commits made later are
        recent; the newest commit always is.

    Raises
    ------
    StoreError, ReadError
        If a recent commit or its tables cannot be read, or the store does not say how
        old its objects are; nothing is deleted then.
    """
    sweep = _Sweep(before, *_named(store, _recent(store, before)))
    tally = _Tally()
    for kind, found in sweep.kinds(store):
        doomed = found
        if kind == GROUPS and not dry_run:
            doomed = [one for one in found if _is_alone(store, one.name)]
            tally.add(KEPT, set(found) - set(doomed))
        tally.add(kind, doomed)
        if dry_run:
            tally.names += [one.name for one in doomed] if kind != KEPT else []
        elif kind != KEPT:
            storage.remove_all([storage.join(store, one.name) for one in doomed])
            _remove_folders(store, doomed)
    return tally.result(store, is_dry=dry_run)


def _recent(store: str, before: float) -> list[Commit]:
    below = storage.list_below(storage.join(store, "commits"))
    young = {one.name for one in below if not _is_old(one, before)}
    numbers = commits.list_commits(store)
    kept = [n for n in numbers if f"{n}.json" in young or n == numbers[-1]]
    found = (commits.read_commit(store, n) for n in kept)
    return [commit for commit in found if commit is not None]


def _is_old(one: Listed, before: float) -> bool:
    if not one.modified:
        raise StoreError(
            "the store does not say how old its objects are, so nothing was deleted"
        )
    return one.modified <= before


def _named(store: str, recent: Sequence[Commit]) -> tuple[set[str], set[str]]:
    """Return the paths of the objects, and of the revisions, that commits name."""
    parts = {
        part.path: (name, part)
        for commit in recent
        for name, some in commit.tables.items()
        for part in some
    }
    paths = {
        path
        for name, part in parts.values()
        if name == "volumes"
        for path in commits.read_part(store, part, columns=["path"])["path"].to_pylist()
    }
    numbers = {f"commits/{commit.n}.json" for commit in recent}
    return parts.keys() | numbers, paths


def _is_alone(store: str, group: str) -> bool:
    """Return whether nothing lies below a group now but its own metadata."""
    folder = storage.join(store, group.rsplit("/", 1)[0])
    storage.remove_empty_folders(folder)
    return storage.list_names(folder) == ["zarr.json"]


def _remove_folders(store: str, doomed: Iterable[Listed]) -> None:
    paths = [one.name.split("/") for one in doomed]
    folders = {"/".join(names[:3]) for names in paths if names[0] == "volumes"}
    for folder in sorted(folders):
        storage.remove_empty_folders(storage.join(store, folder))


@dataclass(frozen=True, slots=True)
class _Sweep:
    """Tells what goes from what stays, in the order in which it may go."""

    before: float
    named: set[str]
    revisions: set[str]

    def kinds(self, store: str) -> Iterator[tuple[str, list[Listed]]]:
        """Yield objects by what becomes of them; listings come in order of names."""
        for folder, found in groupby(storage.list_below(store), _folder_of):
            some = list(found)
            if folder.startswith("volumes/"):
                yield from self._volumes(some)
                continue
            by_kind: dict[str, list[Listed]] = defaultdict(list)
            for one in some:
                by_kind[self._kind(one)].append(one)
            yield from by_kind.items()

    def _kind(self, one: Listed) -> str:
        if not _is_old(one, self.before) or one.name in self.named:
            return KEPT
        if TEMPORARY.fullmatch(one.name.rsplit("/", 1)[-1]):
            return "temporary"
        if COMMIT.fullmatch(one.name):
            return "commits"
        return "tables" if PART.fullmatch(one.name) else KEPT

    def _volumes(self, found: Sequence[Listed]) -> Iterator[tuple[str, list[Listed]]]:
        """Sort out the volumes of one folder: a revision goes as a whole, or stays.

        The array's metadata goes first: a run that was cut off and comes back later
        looks for it before it commits what it wrote then.
        """
        revisions: dict[str, list[Listed]] = defaultdict(list)
        by_kind: dict[str, list[Listed]] = {KEPT: [], "temporary": [], GROUPS: []}
        for one in found:
            kind = self._kind(one)
            if kind == KEPT and ARRAY.fullmatch(one.name):
                revisions["/".join(one.name.split("/")[:4])].append(one)
            else:
                is_group = kind == KEPT and GROUP.fullmatch(one.name)
                by_kind[GROUPS if is_group else kind].append(one)
        doomed = [some for path, some in revisions.items() if self._goes(path, some)]
        gone = {one for some in doomed for one in some}
        left = [one for some in revisions.values() for one in some if one not in gone]
        alive = {one.name.split("/")[2] for one in left}
        groups = by_kind.pop(GROUPS)
        dead = [one for one in groups if one.name.split("/")[2] not in alive]
        dead = [one for one in dead if _is_old(one, self.before)]
        by_kind[KEPT] += [*left, *(one for one in groups if one not in dead)]
        heads = [one for one in gone if one.name.endswith("/zarr.json")]
        yield from by_kind.items()
        yield "volumes", heads
        yield "volumes", sorted(gone - set(heads))
        yield GROUPS, dead

    def _goes(self, path: str, found: Sequence[Listed]) -> bool:
        is_old = all(_is_old(one, self.before) for one in found)
        return is_old and path not in self.revisions


def _folder_of(one: Listed) -> str:
    """Return what is looked at together: a folder of volumes, or all of another."""
    names = one.name.split("/")
    return "/".join(names[:2]) if names[0] == "volumes" else names[0]
