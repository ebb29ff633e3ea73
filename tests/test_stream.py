"""Streams of results: lazy, in input order, bounded, and released when nobody reads on."""

from __future__ import annotations

import gc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import (
    INPUT_SCHEMA,
    Batches,
    OnlyStream,
    alive_bytes,
    assert_same,
    numbered_batches,
    plain,
    plain_layers,
)

from pyarrowquant import (
    QuantizationError,
    SkippedLayerWarning,
    quantize_batch_arrow,
    quantize_stream,
)

pytestmark = pytest.mark.usefixtures("nothing_leaked")

NAN = float("nan")


def unsorted(source: Any, *positional: Any, **options: Any) -> pa.Table:
    """Quantize in one call what the stream quantizes in many."""
    return quantize_batch_arrow(source, *positional, sort=False, **options)


# Equal to the call that returns a table


@pytest.mark.parametrize(
    "options",
    [{}, {"bit_width": 3, "group_size": 8}, {"metrics": True, "zero_point": "float"}],
    ids=str,
)
def test_stream_equals_table(options: dict[str, Any], layers: dict[str, np.ndarray]) -> None:
    table = plain_layers(layers)
    reader = quantize_stream(table.to_reader(max_chunksize=2), **options)
    assert isinstance(reader, pa.RecordBatchReader)
    assert_same(reader.read_all(), unsorted(table, **options))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda table: table,
        lambda table: table.combine_chunks().to_batches()[0],
        OnlyStream,
        pl.from_arrow,
    ],
    ids=["Table", "RecordBatch", "one dunder", "polars"],
)
def test_stream_takes_every_form(wrap: Any, layers: dict[str, np.ndarray]) -> None:
    table = plain_layers(layers)
    assert_same(quantize_stream(wrap(table)).read_all(), unsorted(table))


def test_input_order() -> None:
    names = ["b", "a", "C", "a", "b"]
    table = plain(names, [[1.0] * size for size in range(1, 6)])
    for rows in (1, 2, 5):
        result = quantize_stream(table.to_reader(max_chunksize=rows), threads=2).read_all()
        assert result["layer_name"].to_pylist() == names
        assert result["shape"].to_pylist() == [[1], [2], [3], [4], [5]]


def test_schema_and_metadata_are_known_before_the_first_batch() -> None:
    source = Batches(numbered_batches(2))
    expected = quantize_batch_arrow(plain(["a"], [[1.0]]), scale_dtype="float16")
    reader = quantize_stream(source.reader(), scale_dtype="float16")
    assert reader.schema.equals(expected.schema, check_metadata=True)
    assert source.pulled == 0


@pytest.mark.parametrize("batches", [[], [pa.RecordBatch.from_pylist([], INPUT_SCHEMA)]])
def test_nothing_in_gives_nothing_out(batches: list[pa.RecordBatch]) -> None:
    result = quantize_stream(Batches(batches).reader()).read_all()
    assert_same(result, quantize_batch_arrow(plain([], [])))


# Lazy and bounded


def test_one_source_batch_is_pulled_at_a_time() -> None:
    batches = numbered_batches(5)
    source = Batches(batches)
    reader = quantize_stream(source.reader())
    assert source.pulled == 0
    for read, batch in enumerate(batches, start=1):
        result = reader.read_next_batch()
        assert source.pulled == read
        assert result["layer_name"].to_pylist() == batch["layer_name"].to_pylist()
    with pytest.raises(StopIteration):
        reader.read_next_batch()


def test_memory_is_bounded_by_a_few_batches() -> None:
    count, values = 100, 2**18

    def batches() -> Any:
        for row in range(count):
            weights = np.full(values, row, np.float32)
            yield plain([f"n{row}"], [weights]).to_batches()[0]

    go_before, arrow_before = alive_bytes()
    go_most = arrow_most = 0
    source = pa.RecordBatchReader.from_batches(INPUT_SCHEMA, batches())
    for row, batch in enumerate(quantize_stream(source)):
        assert batch["layer_name"].to_pylist() == [f"n{row}"]
        del batch
        go, arrow = alive_bytes()
        go_most, arrow_most = max(go_most, go), max(arrow_most, arrow)
    # a result is values/2 bytes and its scales, an input 4 * values
    assert go_most - go_before <= 4 * values
    assert arrow_most - arrow_before <= 4 * 4 * values


# Errors


def with_bad_rows() -> list[pa.RecordBatch]:
    """Return three batches of three layers; rows 1, 5 and 6 of the whole are bad."""
    names = [f"n{row}" for row in range(9)]
    weights = [[NAN if row in (1, 5, 6) else 1.0] * (row + 1) for row in range(9)]
    return plain(names, weights).to_batches(max_chunksize=3)


