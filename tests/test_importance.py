"""The importance column: what it changes for "mse", and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pyarrow as pa
import pytest
from conftest import assert_same
from hypothesis import given, settings
from hypothesis import strategies as st
from methods import by_kernel, decode
from reference import BIT_WIDTHS, ZERO_POINTS, Array, group_starts, layer_table, spread
from search_oracle import families, group_errors

from pyarrowquant import (
    QuantizationError,
    SkippedLayerWarning,
    quantize_batch_arrow,
    quantize_stream,
    validate_arrow_input,
)

Layers = Mapping[str, Array]
FLOAT_TYPES = {pa.float16(): np.float16, pa.float32(): np.float32, pa.float64(): np.float64}
SMALLEST, LARGEST = 5e-324, 1.7976931348623157e308


def weighted(
    layers: Layers, importance: Mapping[str, Array | None], column: pa.DataType | None = None
) -> pa.Table:
    """Layers with the importance of their columns, null where there is none."""
    values = pa.array([importance.get(name) for name in layers], column or pa.list_(pa.float64()))
    return layer_table(layers).append_column("importance", values)


def searched(table: pa.Table, **options: Any) -> pa.Table:
    return quantize_batch_arrow(table, method="mse", sort=False, **options)


def layers_of(rows: int, columns: int) -> dict[str, Array]:
    rng = np.random.default_rng(rows * columns)
    return {
        "a": rng.standard_normal((rows, columns), np.float32),
        "b": rng.standard_t(3, (rows, columns)).astype(np.float32),
        "c": rng.standard_normal(columns, np.float32),
    }


def kinds_of_importance(columns: int, seed: int) -> dict[str, Array]:
    """Importances as they come, and such as try to break sums."""
    rng = np.random.default_rng(seed)
    return {
        "uniform": rng.random(columns),
        "squares": rng.standard_normal(columns) ** 2,
        "lognormal": np.exp(3 * rng.standard_normal(columns)),
        "many zeros": np.where(rng.random(columns) < 0.7, 0, rng.random(columns)),
        "one": np.where(np.arange(columns) == columns // 2, 7.0, 0),
        "one great": np.where(np.arange(columns) == columns // 2, 1e30, rng.random(columns)),
        "all magnitudes": 10.0 ** rng.uniform(-300, 300, columns),
        "32 bits of magnitudes": 10.0 ** rng.uniform(-44, 0, columns),
        "small but for the first": np.where(
            np.arange(columns) == 0, 1, 1e-42 * (1 + rng.random(columns))
        ),
        "smallest": np.full(columns, SMALLEST),
        "largest": np.where(rng.random(columns) < 0.5, LARGEST, LARGEST / 3),
        "smallest and largest": np.where(rng.random(columns) < 0.5, SMALLEST, LARGEST),
    }


def assert_never_worse(table: pa.Table, layers: Layers, importance: Layers, **options: Any) -> None:
    """No group's weighted error is larger than that of round-to-nearest."""
    result = searched(table, **options)
    for name in ("scales", "zero_points"):
        assert np.isfinite(result[name].combine_chunks().flatten()).all()
    better = decode(result)
    nearest = decode(quantize_batch_arrow(table, sort=False, **options))
    group_size = options["group_size"]
    for name, weights in layers.items():
        scaled = importance[name] / max(importance[name].max(), SMALLEST)
        errors = group_errors(weights, better[name], group_size, scaled)
        assert (errors <= group_errors(weights, nearest[name], group_size, scaled)).all(), name


@pytest.mark.parametrize("group_size", [8, 40, 128, -1])
@pytest.mark.parametrize("zero_point", ZERO_POINTS)
@pytest.mark.parametrize("bit_width", BIT_WIDTHS)
def test_never_worse_than_round_to_nearest(
    bit_width: int, zero_point: str, group_size: int
) -> None:
    kinds = kinds_of_importance(203, bit_width)
    base = dict(families(4, 203, seed=bit_width))
    layers = {f"{name}, {kind}": base[name] for name in base for kind in kinds}
    importance = {key: kinds[key.split(", ")[-1]] for key in layers}
    options = {"bit_width": bit_width, "group_size": group_size, "zero_point": zero_point}
    assert_never_worse(weighted(layers, importance), layers, importance, **options)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data(), st.sampled_from(BIT_WIDTHS), st.sampled_from(ZERO_POINTS))
