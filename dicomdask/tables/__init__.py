"""Rows to Parquet and back, bytes to bytes: the only room that knows Arrow."""

import dataclasses
import types
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Final, TypeVar, get_args, get_origin, get_type_hints

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from dicomdask.tables.frames import Load, column_or_none, to_lazy_frame
from dicomdask.tables.frames import from_frame as from_frame
from dicomdask.tables.frames import to_frame as to_frame
from dicomdask.tables.parquet import from_parquet as from_parquet
from dicomdask.tables.parquet import n_rows as n_rows
from dicomdask.tables.parquet import to_parquet as to_parquet
from dicomdask.tables.schemas import FRAMES as FRAMES
from dicomdask.tables.schemas import INSTANCES as INSTANCES
from dicomdask.tables.schemas import PART as PART
from dicomdask.tables.schemas import SCHEMAS as SCHEMAS
from dicomdask.tables.schemas import STATISTICS as STATISTICS
from dicomdask.tables.schemas import VOLUME_ATTRIBUTES as VOLUME_ATTRIBUTES
from dicomdask.tables.schemas import VOLUMES as VOLUMES

Row = TypeVar("Row")
Table = pa.Table
Column = pa.Array

SORT_KEYS: Final[dict[str, tuple[str, ...]]] = {
    "volumes": ("volume_id",),
    "frames": ("volume_id", "t", "z"),
    "instances": ("volume_id", "SOPInstanceUID"),
    "inputs": ("source_key",),
    "fingerprints": ("volume_id",),
    "redactions": ("volume_id", "source_key", "top", "left", "bottom", "right"),
}

KEYS: Final[dict[str, tuple[str, ...]]] = {
    "volumes": ("series_key", "volume_id"),
    "frames": ("series_key", "volume_id", "t", "z"),
    "instances": ("series_key", "volume_id", "SOPInstanceUID"),
    "inputs": ("source_key",),
    "fingerprints": ("series_key", "volume_id"),
    "redactions": ("series_key", "volume_id", "source_key", "top", "left"),
}
"""The order of rows within a run; by the first of these rows are dropped."""

HEAVY: Final[dict[str, tuple[str, ...]]] = {
    "volumes": (
        *("statistics", "header", "modality_lut", "display", "real_world_values"),
    ),
    "frames": ("modality_lut", "display"),
    "instances": ("header",),
    "fingerprints": ("intensities",),
}
"""Columns that take most of a table, and that few look at."""

REPEATING: Final[dict[str, tuple[str, ...]]] = {"volumes": ("zarr_json",)}
"""Long texts of which many are alike."""

SUMS: Final = ("n_frames", "raw_bytes", "stored_bytes")
"""The columns of volumes of which a summary holds sums."""
FACES: Final = "faces"
COUNTED: Final[dict[str, tuple[str, ...]]] = {
    "inputs": ("outcome", "code"),
    "instances": ("text_look",),
    "redactions": ("way",),
}
"""The columns of other tables of whose values a summary holds counts."""

Summary = Mapping[str, Mapping[str, int]]
"""Sums by group; of two parts of a table they may be added."""


def record_schema(record: type) -> pa.Schema:
    """Return the Arrow schema of a frozen dataclass of plain fields and tuples."""
    return _record_schema(record)


@cache
def _record_schema(record: Hashable) -> pa.Schema:
    hints = get_type_hints(record)
    fields = dataclasses.fields(record)  # type: ignore[arg-type]
    return pa.schema([(field.name, _arrow_type(hints[field.name])) for field in fields])


def _arrow_type(hint: Any) -> pa.DataType:
    if get_origin(hint) in (types.UnionType,):
        hint = next(arg for arg in get_args(hint) if arg is not type(None))
    if get_origin(hint) is tuple:
        return pa.list_(_arrow_type(get_args(hint)[0]))
    if hint is bytes:
        return pa.binary()
    plain = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    return plain.get(hint, pa.string())


def records_to_parquet(record: type[Row], rows: Sequence[Row]) -> bytes:
    """Return frozen dataclasses as a Parquet file."""
    schema = record_schema(record)
    columns = {name: [getattr(row, name) for row in rows] for name in schema.names}
    return to_parquet(pa.table(columns, schema))


