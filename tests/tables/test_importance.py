"""The importance column: what it changes for "mse"."""

from __future__ import annotations

from itertools import chain
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

from pyarrowquant import quantize_batch_arrow
from tables.importances import (
    LARGEST,
    SMALLEST,
    Layers,
    kinds_of_importance,
    layers_of,
    searched,
    weighted,
)


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


@pytest.mark.parametrize("shape", [(3, 5, 256), (2, 300, 512), (2, 3, 4, 64)], ids=str)
@pytest.mark.parametrize(
    "said",
    [{"encoding": "q4_k"}, {"encoding": "iq4_nl"}, {"group_size": 32, "zero_point": "float"}],
    ids=str,
)
def test_matrices_of_a_stack_have_an_importance_each(
    shape: tuple[int, ...], said: dict[str, Any]
) -> None:
    if "q4_k" in said.values() and shape[-1] % 256:
        shape = (*shape[:-1], 256)
    rng = np.random.default_rng(5)
    stack = rng.standard_normal(shape, np.float32)
    matrices = stack.reshape(-1, *shape[-2:])
    each = rng.exponential(size=(len(matrices), shape[-1])).astype(np.float32)
    options: dict[str, Any] = {"method": "mse", **said}
    found = quantize_batch_arrow(weighted({"a": stack}, {"a": each.ravel()}), **options)
    alone = weighted(
        {f"{i:02}": matrix for i, matrix in enumerate(matrices)},
        {f"{i:02}": values for i, values in enumerate(each)},
    )
    expected = quantize_batch_arrow(alone, **options)
    for column in ("quantized_data", "scales", "zero_points"):
        rows = expected[column].to_pylist()
        if rows[0] is not None:
            assert list(found[column][0].as_py()) == list(chain(*rows))


def test_importance_of_matrices_that_end_within_a_group_is_refused() -> None:
    table = weighted({"a": np.ones((3, 5, 48), np.float32)}, {"a": np.ones(3 * 48, np.float32)})
    with pytest.raises(ValueError, match="3 matrices of 48 columns, which are no whole groups"):
        quantize_batch_arrow(table, method="mse", group_size=32)
