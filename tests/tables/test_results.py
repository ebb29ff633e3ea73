"""Results as tables to keep: schema, metadata, files, and their memory."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from conftest import INPUT_SCHEMA, RESULT_SCHEMA, assert_same, plain, plain_layers

from pyarrowquant import dequantize_batch_arrow, numpy_to_arrow_table, quantize_batch_arrow

pytestmark = pytest.mark.usefixtures("nothing_leaked")

METRICS = ["mse", "relative_error", "cosine", "max_abs_error"]


@pytest.mark.parametrize("metrics", [False, True])
def test_result_schema(metrics: bool, layers: dict[str, np.ndarray]) -> None:
    expected = RESULT_SCHEMA
    for name in METRICS if metrics else []:
        expected = expected.append(pa.field(name, pa.float64()))
    result = quantize_batch_arrow(plain_layers(layers), metrics=metrics)
    assert result.schema.equals(expected)
    assert isinstance(result, pa.Table)
    result.validate(full=True)
    assert all(column.null_count == 0 for column in result.columns)


@pytest.mark.parametrize("bit_width", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("group_size", [8, 128, -1])
def test_options_are_stored_in_every_row(bit_width: int, group_size: int) -> None:
    result = quantize_batch_arrow(
        plain(["a", "b"], [np.ones((3, 50))] * 2), bit_width, group_size=group_size
    )
    groups = 3 * (1 if group_size == -1 else -(-50 // group_size))
    for row in result.to_pylist():
        assert (row["bit_width"], row["group_size"]) == (bit_width, group_size)
        assert len(row["quantized_data"]) == 3 * -(-50 * bit_width // 8)
        assert len(row["scales"]) == len(row["zero_points"]) == groups


@pytest.mark.parametrize("zero_point", ["integer", "float", "symmetric"])
@pytest.mark.parametrize("scale_dtype", ["float32", "float16", "bfloat16"])
def test_schema_metadata(zero_point: str, scale_dtype: str) -> None:
    table = plain(["a"], [[1.0, 2.0]])
    result = quantize_batch_arrow(table, zero_point=zero_point, scale_dtype=scale_dtype)
    metadata = json.loads(result.schema.metadata[b"pyarrowquant"])
    version = metadata.pop("version")
    assert metadata.pop("format_version") == 1
    assert metadata == {"method": "rtn", "zero_point": zero_point, "scale_dtype": scale_dtype}
    assert version


def test_typed_empty_table_gives_a_typed_empty_table() -> None:
    full = quantize_batch_arrow(plain(["a"], [[1.0]]))
    for empty in (INPUT_SCHEMA.empty_table(), pa.Table.from_batches([], INPUT_SCHEMA)):
        result = quantize_batch_arrow(empty)
        assert len(result) == 0
        assert result.schema.equals(full.schema, check_metadata=True)
        assert len(dequantize_batch_arrow(result)) == 0


def to_parquet(table: pa.Table, path: Path) -> pa.Table:
    pq.write_table(table, path)
    return pq.read_table(path)


def to_ipc(table: pa.Table, path: Path) -> pa.Table:
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def to_feather(table: pa.Table, path: Path) -> pa.Table:
    pyarrow.feather.write_feather(table, str(path), compression="zstd")
    return pyarrow.feather.read_table(str(path))


@pytest.mark.parametrize("store", [to_parquet, to_ipc, to_feather])
def test_stored_result_comes_back(
    store: Callable[[pa.Table, Path], pa.Table], tmp_path: Path, layers: dict[str, np.ndarray]
) -> None:
    result = quantize_batch_arrow(plain_layers(layers), metrics=True)
    back = store(result, tmp_path / "stored")
    assert back.equals(result)
    assert back.schema.metadata[b"pyarrowquant"] == result.schema.metadata[b"pyarrowquant"]
    assert_same(dequantize_batch_arrow(back), dequantize_batch_arrow(result))


@pytest.mark.parametrize(
    "store", [pl.from_arrow, duckdb.connect().from_arrow], ids=["polars", "duckdb"]
)
def test_result_decodes_from_other_libraries(
    store: Callable[[pa.Table], Any], layers: dict[str, np.ndarray]
) -> None:
    result = quantize_batch_arrow(plain_layers(layers))
    back = dequantize_batch_arrow(store(result))
    assert back.equals(dequantize_batch_arrow(result))


def test_rows_decode_by_themselves(layers: dict[str, np.ndarray]) -> None:
    result = quantize_batch_arrow(plain_layers(layers))
    weights = dequantize_batch_arrow(result)
    rows = [4, 1, 1]
    assert dequantize_batch_arrow(result.take(rows)).equals(weights.take(rows))
    assert dequantize_batch_arrow(result[2:4]).equals(weights[2:4])
    twice = pa.concat_tables([result[3:], quantize_batch_arrow(plain(["n"], [[1.0]]), 8)])
    assert len(dequantize_batch_arrow(twice)) == len(result) - 2


def test_results_outlive_inputs() -> None:
    array = np.random.default_rng(6).standard_normal((64, 512)).astype(np.float32)
    expected = quantize_batch_arrow(plain(["a"], [array])).to_pylist()
    table = numpy_to_arrow_table({"a": array})
    result = quantize_batch_arrow(table)
    weights = dequantize_batch_arrow(result)
    decoded = weights.to_pylist()
    array[:] = 0
    del array, table
    gc.collect()
    reused = [np.full((64, 512), 7.0, np.float32) for _ in range(8)]
    assert result.to_pylist() == expected
    column = result["quantized_data"]
    del result, reused
    gc.collect()
    assert column[0].as_py() == expected[0]["quantized_data"]
    assert weights.to_pylist() == decoded


def test_input_is_not_changed(layers: dict[str, np.ndarray]) -> None:
    table = plain_layers(layers)
    quantize_batch_arrow(table)
    assert_same(table, plain_layers(layers))
