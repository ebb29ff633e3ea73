"""Every form that both tables may have, and the columns of the result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from conftest import OnlyArray, OnlyStream, plain, plain_layers, with_column
from metrics import make_layers
from reference import layer_table

from comparison.compared import COMPARED, assert_errors_of_the_quantizer, raw_table
from pyarrowquant import compare, dequantize_batch_arrow, quantize_batch_arrow

pytestmark = pytest.mark.usefixtures("nothing_leaked")


# Results of this package


def test_columns_and_types() -> None:
    table = layer_table(make_layers())
    result = quantize_batch_arrow(table)
    for other in (result, table):
        compared = compare(table, other)
        assert compared.schema.equals(COMPARED, check_metadata=True)
        assert all(column.null_count == 0 for column in compared.columns)
    assert compare(table[:0], result[:0]).equals(COMPARED.empty_table())
    assert compare(table, table[:0]).equals(COMPARED.empty_table())


def test_results_that_were_filtered_and_joined() -> None:
    layers = make_layers()
    table = layer_table(layers)
    narrow = quantize_batch_arrow(table, 2, group_size=-1, sort=False, metrics=True)
    wide = quantize_batch_arrow(table, 8, group_size=8, sort=False, metrics=True)
    mixed = pa.concat_tables([wide[3:9], narrow[:3], narrow[9:]])
    assert_errors_of_the_quantizer(compare(table, mixed), mixed)
    backwards = mixed.take(list(range(mixed.num_rows))[::-1])
    assert_errors_of_the_quantizer(compare(table, backwards), backwards)


@pytest.mark.parametrize("original", ["F16", "BF16"])
@pytest.mark.parametrize("form", ["quantized", "decoded"])
def test_original_bytes_of_two(original: str, form: str) -> None:
    table = raw_table(make_layers(), original)
    result = quantize_batch_arrow(table, 3, metrics=True)
    other = result if form == "quantized" else dequantize_batch_arrow(result)
    assert_errors_of_the_quantizer(compare(table, other), result)


def test_original_of_float64_is_rounded() -> None:
    doubles = np.random.default_rng(1).standard_normal((30, 100))
    table = layer_table({"a": doubles}, pa.list_(pa.float64()))
    result = quantize_batch_arrow(table, metrics=True)
    assert_errors_of_the_quantizer(compare(table, result), result)
    compared = compare(table, layer_table({"a": doubles.astype(np.float32)}))
    assert compared["max_abs_error"].to_pylist() == [0.0]


# Results of others

LISTS: list[Callable[[pa.DataType], pa.DataType]] = [
    pa.list_,
    pa.large_list,
    pa.list_view,
    pa.large_list_view,
]


@pytest.mark.parametrize("element", [pa.float16(), pa.float32(), pa.float64()], ids=str)
@pytest.mark.parametrize("make_list", LISTS, ids=lambda make: make.__name__)
def test_lists(
    make_list: Callable[[pa.DataType], pa.DataType],
    element: pa.DataType,
    layers: dict[str, np.ndarray],
) -> None:
    table = plain_layers(layers)
    values = [np.array(row, element.to_pandas_dtype()) for row in table["weights"].to_pylist()]
    other = with_column(table, "weights", pa.array(values, make_list(element)))
    result = quantize_batch_arrow(table, metrics=True)
    assert_errors_of_the_quantizer(compare(other, result), result)
    assert compare(table, other)["mse"].to_pylist() == [0.0] * len(layers)


def test_names_shapes_and_fixed_lists() -> None:
    array = np.random.default_rng(2).standard_normal((4, 6), np.float32)
    expected = compare(plain(list("abcd"), list(array)), plain(list("abcd"), list(array / 2)))
    names = pa.array(list("abcd")).dictionary_encode()
    lists = pa.FixedSizeListArray.from_arrays(pa.array((array / 2).ravel()), 6)
    for name_type in (pa.large_string(), pa.string_view()):
        original = plain(list("abcd"), list(array)).drop_columns("shape")
        original = with_column(original, "layer_name", pa.array(list("abcd"), name_type))
        shapes = pa.array([[6]] * 4, pa.large_list(pa.int32()))
        for columns in ({}, {"shape": pa.nulls(4)}, {"shape": shapes}):
            result = pa.table({"layer_name": names, "weights": lists, **columns})
            assert compare(original, result).equals(expected)


@pytest.mark.parametrize(
    "source",
    [
        OnlyStream,
        lambda table: OnlyArray(table.combine_chunks().to_batches()[0]),
        lambda table: table.combine_chunks().to_batches()[0],
        lambda table: table.to_reader(max_chunksize=2),
        lambda table: pa.concat_tables(table[row : row + 1] for row in range(table.num_rows)),
        pl.from_arrow,
        lambda table: table.to_pandas(types_mapper=pd.ArrowDtype),
    ],
    ids=["stream", "array", "batch", "reader", "chunks", "polars", "pandas"],
)
def test_sources(source: Callable[[pa.Table], Any], layers: dict[str, np.ndarray]) -> None:
    table = plain_layers(layers)
    result = quantize_batch_arrow(table)
    expected = compare(table, result)
    assert compare(source(table), source(result)).equals(expected)
    assert compare(source(table), source(dequantize_batch_arrow(result))).equals(expected)


def test_every_source_is_read_once(layers: dict[str, np.ndarray]) -> None:
    original, result = OnlyStream(plain_layers(layers)), OnlyStream(plain_layers(layers))
    compare(original, result)
    assert (original.calls, result.calls) == (1, 1)


def test_a_table_with_codes_and_weights_is_a_result() -> None:
    table = layer_table({"a": np.array([1.0, 2.0])})
    result = quantize_batch_arrow(table, metrics=True)
    both = result.append_column("weights", pa.array([[7.0, 7.0]], pa.list_(pa.float32())))
    assert_errors_of_the_quantizer(compare(table, both), result)


def test_columns_that_are_not_looked_at() -> None:
    table = layer_table({"a": np.array([1.0, 2.0])})
    odd = table.append_column("importance", pa.array(["x"])).append_column("note", pa.array([1]))
    assert compare(odd, odd).equals(compare(table, table))