def test_property_never_worse(data: st.DataObject, bit_width: int, zero_point: str) -> None:
    rows, columns = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 50)))
    finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
    weights = data.draw(
        hnp.arrays(np.float32, (rows, columns), elements=st.floats(-4, 4, width=32) | finite)
    )
    factors = st.floats(0, 1) | st.floats(0, LARGEST)
    importance = data.draw(hnp.arrays(np.float64, columns, elements=factors))
    table = weighted({"a": weights}, {"a": importance})
    options = {"bit_width": bit_width, "zero_point": zero_point, "group_size": 16}
    assert_never_worse(table, {"a": weights}, {"a": importance}, **options)


@pytest.mark.parametrize("zero_point", ZERO_POINTS)
@pytest.mark.parametrize("bit_width", [2, 3, 4, 8])
def test_less_weighted_error_than_without(bit_width: int, zero_point: str) -> None:
    rng = np.random.default_rng(1)
    layers = {"a": rng.standard_normal((64, 1024), np.float32)}
    importance = {"a": np.exp(2 * rng.standard_normal(1024))}
    options: dict[str, Any] = {"bit_width": bit_width, "zero_point": zero_point}
    weighted_values = decode(searched(weighted(layers, importance), **options))["a"]
    plain_values = decode(searched(layer_table(layers), **options))["a"]
    errors = group_errors(layers["a"], weighted_values, 128, importance["a"]) ** 2
    bounds = group_errors(layers["a"], plain_values, 128, importance["a"]) ** 2
    assert errors.mean() < 0.9 * bounds.mean()
    # and the other way round, without weighting
    errors = group_errors(layers["a"], plain_values, 128) ** 2
    assert errors.mean() < group_errors(layers["a"], weighted_values, 128).mean() ** 2


@pytest.mark.parametrize("group_size", [8, 128, -1])
@pytest.mark.parametrize("zero_point", ZERO_POINTS)
@pytest.mark.parametrize("value", [1.0, 0.0, 0.3, 1e-300, SMALLEST, LARGEST])
def test_equal_importances_change_nothing(value: float, zero_point: str, group_size: int) -> None:
    layers = layers_of(17, 203) | {"d": np.ones((2, 2000), np.float32)}
    importance = {
        name: np.full(array.reshape(len(array) if array.ndim > 1 else 1, -1).shape[1], value)
        for name, array in layers.items()
    }
    options: dict[str, Any] = {"zero_point": zero_point, "group_size": group_size}
    expected = searched(layer_table(layers), **options)
    assert_same(searched(weighted(layers, importance), **options), expected)


def test_zeros_in_all_of_a_group_change_nothing_there() -> None:
    layers = {"a": np.random.default_rng(6).standard_normal((9, 200), np.float32)}
    factors = np.random.default_rng(6).random(200) ** 4
    factors[64:128] = 0
    plain = searched(layer_table(layers), group_size=64)["scales"][0].values.to_numpy()
    result = searched(weighted(layers, {"a": factors}), group_size=64)
    same = (result["scales"][0].values.to_numpy() == plain).reshape(9, 4)
    assert same[:, 1].all()
    assert not same[:, [0, 2, 3]].all(axis=0).any()


@pytest.mark.parametrize("group_size", [8, 64, -1])
def test_only_shares_of_a_group_count(group_size: int) -> None:
    layers = {"a": np.random.default_rng(7).standard_normal((9, 200), np.float32)}
    factors = np.random.default_rng(7).random(200)
    starts = group_starts(200, group_size)
    powers = np.where(np.arange(len(starts)) % 2, 2.0**-300, 2.0**300)
    scaled = factors * spread(powers, 1, 200, group_size)[0]
    expected = searched(weighted(layers, {"a": factors}), group_size=group_size)
    assert_same(searched(weighted(layers, {"a": scaled}), group_size=group_size), expected)


