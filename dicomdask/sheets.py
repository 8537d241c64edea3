"""Tables of people's own as CSV: rows in, rows out, each with its number. Pure.

Every cell is text and stays text: `007` is never 7. Rows are numbered as a spreadsheet
shows them: the header is row 1. No message holds what a cell holds, and a header that
lacks a wanted name may be a row of values, so its cells are not named either.
"""

import csv
import io
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import BinaryIO, Final

from dicomdask.errors import OptionError, TableError

DELIMITERS: Final = (",", ";", "\t")
BOM: Final = b"\xef\xbb\xbf"
PIECE_BYTES: Final = 1 << 20

Cells = list[str]
Ranges = tuple[tuple[int, int], ...]
"""Row numbers in order, as (first, last) of each run."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table whose rows are read as they are asked for.

    Parameters
    ----------
    names
        The cells of its header, without the spaces around them.
    delimiter
        What stands between two cells.
    rows
        Each row's number and cells; a blank line has no cells.
    """

    names: tuple[str, ...]
    delimiter: str
    rows: Iterator[tuple[int, Cells]]


@dataclass(frozen=True, slots=True)
class Join:
    """How a table of pseudonyms joins to the dataset; no value of it.

    Rows are numbered as a spreadsheet shows them: the header is row 1.

    Parameters
    ----------
    table, output, store
        Where the originals, the pseudonyms and the dataset are.
    commit
        The commit that was looked into; None where there is none yet.
    columns
        The name of each keyword's column in the table.
    kept, dropped
        The names of the other columns.
    n_rows, n_matched
        How many rows there are, and how many of them stand in the dataset.
    unmatched
        The rows that do not.
    emptied
        The rows of which a value was left out: the policy does not let it pass, or it
        is unclear which patient it belongs to.
    """

    table: str
    output: str
    store: str | None
    commit: int | None
    policy: str
    columns: Mapping[str, str]
    kept: tuple[str, ...]
    dropped: tuple[str, ...]
    n_rows: int
    n_matched: int
    unmatched: Ranges
    emptied: Ranges


def read_sheet(lines: Iterable[bytes], *, table: str, wanted: Collection[str]) -> Sheet:
    """Return the table that some lines hold.

    Parameters
    ----------
    lines
        The lines of a file in UTF-8, with or without a byte order mark.
    table
        What messages call it.
    wanted
        Names that its header has; the delimiter is the one that finds most of them.

    Raises
    ------
    TableError
        If it is empty or damaged; later, too, when a damaged row is reached.
    OptionError
        If its header lacks a wanted name, or has it twice.
    """
    texts = _decode(lines)
    try:
        first = _first_record(texts)
    except UnicodeDecodeError:
        raise _not_utf8(table, 1) from None
    delimiter = max(DELIMITERS, key=lambda one: _fitness(first, one, wanted))
    try:
        head = _records(first, delimiter)
    except csv.Error:
        raise _not_csv(table, 1) from None
    names = tuple(cell.strip() for cell in head[0]) if head else ()
    if not any(names):
        raise TableError(f"{table} has no header; row 1 must name the columns")
    for name in wanted:
        _check_name(name, names, table)
    return Sheet(names, delimiter, _rows(texts, delimiter, len(names), table))


def split_lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file that is read in large pieces."""
    rest = b""
    while piece := file.read(PIECE_BYTES):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line + b"\n"
    if rest:
        yield rest


def _check_name(name: str, names: Sequence[str], table: str) -> None:
    found = names.count(name)
    if not found:
        raise OptionError(
            f"row 1 of {table}, its header, names no column {name!r}; "
            "give the name as it stands there: --columns PatientID=NAME"
        )
    if found > 1:
        raise OptionError(
            f"row 1 of {table} names the column {name!r} {found} times; rename all "
            "but one"
        )


def _decode(lines: Iterable[bytes]) -> Iterator[str]:
    """Yield each line as text, so that a damaged one is met when its row is read."""
    for number, line in enumerate(lines):
        yield (line.removeprefix(BOM) if number == 0 else line).decode("utf-8")


def _first_record(texts: Iterator[str]) -> str:
    """Return the lines of the first record: quotes that are open hold line breaks."""
    record = ""
    for text in texts:
        record += text
        if record.count('"') % 2 == 0 or len(record) > csv.field_size_limit():
            break
    return record


def _records(text: str, delimiter: str) -> list[Cells]:
    stream = io.StringIO(text, newline="")
    return list(csv.reader(stream, delimiter=delimiter, strict=True))


def _fitness(text: str, delimiter: str, wanted: Collection[str]) -> tuple[int, int]:
    try:
        cells = [cell.strip() for cell in chain(*_records(text, delimiter)[:1])]
    except csv.Error:
        return (0, 0)
    return (sum(name in cells for name in wanted), len(cells))


def _rows(
    texts: Iterator[str], delimiter: str, n_cells: int, table: str
) -> Iterator[tuple[int, Cells]]:
    reader = csv.reader(texts, delimiter=delimiter, strict=True)
    number = 1
    while True:
        number += 1
        try:
            cells = next(reader, None)
        except UnicodeDecodeError:
            raise _not_utf8(table, number) from None
        except csv.Error:
            raise _not_csv(table, number) from None
        if cells is None:
            return
        if cells and len(cells) != n_cells:
            raise TableError(
                f"row {number} of {table} has {len(cells)} cells and the header "
                f"{n_cells}; mend the row"
            )
        yield number, cells


def _not_utf8(table: str, number: int) -> TableError:
    return TableError(f"row {number} of {table} is not UTF-8; save the table as UTF-8")


def _not_csv(table: str, number: int) -> TableError:
    return TableError(
        f"row {number} of {table} cannot be read as CSV (quotes that do not close, or "
        f"a cell of more than {csv.field_size_limit()} characters); mend the row"
    )


class SheetWriter:
    """Rows as the bytes of a CSV file in UTF-8, lines ended as RFC 4180 has it."""

    def __init__(self, delimiter: str) -> None:
        self._bytes = io.BytesIO()
        self._text = io.TextIOWrapper(self._bytes, encoding="utf-8", newline="")
        self._writer = csv.writer(self._text, delimiter=delimiter)

    def add(self, cells: Sequence[str]) -> None:
        """Add a row; without cells, a blank line."""
        self._writer.writerow(cells)

    def getvalue(self) -> bytes:
        """Return the file so far."""
        self._text.flush()
        return self._bytes.getvalue()


def to_ranges(numbers: Iterable[int]) -> Ranges:
    """Return numbers as runs: 5, 7, 8, 9 are (5, 5) and (7, 9)."""
    runs: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return tuple(runs)


def n_rows(ranges: Ranges) -> int:
    """Return how many numbers the runs hold."""
    return sum(last - first + 1 for first, last in ranges)


def split_names(text: str) -> list[str]:
    """Return the names in a list such as `a,"b,c"`, without the spaces around them."""
    try:
        found = list(chain(*csv.reader([text], strict=True, skipinitialspace=True)))
    except csv.Error:
        raise OptionError(
            'a list of columns is written a,b or, where a name holds a comma, a,"b,c"'
        ) from None
    return [name.strip() for name in found if name.strip()]
