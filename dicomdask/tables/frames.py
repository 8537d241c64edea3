"""Tables as dataframes: whole, or with columns that wait until they are looked at."""

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from dicomdask.tables.lazy import Column, LazyArray, Numbers

Load = Callable[[str], pa.Array]
"""What reads one column of a part of a table, by its name."""

_TYPES: Final = {
    pa.int64(): pd.Int64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
}


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Return a table as a dataframe whose integers stay integers where some miss."""
    frame: pd.DataFrame = table.to_pandas(types_mapper=_TYPES.get, use_threads=False)
    return frame


def from_frame(frame: pd.DataFrame) -> pa.Table:
    """Return a dataframe as a table, its index left out."""
    return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata()


def to_lazy_frame(
    parts: Iterable[pa.Table],
    loads: Sequence[Load],
    *,
    schema: pa.Schema,
    keys: Sequence[str],
    later: Collection[str] = (),
) -> pd.DataFrame:
    """Return the parts of a table as one sorted dataframe, made as it is looked at.

    Parameters
    ----------
    parts
        What was read of each part: all columns but `later`.
    loads
        What reads one column of each part.
    schema
        All columns, in their order.
    keys
        The columns by which rows are sorted.
    later
        The columns that are loaded, part by part, when they are looked at.
    """
    pieces, lengths = _by_column(parts, [f for f in schema if f.name not in later])
    rows = _order([pieces[key] for key in keys])
    found: dict[str, Any] = {}
    for field in schema:
        is_text = pa.types.is_string(field.type)
        if field.name in later:
            waiting = [partial(load, field.name) for load in loads]
            column = Column(waiting, lengths, is_text=is_text)
            found[field.name] = LazyArray(column, rows)
            continue
        mine = pieces.pop(field.name)  # one column at a time is held twice
        if pa.types.is_nested(field.type) or any(map(_is_dictionary, mine)):
            column = Column(mine, lengths, is_text=is_text)
            found[field.name] = LazyArray(column, rows)
        else:
            taken = pa.chunked_array(mine, field.type).take(pa.array(rows))
            found[field.name] = to_frame(pa.table({field.name: taken}))[field.name]
    return pd.DataFrame(found)


def _by_column(
    parts: Iterable[pa.Table], fields: Sequence[pa.Field]
) -> tuple[dict[str, list[pa.Array]], list[int]]:
    """Return the pieces of each column, and how long they are."""
    pieces: dict[str, list[pa.Array]] = {field.name: [] for field in fields}
    lengths = []
    for part in parts:
        lengths.append(part.num_rows)
        for field in fields:
            pieces[field.name].append(column_or_none(part, field, part.num_rows))
    return pieces, lengths


def column_or_none(table: pa.Table, field: pa.Field, n_rows: int) -> pa.Array:
    """Return a column of a table; if it has none of this name, one without values."""
    if field.name not in table.column_names:
        return pa.nulls(n_rows, field.type)
    return table[field.name].combine_chunks()


def _order(keys: Sequence[Sequence[pa.Array]]) -> Numbers:
    """Return the numbers of all rows in the order of some columns."""
    names = [str(number) for number in range(len(keys))]
    if not keys[0]:
        return np.empty(0, np.int64)
    table = pa.table([pa.chunked_array(pieces) for pieces in keys], names)
    order = pc.sort_indices(table, sort_keys=[(name, "ascending") for name in names])
    return np.asarray(order).astype(np.int64)


def _is_dictionary(piece: pa.Array) -> bool:
    return bool(pa.types.is_dictionary(piece.type))
