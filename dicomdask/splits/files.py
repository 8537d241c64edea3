"""Splits and labels in files of people's own: CSV or Parquet, at any URL."""

import io
from collections.abc import Collection

import pandas as pd

from dicomdask import sheets, storage, tables
from dicomdask.errors import OptionError, SplitError, TableError

COLUMNS = ("PatientID", "split")


def write_split_table(path: str, table: pd.DataFrame) -> None:
    """Write a table of patients and their splits; `.csv` or `.parquet` decides how.

    Raises
    ------
    OptionError
        If the name ends otherwise.
    """
    url, plain = storage.resolve(path), table.loc[:, list(COLUMNS)]
    if _ending(path) == "parquet":
        data = tables.to_parquet(tables.from_frame(plain))
    else:
        data = plain.to_csv(index=False, lineterminator="\n").encode()
    with storage.room_at(path):
        storage.write(url, data)


def read_split_table(path: str) -> pd.DataFrame | None:
    """Return the table that `write_split_table` wrote; None where there is no file.

    Raises
    ------
    SplitError
        If a patient stands in two splits, or a row lacks one of the two.
    TableError, OptionError
        If the file is no table, or lacks a column.
    """
    try:
        found = _read(path, COLUMNS)
    except FileNotFoundError:
        return None
    table = found.loc[:, list(COLUMNS)].drop_duplicates()
    if bool(table.isna().to_numpy().any()) or "" in set(table.to_numpy().ravel()):
        raise SplitError(f"{path} has a row without PatientID or split; mend the row")
    if bool(table["PatientID"].duplicated().any()):
        n = int(table["PatientID"].duplicated().sum())
        raise SplitError(
            f"{path} puts {n} patients into two splits; keep one row of each"
        )
    return table.sort_values("PatientID", ignore_index=True)


def read_labels(path: str, *, on: str, columns: Collection[str]) -> pd.DataFrame:
    """Return columns of a table of labels, and the one that joins it; all as text.

    Raises
    ------
    OptionError
        If there is no such file, or it lacks a column.
    TableError
        If it is damaged.
    """
    wanted = (on, *(name for name in columns if name != on))
    try:
        return _read(path, wanted).loc[:, list(wanted)]
    except FileNotFoundError:
        raise OptionError(f"there is no table of labels at {path}") from None


def read_table(path: str) -> pd.DataFrame:
    """Return a table of people's own; CSV as text, and empty cells as None.

    Raises
    ------
    OptionError
        If there is no such file, or its name ends in neither .csv nor .parquet.
    TableError
        If it is damaged.
    """
    try:
        return _read(path, ())
    except FileNotFoundError:
        raise OptionError(f"there is no table at {path}") from None


def _ending(path: str) -> str:
    ending = path.rsplit(".", 1)[-1].lower()
    if ending not in ("csv", "parquet"):
        raise OptionError(f"{path} must end in .csv or .parquet, which decides how")
    return ending


def _read(path: str, wanted: Collection[str]) -> pd.DataFrame:
    ending, url = _ending(path), storage.resolve(path)
    if not storage.is_file(url):
        raise FileNotFoundError(path)
    data = storage.read(url)
    if ending == "parquet":
        return _from_parquet(data, path, wanted)
    lines = io.BytesIO(data).readlines()
    sheet = sheets.read_sheet(lines, table=path, wanted=wanted)
    rows = [cells for _, cells in sheet.rows if cells]
    found = pd.DataFrame(rows, columns=list(sheet.names), dtype=object)
    return found.replace("", None)


def _from_parquet(data: bytes, path: str, wanted: Collection[str]) -> pd.DataFrame:
    found = tables.frame_from_parquet(data).astype(object)
    for name in wanted:
        if name not in found:
            raise TableError(f"{path} has no column {name!r}; name one that it has")
    return found
