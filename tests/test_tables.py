"""Rows to Parquet and back, in memory."""

import io
from dataclasses import fields, replace
from typing import get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomdask import tables
from dicomdask.errors import ReadError
from dicomdask.model import (
    Instance,
    Outcome,
    PlannedFrame,
    Receipt,
    SourceFile,
    Verdict,
)
from tests.strategies import make_planned_instance, messy_series

SAMPLES = {
    int: 3,
    int | None: 5,
    bytes: b"packed",
    float: 0.25,
    bool: True,
    tuple[int, ...]: (1, 2),
}


def make_record(record):
    """Return an example of a record; fields of other types are text."""
    hints = get_type_hints(record)
    samples = {field.name: SAMPLES.get(hints[field.name]) for field in fields(record)}
    samples["position"] = (0.0, -1.5, 2.5)
    return record(
        **{
            field.name: field.name
            if samples[field.name] is None
            else samples[field.name]
            for field in fields(record)
        }
    )


RECORDS = {
    Instance: make_planned_instance(),
    **{
        record: make_record(record)
        for record in (SourceFile, Outcome, Verdict, Receipt, PlannedFrame)
    },
}


def input_row(key, **columns):
    """Return one row of the table of inputs."""
    row = {
        "source_key": key,
        "outcome": "stored",
        "stage": "encode",
        "code": "stored",
        "reason": "Stored.",
        "source_bytes": 10,
    }
    return {**row, **columns}


class TestRecords:
    @pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.__name__)
    @pytest.mark.parametrize("n", [0, 1, 3])
    def test_round_trip(self, record, n):
        rows = [RECORDS[record]] * n
        data = tables.records_to_parquet(record, rows)
        assert tables.records_from_parquet(record, data) == rows

    @settings(max_examples=40)
    @given(messy_series())
    def test_of_any_header(self, instances):
        data = tables.records_to_parquet(Instance, instances)
        found = tables.records_from_parquet(Instance, data)
        assert found == instances
        for one, other in zip(found, instances, strict=True):
            for field in fields(Instance):
                before, after = getattr(other, field.name), getattr(one, field.name)
                assert type(after) is type(before), field.name

    def test_missing_stays_missing(self):
        optional = {
            field.name: None
            for field in fields(Instance)
            if "None" in str(field.type) and "tuple" not in str(field.type)
        }
        assert len(optional) > 30
        instance = replace(make_planned_instance(), **optional)
        data = tables.records_to_parquet(Instance, [instance])
        assert tables.records_from_parquet(Instance, data) == [instance]

    @given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40))
    def test_any_text(self, text):
        file = SourceFile(text, 0, text)
        data = tables.records_to_parquet(SourceFile, [file])
        assert tables.records_from_parquet(SourceFile, data) == [file]

    def test_floats_are_kept_to_the_bit(self):
        position = (0.1, -1e-300, 12345.678901234567)
        instance = make_planned_instance(image_position_patient=position)
        data = tables.records_to_parquet(Instance, [instance])
        (found,) = tables.records_from_parquet(Instance, data)
        assert found.image_position_patient == position

    def test_columns_are_typed_though_no_row_has_a_value(self):
        schema = tables.record_schema(Instance)
        types = {field.name: field.type for field in schema}
        assert types["echo_time"] == pa.float64()
        assert types["rows"] == pa.int64()
        assert types["is_mosaic"] == pa.bool_()
        assert types["image_type"] == pa.list_(pa.string())
        assert types["image_position_patient"] == pa.list_(pa.float64())
        assert types["patient_id"] == pa.string()

    def test_frames_keep_integers_where_some_miss(self, tmp_path):
        rows = [make_planned_instance(1), make_planned_instance(2, echo_numbers=5)]
        path = tmp_path / "part.parquet"
        path.write_bytes(tables.records_to_parquet(Instance, rows))
        frame = tables.frame_from_parquet(path.read_bytes())
        assert frame["echo_numbers"].dtype == "Int64"
        assert frame["echo_numbers"].isna().tolist() == [True, False]
        empty = tables.empty_frame(Instance)
        assert len(empty) == 0
        assert list(empty.columns) == list(frame.columns)
        assert empty["echo_numbers"].dtype == "Int64"


