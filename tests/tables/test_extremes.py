"""Scales that their type cannot hold, and the ends of float32: bounds instead of bytes."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import reference
from reference import BIT_WIDTHS, SCALE_DTYPES, ZERO_POINTS, Array, layer_table, stored

from pyarrowquant import QuantizationError, quantize_batch_arrow
from tables.against_oracle import (
    TINY,
    Options,
    assert_oracle,
    assert_sensible,
    decoded,
    floats,
    told,
)

FLT_MAX = np.finfo(np.float32).max


# Scales that their type cannot hold


@pytest.mark.parametrize("zero_point", ZERO_POINTS)
@pytest.mark.parametrize("bit_width", BIT_WIDTHS)
def test_float16_scale_range(bit_width: int, zero_point: str) -> None:
    layers = {
        "large": floats(1e9, -1e9, 0),
        "fine": floats(0.5, -0.5),
        "second row": np.array([[1, 2], [1e9, -1e9]], np.float32),
    }
    options: Options = {
        "bit_width": bit_width,
        "zero_point": zero_point,
        "scale_dtype": "float16",
    }
    with pytest.raises(QuantizationError) as caught:
        quantize_batch_arrow(layer_table(layers), **options)
    found = [(e.layer_name, e.row, e.kind) for e in caught.value.errors]
    assert found == [(name, row, "scale_range") for row, name in enumerate(layers) if row % 2 == 0]


@pytest.mark.parametrize(
    ("scale", "rounded"),
    [
        (65519.0, 65504.0),
        (65520.0, None),
        (2.0**-25, 1.0),  # of a group that decodes to zeros
        (2.0**-25 * (1 + 2.0**-23), 2.0**-24),
        (2.0**-24 * 1.5, 2.0**-23),
        (2.0**-24 * 2.5, 2.0**-23),
    ],
)
def test_float16_scales_round_to_even_up_to_the_bounds(scale: float, rounded: float | None) -> None:
    # A symmetric scale is exact: an eighth of the largest magnitude.
    layers = {"a": floats(-8 * scale, 3 * scale)}
    options: Options = {"bit_width": 4, "zero_point": "symmetric", "scale_dtype": "float16"}
    if rounded is None:
        with pytest.raises(QuantizationError) as caught:
            quantize_batch_arrow(layer_table(layers), **options)
        assert caught.value.errors[0].kind == "scale_range"
    else:
        with told(1 if rounded == 1 else 0):
            result = quantize_batch_arrow(layer_table(layers), **options)
        assert stored(result, 0).scales.tolist() == [rounded]
        assert_oracle(result, layers, group_size=128, **options)


@pytest.mark.parametrize("scale_dtype", SCALE_DTYPES)
def test_a_constant_needs_no_scale_with_a_float_zero_point(scale_dtype: str) -> None:
    layers = {str(x): np.full((2, 9), x, np.float32) for x in (FLT_MAX, -1e9, 1e-9, TINY, -TINY)}
    options: Options = {"zero_point": "float", "scale_dtype": scale_dtype, "sort": False}
    result = quantize_batch_arrow(layer_table(layers), **options)
    for row, weights in enumerate(layers.values()):
        assert decoded(result, row).tobytes() == weights.tobytes()


@pytest.mark.parametrize("zero_point", ["integer", "symmetric"])
def test_subnormals_are_zeros_with_bfloat16_scales(zero_point: str) -> None:
    table = layer_table({"a": np.full(9, TINY)})
    with told(1):
        result = quantize_batch_arrow(table, zero_point=zero_point, scale_dtype="bfloat16")
    assert stored(result, 0).scales.tolist() == [1.0]
    assert not decoded(result, 0).any()


# Extremes


def extremes() -> dict[str, Array]:
    """Finite values at both ends of float32, where the plain formulas fail."""
    rng = np.random.default_rng(13)
    any_bits = rng.integers(0, 2**32, (40, 100), np.uint32).view(np.float32)
    any_bits = np.where(np.isfinite(any_bits), any_bits, FLT_MAX)
    subnormals = rng.integers(0, 2**23, (6, 100), np.uint32).view(np.float32)
    below = np.nextafter(FLT_MAX, np.float32(0))
    layers = {
        "smallest": floats(TINY),
        "minus smallest": floats(-TINY),
        "smallest, both signs": floats(TINY, -TINY),
        "smallest, repeated": np.full(130, TINY),
        "few smallest": floats(0, TINY, 2 * TINY, 3 * TINY),
        "twenty smallest": floats(20 * TINY, 0, TINY),
        "300 smallest": floats(-300 * TINY, 0, TINY, 77 * TINY),
        "subnormals": np.linspace(-1e-38, 1e-38, 100, dtype=np.float32),
        "subnormal range": np.float32(2e-38) + np.arange(9, dtype=np.float32) * TINY,
        "random subnormals": subnormals,
        "negative subnormals": -subnormals,
        "smallest normal": floats(2.0**-126),
        "normal and smallest": floats(2.0**-126, TINY),
        "largest": floats(FLT_MAX),
        "minus largest": floats(-FLT_MAX),
        "both largest": floats(FLT_MAX, -FLT_MAX),
        "both largest and 0": floats(0, -FLT_MAX, FLT_MAX, -0.0),
        "largest, repeated": np.full(130, FLT_MAX),
        "largest two": floats(FLT_MAX, below),
        "minus largest two": floats(-FLT_MAX, -below),
        "largest and smallest": floats(FLT_MAX, TINY),
        "all four ends": floats(-TINY, FLT_MAX, TINY, -FLT_MAX),
        "minus largest and smallest": floats(-FLT_MAX, TINY, 0),
        "around the largest": np.linspace(-1, 1, 99, dtype=np.float32) * FLT_MAX,
        "half the largest": floats(FLT_MAX / 2, -FLT_MAX / 2, -FLT_MAX / 3),
        "any bits": any_bits,
        "one of each": any_bits.reshape(-1, 1),
    }
    for exponent in (*range(-149, -110), *range(110, 128)):
        layers[f"2^{exponent}"] = np.array([1, 0.5, -0.75, 0.3]) * 2.0**exponent
        layers[f"-2^{exponent}"] = np.array([-1, -0.5, -0.1]) * 2.0**exponent
    return {name: np.asarray(array, np.float32) for name, array in layers.items()}


@pytest.mark.parametrize("group_size", [8, 128, -1])
@pytest.mark.parametrize("zero_point", ZERO_POINTS)
@pytest.mark.parametrize("bit_width", BIT_WIDTHS)
def test_extremes(bit_width: int, zero_point: str, group_size: int) -> None:
    layers = extremes()
    result = quantize_batch_arrow(
        layer_table(layers), bit_width, group_size=group_size, zero_point=zero_point, sort=False
    )
    assert result["layer_name"].to_pylist() == list(layers)
    for row, weights in enumerate(layers.values()):
        assert_sensible(result, row, weights, zero_point)


@pytest.mark.parametrize("zero_point", ZERO_POINTS)
@pytest.mark.parametrize("bit_width", BIT_WIDTHS)
def test_large_values_with_bfloat16_scales(bit_width: int, zero_point: str) -> None:
    # Rounded up to bfloat16, the scale of FLT_MAX would decode to Inf.
    layers = {
        name: array
        for name, array in extremes().items()
        if array.ndim == 1 and abs(array).max() > 1e30 and name != "largest two"
    }
    options: Options = {"zero_point": zero_point, "scale_dtype": "bfloat16", "sort": False}
    result = quantize_batch_arrow(layer_table(layers), bit_width, **options)
    for row, weights in enumerate(layers.values()):
        assert_sensible(result, row, weights, zero_point, precision=2.0**-8)
        scales = stored(result, row).scales
        assert (scales.astype(ml_dtypes.bfloat16).astype(np.float32) == scales).all()


@pytest.mark.parametrize("group_size", [8, 64, 128])
@pytest.mark.parametrize("zero_point", ZERO_POINTS)
@pytest.mark.parametrize("bit_width", BIT_WIDTHS)
def test_a_group_ignores_its_neighbours(bit_width: int, zero_point: str, group_size: int) -> None:
    matrix = np.random.default_rng(21).standard_normal((9, 333), np.float32)
    matrix[2:, 64:192] *= np.float32(2.0**-140)
    matrix[4:, 128:130] = FLT_MAX, -FLT_MAX
    matrix[6:, 255] = TINY
    matrix[7, 256:] = 0
    matrix[8, 256:] *= np.float32(2.0**124)
    starts = reference.group_starts(333, group_size)
    groups = np.split(matrix, starts[1:], axis=1)
    options: Options = {"group_size": group_size, "zero_point": zero_point, "sort": False}
    together = quantize_batch_arrow(layer_table({"a": matrix}), bit_width, **options)
    names = {str(i): np.ascontiguousarray(group) for i, group in enumerate(groups)}
    apart = quantize_batch_arrow(layer_table(names), bit_width, **options)
    whole = stored(together, 0)
    parts = [stored(apart, i) for i in range(len(groups))]
    codes = [
        reference.unpack(part.data, 9, group.shape[1], bit_width)
        for part, group in zip(parts, groups, strict=True)
    ]
    assert whole.data == reference.pack(np.hstack(codes), bit_width)
    assert whole.scales.tobytes() == np.stack([p.scales for p in parts], axis=1).tobytes()
    assert whole.zero_points.tobytes() == np.stack([p.zero_points for p in parts], axis=1).tobytes()