@pytest.mark.parametrize("exponent", [-1000, -200, -1, 1, 30, 1000])
def test_powers_of_two_change_nothing(exponent: int) -> None:
    layers = layers_of(9, 203)
    importance = {n: np.random.default_rng(2).random(203) + 0.01 for n in layers}
    scaled = {name: values * 2.0**exponent for name, values in importance.items()}
    expected = searched(weighted(layers, importance))
    assert_same(searched(weighted(layers, scaled)), expected)
    assert not expected.equals(searched(layer_table(layers)))


def test_each_layer_has_its_own() -> None:
    layers = layers_of(5, 203) | {"d": layers_of(4, 99)["a"], "e": np.empty((0, 3), np.float32)}
    importance = {"a": np.arange(203.0), "d": np.arange(99.0), "e": np.empty(0)}
    result = searched(weighted(layers, importance))
    for row, (name, array) in enumerate(layers.items()):
        one = {name: array}
        alone = searched(weighted(one, importance) if name in importance else layer_table(one))
        assert_same(result[row : row + 1].combine_chunks(), alone)


@pytest.mark.parametrize("group_size", [8, 64, -1])
def test_a_column_of_any_rank(group_size: int) -> None:
    rng = np.random.default_rng(3)
    matrix = rng.standard_normal((6, 130), np.float32)
    importance = rng.random(130) ** 4
    layers = {"a": matrix, "b": matrix.reshape(6, 13, 10), "c": matrix.reshape(6, 5, 2, 13)}
    table = weighted(layers, dict.fromkeys(layers, importance))
    result = searched(table, group_size=group_size)
    data = result["quantized_data"].to_pylist()
    assert data[0] == data[1] == data[2]
    # a row by itself is the same as within the matrix
    rows = {str(i): row for i, row in enumerate(matrix)}
    alone = searched(weighted(rows, dict.fromkeys(rows, importance)), group_size=group_size)
    assert b"".join(alone["quantized_data"].to_pylist()) == data[0]


def test_one_dimension_is_one_row() -> None:
    rng = np.random.default_rng(3)
    matrix, importance = rng.standard_normal((6, 128), np.float32), rng.random(128) ** 4
    expected = searched(weighted({"a": matrix}, {"a": importance}), group_size=64)
    flat = weighted({"a": matrix.ravel()}, {"a": np.tile(importance, 6)})
    for table in (flat, flat.drop_columns(["shape"])):
        result = searched(table, group_size=64)
        for name in ("quantized_data", "scales", "zero_points"):
            assert result[name].equals(expected[name])


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


@pytest.mark.parametrize("zero_point", ZERO_POINTS)
@pytest.mark.parametrize("group_size", [8, 128, -1])
def test_threads_and_kernels_change_nothing(group_size: int, zero_point: str) -> None:
    rng = np.random.default_rng(5)
    layers = {name: array for n in (9, 203) for name, array in families(4, n, seed=n)}
    layers |= {
        "long": rng.standard_normal((2, 70_001), np.float32),
        "many": layers_of(300, 264)["b"],
    }
    importance: dict[str, Array] = {}
    for i, (name, array) in enumerate(layers.items()):
        kinds = kinds_of_importance(array.shape[1], i)
        importance[name] = list(kinds.values())[i % len(kinds)]
    table = weighted(layers, importance)
    options: dict[str, Any] = {"group_size": group_size, "zero_point": zero_point, "bit_width": 3}
    expected = searched(table, **options)
    for threads in (1, 2, 7):
        assert searched(table, threads=threads, **options).equals(expected)
    for result in by_kernel(table, method="mse", sort=False, **options):
        assert result.equals(expected)


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
        for wrong in {1, 2, 4, 12, 24} - {columns}:
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
