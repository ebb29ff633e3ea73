"""Method "hqq" against the published algorithm in numpy.

Its form, determinism, metrics and errors are tested with those of "mse": test_search_form.py.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from methods import decode, decoded, quantized
from reference import BIT_WIDTHS, Array, stored
from search_oracle import families, group_errors, group_rounding, published_hqq

from pyarrowquant import quantize_batch_arrow, quantize_stream


@functools.cache
def weights_like_those_of_models() -> dict[str, Array]:
    """Normal and heavy-tailed layers, and rows of different scales."""
    rng = np.random.default_rng(7)
    shape = 64, 1024
    scales = np.exp(rng.standard_normal((shape[0], 1))) * 0.02
    layers = {
        "gaussian": rng.standard_normal(shape),
        "gaussian of 0.02": rng.standard_normal(shape) * 0.02,
        "Student-t of 3": rng.standard_t(3, shape),
        "Student-t of 4, small": rng.standard_t(4, shape) * 0.02,
        "rows of scales": rng.standard_t(5, shape) * scales,
        "ragged": rng.standard_normal((64, 1000)),
    }
    return {name: array.astype(np.float32) for name, array in layers.items()}


def squared_error(weights: Array, values: Array) -> float:
    return float(((weights.astype(np.float64) - values) ** 2).sum())


@pytest.mark.parametrize("group_size", [64, 128])
@pytest.mark.parametrize("bit_width", BIT_WIDTHS)
def test_as_good_as_published(bit_width: int, group_size: int) -> None:
    layers = weights_like_those_of_models()
    options: dict[str, Any] = {
        "bit_width": bit_width,
        "group_size": group_size,
        "zero_point": "float",
    }
    ours = decoded(layers, method="hqq", **options)
    nearest = decoded(layers, **options)
    for name, weights in layers.items():
        published = squared_error(weights, published_hqq(weights, bit_width, group_size))
        error = squared_error(weights, ours[name])
        assert error <= 1.005 * published, name
        assert error < 0.98 * squared_error(weights, nearest[name]), name


@pytest.mark.parametrize("columns", [331, 7])
@pytest.mark.parametrize("zero_point", ["float", "integer"])
@pytest.mark.parametrize("bit_width", BIT_WIDTHS)
def test_never_worse_than_round_to_nearest(bit_width: int, zero_point: str, columns: int) -> None:
    layers = dict(families(5, columns, seed=bit_width))
    for group_size in (8, 64, 128, -1):
        options: dict[str, Any] = {
            "bit_width": bit_width,
            "group_size": group_size,
            "zero_point": zero_point,
        }
        values = decoded(layers, method="hqq", **options)
        nearest = decoded(layers, **options)
        for name, weights in layers.items():
            errors = group_errors(weights, values[name], group_size)
            bounds = group_errors(weights, nearest[name], group_size) * (1 + 1e-5)
            bounds += group_rounding(weights, group_size)
            assert (errors <= bounds).all(), name


@pytest.mark.parametrize("zero_point", ["float", "integer"])
@pytest.mark.parametrize("scale_dtype", ["float32", "float16", "bfloat16"])
def test_scales_are_those_of_round_to_nearest(scale_dtype: str, zero_point: str) -> None:
    options: dict[str, Any] = {"zero_point": zero_point, "scale_dtype": scale_dtype}
    layers = weights_like_those_of_models()
    ours, nearest = quantized(layers, method="hqq", **options), quantized(layers, **options)
    assert ours["scales"].equals(nearest["scales"])
    if zero_point == "float":
        assert not ours["zero_points"].equals(nearest["zero_points"])


def test_integer_zero_points_have_next_to_nothing_to_gain() -> None:
    # Another whole zero-point only moves the ends of the same levels.
    layers = dict(families(20, 256, seed=3))
    for bit_width in BIT_WIDTHS:
        options: dict[str, Any] = {"bit_width": bit_width, "zero_point": "integer"}
        ours, nearest = quantized(layers, method="hqq", **options), quantized(layers, **options)
        values, bounds = decode(ours), decode(nearest)
        for row, (name, weights) in enumerate(layers.items()):
            same = stored(ours, row).zero_points == stored(nearest, row).zero_points
            errors = group_errors(weights, values[name], 128)
            limits = group_errors(weights, bounds[name], 128)
            assert (errors.ravel() < limits.ravel())[~same].all(), name
            assert (errors.ravel() == limits.ravel())[same].all(), name


def test_an_integer_zero_point_that_moves() -> None:
    # bfloat16 rounds the scale down to 1/64. So one end is out of reach, by three quarters of a
    # step: round-to-nearest leaves out the upper one, where nearly all weights are.
    weights = np.full((1, 48), 254.74 / 64, np.float32)
    weights[0, 7] = -0.75 / 64
    options: dict[str, Any] = {"bit_width": 8, "scale_dtype": "bfloat16"}
    nearest = quantized({"a": weights}, **options)
    assert stored(nearest, 0).scales.tolist() == [1 / 64]
    assert stored(nearest, 0).zero_points.tolist() == [1]
    ours = quantized({"a": weights}, method="hqq", **options)
    assert stored(ours, 0).scales.tolist() == [1 / 64]
    assert stored(ours, 0).zero_points.tolist() == [0]
    assert decode(ours)["a"].tolist() == [[0 if i == 7 else 255 / 64 for i in range(48)]]


@pytest.mark.parametrize("call", [quantize_batch_arrow, quantize_stream])
def test_symmetric_zero_points_are_refused(call: Any) -> None:
    table = quantized({})
    with pytest.raises(ValueError, match="zero_point") as caught:
        call(table, method="hqq", zero_point="symmetric")
    assert str(caught.value) == (
        "Invalid zero_point: 'symmetric' leaves method 'hqq' nothing to choose. "
        "Use zero_point 'float' or 'integer', or method 'mse'"
    )
