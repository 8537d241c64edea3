"""Remove patients from a store: a commit without them, then what older ones hold.

Each step may break off: what is left is found again by the next try, because arrays go
first, then the commits, and the parts of tables that tell of both go last.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from dicomdask import commits, storage
from dicomdask.commits import Change, Commit, TablePart
from dicomdask.errors import StoreError
from dicomdask.tasks.commit import summaries
from dicomdask.tasks.patient import Patient, list_parts, names_any, search_tables
from dicomdask.tasks.vacuum import TEMPORARY

STALE_SECONDS: Final = 3600.0
"""A part of an object that was being written so long ago is of no run any more."""


@dataclass(frozen=True, slots=True)
class Found:
    """One patient as they were found, in the order in which they were named.

    `matched` says by what: `PatientID`, `pseudonym`, both, or nothing; `was_forgotten`
    whether a commit before kept them out already.
    """

    matched: tuple[str, ...]
    was_forgotten: bool
    n_series: int
    n_volumes: int
    n_inputs: int


@dataclass(frozen=True, slots=True)
class Forgot:
    """What was removed, without a word about who.

    `commit` is the newest one, None where the store is of `deidentify`; `n_objects`
    were deleted in the store and `n_records` in the work directory, if there was one.
    Of `n_unknown` files without an image nobody could tell whose they are. `in_filter`:
    the filter of the work's job, which decides what the dataset is, holds a name that
    was given.
    """

    store: str
    work: str | None
    commit: int | None
    patients: tuple[Found, ...]
    n_objects: int = 0
    n_records: int = 0
    n_unknown: int = 0
    in_filter: bool = False


def found_of(one: Patient, before: set[str]) -> Found:
    """Return what may be told of a patient; `before` are the digests kept out."""
    kinds = {"PatientID": one.by_number, "pseudonym": one.by_pseudonym}
    return Found(
        matched=tuple(name for name, is_so in kinds.items() if is_so),
        was_forgotten=bool(one.all_digests & before),
        n_series=len(one.series),
        n_volumes=len(one.volumes),
        n_inputs=len(one.sources),
    )


@dataclass(slots=True)
class Removal:
    """Patients that are to leave a store."""

    store: str
    patients: Sequence[Patient]
    now: str
    parents: list[Commit] = field(default_factory=list)

    def search(self, newest: Commit) -> None:
        """Look for the patients in all tables, those of older commits too."""
        search_tables(
            self.store,
            list_parts(self.store),
            self.patients,
            is_identified=newest.policy["name"] == "none",
        )

    def publish(self) -> Commit | None:
        """Make a commit without the patients; None where the newest is one.

        The last of `parents` is the commit before it.
        """

        def change_of(parent: Commit | None) -> Change:
            newest = require_commit(self.store, parent)
            self.parents.append(newest)
            self.search(newest)
            return self._change(newest)

        def describe(n: int, parts: Mapping[str, tuple[TablePart, ...]]) -> Commit:
            parent = self.parents[-1]
            told = summaries(self.store, parts, parent=parent)
            counts, codes, statistics = told
            return replace(
                parent,
                n=n,
                created=self.now,
                tables=parts,
                counts=counts,
                codes=codes,
                statistics=statistics,
            )

        return commits.publish(self.store, change_of, describe)

    def _change(self, parent: Commit) -> Change:
        series = {name for one in self.patients for name in one.series}
        sources = {name for one in self.patients for name in one.sources}
        digests = {digest for one in self.patients for digest in one.digests}
        known = frozenset(parent.forgotten)
        return make_change(
            series=series & self._values(parent, "volumes", "series_key"),
            sources=sources & self._values(parent, "inputs", "source_key"),
            forgotten=known | digests if digests - known else None,
        )

    def _values(self, commit: Commit, table: str, column: str) -> set[str]:
        return {
            value
            for (value,) in commits.read_columns(self.store, commit, table, [column])
        }

    def erase(self, *, clock: float) -> int:
        """Delete what is left of the patients; return how many objects.

        Parameters
        ----------
        clock
            The present in seconds since 1970.
        """
        newest = require_commit(self.store, commits.read_commit(self.store))
        named = {part.path for some in newest.tables.values() for part in some}
        others = [part for part in list_parts(self.store) if part not in named]
        parts = [part for part in others if names_any(self.store, part, self.patients)]
        volumes = sorted(name for one in self.patients for name in one.volumes)
        count = sum(self._remove_volume(volume) for volume in volumes)
        count += self._remove(self._commits_with(set(parts), newest.n))
        count += self._remove(parts)
        return count + self._remove(self._leftovers(clock))

    def _remove(self, names: Sequence[str]) -> int:
        storage.remove_all([storage.join(self.store, name) for name in names])
        return len(names)

    def _remove_volume(self, volume_id: str) -> int:
        """Remove all revisions of a volume, committed or not."""
        folder = f"volumes/{volume_id[:2]}/{volume_id}"
        url = storage.join(self.store, folder)
        names = [f"{folder}/{one.name}" for one in storage.list_below(url)]
        removed = self._remove(names)
        storage.remove_empty_folders(url)
        return removed

    def _commits_with(self, parts: set[str], newest: int) -> list[str]:
        """Return the commits, but the newest, that name any of some parts."""
        found: list[str] = []
        for n in commits.list_commits(self.store):
            commit = commits.read_commit(self.store, n) if n != newest else None
            named = commit.tables.values() if commit else ()
            if any(part.path in parts for some in named for part in some):
                found.append(f"commits/{n}.json")
        return found

    def _leftovers(self, clock: float) -> list[str]:
        """Return the report, and parts of tables whose writing was cut off."""
        report = "report.html"
        found = [report] if storage.is_file(storage.join(self.store, report)) else []
        for one in storage.list_below(storage.join(self.store, "tables")):
            is_cut_off = TEMPORARY.fullmatch(one.name.rsplit("/", 1)[-1])
            if is_cut_off and one.modified < clock - STALE_SECONDS:
                found.append(f"tables/{one.name}")
        return found


def require_commit(store: str, commit: Commit | None) -> Commit:
    """Return a commit, or raise StoreError where there is none."""
    if commit is None:
        raise StoreError(f"{store} has no commit yet; there is nobody to forget")
    return commit


def make_change(
    *, series: set[str], sources: set[str], forgotten: frozenset[str] | None
) -> Change:
    """Return a change that takes rows out and adds none."""
    return Change((), frozenset(series), frozenset(sources), forgotten)


def bring_back(store: str, patients: Sequence[Patient], *, now: str) -> set[int]:
    """Let patients into later runs again; return the numbers of those who were out."""
    found: set[int] = set()
    parents: list[Commit] = []

    def change_of(parent: Commit | None) -> Change:
        newest = require_commit(store, parent)
        parents.append(newest)
        known = frozenset(newest.forgotten)
        out = [(n, one.all_digests & known) for n, one in enumerate(patients)]
        found.update(n for n, digests in out if digests)
        left = known - {digest for _, digests in out for digest in digests}
        forgotten = left if left != known else None
        return make_change(series=set(), sources=set(), forgotten=forgotten)

    def describe(n: int, parts: Mapping[str, tuple[TablePart, ...]]) -> Commit:
        return replace(parents[-1], n=n, created=now, tables=parts)

    commits.publish(store, change_of, describe)
    return found