def test_error_names_the_row_of_the_whole_input() -> None:
    reader = quantize_stream(Batches(with_bad_rows()[:1] + with_bad_rows()[1:]).reader())
    with pytest.raises(QuantizationError, match="'n1'") as caught:
        reader.read_all()
    assert [error.row for error in caught.value.errors][:1] == [1]


def test_error_in_a_later_batch_comes_after_the_good_ones() -> None:
    batches = numbered_batches(2) + with_bad_rows()[1:]
    reader = quantize_stream(Batches(batches).reader())
    assert [reader.read_next_batch().num_rows for _ in range(2)] == [1, 1]
    with pytest.raises(QuantizationError, match="'n5'") as caught:
        reader.read_next_batch()
    error = caught.value.errors[0]
    assert (error.layer_name, error.row, error.index, error.kind) == ("n5", 4, 0, "non_finite")


def test_continue_on_error_leaves_the_bad_layers_out() -> None:
    batches = with_bad_rows()
    reader = quantize_stream(Batches(batches).reader(), continue_on_error=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = reader.read_all()
    good = pa.Table.from_batches(batches).take([0, 2, 3, 4, 7, 8])
    assert_same(result, unsorted(good))
    assert [warning.category for warning in caught] == [SkippedLayerWarning] * 3
    for warning, name in zip(caught, ("'n1'", "'n5'", "'n6'"), strict=True):
        assert name in str(warning.message)


def test_batch_of_bad_layers_only_does_not_end_the_stream() -> None:
    bad = plain(["x", "y"], [[NAN], [NAN]]).to_batches()
    good = numbered_batches(2)
    reader = quantize_stream(Batches([good[0], *bad, good[1]]).reader(), continue_on_error=True)
    with pytest.warns(SkippedLayerWarning) as caught:
        result = reader.read_all()
    assert len(caught) == 2
    assert result["layer_name"].to_pylist() == ["layer0", "layer1"]


@pytest.mark.parametrize("continue_on_error", [False, True])
def test_failing_source_raises_in_both_modes(continue_on_error: bool) -> None:
    source = Batches(numbered_batches(2), fails_with=RuntimeError("the disk is on fire"))
    reader = quantize_stream(OnlyStream(source.reader()), continue_on_error=continue_on_error)
    assert [reader.read_next_batch().num_rows for _ in range(2)] == [1, 1]
    with pytest.raises(Exception, match="the disk is on fire"):
        reader.read_next_batch()


def test_wrong_schema_raises_at_the_call() -> None:
    schema = pa.schema({"layer_name": pa.string(), "weights": pa.int32()})
    source = Batches([], schema)
    with pytest.raises(ValueError, match="Column 'weights' has type int32"):
        quantize_stream(source.reader())


# Letting go


def test_source_is_released_at_the_end() -> None:
    source = Batches(numbered_batches(3))
    reader = quantize_stream(OnlyStream(source.reader()))
    assert len(reader.read_all()) == 3
    del reader
    assert source.released


@pytest.mark.parametrize("read", [0, 1])
def test_dropping_the_reader_releases_the_source(read: int) -> None:
    source = Batches(numbered_batches(5))
    reader = quantize_stream(OnlyStream(source.reader()))
    for _ in range(read):
        reader.read_next_batch()
    del reader
    gc.collect()
    assert source.released
    assert source.pulled == read


def test_batches_outlive_the_reader() -> None:
    reader = quantize_stream(Batches(numbered_batches(2)).reader())
    batch = reader.read_next_batch()
    before = batch.to_pylist()
    reader.close()
    del reader
    gc.collect()
    assert batch.to_pylist() == before


# Where the batches go


def test_batches_go_straight_to_parquet(tmp_path: Path, layers: dict[str, np.ndarray]) -> None:
    table = plain_layers(layers)
    reader = quantize_stream(table.to_reader(max_chunksize=2))
    with pq.ParquetWriter(tmp_path / "q.parquet", reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)
    back = pq.read_table(tmp_path / "q.parquet")
    assert back.equals(unsorted(table))
    assert b"pyarrowquant" in back.schema.metadata


def test_parquet_in_parquet_out(tmp_path: Path) -> None:
    table = pa.Table.from_batches(numbered_batches(6))
    pq.write_table(table, tmp_path / "w.parquet", row_group_size=2)
    with pq.ParquetFile(tmp_path / "w.parquet") as file:
        source = pa.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches(2))
        result = quantize_stream(source).read_all()
    assert result.equals(unsorted(table))


def test_stream_of_a_stream_shows_the_arrow_dunder(layers: dict[str, np.ndarray]) -> None:
    table = plain_layers(layers)
    result = pa.table(OnlyStream(quantize_stream(table)))
    assert result.equals(unsorted(table))
