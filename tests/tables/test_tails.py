"""What "mse" weighs columns by without importance: the tails of their weights."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest
from conftest import assert_same
from encoded.fixed import FIXED
from methods import by_kernel, decode
from reference import ZERO_POINTS, Array, layer_table
from search_oracle import families, group_errors, tail_weights

from pyarrowquant import QuantizationError, Recipe, Rule, quantize_batch_arrow
from tables.importances import Layers, searched, weighted


def heavy_tailed(rows: int, columns: int) -> Array:
    """Columns with tails of all kinds, and of all sizes."""
    rng = np.random.default_rng(rows + columns)
    degrees = np.exp(rng.uniform(0.5, 4, columns))
    return (rng.standard_t(degrees, (rows, columns)) * rng.lognormal(size=columns)).astype(
        np.float32
    )


def fitted_together(encoding: str) -> int:
    """How many columns the search weighs against each other."""
    fixed = FIXED[encoding]
    return fixed.columns if fixed.supers in ("s", "sm") else fixed.group_size


def assert_weighted(layers: Layers, importance: Layers, **options: Any) -> None:
    """No importance is the same as this one, in all kernels."""
    wanted = searched(weighted(layers, importance), **options)
    for result in by_kernel(layer_table(layers), method="mse", sort=False, **options):
        assert_same(result, wanted)


@pytest.mark.parametrize("shape", [(64, 203), (255, 64), (256, 40), (700, 512), (2000, 300)])
@pytest.mark.parametrize("group_size", [8, 64, -1])
@pytest.mark.parametrize("zero_point", ZERO_POINTS)
def test_columns_are_weighted_by_their_tails(
    zero_point: str, group_size: int, shape: tuple[int, int]
) -> None:
    weights = heavy_tailed(*shape)
    parts = tail_weights(weights, group_size)
    assert parts.min() < 0.7
    options = {"zero_point": zero_point, "group_size": group_size}
    assert_weighted({"a": weights}, {"a": parts}, **options)


@pytest.mark.parametrize("zero_point", ZERO_POINTS)
def test_large_columns_are_not_cut_for_the_sake_of_others(zero_point: str) -> None:
    weights = np.random.default_rng(3).standard_normal((256, 128)).astype(np.float32)
    weights[:, 70] *= 6
    options: dict[str, Any] = {"zero_point": zero_point, "group_size": 64}

    def error(table: pa.Table) -> Any:
        return np.square(decode(searched(table, **options))["a"] - weights)[:, 70].sum()

    plain = error(weighted({"a": weights}, {"a": np.ones(128)}))
    assert error(layer_table({"a": weights})) < plain / 4


@pytest.mark.parametrize("bit_width", [2, 3, 4, 6])
def test_weights_of_every_kind(bit_width: int) -> None:
    layers = dict(families(64, 203, seed=bit_width))
    importance = {name: tail_weights(weights, 40) for name, weights in layers.items()}
    options: dict[str, Any] = {"bit_width": bit_width, "group_size": 40}
    assert_weighted(layers, importance, **options)
    better = decode(searched(layer_table(layers), **options))
    nearest = decode(quantize_batch_arrow(layer_table(layers), sort=False, **options))
    for name, weights in layers.items():
        errors = group_errors(weights, better[name], 40, importance[name])
        assert (errors <= group_errors(weights, nearest[name], 40, importance[name])).all(), name


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_weights_of_every_type(dtype: Any) -> None:
    weights = heavy_tailed(300, 128).astype(dtype)
    name = {ml_dtypes.bfloat16: "BF16", np.float16: "F16"}.get(dtype)
    columns: dict[str, Any] = {"layer_name": ["a"], "shape": [list(weights.shape)]}
    if name is None:
        columns["weights"] = pa.array([weights.ravel()], pa.list_(pa.float64()))
    else:
        columns |= {"weights": pa.array([weights.tobytes()], pa.binary()), "dtype": [name]}
    table = pa.table(columns)
    parts = pa.array([tail_weights(weights, 64)], pa.list_(pa.float32()))
    wanted = searched(table.append_column("importance", parts), group_size=64)
    assert_same(searched(table, group_size=64), wanted)


def test_matrices_of_a_stack_are_weighted_each_for_itself() -> None:
    stack = np.stack([heavy_tailed(70, 128), heavy_tailed(70, 128)[:, ::-1]])
    parts = np.concatenate([tail_weights(matrix, 32) for matrix in stack])
    assert_weighted({"a": stack}, {"a": parts}, group_size=32)
    # of groups that cross rows no columns can be told
    rows = np.concatenate([heavy_tailed(70, 20)] * 64).reshape(64, 70, 20)
    assert_weighted({"a": rows}, {"a": tail_weights(rows.reshape(64, -1), 32)}, group_size=32)


@pytest.mark.parametrize("shape", [(63, 128), (1, 128), (128,), (2, 63, 128)])
def test_few_rows_tell_nothing(shape: tuple[int, ...]) -> None:
    weights = heavy_tailed(*shape[-2:]) if len(shape) > 1 else heavy_tailed(1, 128)[0]
    weights = np.broadcast_to(weights, shape).copy()
    columns = weights.size // shape[0] if len(shape) > 1 else weights.size
    assert_weighted({"a": weights}, {"a": np.ones(columns)}, group_size=32)


def test_importance_counts_alone() -> None:
    weights = heavy_tailed(256, 128)
    ones = searched(weighted({"a": weights}, {"a": np.ones(128)}), group_size=32)
    assert ones != searched(layer_table({"a": weights}), group_size=32)
    # by layers: null is as none
    layers = {"a": weights, "b": weights}
    some = searched(weighted(layers, {"a": np.ones(128)}), group_size=32)
    wanted = searched(
        weighted(layers, {"a": np.ones(128), "b": tail_weights(weights, 32)}), group_size=32
    )
    assert_same(some, wanted)


@pytest.mark.parametrize("method", ["rtn", "hqq"])
def test_other_methods_are_not_weighted(method: str) -> None:
    weights = heavy_tailed(256, 128)
    half = weights[:63]
    whole = quantize_batch_arrow(layer_table({"a": weights}), method=method)
    part = quantize_batch_arrow(layer_table({"a": half}), method=method)
    scales = whole["scales"][0].values.to_numpy()
    assert (scales[:63] == part["scales"][0].values.to_numpy()).all()


@pytest.mark.parametrize("shape", [(70, 600), (64, 37), (300, 512)])
@pytest.mark.parametrize("encoding", [name for name in FIXED if FIXED[name].bit_width < 8])
def test_columns_of_every_encoding(encoding: str, shape: tuple[int, int]) -> None:
    weights = heavy_tailed(*shape)
    parts = tail_weights(weights, fitted_together(encoding), is_even=False)
    assert parts.min() < 0.7
    assert_weighted({"a": weights}, {"a": parts}, encoding=encoding)


def test_stacks_of_super_blocks() -> None:
    stack = np.stack([heavy_tailed(70, 512), heavy_tailed(70, 512)[:, ::-1]])
    parts = np.concatenate([tail_weights(matrix, 256, is_even=False) for matrix in stack])
    assert_weighted({"a": stack}, {"a": parts}, encoding="q4_k")
    # of super-blocks that cross rows no columns can be told
    rows = np.concatenate([heavy_tailed(70, 32)] * 64).reshape(64, 70, 32)
    parts = tail_weights(rows.reshape(64, -1), 256, is_even=False)
    assert_weighted({"a": rows}, {"a": parts}, encoding="q4_k")


@pytest.mark.parametrize(
    "said",
    [
        {"encoding": "mxfp8"},
        *({"encoding": "fp8", "group_size": g} for g in (-1, "tensor", "block")),
        *({"bit_width": 8, "zero_point": zero_point} for zero_point in ZERO_POINTS),
    ],
    ids=str,
)
def test_8_bits_are_not_weighted(said: dict[str, Any]) -> None:
    weights = heavy_tailed(256, 256)
    assert_weighted({"a": weights}, {"a": np.ones(256)}, **said)


def test_weights_that_are_not_finite_are_errors_as_ever() -> None:
    weights = heavy_tailed(256, 128)
    weights[100, 5] = np.inf
    weights[101, 6] = np.nan
    with pytest.raises(QuantizationError, match="index 12805"):
        searched(layer_table({"a": weights}))


def test_results_do_not_depend_on_threads() -> None:
    table = layer_table({f"{n}": heavy_tailed(64 * n, 600) for n in range(1, 9)})
    wanted = searched(table, threads=1)
    for threads in (2, 5, 16):
        assert_same(searched(table, threads=threads), wanted)


def test_layers_of_a_recipe_are_weighted_by_their_own_settings() -> None:
    weights = heavy_tailed(256, 128)
    recipe = Recipe([Rule("a", method="mse", group_size=32)])
    result = quantize_batch_arrow(layer_table({"a": weights, "b": weights}), recipe=recipe)
    wanted = searched(layer_table({"a": weights}), group_size=32)
    assert result["scales"][0] == wanted["scales"][0]
    nearest = quantize_batch_arrow(layer_table({"b": weights}))
    assert result["scales"][1] == nearest["scales"][0]
