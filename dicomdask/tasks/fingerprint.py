"""The fingerprints that a commit tells: those of its parent, and what changed since.

Only parts of tables that came or went are read, one at a time.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

from dicomdask import commits
from dicomdask.commits import Commit, TablePart
from dicomdask.values import Fingerprint, fingerprint_of, merge_fingerprints

TABLE: Final = "fingerprints"
UNKNOWN: Final = "unknown"
"""The modality of volumes that tell none, as a commit's statistics name it."""
AT_ONCE: Final = 32
"""So many rows are held at a time: each may have a few thousand values."""

Groups = dict[tuple[str, str], Fingerprint]
"""Fingerprints by modality and units."""


def pooled(
    store: str, parts: Mapping[str, tuple[TablePart, ...]], parent: Commit | None
) -> dict[str, list[dict[str, Any]]]:
    """Return the fingerprints of all volumes of a commit by modality, one a unit.

    Where a volume was stored by a version that kept none, there are no fingerprints.

    Parameters
    ----------
    parts
        All parts of the commit's tables.
    parent
        The commit before it, if there is one.
    """
    mine = parts.get(TABLE, ())
    if _n_rows(mine) != _n_rows(parts.get("volumes", ())):
        return {}
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for (modality, units), one in sorted(_groups(store, mine, parent).items()):
        if one.n_volumes:
            told = {"units": units, **one.summary(), "pooled": one.to_json()}
            found[modality].append(told)
    return dict(found)


def _n_rows(parts: Iterable[TablePart]) -> int:
    return sum(part.rows for part in parts)


def _groups(store: str, parts: tuple[TablePart, ...], parent: Commit | None) -> Groups:
    before = _told(parent)
    if parent is None or before is None:
        return _read(store, parts)
    old = parent.tables.get(TABLE, ())
    here, there = {part.path for part in parts}, {part.path for part in old}
    new = _read(store, [part for part in parts if part.path not in there])
    gone = _read(store, [part for part in old if part.path not in here])
    found = _merged([before, new])
    try:
        return {
            name: one.less(gone[name]) if name in gone else one
            for name, one in found.items()
        }
    except ValueError:  # the parent does not tell of its own volumes
        return _read(store, parts)


def _told(commit: Commit | None) -> Groups | None:
    """Return the fingerprints of a commit; None where it tells none of its volumes."""
    found: Groups = {}
    for modality, told in commit.statistics.items() if commit else ():
        if "fingerprints" not in told:
            return None
        for one in told["fingerprints"]:
            found[modality, one["units"]] = Fingerprint.from_json(one["pooled"])
    return found


def _read(store: str, parts: Iterable[TablePart]) -> Groups:
    found: Groups = {}
    for part in parts:
        table = commits.read_part(store, part)
        for start in range(0, table.num_rows, AT_ONCE):
            rows = defaultdict[tuple[str, str], list[dict[str, Any]]](list)
            for row in table.slice(start, AT_ONCE).to_pylist():
                rows[row["Modality"] or UNKNOWN, row["units"]].append(row)
            own = {name: fingerprint_of(some) for name, some in rows.items()}
            found = _merged([found, own])
    return found


def _merged(several: Iterable[Groups]) -> Groups:
    groups = defaultdict[tuple[str, str], list[Fingerprint]](list)
    for one in several:
        for name, found in one.items():
            groups[name].append(found)
    return {name: merge_fingerprints(found) for name, found in groups.items()}
