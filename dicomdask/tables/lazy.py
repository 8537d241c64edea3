"""Columns of a dataframe that are read, or made into objects, only where looked at.

Lists, structures and long texts as Python objects take ten times their bytes in Arrow,
and most of those who open a dataset never look at them.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any, Final, cast

import numpy as np
import pandas as pd
import pyarrow as pa
from pandas.api.extensions import ExtensionArray, ExtensionDtype, take

Objects = np.ndarray[Any, np.dtype[np.object_]]
Numbers = np.ndarray[Any, np.dtype[np.int64]]
Load = Callable[[], pa.Array]

_Kind = type["LazyArray"]

MISSING: Final = -1
"""The row of a value that is none: what a join does not find."""


class Column:
    """The values of one column, in pieces that are loaded when first looked at.

    Parameters
    ----------
    pieces
        Arrow arrays, or what returns them.
    lengths
        How many values each has.
    is_text
        Whether the values are texts.
    """

    __slots__ = ("_pieces", "_starts", "is_text")

    def __init__(
        self,
        pieces: Sequence[pa.Array | Load],
        lengths: Sequence[int],
        *,
        is_text: bool,
    ) -> None:
        self._pieces = list(pieces)
        self._starts = [0, *accumulate(lengths)]
        self.is_text = is_text

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def nbytes(self) -> int:
        """Return the bytes of what is loaded."""
        return sum(one.nbytes for one in self._pieces if not callable(one))

    def _piece(self, number: int) -> pa.Array:
        found = self._pieces[number]
        if callable(found):
            found = self._pieces[number] = found()
        return found

    def value(self, row: int) -> Any:
        """Return one value as pandas holds it: an array, a mapping, a text or None."""
        number = bisect_right(self._starts, row) - 1
        [found] = _objects(self._piece(number).slice(row - self._starts[number], 1))
        return found

    def values(self, rows: Numbers) -> Objects:
        """Return the values of some rows, None for those that are `MISSING`."""
        found = np.full(len(rows), None, object)
        numbers = np.searchsorted(self._starts, rows, "right") - 1
        for number in np.unique(numbers[rows != MISSING]):
            mine = (numbers == number) & (rows != MISSING)
            places = pa.array(rows[mine] - self._starts[number])
            found[mine] = _objects(self._piece(int(number)).take(places))
        return found


def _objects(array: pa.Array) -> Objects:
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    found = np.empty(len(array), object)
    found[:] = array.to_pandas().astype(object)
    found[np.asarray(array.is_null())] = None
    return found


class LazyDtype(ExtensionDtype):
    """Python objects that are made, and perhaps read, when they are looked at."""

    name = "lazy"
    type = object
    kind = "O"
    na_value = None

    @classmethod
    def construct_array_type(cls) -> "_Kind":
        """Return the arrays that have this dtype."""
        return LazyArray


class LazyTextDtype(LazyDtype):
    """Texts of that kind: what pandas does with texts, it does with them."""

    name = "lazy text"
    type = str


class LazyArray(ExtensionArray):
    """Rows of a `Column`; a selection of them loads nothing.

    Parameters
    ----------
    column
        Where the values are.
    rows
        Which of them, in which order.
    """

    def __init__(self, column: Column, rows: Numbers) -> None:
        self._column, self._rows = column, rows

    @classmethod
    def _from_sequence(
        cls, scalars: Sequence[Any], *, dtype: Any = None, copy: bool = False
    ) -> "LazyArray":
        del copy
        found = _Given(scalars, is_text=isinstance(dtype, LazyTextDtype))
        return cls(cast("Column", found), np.arange(len(scalars)))

    @classmethod
    def _from_factorized(cls, values: Objects, original: "LazyArray") -> "LazyArray":
        return cls._from_sequence(list(values), dtype=original.dtype)

    @classmethod
    def _concat_same_type(cls, to_concat: Sequence["LazyArray"]) -> "LazyArray":
        columns = {id(one._column): one._column for one in to_concat}
        if len(columns) == 1:
            [column] = columns.values()
            return cls(column, np.concatenate([one._rows for one in to_concat]))
        values = [value for one in to_concat for value in one]
        return cls._from_sequence(values, dtype=to_concat[0].dtype)

    @property
    def dtype(self) -> LazyDtype:
        """Return the dtype: that of texts, or of other objects."""
        return LazyTextDtype() if self._column.is_text else LazyDtype()

    @property
    def nbytes(self) -> int:
        """Return the bytes of the rows and of what is loaded."""
        return self._rows.nbytes + self._column.nbytes

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Any]:
        """Yield all values, made at once and not one by one."""
        return iter(np.asarray(self))

    def __getitem__(self, item: Any) -> Any:
        if isinstance(item, int | np.integer):
            row = int(self._rows[item])
            return None if row == MISSING else self._column.value(row)
        item = pd.api.indexers.check_array_indexer(self, item)
        return type(self)(self._column, self._rows[item])

    def __setitem__(self, key: Any, value: Any) -> None:
        """Set values of this array alone; it is read for that."""
        values = np.asarray(self)
        values[key] = value
        self._column = cast(
            "Column", _Given(list(values), is_text=self._column.is_text)
        )
        self._rows = np.arange(len(values))

    def _cast_pointwise_result(self, values: Any) -> Any:
        """Return what a function made of the values with a dtype of its own."""
        return pd.Series(list(values)).array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Objects:
        del copy
        found = self._column.values(self._rows)
        return found if dtype is None else found.astype(dtype)

    def __getattr__(self, name: str) -> Any:
        """Answer what pandas asks an array of texts: `Series.str` works."""
        if not name.startswith("_str_"):
            raise AttributeError(name)
        return getattr(pd.Series(np.asarray(self), dtype="string").array, name)

    def __arrow_array__(self, type: Any = None) -> pa.Array:  # noqa: A002 - its name
        """Return the values as Arrow's own."""
        return pa.array(np.asarray(self), type=type)

    def __eq__(self, other: object) -> Any:
        if isinstance(other, pd.Series | pd.DataFrame | pd.Index):
            return NotImplemented
        return np.asarray(self) == other

    def __reduce__(self) -> tuple[type["LazyArray"], tuple[Column, Numbers]]:
        return type(self), (self._column, self._rows)

    def isna(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return where there is no value."""
        return np.array([value is None for value in np.asarray(self)], bool)

    def take(
        self, indices: Any, *, allow_fill: bool = False, fill_value: Any = None
    ) -> "LazyArray":
        """Return some rows, in this order; those below 0 are missing if they may be."""
        del fill_value
        fill = MISSING if allow_fill else None
        rows = take(self._rows, indices, allow_fill=allow_fill, fill_value=fill)
        return type(self)(self._column, cast("Numbers", rows))

    def copy(self) -> "LazyArray":
        """Return the same rows; values never change."""
        return type(self)(self._column, self._rows.copy())


class _Given:
    """A column of objects that are there already."""

    __slots__ = ("_values", "is_text")

    nbytes = 0

    def __init__(self, values: Sequence[Any], *, is_text: bool) -> None:
        self.is_text = is_text
        self._values = np.empty(len(values), object)
        self._values[:] = list(values)

    def __len__(self) -> int:
        return len(self._values)

    def value(self, row: int) -> Any:
        return self._values[row]

    def values(self, rows: Numbers) -> Objects:
        found = self._values[rows]
        found[rows == MISSING] = None
        return cast("Objects", found)
