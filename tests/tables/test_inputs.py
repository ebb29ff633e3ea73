"""Every form and every column type that the contract takes, against the plain form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import duckdb
import nanoarrow as na
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from conftest import INPUT_SCHEMA, assert_same, plain, plain_layers, with_column
from reference import quantize

from pyarrowquant import QuantizationError, numpy_to_arrow_table, quantize_batch_arrow

pytestmark = pytest.mark.usefixtures("nothing_leaked")

STRINGS = [pa.string(), pa.large_string(), pa.string_view()]
INDICES = [pa.int8(), pa.int32(), pa.uint8(), pa.int16(), pa.uint16(), pa.uint32(), pa.int64()]


@pytest.fixture
def table(layers: dict[str, np.ndarray]) -> pa.Table:
    """The plain input."""
    return plain_layers(layers)


@pytest.fixture
def expected(table: pa.Table) -> pa.Table:
    """The result of the plain input."""
    return quantize_batch_arrow(table)


def dictionary_names(names: Sequence[str], index: pa.DataType, value: pa.DataType) -> pa.Array:
    """The names through a dictionary that has other entries too, one of them null."""
    entries = ["unused", None, *reversed(names)]
    return pa.DictionaryArray.from_arrays(
        pa.array([entries.index(name) for name in names], index), pa.array(entries, value)
    )


# Whole tables


def test_plain_form_equals_the_reference() -> None:
    weights = np.random.default_rng(1).standard_normal((5, 300)).astype(np.float32)
    row = quantize_batch_arrow(plain(["a"], [weights])).to_pylist()[0]
    packed, scales, zero_points = quantize(weights, 4, 128, "integer", "float32")
    assert row["quantized_data"] == bytes(packed)
    np.testing.assert_array_equal(np.float32(row["scales"]), np.ravel(scales))
    np.testing.assert_array_equal(np.float32(row["zero_points"]), np.ravel(zero_points))
    assert row["shape"] == [5, 300]


def rechunked(table: pa.Table) -> pa.Table:
    """The table with one row a chunk."""
    return pa.Table.from_batches(table.to_batches(max_chunksize=1))


def differing_chunks(table: pa.Table) -> pa.Table:
    """The table with other chunks in every column, empty ones among them."""
    cuts = {"layer_name": [0, 1, 1, 4], "weights": [0, 2, 3], "shape": [0, 0, 5]}
    columns = {}
    for name, starts in cuts.items():
        column = table[name].combine_chunks()
        ends = [*starts[1:], len(column)]
        columns[name] = pa.chunked_array(
            [column[start:end] for start, end in zip(starts, ends, strict=True)], column.type
        )
    return pa.table(columns)


def generated_reader(table: pa.Table) -> pa.RecordBatchReader:
    """A reader whose batches a Python generator makes."""

    def batches() -> Iterator[pa.RecordBatch]:
        yield from table.to_batches(max_chunksize=2)

    return pa.RecordBatchReader.from_batches(table.schema, batches())


def from_polars(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    assert frame.schema["weights"] == pl.List(pl.Float32)
    return frame


def from_polars_chunks(table: pa.Table) -> pl.DataFrame:
    return pl.concat([from_polars(table[:2]), from_polars(table[2:])], rechunk=False)


def from_duckdb(table: pa.Table) -> duckdb.DuckDBPyRelation:
    return duckdb.connect().from_arrow(table)


def from_pandas(table: pa.Table) -> pd.DataFrame:
    return pd.DataFrame({name: table[name].to_numpy() for name in table.column_names})


FORMS: dict[str, Callable[[pa.Table], Any]] = {
    "one row a chunk": rechunked,
    "chunks that differ by column": differing_chunks,
    "RecordBatch": lambda table: table.combine_chunks().to_batches()[0],
    "RecordBatchReader": lambda table: table.to_reader(max_chunksize=2),
    "generator reader": generated_reader,
    "polars": from_polars,
    "polars chunks": from_polars_chunks,
    "polars rechunked": lambda table: from_polars_chunks(table).rechunk(),
    "polars slice": lambda table: pl.concat([from_polars(table)] * 2)[3 : 3 + len(table)],
    "polars categorical": lambda table: from_polars(table).cast({"layer_name": pl.Categorical}),
    "duckdb": from_duckdb,
    "duckdb reader": lambda table: from_duckdb(table).to_arrow_reader(2048),
    "nanoarrow array": lambda table: na.Array(table.combine_chunks().to_batches()[0]),
    "nanoarrow c_array": lambda table: na.c_array(table.combine_chunks().to_batches()[0]),
    "nanoarrow stream": lambda table: na.ArrayStream(rechunked(table)),
    "nanoarrow c_array_stream": lambda table: na.c_array_stream(rechunked(table)),
    "pandas": from_pandas,
    "struct array": lambda table: table.to_struct_array().combine_chunks(),
    "reordered columns": lambda table: table.select(["shape", "weights", "layer_name"]),
    "other columns": lambda table: table.append_column("note", pa.nulls(len(table))).add_column(
        0, "group_size", pa.array(["?"] * len(table))
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_form_equals_plain(form: str, table: pa.Table, expected: pa.Table) -> None:
    if form == "polars slice":
        rows = [*range(3, len(table)), *range(3)]
        expected = quantize_batch_arrow(table.take(rows))
    assert_same(quantize_batch_arrow(FORMS[form](table)), expected)


def test_polars_array_column_equals_plain() -> None:
    weights = np.random.default_rng(2).standard_normal((4, 96)).astype(np.float32)
    names = [f"n{i}" for i in range(4)]
    frame = pl.DataFrame({"layer_name": names, "weights": weights})
    assert frame.schema["weights"] == pl.Array(pl.Float32, 96)
    bare = plain(names, list(weights))
    assert_same(quantize_batch_arrow(frame), quantize_batch_arrow(bare))


@pytest.mark.parametrize("start", [1, 3, 5])
def test_table_slice_at_odd_offset(start: int, table: pa.Table) -> None:
    sliced = pa.concat_tables([table, table]).combine_chunks().slice(start, 5)
    whole = pa.Table.from_pylist(sliced.to_pylist(), schema=INPUT_SCHEMA)
    assert_same(quantize_batch_arrow(sliced, sort=False), quantize_batch_arrow(whole, sort=False))


def test_columns_sliced_at_different_offsets(table: pa.Table, expected: pa.Table) -> None:
    def behind(name: str, count: int) -> pa.ChunkedArray:
        """The column as a slice behind `count` rows that must not be read."""
        column = table[name].combine_chunks()
        return pa.concat_arrays([pa.nulls(count, column.type), column])[count:]

    sliced = {"layer_name": behind("layer_name", 9), "weights": behind("weights", 1)}
    assert_same(quantize_batch_arrow(pa.table({**sliced, "shape": behind("shape", 13)})), expected)


@pytest.mark.parametrize(
    "thing",
    [pl.DataFrame({"layer_name": ["a"]}).lazy(), None, {"a": 1}, [1], "path", 3, pa.schema([])],
    ids=lambda thing: type(thing).__name__,
)
def test_what_is_no_table_is_named(thing: object) -> None:
    with pytest.raises((ValueError, TypeError), match=r"(?i)table") as caught:
        quantize_batch_arrow(thing)
    assert type(thing).__name__ in str(caught.value)


@pytest.mark.parametrize(
    "thing",
    [pa.array([1.0]), pa.chunked_array([[1.0]]), pl.Series("weights", [1.0])],
    ids=["Array", "ChunkedArray", "polars Series"],
)
def test_one_column_is_no_table(thing: object) -> None:
    with pytest.raises((ValueError, TypeError), match=r"(?i)table"):
        quantize_batch_arrow(thing)


# Names


@pytest.mark.parametrize("dtype", STRINGS, ids=str)
def test_name_type(dtype: pa.DataType, table: pa.Table, expected: pa.Table) -> None:
    names = table["layer_name"].cast(dtype)
    assert_same(quantize_batch_arrow(with_column(table, "layer_name", names)), expected)


@pytest.mark.parametrize("value", STRINGS, ids=str)
@pytest.mark.parametrize("index", INDICES, ids=str)
def test_dictionary_name(
    index: pa.DataType, value: pa.DataType, table: pa.Table, expected: pa.Table
) -> None:
    names = dictionary_names(table["layer_name"].to_pylist(), index, value)
    assert_same(quantize_batch_arrow(with_column(table, "layer_name", names)), expected)


def test_dictionaries_that_differ_by_chunk(table: pa.Table, expected: pa.Table) -> None:
    names = table["layer_name"].to_pylist()
    chunks = [
        dictionary_names(part, pa.int8(), pa.string())[cut:]
        for part, cut in ((names[:3], 0), (names[2:], 1))
    ]
    column = pa.chunked_array(chunks)
    assert_same(quantize_batch_arrow(with_column(table, "layer_name", column)), expected)


@pytest.mark.parametrize("value", STRINGS, ids=str)
def test_null_entry_of_a_dictionary_is_a_null_name(value: pa.DataType) -> None:
    names = pa.DictionaryArray.from_arrays(
        pa.array([0, 1], pa.int8()), pa.array(["a", None], value)
    )
    with pytest.raises(QuantizationError) as caught:
        quantize_batch_arrow(with_column(plain(["", ""], [[1.0], [2.0]]), "layer_name", names))
    errors = caught.value.errors
    assert [(error.layer_name, error.row, error.kind) for error in errors] == [(None, 1, "null")]


@pytest.mark.parametrize("dtype", STRINGS, ids=str)
def test_short_and_long_names_of_every_length(dtype: pa.DataType) -> None:
    # string_view keeps up to 12 bytes in the view itself and longer ones elsewhere
    names = ["é" * (size // 2) + "x" * (size % 2) for size in range(30)]
    table = plain(names, [[1.0, 2.0]] * len(names))
    table = with_column(table, "layer_name", pa.array(names, dtype))
    assert quantize_batch_arrow(table, sort=False)["layer_name"].to_pylist() == names


# Memory


def test_numpy_to_arrow_table_copies_nothing() -> None:
    arrays = {"a": np.ones((1024, 1024), np.float32), "b": np.ones(2**20, np.float32)}
    before = pa.total_allocated_bytes()
    table = numpy_to_arrow_table(arrays)
    assert pa.total_allocated_bytes() - before < 2**16
    assert table["weights"].num_chunks == len(arrays)
    addresses = [chunk.flatten().buffers()[1].address for chunk in table["weights"].chunks]
    assert addresses == [array.ctypes.data for array in arrays.values()]
    assert table["layer_name"].to_pylist() == ["a", "b"]
    assert table["shape"].to_pylist() == [[1024, 1024], [2**20]]


def test_quantizing_does_not_copy_the_input() -> None:
    table = plain(["a"], [np.ones((1024, 1024), np.float32)])
    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    result = quantize_batch_arrow(table)
    assert pool.bytes_allocated() - before < 2**16
    assert len(result) == 1
