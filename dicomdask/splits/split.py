"""The split that people hold: kept, read back, checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

import pandas as pd

from dicomdask.errors import SplitError
from dicomdask.splits import assign
from dicomdask.splits.files import write_split_table

SHARED: Final = {
    "PatientID": "patients",
    "StudyInstanceUID": "studies",
    "FrameOfReferenceUID": "frames of reference",
}
"""What two splits may not share, and what people call it."""

Values = Mapping[str, "pd.Series[Any]"]
"""By stratified column: the value of each row, and whose it is as its index."""

Classes = Mapping[str, Mapping[str, Mapping[str, int]]]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """A dataset's patients, shared out; ``split["train"]`` are the volumes of one part.

    Attributes
    ----------
    names
        The parts, in the order in which they were named.
    table
        `PatientID` (the pseudonym) and `split`, one row a patient, sorted. A volume
        without PatientID counts by its StudyInstanceUID, which stands in its place.
    volumes
        The rows of the dataset's `volumes`, in their order.
    counts
        Patients, studies and volumes, by part.
    classes
        Patients by stratified column, value and part.
    warnings
        What should be known before the split is used: one sentence each.
    """

    names: tuple[str, ...]
    table: pd.DataFrame
    volumes: pd.DataFrame
    counts: Mapping[str, Mapping[str, int]]
    classes: Classes
    warnings: tuple[str, ...]

    def __getitem__(self, name: str) -> pd.DataFrame:
        """Return the rows of `volumes` in one part; raise KeyError if there is none."""
        if name not in self.names:
            raise KeyError(f"no split {name!r}; there are {', '.join(self.names)}")
        where = places_of(self.volumes, self.table)
        return self.volumes[(where == name).to_numpy()]

    def ids(self, name: str) -> tuple[str, ...]:
        """Return the volume_ids of one part."""
        return tuple(self[name]["volume_id"])

    def save(self, path: str) -> None:
        """Write `table` as CSV or Parquet, by the ending of the path.

        Raises
        ------
        OptionError
            If the ending is another.
        """
        write_split_table(path, self.table)


def bind(volumes: pd.DataFrame, table: pd.DataFrame) -> Split:
    """Return a split that was kept, for a table of volumes."""
    names = tuple(sorted(set(table["split"]), key=_usual_order))
    lost = places_of(volumes, table).isna()
    n = int(patients_of(volumes)[lost.to_numpy()].nunique())
    notes = (
        [f"{n} patients of the dataset are in no split; `dicomdask split` adds them"]
        if n
        else []
    )
    return describe(names, table, volumes, {}, notes)


def _usual_order(name: str) -> tuple[int, str]:
    usual = list(assign.DEFAULT_FRACTIONS)
    return (usual.index(name) if name in usual else len(usual), name)


def check_disjoint(parts: Mapping[str, pd.DataFrame]) -> None:
    """Refuse parts that would let a model be tested on what it was trained on.

    Parameters
    ----------
    parts
        Rows of `volumes`, by the name that messages call them.

    Raises
    ------
    SplitError
        If two parts share a patient, a study or a frame of reference.
    """
    for one, other in combinations(parts, 2):
        for column, what in SHARED.items():
            both = _distinct(parts[one], column) & _distinct(parts[other], column)
            if both:
                raise SplitError(
                    f"{one} and {other} share {len(both)} {what}; take both from one "
                    "split: split = ds.split(), then split['train'], split['val']"
                )


def _distinct(volumes: pd.DataFrame, column: str) -> set[str]:
    found = set(volumes[column].dropna())
    return {value for value in found if not value.startswith(assign.WELL_KNOWN)}


def patients_of(volumes: pd.DataFrame) -> "pd.Series[str]":
    """Return whose each volume is: the patient, or who that study belongs to."""
    found = volumes["PatientID"].fillna(volumes["StudyInstanceUID"])
    return found.fillna(volumes["volume_id"]).astype(object)


def places_of(volumes: pd.DataFrame, table: pd.DataFrame) -> "pd.Series[Any]":
    """Return the part of each volume, missing where its patient is in none."""
    return patients_of(volumes).map(by_patient(table))


def by_patient(table: pd.DataFrame) -> dict[str, str]:
    """Return the part of each patient."""
    return dict(zip(table["PatientID"], table["split"], strict=True))


# --- what is told ---------------------------------------------------------------


def describe(
    names: tuple[str, ...],
    table: pd.DataFrame,
    volumes: pd.DataFrame,
    values: Values,
    notes: Sequence[str],
) -> Split:
    """Return a split with all that is told of it."""
    patients, where = patients_of(volumes), places_of(volumes, table)
    counts = {}
    for name in names:
        mine = (where == name).to_numpy()
        counts[name] = {
            "patients": int(patients[mine].nunique()),
            "studies": int(volumes["StudyInstanceUID"][mine].nunique()),
            "volumes": int(mine.sum()),
        }
    absent = len(set(table["PatientID"]) - set(patients))
    more = [f"{absent} patients of the split are not in this commit"] if absent else []
    empty = [
        _empty(name, is_stratified=bool(values))
        for name in names
        if not counts[name]["volumes"]
    ]
    classes = {
        column: _class_counts(names, one, table) for column, one in values.items()
    }
    return Split(names, table, volumes, counts, classes, (*notes, *more, *empty))


def _empty(name: str, *, is_stratified: bool) -> str:
    other = "" if is_stratified else ", or stratify, which shares out few evenly"
    return (
        f"{name} is empty: there are too few patients for its share; give it a larger "
        f"fraction{other}"
    )


def _class_counts(
    names: Sequence[str], values: "pd.Series[Any]", table: pd.DataFrame
) -> dict[str, dict[str, int]]:
    where = by_patient(table)
    found: dict[str, dict[str, int]] = {}
    for patient, value in set(values.dropna().items()):
        of_class = found.setdefault(value, dict.fromkeys(names, 0))
        of_class[where[str(patient)]] += 1
    return dict(sorted(found.items()))
