"""Labels of people's own, and channels, joined to the volumes that a loader reads."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from dicomdask.errors import OptionError

KEYS: Final = ("volume_id", "SeriesInstanceUID", "StudyInstanceUID", "PatientID")
"""What a table of labels may be joined by: all of these that it has, together."""


def join_labels(volumes: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """Return the labels of each volume, in the order of the volumes.

    Parameters
    ----------
    volumes
        Rows of the volumes table.
    labels
        One row a patient, study, series or volume, named by one or more of `KEYS` as
        the dataset has them; every other column is a label.

    Raises
    ------
    OptionError
        If the table has none of the keys, or numbers for them, or two rows for one; or
        if a volume has no label.
    """
    keys = [key for key in KEYS if key in labels]
    names = [name for name in labels if name not in KEYS]
    if not keys or not names:
        raise OptionError(
            f"a table of labels has a column of {', '.join(KEYS)} and one or more of "
            "labels; `dicomdask pseudonymize` makes one of your own table"
        )
    for key in keys:
        if pd.api.types.is_numeric_dtype(labels[key]):
            raise OptionError(
                f"column {key} of the labels holds numbers and the dataset text (007 "
                f"is not 7); read it so: pd.read_csv(path, dtype={{{key!r}: str}})"
            )
    twice = int(labels.duplicated(keys).sum())
    if twice:
        raise OptionError(
            f"{twice} rows of the labels name what another row names by "
            f"{', '.join(keys)}; keep one of each"
        )
    joined = volumes[keys].merge(labels, on=keys, how="left", validate="m:1")
    _check_complete(joined[names], keys)
    return joined[names]


def with_numbers(labels: pd.DataFrame) -> pd.DataFrame:
    """Return a table of text whose labels are numbers where all of them are."""
    found = labels.copy()
    for name in found.columns.difference(list(KEYS)):
        numbers = pd.to_numeric(found[name], errors="coerce")
        if (numbers.notna() == found[name].notna()).all():
            found[name] = numbers
    return found


def _check_complete(joined: pd.DataFrame, keys: Sequence[str]) -> None:
    for name in joined:
        n = int(joined[name].isna().sum())
        if n:
            raise OptionError(
                f"{n} of {len(joined)} volumes have no {name!r} in the labels, joined "
                f"by {', '.join(keys)}; add their rows, or leave these volumes out: "
                f"volumes=ds.volumes.merge(labels[{list(keys)}])"
            )


def align_channels(channels: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """Return the tables with their rows in the same order: one study a row.

    Parameters
    ----------
    channels
        Rows of the volumes table, for each channel; one volume a study.

    Raises
    ------
    OptionError
        If a channel has two volumes of a study, or lacks one of a study that another
        has, or if the volumes of a study differ in shape or place.
    """
    studies = [table["StudyInstanceUID"] for table in channels]
    for number, study in enumerate(studies):
        twice, lacking = int(study.duplicated().sum()), set(studies[0]) ^ set(study)
        if twice or lacking or study.isna().any():
            raise OptionError(
                f"channel {number} has {twice} volumes of a study that it has another "
                f"of, and {len(lacking)} studies are not in both it and channel 0; "
                "choose one volume of each study for each channel"
            )
    order = studies[0].to_list()
    aligned = [table.set_index("StudyInstanceUID", drop=False) for table in channels]
    aligned = [table.loc[order].reset_index(drop=True) for table in aligned]
    for number, table in enumerate(aligned[1:], 1):
        differ = ~_same_place(aligned[0], table)
        if differ.any():
            raise OptionError(
                f"in {differ.sum()} of {len(order)} studies channel {number} has not "
                "the shape and affine of channel 0, such as volume "
                f"{table['volume_id'][differ].iloc[0]}; resample them first, or leave "
                "these studies out"
            )
    return aligned


def _same_place(one: pd.DataFrame, other: pd.DataFrame) -> Any:
    """Tell row by row whether two volumes have one shape and one affine."""
    names = ["dimensions", "shape", "affine"]
    rows: Any = zip(one[names].itertuples(), other[names].itertuples(), strict=True)
    same = [
        list(a.dimensions) == list(b.dimensions)
        and list(a.shape) == list(b.shape)
        and _close(a.affine, b.affine)
        for a, b in rows
    ]
    return np.array(same, bool)


def _close(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    return bool(np.allclose(one, other, rtol=0, atol=1e-3))  # mm


def class_weights(values: pd.Series) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return a weight for each row with which every class weighs the same."""
    counts = values.map(values.value_counts())
    return 1.0 / counts.to_numpy(np.float64)
