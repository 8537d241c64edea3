"""CSV in and out: cells as they are, rows by number, errors without a cell."""

import csv
import io
import traceback
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomdask import sheets
from dicomdask.errors import OptionError, TableError

CELLS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
ROWS = st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=6)


def read(data, wanted=("PatientID",)):
    lines = sheets.split_lines(
        io.BytesIO(data if isinstance(data, bytes) else data.encode())
    )
    sheet = sheets.read_sheet(lines, table="t.csv", wanted=wanted)
    return sheet, list(sheet.rows)


@settings(deadline=None)
@given(ROWS, st.sampled_from(sheets.DELIMITERS), st.booleans())
def test_cells_come_out_as_they_went_in(rows, delimiter, marked):
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter)
    writer.writerows([["a", "PatientID", "b,;c"], *rows])
    data = (sheets.BOM if marked else b"") + stream.getvalue().encode()
    sheet, found = read(data)
    assert (sheet.names, sheet.delimiter) == (("a", "PatientID", "b,;c"), delimiter)
    assert found == [(n, list(row)) for n, row in enumerate(rows, 2)]
    written = sheets.SheetWriter(delimiter)
    written.add(sheet.names)
    for _, cells in found:
        written.add(cells)
    assert read(written.getvalue())[1] == found


@pytest.mark.parametrize(
    ("text", "delimiter", "names"),
    [
        ("PatientID,a;b;c;d\n", ",", ("PatientID", "a;b;c;d")),
        ("PatientID;a,b;c\n", ";", ("PatientID", "a,b", "c")),
        ("PatientID\ta\n", "\t", ("PatientID", "a")),
        ("PatientID\n", ",", ("PatientID",)),
        (' PatientID , "two\nlines"\n'.replace(', "', ',"'), ",", None),
    ],
)
def test_the_delimiter_is_the_one_that_finds_the_names(text, delimiter, names):
    sheet, _ = read(text)
    assert sheet.delimiter == delimiter
    assert sheet.names == (names or ("PatientID", "two\nlines"))


def test_rows_are_numbered_as_a_spreadsheet_shows_them():
    _, rows = read('PatientID,a\n1,"x\ny"\n\n007,\n')
    assert rows == [(2, ["1", "x\ny"]), (3, []), (4, ["007", ""])]


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        (b"", TableError, "t.csv has no header"),
        (b"\nPatientID\n", TableError, "t.csv has no header"),
        (b"QMARK,b\n1,2\n", OptionError, "names no column 'PatientID'"),
        (b"PatientID,PatientID\n1,2\n", OptionError, "'PatientID' 2 times"),
        (b"PatientID\n1\nQMARK\xff\n", TableError, "row 3 of t.csv is not UTF-8"),
        (b"PatientID\nQMARK,QMARK\n", TableError, "row 2 of t.csv has 2 cells"),
        (b'PatientID\n1\n"QMARK', TableError, "row 3 of t.csv cannot be read as"),
        (b'PatientID\n"QMARK"x\n', TableError, "row 2 of t.csv cannot be read as"),
        ("PatientID\nQMARK\n".encode("utf-16"), TableError, "row 1 of t.csv is not"),
        (b'PatientID,"\n' + b"QMARK\n" * 200_000, OptionError, "row 1 of t.csv, its"),
        (b"PatientID\n" + b"QMARK" * 40_000, TableError, "row 2 of t.csv cannot be"),
    ],
    ids=range(11),
)
def test_what_is_damaged_is_named_by_row(data, error, says):
    with pytest.raises(error) as caught:
        read(data)
    assert says in str(caught.value)
    shown = "".join(traceback.format_exception(caught.value))
    assert "QMARK" not in shown
    assert "0xff" not in shown


@settings(deadline=None)
@given(st.sets(st.integers(1, 60)))
def test_ranges_hold_the_numbers(numbers):
    ranges = sheets.to_ranges(numbers)
    assert [n for a, b in ranges for n in range(a, b + 1)] == sorted(numbers)
    assert all(b[0] > a[1] + 1 for a, b in pairwise(ranges))
    assert sheets.n_rows(ranges) == len(numbers)


@settings(deadline=None)
@given(st.lists(st.sampled_from([b"a", b"bcd", b"\n", b"\r\n"])), st.integers(1, 5))
def test_lines_are_those_of_the_file(parts, piece_bytes):
    data = b"".join(parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sheets, "PIECE_BYTES", piece_bytes)
        found = list(sheets.split_lines(io.BytesIO(data)))
    assert found == list(io.BytesIO(data))


def test_names_in_a_list():
    assert sheets.split_names('a, b c ,"d,e",') == ["a", "b c", "d,e"]
    with pytest.raises(OptionError, match="a list of columns"):
        sheets.split_names('"a"b')
