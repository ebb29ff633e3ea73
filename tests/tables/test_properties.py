"""Properties of what quantization writes, for layers, options and values of any kind."""

from __future__ import annotations

import warnings
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import BIT_WIDTHS, SCALE_DTYPES, ZERO_POINTS, Array, layer_table, stored

from pyarrowquant import QuantizationError, quantize_batch_arrow
from tables.against_oracle import GROUP_SIZES, Options, assert_oracle, assert_sensible, decoded

PROPERTY = settings(max_examples=300, deadline=None, derandomize=True)


def shapes() -> st.SearchStrategy[tuple[int, ...]]:
    return hnp.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=150).filter(
        lambda shape: np.prod(shape) <= 600
    )


def magnitudes(low: float, high: float) -> st.SearchStrategy[float]:
    """0.0, -0.0, and both signs of the bounds and what lies between."""
    positive = st.floats(low, high, width=32)
    return st.one_of(positive, positive.map(lambda x: -x), st.sampled_from([0.0, -0.0]))


def arrays(low: float, high: float) -> st.SearchStrategy[Array]:
    return hnp.arrays(np.float32, shapes(), elements=magnitudes(low, high))


def choices() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "bit_width": st.sampled_from(BIT_WIDTHS),
            "group_size": st.sampled_from([*GROUP_SIZES, 16, 24]),
            "zero_point": st.sampled_from(ZERO_POINTS),
        }
    )


# All scales of these are exact: the smallest range, one ulp of 2^-85 over 255, is above 2^-117.
EXACT = arrays(2.0**-85, 2.0**100)


@PROPERTY
@given(EXACT, choices(), st.sampled_from(["float32", "bfloat16"]))
def test_property_oracle(weights: Array, options: Options, scale_dtype: str) -> None:
    options["scale_dtype"] = scale_dtype
    result = quantize_batch_arrow(layer_table({"a": weights}), **options)
    assert_oracle(result, {"a": weights}, **options)


@PROPERTY
@given(arrays(2.0**-14, 2.0**23), choices())
def test_property_float16_scales(weights: Array, options: Options) -> None:
    options["scale_dtype"] = "float16"
    table = layer_table({"a": weights})
    try:
        reference.quantize(weights, **options)
    except reference.ScaleRange:
        with pytest.raises(QuantizationError) as caught:
            quantize_batch_arrow(table, **options)
        assert [error.kind for error in caught.value.errors] == ["scale_range"]
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of scales that are 0
            result = quantize_batch_arrow(table, **options)
        assert_oracle(result, {"a": weights}, **options)


@PROPERTY
@given(EXACT, choices())
def test_property_error_bound(weights: Array, options: Options) -> None:
    result = quantize_batch_arrow(layer_table({"a": weights}), **options)
    rows, columns = reference.matrix_shape(weights.shape)
    matrix = weights.reshape(rows, columns).astype(np.float64)
    error = abs(matrix - decoded(result, 0).reshape(rows, columns))
    scales = reference.spread(stored(result, 0).scales, rows, columns, options["group_size"])
    steps = matrix / scales
    bound = np.full_like(matrix, 0.5)
    if options["zero_point"] == "symmetric":
        # One code short at the end opposite to the largest value.
        bound[steps > 2 ** (options["bit_width"] - 1) - 1] = 1.0
    # Float32 rounds 1/s, the product and the sum; all are relative to the value's own steps.
    rounding = 2.0**-21 * (2 ** options["bit_width"] + abs(steps))
    assert (error <= (bound + rounding) * abs(scales)).all()


@PROPERTY
@given(
    hnp.arrays(
        np.float32, shapes(), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)
    ),
    choices(),
)
def test_property_any_finite_input(weights: Array, options: Options) -> None:
    result = quantize_batch_arrow(layer_table({"a": weights}), **options)
    assert_sensible(result, 0, weights, options["zero_point"])


@PROPERTY
@given(EXACT, choices())
def test_property_layout(weights: Array, options: Options) -> None:
    bit_width, group_size = options["bit_width"], options["group_size"]
    quantized = stored(quantize_batch_arrow(layer_table({"a": weights}), **options), 0)
    rows, columns = reference.matrix_shape(weights.shape)
    groups = 1 if group_size == -1 else -(-columns // group_size)
    assert len(quantized.data) == rows * -(-columns * bit_width // 8)
    assert len(quantized.scales) == len(quantized.zero_points) == rows * groups
    for row in range(rows):
        width = len(quantized.data) // rows
        stream = int.from_bytes(quantized.data[row * width :][:width], "little")
        assert stream >> columns * bit_width == 0  # the padding


@PROPERTY
@given(EXACT, choices(), st.sampled_from(["float32", "bfloat16"]))
def test_property_zero_stays_zero(weights: Array, options: Options, scale_dtype: str) -> None:
    options |= {"zero_point": "integer", "scale_dtype": scale_dtype}
    result = quantize_batch_arrow(layer_table({"a": weights}), **options)
    zero_points = stored(result, 0).zero_points
    assert (zero_points == np.rint(zero_points)).all()
    assert ((zero_points >= 0) & (zero_points < 2 ** options["bit_width"])).all()
    zeros = decoded(result, 0)[weights == 0]
    assert zeros.tobytes() == np.zeros_like(zeros).tobytes()


@PROPERTY
@given(
    magnitudes(2.0**-5, 2.0**12),
    st.integers(1, 300),
    choices(),
    st.sampled_from(list(SCALE_DTYPES)),
)
def test_property_a_repeated_value(
    value: float, count: int, options: Options, scale_dtype: str
) -> None:
    table = layer_table({"a": np.full(count, value, np.float32)})
    result = quantize_batch_arrow(table, scale_dtype=scale_dtype, **options)
    values = decoded(result, 0)
    if options["zero_point"] == "float":
        assert (stored(result, 0).scales == 1).all()
        assert (values == np.float32(value)).all()
    precision = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}[scale_dtype]
    assert (abs(values - np.float64(value)) <= abs(value) * (precision + 2.0**-23)).all()
