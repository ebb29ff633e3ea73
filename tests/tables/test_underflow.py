"""Groups whose scale the scale's type rounds to 0: one value each, and counted."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from methods import by_kernel, kernels
from reference import BIT_WIDTHS, ZERO_POINTS, Array, layer_table, stored

from pyarrowquant import numpy_to_arrow_table, quantize_batch, quantize_batch_arrow, quantize_stream
from tables.against_oracle import Options, assert_oracle, decoded, floats, told


def mixed(seed: int) -> Array:
    """Groups of 32 of usual weights, and of some that are too small, in ragged rows."""
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((40, 150), np.float32)
    weights[:, 32:64] *= 1e-9
    weights[::3, :] *= 1e-9
    return weights


def options_of(zero_point: str, method: str = "rtn", bit_width: int = 4) -> Options:
    return {
        "bit_width": bit_width,
        "group_size": 32,
        "zero_point": zero_point,
        "scale_dtype": "float16",
        "method": method,
    }


@pytest.mark.parametrize("zero_point", ZERO_POINTS)
@pytest.mark.parametrize("bit_width", BIT_WIDTHS)
def test_groups_are_stored_like_groups_of_zeros(bit_width: int, zero_point: str) -> None:
    layers = {"a": mixed(0), "b": floats(1e-9, -1e-9, 0), "c": floats(-1e-10), "d": floats(1, 2)}
    options = options_of(zero_point, bit_width=bit_width)
    flat = 14 * 5 + 26 + 1 + (zero_point != "float")
    with told(flat):
        result = quantize_batch_arrow(layer_table(layers), **options)
    del options["method"]
    assert_oracle(result, layers, **options)
    middle = 2 ** (bit_width - 1) if zero_point == "symmetric" else 0
    assert stored(result, 1).scales.tolist() == [1.0]
    assert stored(result, 1).zero_points.tolist() == [middle]
    assert not decoded(result, 0)[:, 32:64].any()
    assert decoded(result, 0)[1, :32].any()


@pytest.mark.parametrize("method", ["mse", "hqq"])
@pytest.mark.parametrize("zero_point", ["integer", "float"])
def test_searches_leave_them_to_round_to_nearest(zero_point: str, method: str) -> None:
    layers = {"a": mixed(1)}
    with told(14 * 5 + 26):
        searched = quantize_batch_arrow(layer_table(layers), **options_of(zero_point, method))
    with told(14 * 5 + 26):
        nearest = quantize_batch_arrow(layer_table(layers), **options_of(zero_point))
    assert not decoded(searched, 0)[::3].any()
    assert decoded(searched, 0)[::3].tobytes() == decoded(nearest, 0)[::3].tobytes()
    assert np.linalg.norm(decoded(searched, 0) - layers["a"]) <= np.linalg.norm(
        decoded(nearest, 0) - layers["a"]
    )


@pytest.mark.parametrize("method", ["rtn", "mse", "hqq"])
def test_kernels_agree(method: str) -> None:
    results = by_kernel(layer_table({"a": mixed(2)}), metrics=True, **options_of("integer", method))
    found = []
    while True:
        with told(14 * 5 + 26 if len(found) < len(kernels()) else 0):
            result = next(results, None)
        if result is None:
            break
        found.append(result)
    assert all(result.equals(found[0]) for result in found)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_rows_longer_than_a_unit_of_work(dtype: type) -> None:
    rng = np.random.default_rng(3)
    weights = np.ones((2, 300_001), dtype)
    weights[1] = rng.integers(-3, 4, 300_001) * np.finfo(np.float16).smallest_subnormal
    weights[0] = rng.standard_normal(300_001)
    options: Options = {"group_size": -1, "bit_width": 8, "scale_dtype": "float16"}
    with told(1):
        result = quantize_batch_arrow(numpy_to_arrow_table({"a": weights}), **options)
    assert_oracle(result, {"a": weights.astype(np.float32)}, zero_point="integer", **options)
    assert not decoded(result, 0)[1].any()


def test_weights_that_are_near_each_other_and_far_from_0_stay_where_they_are() -> None:
    weights = 1 + np.arange(32, dtype=np.float32) % 2 * np.float32(2.0**-23)
    with told(2):
        result = quantize_batch_arrow(
            layer_table({"a": np.stack([weights, -weights])}), **options_of("float")
        )
    assert abs(decoded(result, 0) - [[1], [-1]]).max() <= 2.0**-23
    with told(0):
        near = quantize_batch_arrow(layer_table({"a": weights}), **options_of("integer"))
    assert abs(decoded(near, 0) - 1).max() < 2e-3


def test_a_warning_names_some_layers_and_counts_all() -> None:
    layers = {name: floats(1e-9, -1e-9) for name in "abcdef"} | {"good": floats(1, 2)}
    with pytest.warns(UserWarning, match="groups") as caught:
        quantize_batch_arrow(layer_table(layers), scale_dtype="float16")
    assert [str(warning.message) for warning in caught] == [
        "6 groups of the layers 'a', 'b', 'c' and 3 more have a scale that its type rounds to 0. "
        "The weights of such a group decode to one value, 0 if that is within their range. "
        "scale_dtype='float32' keeps them apart"
    ]
    assert caught[0].filename == __file__


def test_streams_warn_once_and_dictionaries_too() -> None:
    layers = {name: floats(1e-9, -1e-9) for name in "abc"}
    with told(3):
        quantize_stream(
            layer_table(layers).to_reader(max_chunksize=1), scale_dtype="float16"
        ).read_all()
    with told(3):
        found = quantize_batch(layers, scale_dtype="float16")
    assert found["a"]["scales"].tolist() == [1.0]


def test_layers_left_out_do_not_count() -> None:
    layers = {"a": np.stack([floats(1e-9), floats(np.nan)]), "b": floats(1e-9)}
    with pytest.warns(UserWarning, match="layer") as caught:
        result = quantize_batch_arrow(
            layer_table(layers), continue_on_error=True, scale_dtype="float16"
        )
    assert [str(warning.message)[:26] for warning in caught] == [
        "Skipped: Layer 'a' contain",
        "1 group of the layer 'b' h",
    ]
    assert reference.dequantize(stored(result, 0), (1,), 4, 128).tolist() == [0.0]