def records_from_parquet(record: type[Row], data: bytes) -> list[Row]:
    """Return the dataclasses that `records_to_parquet` wrote.

    A field that has a default may be missing: earlier versions did not write it.

    Raises
    ------
    ReadError
        If the bytes are damaged.
    """
    table = from_parquet(data, record_schema(record).names)
    optional = _optional_fields(record) - set(table.column_names)
    names = [n for n in record_schema(record).names if n not in optional]
    columns = [_tuples(table[name].to_pylist()) for name in names]
    return [
        record(**dict(zip(names, values, strict=True)))
        for values in zip(*columns, strict=True)
    ]


def _optional_fields(record: type) -> set[str]:
    fields = dataclasses.fields(record)
    return {field.name for field in fields if field.default is not dataclasses.MISSING}


def _tuples(values: list[Any]) -> list[Any]:
    return [tuple(value) if isinstance(value, list) else value for value in values]


def is_list(keyword: str) -> bool:
    """Return whether the column of an attribute holds all its values."""
    return bool(pa.types.is_list(VOLUME_ATTRIBUTES.get(keyword, pa.string())))


def is_text(keyword: str) -> bool:
    """Return whether an attribute is a column of text in volumes or instances."""
    instances = dict(zip(INSTANCES.names, INSTANCES.types, strict=True))
    found = (instances | VOLUME_ATTRIBUTES).get(keyword, pa.null())
    return bool(pa.types.is_string(found))


