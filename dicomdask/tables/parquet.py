"""Tables as Parquet files, bytes to bytes."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dicomdask.errors import ReadError


def to_parquet(table: pa.Table, *, dictionaries: bool = True) -> bytes:
    """Return a table as a Parquet file; the same table gives the same bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        store_schema=False,
        use_dictionary=dictionaries,
    )
    return bytes(sink.getvalue())


def from_parquet(
    data: bytes,
    columns: Sequence[str] | None = None,
    *,
    dictionaries: Sequence[str] = (),
) -> pa.Table:
    """Return the table of a Parquet file.

    Parameters
    ----------
    columns
        Which to read; all by default.
    dictionaries
        Columns of text to keep as dictionaries, as the file has them.

    Raises
    ------
    ReadError
        If the bytes are damaged.
    """
    try:
        return _read(pa.BufferReader(data), columns, dictionaries)
    except (pa.ArrowInvalid, OSError) as error:
        raise ReadError(f"a Parquet part is damaged ({type(error).__name__})") from None


def n_rows(data: bytes) -> int:
    """Return how many rows a Parquet file has, by its footer; ReadError if damaged."""
    try:
        return int(pq.read_metadata(pa.BufferReader(data)).num_rows)
    except (pa.ArrowInvalid, OSError) as error:
        raise ReadError(f"a Parquet part is damaged ({type(error).__name__})") from None


def _read(
    source: Any, columns: Sequence[str] | None = None, dictionaries: Sequence[str] = ()
) -> pa.Table:
    """Read without Arrow's own threads: the tasks are parallel already.

    Pools that Arrow starts also outlive the interpreter, which then may abort at exit.
    """
    alike = list(dictionaries)
    with pq.ParquetFile(source, pre_buffer=False, read_dictionary=alike) as file:
        return file.read(columns and list(columns), use_threads=False)
