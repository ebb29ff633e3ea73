"""Every code, scale and zero-point that quantization writes, against the numpy oracle.

Identical bytes, not close values, wherever the contract promises bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import reference
from reference import BIT_WIDTHS, SCALE_DTYPES, ZERO_POINTS, layer_table, stored

from pyarrowquant import quantize_batch_arrow
from tables.against_oracle import (
    EMPTY_SHAPES,
    GROUP_SIZES,
    Layers,
    Options,
    assert_oracle,
    floats,
    table_layers,
)

# Worked by hand


@pytest.mark.parametrize(
    ("weights", "bit_width", "options", "packed", "scales", "zero_points"),
    [
        # s = (2+1)/3, z = 1: codes 0 1 2 3, the first in the lowest bits.
        ([-1, 0, 1, 2], 2, {}, "e4", [1], [1]),
        # s = (4+3)/7, z = 3: codes 0 1 3 4 7, 15 bits: 0x78c8.
        ([-3, -2, 0, 1, 4], 3, {}, "c878", [1], [3]),
        # s = 1, z = 0: the halves round to even: codes 0 2 2 15.
        ([0.5, 1.5, 2.5, 15], 4, {}, "20f2", [1], [0]),
        # s = 1, z = 7.5 to even = 8: 0.5 is code 8, -7.5 code 0, 7.5 code 15.5, so 15.
        ([-7.5, 7.5, 0.5], 4, {}, "f008", [1], [8]),
        # All positive and all negative: the group's range begins or ends at 0.
        ([15, 3], 4, {}, "3f", [1], [0]),
        ([-15, -3], 4, {}, "c0", [1], [15]),
        # A code that spans two bytes; 20 bits: 0x807e0.
        ([0, 31, 1, 16], 5, {}, "e00708", [1], [0]),
        ([63, 0, 32], 6, {}, "3f0002", [1], [0]),
        ([0, 255, 128], 8, {}, "00ff80", [1], [0]),
        # Zeros of both signs: s = 1, z = 0, never -0.0.
        ([0, -0.0, 0], 4, {}, "0000", [1], [0]),
        # A range without the 0: s = (6-3)/3, z = -3: codes 0 1 3.
        ([3, 4, 6], 2, {"zero_point": "float"}, "34", [1], [-3]),
        # z = 0.5 stays; 0.5 and 1.5 are codes 1 and 2, -0.5 is 0.
        ([-0.5, 0.5, 1.5, 2.5], 2, {"zero_point": "float"}, "e4", [1], [0.5]),
        # One repeated value, and one value alone: s = 1, z = -value.
        ([2.5, 2.5], 4, {"zero_point": "float"}, "00", [1], [-2.5]),
        ([-0.0], 4, {"zero_point": "float"}, "00", [1], [0]),
        # The largest magnitude is positive: s = -8/8; -8 would be code 16, so 15.
        ([8, -8, 0, -7], 4, {"zero_point": "symmetric"}, "f0f8", [-1], [8]),
        # It is negative: s = 8/8; 3.5 is code 11.5, to even 12.
        ([-8, 7, 3.5], 4, {"zero_point": "symmetric"}, "f00c", [1], [8]),
        ([0, -0.0], 4, {"zero_point": "symmetric"}, "88", [1], [8]),
        # The scale's type rounds first: 1 + 2^-12 is 1 in float16, 1 + 3*2^-8 ties to 1 + 2^-6.
        ([0, 15 * (1 + 2**-12)], 4, {"scale_dtype": "float16"}, "f0", [1], [0]),
        ([0, 15 * (1 + 3 * 2**-8)], 4, {"scale_dtype": "bfloat16"}, "f0", [1.015625], [0]),
        # Two groups, the second of one column.
        ([0, 15, 1, 2, 3, 4, 5, 6, -30], 4, {"group_size": 8}, "f021436500", [1, 2], [0, 15]),
        # Rows begin at a byte: 9 bits take two.
        ([[7, 0, 1], [0, 7, 7]], 3, {}, "4700f801", [1, 1], [0, 0]),
        # The dimensions after the first make one row.
        ([[[3, 0], [0, 3]], [[0, 3], [3, 3]]], 2, {}, "c3fc", [1, 1], [0, 0]),
    ],
)
def test_worked_by_hand(
    weights: list[Any],
    bit_width: int,
    options: Options,
    packed: str,
    scales: list[float],
    zero_points: list[float],
) -> None:
    array = np.array(weights, np.float32)
    defaults: dict[str, Any] = {
        "group_size": 128,
        "zero_point": "integer",
        "scale_dtype": "float32",
    }
    by_oracle = reference.quantize(array, bit_width, **(defaults | options))
    result = quantize_batch_arrow(layer_table({"a": array}), bit_width, **options)
    for quantized in (by_oracle, stored(result, 0)):
        assert quantized.data.hex() == packed
        assert quantized.scales.tobytes() == floats(*scales).tobytes()
        assert quantized.zero_points.tobytes() == floats(*zero_points).tobytes()


def test_code_order_when_the_inverse_is_inexact() -> None:
    # 2/15 is not exact: 1.0 becomes 7.4999995 steps in float32, hence 7 and not the even 8.
    result = quantize_batch_arrow(layer_table({"a": floats(1, 2)}))
    assert stored(result, 0).data == b"\xf7"


# The table of everything


@pytest.fixture(scope="module")
def inputs() -> dict[bool, tuple[Layers, pa.Table]]:
    """The layers, with wide values and without, and their Arrow tables."""
    return {wide: (table_layers(wide), layer_table(table_layers(wide))) for wide in (False, True)}


@pytest.mark.parametrize("scale_dtype", SCALE_DTYPES)
@pytest.mark.parametrize("zero_point", ZERO_POINTS)
@pytest.mark.parametrize("group_size", GROUP_SIZES)
@pytest.mark.parametrize("bit_width", BIT_WIDTHS)
def test_table(
    inputs: dict[bool, tuple[Layers, pa.Table]],
    bit_width: int,
    group_size: int,
    zero_point: str,
    scale_dtype: str,
) -> None:
    options: Options = {
        "bit_width": bit_width,
        "group_size": group_size,
        "zero_point": zero_point,
        "scale_dtype": scale_dtype,
    }
    for wide in (False,) if scale_dtype == "float16" else (False, True):
        layers, table = inputs[wide]
        assert_oracle(quantize_batch_arrow(table, sort=False, **options), layers, **options)


@pytest.mark.parametrize("scale_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("zero_point", ZERO_POINTS)
@pytest.mark.parametrize("bit_width", BIT_WIDTHS)
def test_the_bounds_of_exactness(bit_width: int, zero_point: str, scale_dtype: str) -> None:
    # Scales just within 2^-120 .. 2^120, where an implementation may change its formulas.
    unit = np.random.default_rng(bit_width).random((6, 100)).astype(np.float32)
    unit[:, 0], unit[:, 1] = 0, 1
    unit -= np.array([[0], [0.25], [0.5], [0.5 + 2.0**-10], [0.75], [1]], np.float32)
    codes = 2.0**bit_width - 1
    exponents = [-120, -119, -118, 117, 118, 119] + [120] * (zero_point != "symmetric")
    if zero_point == "symmetric":
        codes = 2.0 ** (bit_width - 1)
        unit /= abs(unit).max(axis=1, keepdims=True)
    layers = {str(e): unit * np.float32(codes * 2.0**e) for e in exponents}
    options: Options = {
        "bit_width": bit_width,
        "group_size": -1,
        "zero_point": zero_point,
        "scale_dtype": scale_dtype,
    }
    assert_oracle(
        quantize_batch_arrow(layer_table(layers), sort=False, **options), layers, **options
    )


@pytest.mark.parametrize(
    ("bit_width", "group_size", "zero_point"),
    [
        (2, 64, "symmetric"),
        (3, 64, "float"),
        (4, 128, "integer"),
        (4, -1, "integer"),
        (5, 64, "symmetric"),
        (6, -1, "float"),
        (8, -1, "symmetric"),
    ],
)
def test_layers_of_many_work_units(bit_width: int, group_size: int, zero_point: str) -> None:
    rng = np.random.default_rng(5)
    layers = {
        "rows": rng.standard_normal((64, 40001), np.float32),
        "long rows": rng.standard_normal((3, 300_000), np.float32),
        "one row": rng.standard_normal(1_000_003, np.float32),
    }
    options: Options = {
        "bit_width": bit_width,
        "group_size": group_size,
        "zero_point": zero_point,
        "scale_dtype": "float32",
    }
    for threads in (1, 2, 3):
        result = quantize_batch_arrow(layer_table(layers), sort=False, threads=threads, **options)
        if threads == 1:
            assert_oracle(result, layers, **options)
            alone = result
        assert result.equals(alone)


# Extremes


def test_empty_layers() -> None:
    layers = {str(shape): np.empty(shape, np.float32) for shape in EMPTY_SHAPES}
    for group_size in (8, -1):
        result = quantize_batch_arrow(layer_table(layers), group_size=group_size, sort=False)
        for row, shape in enumerate(EMPTY_SHAPES):
            assert result["quantized_data"][row].as_py() == b""
            assert result["scales"][row].as_py() == []
            assert result["zero_points"][row].as_py() == []
            assert result["shape"][row].as_py() == list(shape)