def to_table(name: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return rows as one of the dataset's tables."""
    return pa.Table.from_pylist(list(rows), schema=SCHEMAS[name])


def sort(name: str, table: pa.Table) -> pa.Table:
    """Return one of the dataset's tables in its own order."""
    return table.sort_by([(key, "ascending") for key in SORT_KEYS[name]])


def concat(
    name: str, parts: Iterable[pa.Table], *, columns: Sequence[str] | None = None
) -> pa.Table:
    """Return one of the dataset's tables from its parts; empty without any."""
    empty = SCHEMAS[name].empty_table()
    if columns is not None:
        empty = empty.select(list(columns))
    # Parts of earlier versions may lack a column.
    tables = pa.concat_tables([empty, *parts], promote_options="default")
    return tables.combine_chunks()


def sort_keys(name: str, table: pa.Table) -> pa.Table:
    """Return one of the dataset's tables in the order of its keys."""
    return table.sort_by([(key, "ascending") for key in KEYS[name]])


def key_range(name: str, table: pa.Table) -> tuple[str, str]:
    """Return the lowest and the highest key of a table's rows."""
    found = pc.min_max(table[KEYS[name][0]]).as_py()
    return found["min"], found["max"]


def within(table: pa.Table, column: str, low: str, high: str) -> pa.Table:
    """Return the rows whose text is at least `low` and below `high`."""
    above, below = pc.greater_equal(table[column], low), pc.less(table[column], high)
    return table.filter(pc.and_(above, below))


def summarize(name: str, table: pa.Table) -> Summary:
    """Return the sums of a part that a commit tells of its whole table."""
    if name != "volumes":
        there = set(table.column_names)  # parts of earlier versions may lack some
        columns = [one for one in COUNTED.get(name, ()) if one in there]
        return {one: _counts(table[one]) for one in columns}
    groups = pc.fill_null(table["Modality"], "unknown")
    found = table.select(SUMS).append_column("group", groups).group_by("group")
    sums = found.aggregate([([], "count_all"), *((one, "sum") for one in SUMS)])
    seen = _faces(table, groups)
    return {
        row["group"]: {
            "volumes": row["count_all"],
            **{one: row[f"{one}_sum"] or 0 for one in SUMS},
            **seen.get(row["group"], {}),
        }
        for row in sorted(sums.to_pylist(), key=lambda row: str(row["group"]))
    }


def _faces(table: pa.Table, groups: pa.ChunkedArray) -> dict[str, dict[str, int]]:
    """Return how many volumes of each group may show a face, or had it removed."""
    found: dict[str, dict[str, int]] = {}
    if FACES not in table.column_names:  # of an earlier version
        return found
    pairs = zip(groups.to_pylist(), table[FACES].to_pylist(), strict=True)
    for (group, told), count in sorted(Counter(pairs).items(), key=str):
        if told in {"possible", "cleaned"}:
            found.setdefault(group, {})[f"{FACES}_{told}"] = count
    return found


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    found = pc.value_counts(pc.fill_null(column, "unknown")).to_pylist()
    return {row["values"]: row["counts"] for row in sorted(found, key=_value)}


def _value(row: Mapping[str, Any]) -> str:
    return str(row["values"])


def add_summaries(summaries: Iterable[Summary]) -> dict[str, dict[str, int]]:
    """Return the sums of several parts of a table."""
    total: dict[str, dict[str, int]] = {}
    for summary in summaries:
        for group, sums in summary.items():
            into = total.setdefault(group, {})
            for name, value in sums.items():
                into[name] = into.get(name, 0) + value
    return {
        group: {name: sums[name] for name in sorted(sums)}
        for group, sums in sorted(total.items())
    }


def light_columns(name: str) -> list[str]:
    """Return the columns of one of the dataset's tables without the heavy ones."""
    heavy = HEAVY.get(name, ())
    return [column for column in SCHEMAS[name].names if column not in heavy]


def column_of(name: str, table: pa.Table, column: str, n_rows: int) -> pa.Array:
    """Return a column of one of the dataset's tables, empty where it is lacking."""
    return column_or_none(table, SCHEMAS[name].field(column), n_rows)


def lazy_frame(
    name: str, parts: Iterable[pa.Table], loads: Sequence[Load]
) -> pd.DataFrame:
    """Return light columns of all parts as a dataframe; the heavy ones are loaded then.

    Values are those of `to_frame`, and so is the order of columns; rows are in the
    table's own order. Lists and structures become objects when they are looked at.
    """
    return to_lazy_frame(
        parts,
        loads,
        schema=SCHEMAS[name],
        keys=SORT_KEYS[name],
        later=HEAVY.get(name, ()),
    )


def news(
    wanted: pa.Table, there: pa.Table, key: str
) -> tuple[pa.Table, frozenset[str]]:
    """Return the rows that another table lacks or has otherwise; keys of the latter."""
    at = pc.index_in(wanted[key], value_set=there[key].combine_chunks())
    found = pc.is_valid(at)
    alike = found
    if there.num_rows:
        others = there.take(pc.fill_null(at, 0))
        for name in wanted.column_names:
            same = pc.fill_null(pc.equal(wanted[name], others[name]), False)
            alike = pc.and_(alike, same)
    fresh = wanted.filter(pc.invert(alike))
    other = wanted.filter(pc.and_not(found, alike))
    return fresh, frozenset(other[key].to_pylist())


def last_of_each(table: pa.Table, key: str) -> pa.Table:
    """Return the table sorted by a column, of rows with one key the last only."""
    numbered = table.append_column("row", pa.array(range(table.num_rows), pa.int64()))
    groups = numbered.group_by(key, use_threads=False).aggregate([("row", "max")])
    return table.take(groups["row_max"]).sort_by(key)


def pick_rows(table: pa.Table, column: str, values: Collection[str]) -> pa.Table:
    """Return the rows whose column holds one of the values."""
    return table.filter(pc.is_in(table[column], pa.array(sorted(values), pa.string())))


def drop_rows(table: pa.Table, column: str, values: Collection[str]) -> pa.Table:
    """Return the rows whose column holds none of the values."""
    if not values:
        return table
    gone = pc.is_in(table[column], pa.array(sorted(values), pa.string()))
    return table.filter(pc.invert(gone))


def part_to_parquet(part: Mapping[str, Any]) -> bytes:
    """Return what one task hands to the commit as a Parquet file of one row.

    Dictionaries would take several times what they are made from while they are made.
    """
    table = pa.Table.from_pylist([dict(part)], schema=PART)
    return to_parquet(table, dictionaries=False)


def frame_from_parquet(data: bytes) -> pd.DataFrame:
    """Return a Parquet file of records as a typed dataframe."""
    return to_frame(from_parquet(data))


def empty_frame(record: type) -> pd.DataFrame:
    """Return a dataframe without rows, typed as `frame_from_parquet` does."""
    return to_frame(record_schema(record).empty_table())
