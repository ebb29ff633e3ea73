"""The importance column: its types, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import assert_same
from reference import layer_table

from pyarrowquant import (
    QuantizationError,
    SkippedLayerWarning,
    quantize_batch_arrow,
    quantize_stream,
    validate_arrow_input,
)
from tables.importances import layers_of, searched, weighted

FLOAT_TYPES = {pa.float16(): np.float16, pa.float32(): np.float32, pa.float64(): np.float64}


# Types

LISTS: dict[str, Callable[[pa.DataType], pa.DataType]] = {
    "list": pa.list_,
    "large_list": pa.large_list,
    "list_view": pa.list_view,
    "large_list_view": pa.large_list_view,
    "fixed_size_list": lambda element: pa.list_(element, 99),
}


@pytest.mark.parametrize("element", FLOAT_TYPES, ids=str)
@pytest.mark.parametrize("make", LISTS)
def test_types_slices_and_chunks(make: str, element: pa.DataType) -> None:
    rng = np.random.default_rng(4)
    layers = {f"{i:02}": rng.standard_normal((3, 99), np.float32) for i in range(20)}
    exact = {
        name: (rng.integers(0, 2048, 99) / 64).astype(np.float16)
        for i, name in enumerate(layers)
        if i % 5
    }
    expected = searched(weighted(layers, exact))
    assert not expected.equals(searched(layer_table(layers)))
    cast = {name: values.astype(FLOAT_TYPES[element]) for name, values in exact.items()}
    table = weighted(layers, cast, LISTS[make](element))
    validate_arrow_input(table)
    assert_same(searched(table), expected)
    assert_same(searched(table[3:][2:9]), expected[5:12].combine_chunks())
    pieces = [table[i : i + 3] for i in range(0, 20, 3)]
    assert_same(searched(pa.concat_tables(pieces)), expected)
    streamed = quantize_stream(table.to_reader(max_chunksize=6), method="mse")
    with streamed as reader:
        assert reader.read_all().equals(expected)


@pytest.mark.parametrize("column", [pa.nulls(3), pa.nulls(3, pa.list_(pa.float32()))], ids=str)
def test_nulls_are_as_good_as_no_column(column: pa.Array) -> None:
    layers = layers_of(3, 99)
    table = layer_table(layers).append_column("importance", column)
    assert_same(searched(table), searched(layer_table(layers)))


# Errors

WRONG: dict[str, tuple[Any, str, int | None, str]] = {
    "short": (
        [1.0] * 98,
        "importance",
        None,
        "Layer 'b': importance has 98 values, the layer has 99 columns. Give one a column",
    ),
    "long": (
        [1.0] * 297,
        "importance",
        None,
        "Layer 'b': importance has 297 values, the layer has 99 columns. Give one a column",
    ),
    "none": (
        [],
        "importance",
        None,
        "Layer 'b': importance has 0 values, the layer has 99 columns. Give one a column",
    ),
    "negative": (
        [1.0] * 40 + [-0.5] + [1.0] * 58,
        "importance",
        40,
        "Layer 'b': importance at index 40 is -0.5. It must be finite and not negative",
    ),
    "NaN": (
        [float("nan")] + [-1.0] * 98,
        "importance",
        0,
        "Layer 'b': importance at index 0 is NaN. It must be finite and not negative",
    ),
    "Inf": (
        [1.0] * 98 + [float("inf")],
        "importance",
        98,
        "Layer 'b': importance at index 98 is +Inf. It must be finite and not negative",
    ),
    "-Inf": (
        [1.0] * 98 + [float("-inf")],
        "importance",
        98,
        "Layer 'b': importance at index 98 is -Inf. It must be finite and not negative",
    ),
    "null": (
        [1.0] * 7 + [None] + [1.0] * 91,
        "null",
        7,
        "Layer 'b' contains null in importance at index 7. Fill such values first",
    ),
}


@pytest.mark.parametrize("element", FLOAT_TYPES, ids=str)
@pytest.mark.parametrize("case", WRONG)
def test_wrong_importance(case: str, element: pa.DataType) -> None:
    values, kind, index, text = WRONG[case]
    layers = layers_of(3, 99)
    given_values = [
        None if value is None else np.float16(value) if element == pa.float16() else value
        for value in values
    ]
    column = pa.array([None, given_values, [np.float16(2)] * 99], pa.list_(element))
    table = layer_table(layers).append_column("importance", column)
    with pytest.raises(QuantizationError) as caught:
        searched(pa.concat_tables([table, table]))
    found = [(e.layer_name, e.row, e.index, e.kind, e.message) for e in caught.value.errors]
    assert found == [("b", row, index, kind, text) for row in (1, 4)]

    with pytest.warns(SkippedLayerWarning) as warned:
        result = searched(table, continue_on_error=True)
    assert [str(warning.message) for warning in warned] == ["Skipped: " + text]
    assert_same(result, searched(table.take([0, 2])))

    for method in ("rtn", "hqq"):
        expected = quantize_batch_arrow(layer_table(layers), method=method)
        assert_same(quantize_batch_arrow(table, method=method), expected)


def test_columns_of_many_dimensions_and_of_one() -> None:
    weights = np.ones((2, 3, 4), np.float32)
    weights[0] = np.arange(12).reshape(3, 4)
    for layer, columns in ((weights, 12), (weights.ravel(), 24), (weights[:, :1, :1], 1)):
        fits = weighted({"a": layer}, {"a": np.ones(columns)})
        assert searched(fits).num_rows == 1
        for wrong in {1, 3, 4, 12, 24} - {columns}:
            with pytest.raises(
                QuantizationError, match=f"has {wrong} values, .* {columns} columns"
            ):
                searched(weighted({"a": layer}, {"a": np.ones(wrong)}))


@pytest.mark.parametrize("count", [0, 5])
def test_empty_layers_take_what_they_have_columns(count: int) -> None:
    layers = {"a": np.empty((0, 5), np.float32), "b": np.empty((0,), np.float32)}
    table = weighted(layers, {"a": np.ones(count), "b": np.empty(0)})
    assert_same(searched(table), searched(layer_table(layers)))


def test_negative_zero_is_zero() -> None:
    layers = layers_of(3, 99)
    zeros = np.where(np.arange(99) % 2, 0.0, 1.0)
    expected = searched(weighted(layers, dict.fromkeys(layers, zeros)))
    minus = np.where(zeros == 0, -0.0, zeros)
    assert_same(searched(weighted(layers, dict.fromkeys(layers, minus))), expected)


@pytest.mark.parametrize("method", ["rtn", "mse", "hqq"])
@pytest.mark.parametrize(
    "column",
    [
        pa.array([1.0]),
        pa.array([[1]], pa.list_(pa.int64())),
        pa.array(["x"]),
        pa.array([b"1234"]),
        pa.array([[[1.0]]]),
    ],
    ids=lambda column: str(column.type),
)
def test_a_column_of_a_wrong_type(column: pa.Array, method: str) -> None:
    table = layer_table({"a": np.ones(1, np.float32)}).append_column("importance", column)
    for call in (quantize_batch_arrow, quantize_stream, validate_arrow_input):
        options = {} if call is validate_arrow_input else {"method": method}
        with pytest.raises(ValueError, match="Column 'importance' has type") as caught:
            call(table, **options)
        assert not isinstance(caught.value, QuantizationError)
        assert "; expected type list<float32>" in str(caught.value)