class TestBytes:
    def test_the_same_rows_give_the_same_bytes(self):
        rows = [make_planned_instance(k) for k in range(1, 50)]
        texts = {tables.records_to_parquet(Instance, list(rows)) for _ in range(3)}
        assert len(texts) == 1

    def test_how_a_table_was_put_together_does_not_show(self):
        rows = [input_row(f"{k:02d}") for k in range(20)]
        whole = tables.to_table("inputs", rows)
        pieces = [tables.to_table("inputs", rows[k : k + 3]) for k in range(0, 20, 3)]
        joined = tables.concat("inputs", pieces)
        assert tables.to_parquet(joined) == tables.to_parquet(whole)
        sliced = tables.concat("inputs", [whole, whole]).slice(20, 20)
        assert tables.to_parquet(sliced) == tables.to_parquet(whole)

    def test_the_order_of_rows_ends_in_the_sort(self):
        rows = [input_row(f"{k:02d}") for k in range(20)]
        tables_ = (tables.to_table("inputs", some) for some in (rows, rows[::-1]))
        texts = {tables.to_parquet(tables.sort("inputs", t)) for t in tables_}
        assert len(texts) == 1

    @pytest.mark.parametrize("data", [b"", b"PAR1", b"no parquet at all", b"\0" * 999])
    def test_what_is_no_parquet_is_a_read_error(self, data):
        with pytest.raises(ReadError, match="damaged"):
            tables.from_parquet(data)
        with pytest.raises(ReadError):
            tables.records_from_parquet(Instance, data)

    def test_neither_is_a_file_cut_short(self):
        data = tables.to_parquet(tables.to_table("inputs", [input_row("a")]))
        for stop in (len(data) - 1, len(data) // 2, 8):
            with pytest.raises(ReadError):
                tables.from_parquet(data[:stop])

    def test_the_message_holds_no_value(self):
        secret = "SMITH^JOHN"
        data = tables.to_parquet(
            tables.to_table("inputs", [input_row("a", reason=secret)])
        )
        with pytest.raises(ReadError) as caught:
            tables.from_parquet(data[:-3])
        assert secret not in str(caught.value)
        assert caught.value.__suppress_context__

    def test_any_reader_opens_a_part(self):
        data = tables.to_parquet(tables.to_table("inputs", [input_row("a")]))
        assert pq.ParquetFile(io.BytesIO(data)).read().to_pylist() == [input_row("a")]


class TestTables:
    @pytest.mark.parametrize("name", tables.SCHEMAS)
    def test_an_empty_one_has_all_columns(self, name):
        empty = tables.concat(name, [])
        assert empty.num_rows == 0
        assert empty.schema == tables.SCHEMAS[name]
        back = tables.from_parquet(tables.to_parquet(empty))
        assert back.schema.names == tables.SCHEMAS[name].names

    @pytest.mark.parametrize("name", tables.SCHEMAS)
    def test_sort_keys_are_columns(self, name):
        assert set(tables.SORT_KEYS[name]) <= set(tables.SCHEMAS[name].names)

    def test_some_columns(self):
        data = tables.to_parquet(tables.to_table("inputs", [input_row("a")]))
        found = tables.from_parquet(data, columns=["code"])
        assert found.to_pylist() == [{"code": "stored"}]

    def test_rows_are_dropped_by_a_column(self):
        table = tables.to_table("inputs", [input_row("a"), input_row("b")])
        assert tables.drop_rows(table, "source_key", {"a", "z"}).to_pylist() == [
            input_row("b")
        ]
        assert tables.drop_rows(table, "source_key", set()) is table

    def test_a_row_without_a_value_is_not_dropped(self):
        table = tables.to_table("inputs", [input_row(None), input_row("b")])
        left = tables.drop_rows(table, "source_key", {"b"}).to_pylist()
        assert left == [input_row(None)]

    def test_a_part_is_one_row_of_nested_tables(self):
        frame = dict.fromkeys(tables.FRAMES.names)
        frame |= {"volume_id": "ab", "z": 3, "ImagePositionPatient": [0.0, 1.0, 2.0]}
        part = {
            "volume": dict.fromkeys(tables.VOLUMES.names) | {"volume_id": "ab"},
            "frames": [frame, frame],
            "instances": [],
            "values": [1, 2],
            "counts": [3, 4],
            "n_padding": 0,
        }
        (found,) = tables.from_parquet(tables.part_to_parquet(part)).to_pylist()
        assert found["frames"] == [frame, frame]
        assert found["volume"]["volume_id"] == "ab"
        assert found["counts"] == [3, 4]
