"""Lazy columns: what pandas does with them equals what it does with plain objects."""

import pickle
from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicomdask.tables.frames import to_frame, to_lazy_frame

SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "number": pa.int64(),
        "text": pa.string(),
        "alike": pa.string(),
        "list": pa.list_(pa.float64()),
        "names": pa.list_(pa.string()),
        "struct": pa.struct({"a": pa.int64(), "b": pa.list_(pa.int64())}),
    }
)
LATER = ("text", "struct")
LAZY = ("text", "alike", "list", "names", "struct")
few = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))

text = st.text("abc", max_size=4)
row = st.fixed_dictionaries(
    {
        "key": st.text("abc", min_size=1, max_size=5),
        "number": st.none() | st.integers(-9, 9),
        "text": text,
        "alike": st.none() | st.sampled_from("xy"),
        "list": st.none() | st.lists(st.floats(-1, 1), max_size=3),
        "names": st.none() | st.lists(text, max_size=3),
        "struct": st.none()
        | st.fixed_dictionaries(
            {"a": st.integers(0, 9), "b": st.lists(st.integers(0, 9), max_size=2)}
        ),
    }
)
parts_of_rows = st.lists(st.lists(row, max_size=6), min_size=1, max_size=4)


class Made:
    """A table in parts, as one lazy and one plain dataframe; counts what is loaded."""

    def __init__(self, parts):
        rows = [
            {**one, "key": f"{one['key']}-{n}-{m}"}
            for n, part in enumerate(parts)
            for m, one in enumerate(part)
        ]
        sizes = np.cumsum([0, *map(len, parts)])
        self.parts = [
            pa.Table.from_pylist(rows[a:b], SCHEMA) for a, b in pairwise(sizes)
        ]
        self.loaded = []
        light = [self._light(part) for part in self.parts]
        self.lazy = to_lazy_frame(
            light,
            [Load(self, number) for number in range(len(parts))],
            schema=SCHEMA,
            keys=["key"],
            later=LATER,
        )
        whole = pa.concat_tables(self.parts).sort_by([("key", "ascending")])
        self.plain = to_frame(whole)

    def _light(self, part):
        part = part.drop_columns(list(LATER))
        at = part.column_names.index("alike")
        return part.set_column(at, "alike", part["alike"].dictionary_encode())


class Load:
    """What reads one column of a part."""

    def __init__(self, made, number):
        self.made, self.number = made, number

    def __call__(self, name):
        self.made.loaded.append((self.number, name))
        return self.made.parts[self.number][name].combine_chunks()

    def __reduce__(self):
        return _array, (self.made.parts[self.number],)


class _array:  # noqa: N801 - stands for a function that can be pickled
    def __init__(self, part):
        self.part = part

    def __call__(self, name):
        return self.part[name].combine_chunks()


def plainly(value):
    """Return a value such that equal ones are equal."""
    if isinstance(value, np.ndarray | list | tuple):
        return [plainly(one) for one in value]
    if isinstance(value, dict):
        return {key: plainly(one) for key, one in value.items()}
    return None if value is None or value is pd.NA or value != value else value


def same(one, other):
    assert list(one.columns) == list(other.columns)
    for name in one.columns:
        assert plainly(list(one[name])) == plainly(list(other[name])), name


@few
@given(parts_of_rows)
def test_values_are_those_of_plain_objects(parts):
    made = Made(parts)
    assert made.loaded == []
    same(made.lazy, made.plain)
    for name in LAZY:
        for found, wanted in zip(made.lazy[name], made.plain[name], strict=True):
            assert type(found) is type(wanted) or found is None
        assert made.lazy[name].isna().tolist() == made.plain[name].isna().tolist()


@few
@given(parts_of_rows, st.data())
def test_selections_are_those_of_plain_objects(parts, data):
    made = Made(parts)
    n = len(made.plain)
    mask = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    rows = data.draw(st.lists(st.integers(-n, n - 1), max_size=8)) if n else []
    selections = [
        lambda frame: frame[pd.array(mask, dtype="boolean")],
        lambda frame: frame[np.array(mask, bool)],
        lambda frame: frame.iloc[rows],
        lambda frame: frame.iloc[1:4],
        lambda frame: frame.iloc[::-1],
        lambda frame: frame.sort_values("number"),
        lambda frame: frame.reindex([*rows, 99, -99]),
        lambda frame: pd.concat([frame, frame.iloc[:2]]),
        lambda frame: frame.set_index("key").reset_index(),
        lambda frame: frame.merge(frame[["key"]].iloc[::2], on="key", how="right"),
        lambda frame: frame.copy(),
        lambda frame: frame.drop_duplicates("key"),
        lambda frame: frame.assign(other=1).drop(columns="other"),
    ]
    found = [select(made.lazy) for select in selections]
    assert made.loaded == []  # a selection looks at no value
    for one, select in zip(found, selections, strict=True):
        same(one, select(made.plain))


