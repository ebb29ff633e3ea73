"""The four error columns, against float64 sums in numpy."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest
import reference
from metrics import EMPTY_SHAPES, METRICS, TINY, assert_metrics, make_layers
from reference import BIT_WIDTHS, SCALE_DTYPES, ZERO_POINTS, Array, layer_table, stored

from pyarrowquant import quantize_batch_arrow

FLT_MAX = np.finfo(np.float32).max


def metrics_of(result: pa.Table, row: int) -> reference.Metrics:
    return reference.Metrics(*(result[name][row].as_py() for name in METRICS))


def expected_metrics(result: pa.Table, row: int, weights: Array) -> reference.Metrics:
    """The oracle's errors of the oracle's decoding of a row."""
    options = result["bit_width"][row].as_py(), result["group_size"][row].as_py()
    decoded = reference.dequantize(stored(result, row), weights.shape, *options)
    return reference.metrics(weights, decoded)


@pytest.mark.parametrize("scale_dtype", SCALE_DTYPES)
@pytest.mark.parametrize("zero_point", ZERO_POINTS)
@pytest.mark.parametrize("bit_width", BIT_WIDTHS)
def test_metrics(bit_width: int, zero_point: str, scale_dtype: str) -> None:
    layers = make_layers()
    result = quantize_batch_arrow(
        layer_table(layers),
        bit_width,
        group_size=64,
        zero_point=zero_point,
        scale_dtype=scale_dtype,
        metrics=True,
        sort=False,
    )
    for row, weights in enumerate(layers.values()):
        assert_metrics(
            metrics_of(result, row), expected_metrics(result, row, weights), weights.size
        )


@pytest.mark.parametrize("group_size", [8, 128, -1, 4096])
def test_group_sizes(group_size: int) -> None:
    layers = make_layers()
    table = layer_table(layers)
    result = quantize_batch_arrow(table, 3, group_size=group_size, metrics=True, sort=False)
    for row, weights in enumerate(layers.values()):
        assert_metrics(
            metrics_of(result, row), expected_metrics(result, row, weights), weights.size
        )


def test_worked_by_hand() -> None:
    # s = 1, z = 0: 2.25 decodes to 2, 15 and 8 to themselves.
    result = quantize_batch_arrow(
        layer_table({"a": np.array([2.25, 15, 8], np.float32)}), metrics=True
    )
    actual = metrics_of(result, 0)
    assert actual.mse == 0.25**2 / 3
    assert actual.max_abs_error == 0.25
    assert actual.relative_error == pytest.approx(0.25 / (2.25**2 + 289) ** 0.5, rel=2.0**-50)
    dot, squares = 2.25 * 2 + 289, (2.25**2 + 289) * (2**2 + 289)
    assert actual.cosine == pytest.approx(dot / squares**0.5, rel=2.0**-50)


@pytest.mark.parametrize("zero_point", ZERO_POINTS)
@pytest.mark.parametrize("bit_width", BIT_WIDTHS)
def test_zero_layers(bit_width: int, zero_point: str) -> None:
    layers = {
        "zeros": np.zeros((3, 129), np.float32),
        "minus zeros": np.full((2, 9), -0.0, np.float32),
        "one zero": np.zeros((), np.float32),
    }
    layers |= {f"empty {shape}": np.empty(shape, np.float32) for shape in EMPTY_SHAPES}
    table = layer_table(layers)
    result = quantize_batch_arrow(table, bit_width, zero_point=zero_point, metrics=True)
    for row in range(len(layers)):
        assert metrics_of(result, row) == reference.Metrics(0.0, 0.0, 1.0, 0.0)


@pytest.mark.parametrize("zero_point", ZERO_POINTS)
@pytest.mark.parametrize("bit_width", BIT_WIDTHS)
def test_extreme_values_have_finite_metrics(bit_width: int, zero_point: str) -> None:
    ends = {
        "largest": [FLT_MAX, -FLT_MAX, FLT_MAX / 3, 0],
        "smallest": [TINY, -TINY, 0, 5 * TINY, 77 * TINY],
        "smallest alone": [TINY],
        "both": [FLT_MAX, TINY, -TINY],
        "large": [1e38, 2e38, 3e38],
    }
    layers = {name: np.array(values, np.float32) for name, values in ends.items()}
    result = quantize_batch_arrow(
        layer_table(layers), bit_width, zero_point=zero_point, metrics=True, sort=False
    )
    for row, weights in enumerate(layers.values()):
        actual = metrics_of(result, row)
        assert np.isfinite(actual).all()
        assert_metrics(actual, expected_metrics(result, row, weights), weights.size)


@pytest.mark.parametrize("kind", ["F16", "BF16"])
def test_errors_are_of_the_widened_values(kind: str) -> None:
    dtype = {"F16": np.float16, "BF16": ml_dtypes.bfloat16}[kind]
    layers = {name: array.astype(dtype) for name, array in make_layers().items()}
    raw = pa.array([array.tobytes() for array in layers.values()])
    table = layer_table(make_layers()).set_column(1, "weights", raw)
    table = table.append_column("dtype", pa.array([kind] * len(layers)))
    result = quantize_batch_arrow(table, metrics=True, sort=False)
    for row, narrow in enumerate(layers.values()):
        weights = narrow.astype(np.float32)
        assert_metrics(
            metrics_of(result, row), expected_metrics(result, row, weights), weights.size
        )


def test_errors_are_of_the_values_rounded_to_float32() -> None:
    doubles = {"a": np.random.default_rng(1).standard_normal((30, 100))}
    weights = doubles["a"].astype(np.float32)
    table = layer_table(doubles, pa.list_(pa.float64()))
    result = quantize_batch_arrow(table, 8, metrics=True)
    assert_metrics(metrics_of(result, 0), expected_metrics(result, 0, weights), weights.size)
    rounded = quantize_batch_arrow(layer_table({"a": weights}), 8, metrics=True)
    assert result.equals(rounded)


@pytest.mark.parametrize("zero_point", ZERO_POINTS)
@pytest.mark.parametrize("bit_width", BIT_WIDTHS)
def test_threads_and_chunks_change_nothing(bit_width: int, zero_point: str) -> None:
    # Equal float64 columns are equal bytes: none is NaN and no -0.0 can be here.
    table = layer_table(make_layers())
    options: dict[str, Any] = {"bit_width": bit_width, "zero_point": zero_point, "metrics": True}
    expected = quantize_batch_arrow(table, **options)
    for threads in (1, 2, 3, 8):
        assert quantize_batch_arrow(table, threads=threads, **options).equals(expected)
    rows = [table.slice(i, 1) for i in range(table.num_rows)]
    odd = [table[:1], table[1:4], table[4:]]
    for chunks in (rows, odd, rows[::-1]):
        assert quantize_batch_arrow(pa.concat_tables(chunks), **options).equals(expected)
    for i, row in enumerate(rows):
        alone = quantize_batch_arrow(row, sort=False, **options)
        together = quantize_batch_arrow(table, sort=False, **options)
        assert alone.equals(together[i : i + 1])


def test_metrics_add_columns_and_change_no_byte() -> None:
    table = layer_table(make_layers())
    for zero_point in ZERO_POINTS:
        without = quantize_batch_arrow(table, 3, zero_point=zero_point)
        result = quantize_batch_arrow(table, 3, zero_point=zero_point, metrics=True)
        assert not set(METRICS) & set(without.column_names)
        assert result.column_names == [*without.column_names, *METRICS]
        assert result.drop_columns(list(METRICS)).equals(without)
        for name in METRICS:
            assert result.schema.field(name).type == pa.float64()
            assert result[name].null_count == 0


def test_sorting_takes_the_metrics_along() -> None:
    table = layer_table(make_layers())
    in_order = quantize_batch_arrow(table, metrics=True, sort=False)
    by_name = quantize_batch_arrow(table, metrics=True)
    assert by_name.equals(in_order.sort_by("layer_name"))
