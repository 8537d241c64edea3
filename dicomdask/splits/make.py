"""Make a split: who belongs together, what is held out, what is alike."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Final, TypedDict

import pandas as pd

from dicomdask.errors import OptionError, SplitError
from dicomdask.splits import assign
from dicomdask.splits.split import (
    SHARED,
    Split,
    Values,
    by_patient,
    describe,
    patients_of,
)

HELD_OUT: Final = "held-out"


class Options(TypedDict, total=False):
    """How patients are shared out; see `make_split`."""

    seed: int
    stratify: Sequence[str]
    labels: pd.DataFrame | None
    on: str
    hold_out: Mapping[str, Sequence[str]] | None
    hold_out_into: str


def make_split(
    volumes: pd.DataFrame,
    fractions: Mapping[str, float] | None = None,
    *,
    seed: int = 0,
    stratify: Sequence[str] = (),
    labels: pd.DataFrame | None = None,
    on: str = "PatientID",
    hold_out: Mapping[str, Sequence[str]] | None = None,
    hold_out_into: str = HELD_OUT,
    previous: pd.DataFrame | None = None,
) -> Split:
    """Share out the patients of a table of volumes.

    A patient goes where the hash of the pseudonym and of the seed says, with all
    volumes, together with patients that share a study or a frame of reference. Neither
    the order of rows nor patients that come later change that. With `stratify` shares
    are filled up instead, so that later patients can move earlier ones unless these are
    in `previous`.

    Parameters
    ----------
    volumes
        The rows of a dataset's `volumes`.
    fractions
        The share of patients of each part, summing to 1; by default train 0.8, val 0.1
        and test 0.1.
    seed
        Another one gives another split.
    stratify
        Columns of `volumes` or of `labels`: patients alike in what their volumes have
        there are shared out near exactly.
    labels, on
        Rows of one's own that join by the column `on`, which `volumes` has too.
    hold_out
        Values by column of `volumes`, such as ``{"site_key": ["6d…"]}``: who has a
        volume with one of them goes wholly to `hold_out_into`.
    hold_out_into
        The part that takes them: one of its own, or one of `fractions`.
    previous
        PatientID and split of those that have a place already, and keep it.

    Raises
    ------
    SplitError
        If there is nothing to split, or `previous` contradicts the names or the data.
    OptionError
        If fractions, columns or values cannot be used.
    """
    fractions = assign.DEFAULT_FRACTIONS if fractions is None else fractions
    assign.check_fractions(fractions)
    if volumes.empty:
        raise SplitError("the dataset holds no volumes; there is nothing to split")
    values = _values(volumes, stratify, labels, on)
    patients = patients_of(volumes)
    groups = assign.group_patients(_links(volumes, patients))
    held = _held(volumes, patients, groups, hold_out or {})
    names = tuple(dict.fromkeys([*fractions, *([hold_out_into] if hold_out else [])]))
    before = _before(groups, previous, names)
    placed = {**dict.fromkeys(held, hold_out_into), **before}
    stuck = {group for group in held if placed[group] != hold_out_into}
    apart = {g for g, name in placed.items() if g in held or name not in fractions}
    profiles = _profiles(groups, values)
    shared = {g: profile for g, profile in profiles.items() if g not in apart}
    found = _assign(shared, fractions, seed, placed, is_stratified=bool(stratify))
    found |= {group: placed[group] for group in apart}
    table = _table({p: found[g] for p, g in groups.items()}, previous)
    return describe(names, table, volumes, values, _notes(groups, stuck))


# --- who is who -----------------------------------------------------------------


def _links(
    volumes: pd.DataFrame, patients: "pd.Series[str]"
) -> set[tuple[str, str | None]]:
    uids = (volumes[name].astype(object) for name in list(SHARED)[1:])
    found = (zip(patients, uid.where(uid.notna(), None), strict=True) for uid in uids)
    return set(chain.from_iterable(found))


def _before(
    groups: Mapping[str, str], previous: pd.DataFrame | None, names: Sequence[str]
) -> dict[str, str]:
    """Return the part of each group that has one from before."""
    if previous is None:
        return {}
    unknown = sorted(set(previous["split"]) - set(names))
    if unknown:
        raise SplitError(
            f"the split from before has {', '.join(unknown)}, which is not among "
            f"{', '.join(names)}; name the same splits, or begin another file"
        )
    found: dict[str, str] = {}
    for patient, name in by_patient(previous).items():
        if patient not in groups:
            continue
        if found.setdefault(groups[patient], name) != name:
            raise SplitError(
                f"patients that the split from before has in {found[groups[patient]]} "
                f"and in {name} now share a study or a frame of reference; put all of "
                "them into one by hand, or begin another file"
            )
    return found


def _held(
    volumes: pd.DataFrame,
    patients: "pd.Series[str]",
    groups: Mapping[str, str],
    hold_out: Mapping[str, Sequence[str]],
) -> set[str]:
    """Return the groups that have a volume of what is held out."""
    found: set[str] = set()
    for column, values in hold_out.items():
        _require_column(volumes, column)
        texts = volumes[column].map(_text)
        for value in values:
            mine = patients[(texts == value).to_numpy()]
            if mine.empty:
                raise OptionError(
                    f"no volume has this {column}, so nothing would be held out; "
                    f"the values are those of ds.volumes[{column!r}]"
                )
            found |= {groups[patient] for patient in mine}
    return found


def _require_column(volumes: pd.DataFrame, column: str) -> None:
    if column not in volumes:
        raise OptionError(
            f"the volumes have no column {column!r}; take one of theirs, such as "
            "Modality or site_key, or give a table that has it: --labels"
        )


# --- classes --------------------------------------------------------------------


def _values(
    volumes: pd.DataFrame,
    columns: Sequence[str],
    labels: pd.DataFrame | None,
    on: str,
) -> Values:
    patients = patients_of(volumes)
    own = volumes.set_axis(pd.Index(patients, name="patient"))
    given = own if labels is None else _joined(volumes, patients, labels, on)
    found: dict[str, pd.Series[Any]] = {}
    for column in columns:
        source = own if column in volumes else given
        _require_column(source, column)
        found[column] = source[column].map(_text)
    if labels is not None and all(column in volumes for column in columns):
        raise OptionError(
            "labels are given, but nothing is stratified by a column of theirs; name "
            "one that the volumes lack: --stratify COLUMN"
        )
    return found


def _joined(
    volumes: pd.DataFrame, patients: "pd.Series[str]", labels: pd.DataFrame, on: str
) -> pd.DataFrame:
    """Return labels with the patients they belong to as index."""
    _require_column(volumes, on)
    keys = pd.DataFrame({"key": volumes[on].map(_text), "patient": patients})
    theirs = labels.assign(key=labels[on].map(_text))
    merged = keys.drop_duplicates().merge(theirs, on="key", how="left")
    if not merged["key"].isin(theirs["key"]).any():
        raise OptionError(
            f"no row of the labels has a {on} of the dataset; if they hold original "
            "identifiers, `dicomdask pseudonymize` them first"
        )
    return merged.set_index("patient")


def _text(value: Any) -> str | None:
    """Return what a cell is called; lists by all their values."""
    if isinstance(value, str) or value is None:
        return value
    if pd.api.types.is_list_like(value):
        return "\\".join(map(str, value))
    return None if pd.isna(value) else str(value)


def _profiles(groups: Mapping[str, str], values: Values) -> dict[str, assign.Profile]:
    """Return the classes of each group: per column, all that its volumes have."""
    found: dict[str, list[set[str]]] = {
        group: [set() for _ in values] for group in groups.values()
    }
    for number, column in enumerate(values.values()):
        for patient, value in column.dropna().items():
            found[groups[str(patient)]][number].add(value)
    return {
        group: tuple(tuple(sorted(one)) for one in sets)
        for group, sets in found.items()
    }


def _assign(
    profiles: Mapping[str, assign.Profile],
    fractions: Mapping[str, float],
    seed: int,
    placed: Mapping[str, str],
    *,
    is_stratified: bool,
) -> dict[str, str]:
    if is_stratified:
        return assign.by_profile(profiles, fractions, seed, placed)
    hashed = assign.by_hash(profiles, fractions, seed)
    return {group: placed.get(group, name) for group, name in hashed.items()}


# --- what comes of it ---------------------------------------------------------------


def _table(found: Mapping[str, str], previous: pd.DataFrame | None) -> pd.DataFrame:
    before = {} if previous is None else by_patient(previous)
    rows = sorted({**before, **found}.items())
    return pd.DataFrame(rows, columns=["PatientID", "split"], dtype=object)


def _notes(groups: Mapping[str, str], stuck: set[str]) -> list[str]:
    notes = []
    joined = len(groups) - len(set(groups.values()))
    if joined:
        notes.append(
            f"{joined} patients are kept together with another, with whom they share a "
            "study or a frame of reference"
        )
    if stuck:
        notes.append(
            f"{len(stuck)} patients of what is held out keep their place in another "
            "split, where they were before"
        )
    return notes