@few
@given(parts_of_rows)
def test_what_is_done_with_values_is_the_same(parts):
    made = Made(parts)
    lazy, plain = made.lazy, made.plain
    doings = [
        lambda frame: frame["text"].map(len),
        lambda frame: frame["text"].str.len(),
        lambda frame: frame["text"].str.contains("a"),
        lambda frame: frame["text"] == "a",
        lambda frame: frame["text"].astype(object),
        lambda frame: frame["list"].dropna().map(len),
        lambda frame: frame["alike"].fillna("none"),
        lambda frame: frame["alike"].value_counts().sort_index(),
        lambda frame: frame.groupby("alike")["number"].count(),
        lambda frame: frame["struct"].dropna().map(lambda one: one["a"]),
    ]
    for do in doings:
        assert plainly(list(do(lazy))) == plainly(list(do(plain)))
    back = pa.Table.from_pandas(lazy, preserve_index=False)
    assert back.num_rows == len(plain)
    assert plainly(back["list"].to_pylist()) == plainly(list(plain["list"]))
    assert str(len(plain)) in f"{lazy!r} {len(lazy)}"


@few
@given(parts_of_rows)
def test_pickled_columns_are_the_same(parts):
    made = Made(parts)
    same(pickle.loads(pickle.dumps(made.lazy)), made.plain)


def test_a_cell_that_is_set_changes_no_other_frame():
    made = Made([[{**dict.fromkeys(SCHEMA.names), "key": "a", "text": "t"}] * 3])
    other = made.lazy.copy()
    other.loc[1, "text"] = "u"
    assert list(other["text"]) == ["t", "u", "t"]
    assert list(made.lazy["text"]) == ["t", "t", "t"]


def test_one_value_loads_one_part_once():
    part = [{**dict.fromkeys(SCHEMA.names), "key": "a", "text": "t"}] * 3
    made = Made([part, part, part])
    assert made.lazy["text"].iloc[4] == "t"
    assert made.lazy.iloc[4]["text"] == "t"
    assert len(made.loaded) == len(set(made.loaded))
    assert {name for _, name in made.loaded} == {"text", "struct"}
    assert len({number for number, _ in made.loaded}) == 1


def test_a_column_that_a_part_was_written_without_is_empty():
    table = pa.table({"key": ["b", "a"], "number": pa.array([1, 2])})
    frame = to_lazy_frame([table], [], schema=SCHEMA, keys=["key"])
    assert frame["number"].tolist() == [2, 1]
    assert frame["list"].isna().all()
    assert list(frame.columns) == SCHEMA.names


def test_a_table_without_parts_is_typed():
    frame = to_lazy_frame([], [], schema=SCHEMA, keys=["key"], later=LATER)
    assert len(frame) == 0
    assert frame["number"].dtype == "Int64"
    assert list(frame["text"]) == []
    assert frame[frame["number"] > 3].empty


def test_what_is_no_text_has_no_texts():
    frame = to_lazy_frame([], [], schema=SCHEMA, keys=["key"], later=LATER)
    with pytest.raises(AttributeError):
        frame["list"].array.nothing  # noqa: B018 - it is asked for


def test_what_a_function_makes_of_values_selects_rows():
    part = [{**dict.fromkeys(SCHEMA.names), "key": key} for key in "abc"]
    part[1] |= {"list": [1, 2], "text": "t"}
    lazy = Made([part]).lazy
    is_there = lazy["list"].map(lambda found: found is not None)
    assert is_there.dtype == bool
    assert list(lazy[is_there]["key"]) == ["b-0-1"]
    assert list(lazy[lazy["text"].map(lambda text: text == "t")]["key"]) == ["b-0-1"]
    assert lazy["list"].apply(lambda found: 0 if found is None else 2).sum() == 2
