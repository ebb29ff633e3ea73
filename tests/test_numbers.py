"""Every code, scale and zero-point that quantization writes, against the numpy oracle.

Identical bytes, not close values, wherever the contract promises bytes; bounds at the extremes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import hypothesis.extra.numpy as hnp
import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import BIT_WIDTHS, SCALE_DTYPES, ZERO_POINTS, Array, layer_table, stored

from pyarrowquant import QuantizationError, quantize_batch_arrow

GROUP_SIZES = (8, 32, 40, 64, 128, -1, 4096)
COLUMNS = (1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 100, 127, 128, 129, 255, 257, 300, 1000)
FLT_MAX = np.finfo(np.float32).max
TINY = np.float32(2.0**-149)
PROPERTY = settings(max_examples=300, deadline=None, derandomize=True)

Layers = Mapping[str, Array]
Options = dict[str, Any]


def floats(*values: Any) -> Array:
    return np.array(values, np.float32)


def assert_oracle(result: pa.Table, layers: Layers, **options: Any) -> None:
    """Each row of the result is, to the byte, what the oracle makes of its layer."""
    assert result["layer_name"].to_pylist() == list(layers)
    for row, (name, weights) in enumerate(layers.items()):
        expected = reference.quantize(weights, **options)
        actual = stored(result, row)
        assert actual.scales.tobytes() == expected.scales.tobytes(), name
        assert actual.zero_points.tobytes() == expected.zero_points.tobytes(), name
        assert actual.data == expected.data, name
        assert result["shape"][row].as_py() == list(weights.shape), name
        assert result["bit_width"][row].as_py() == options["bit_width"], name
        assert result["group_size"][row].as_py() == options["group_size"], name


def decoded(result: pa.Table, row: int) -> Array:
    """The oracle's own decoding of one row."""
    return reference.dequantize(
        stored(result, row),
        tuple(result["shape"][row].as_py()),
        result["bit_width"][row].as_py(),
        result["group_size"][row].as_py(),
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


def families(columns: int) -> Iterator[Array]:
    """Rows of `columns` values, each of one kind that float16 scales can hold."""
    rng = np.random.default_rng(columns)
    normal = rng.standard_normal((8, columns)) * 0.05
    yield normal[0]
    yield rng.standard_t(2, columns)
    yield abs(normal[1]) + 1e-3
    yield -abs(normal[2]) - 1e-3
    yield 1000 + normal[3]
    yield np.full(columns, 0.3)
    yield np.full(columns, -77.7)
    yield np.zeros(columns)
    yield np.full(columns, -0.0)
    yield np.where(rng.random(columns) < 0.5, -0.0, normal[4])
    yield np.where(rng.random(columns) < 0.5, -0.0, -abs(normal[4]))
    yield np.where(rng.random(columns) < 0.5, -0.0, 0.0)
    yield np.where(np.arange(columns) == columns // 2, 9.0, normal[5])
    yield np.where(np.arange(columns) == columns - 1, -9.0, normal[5])
    yield normal[6].astype(np.float16)
    yield normal[7].astype(ml_dtypes.bfloat16)
    for bit_width in BIT_WIDTHS:
        yield from ties(columns, bit_width)


def ties(columns: int, bit_width: int) -> Iterator[Array]:
    """Multiples of half a step, for ranges that begin at 0, above it and half a step below."""
    halves = np.arange(columns) * 7 % (2 * 2**bit_width - 1) / 2
    largest = 2**bit_width - 1
    yield halves * 0.25
    yield halves * 0.3
    yield (halves - largest / 2) * 0.5
    yield (halves + 5) * 0.125
    yield -halves
    yield (halves - 2 ** (bit_width - 1)) * 2


def wide_families(columns: int) -> Iterator[Array]:
    """Rows of values whose scales need the exponents of float32."""
    rng = np.random.default_rng(columns)
    normal = rng.standard_normal((4, columns))
    yield normal[0] * 10 ** rng.uniform(-30, 30, columns)
    yield normal[1] * np.repeat(10 ** rng.uniform(-30, 30, columns), 8)[:columns]
    yield normal[2] * np.where(rng.random(columns) < 0.5, 1e-30, 1e30)
    yield np.full(columns, 1e30)
    yield np.full(columns, -1e-30)
    yield 1 + rng.integers(0, 3, columns) * 2.0**-23
    yield -1000 - rng.integers(0, 9, columns) * 2.0**-14
    yield np.where(np.arange(columns) % 8 == 0, normal[3], 1e-40)


def rows_of(kinds: Callable[[int], Iterator[Array]], columns: int) -> Array:
    """One row a family."""
    return np.array(list(kinds(columns)), np.float32)


@functools.cache
def table_layers(wide: bool) -> dict[str, Array]:
    """All families in rows of every length, and some in every rank from 0 to 4."""
    kinds = wide_families if wide else families
    layers = {f"2-D, {n} columns": rows_of(kinds, n) for n in COLUMNS}
    layers["2-D, more than 4096"] = rows_of(kinds, 4099)[:: 1 if wide else 8]
    layers["3-D"] = rows_of(kinds, 129).reshape(-1, 3, 43)
    layers["4-D"] = rows_of(kinds, 300).reshape(-1, 5, 6, 10)
    layers["4-D of one"] = rows_of(kinds, 1)[:1].reshape(1, 1, 1, 1)
    for n in (1, 9, 100, 300):
        layers |= {f"1-D, {n} columns, {i}": row for i, row in enumerate(rows_of(kinds, n)[:16])}
    layers["0-D"] = np.array(-0.7, np.float32)
    layers |= {f"empty {shape}": np.empty(shape, np.float32) for shape in EMPTY_SHAPES}
    return layers


EMPTY_SHAPES = [(0,), (0, 5), (3, 0), (2, 0, 4), (0, 0)]


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


# Input types


@pytest.mark.parametrize("bit_width", BIT_WIDTHS)
@pytest.mark.parametrize("zero_point", ZERO_POINTS)
@pytest.mark.parametrize("kind", ["F16", "BF16", "F32"])
def test_raw_bytes(kind: str, zero_point: str, bit_width: int) -> None:
    dtype = {"F16": np.float16, "BF16": ml_dtypes.bfloat16, "F32": np.float32}[kind]
    narrow = {f"{n} columns": rows_of(families, n).astype(dtype) for n in COLUMNS}
    table = pa.table(
        {
            "layer_name": list(narrow),
            "weights": pa.array([array.tobytes() for array in narrow.values()], pa.binary()),
            "dtype": [kind] * len(narrow),
            "shape": pa.array([array.shape for array in narrow.values()], pa.list_(pa.int64())),
        }
    )
    layers = {name: array.astype(np.float32) for name, array in narrow.items()}
    for group_size in (8, 128, -1):
        options: Options = {
            "bit_width": bit_width,
            "group_size": group_size,
            "zero_point": zero_point,
        }
        result = quantize_batch_arrow(table, sort=False, **options)
        assert_oracle(result, layers, scale_dtype="float32", **options)


@pytest.mark.parametrize("bit_width", BIT_WIDTHS)
@pytest.mark.parametrize("zero_point", ZERO_POINTS)
def test_float16_lists(zero_point: str, bit_width: int) -> None:
    narrow = {f"{n} columns": rows_of(families, n).astype(np.float16) for n in COLUMNS}
    layers = {name: array.astype(np.float32) for name, array in narrow.items()}
    table = layer_table(narrow, pa.list_(pa.float16()))
    for group_size in (8, 128, -1):
        options: Options = {
            "bit_width": bit_width,
            "group_size": group_size,
            "zero_point": zero_point,
        }
        result = quantize_batch_arrow(table, sort=False, **options)
        assert_oracle(result, layers, scale_dtype="float32", **options)


@pytest.mark.parametrize(("kind", "dtype"), [("F16", np.float16), ("BF16", ml_dtypes.bfloat16)])
def test_every_finite_16_bit_value_widens_exactly(kind: str, dtype: Any) -> None:
    every = np.arange(2**16, dtype=np.uint16).view(dtype).astype(np.float32)
    every = every[np.isfinite(every)].reshape(-1, 1)
    table = pa.table(
        {
            "layer_name": ["a"],
            "weights": [every.astype(dtype).tobytes()],
            "dtype": [kind],
            "shape": [every.shape],
        }
    )
    # A float zero-point keeps the only value of a group as it is.
    result = quantize_batch_arrow(table, zero_point="float")
    assert stored(result, 0).zero_points.tobytes() == (0 - every).tobytes()


def test_float64_rounds_to_float32_first() -> None:
    rng = np.random.default_rng(2)
    doubles = rng.standard_normal((5, 300))
    doubles[0] = 1 + np.arange(300) * 2.0**-24  # each second one is a tie
    doubles[1] *= 2.0**-149 * 100
    doubles[2] = np.nextafter(1 + np.arange(300) * 2.0**-23 + 2.0**-24, 0)
    doubles[3, 0] = 2.0**-151  # rounds to 0
    table = layer_table({"a": doubles}, pa.list_(pa.float64()))
    rounded = layer_table({"a": doubles.astype(np.float32)})
    for zero_point in ZERO_POINTS:
        result = quantize_batch_arrow(table, zero_point=zero_point)
        assert result.equals(quantize_batch_arrow(rounded, zero_point=zero_point))
    layers = {"a": doubles[[0, 2, 3, 4]].astype(np.float32)}
    options: Options = {"bit_width": 8, "group_size": 64, "zero_point": "float"}
    table = layer_table({"a": doubles[[0, 2, 3, 4]]}, pa.list_(pa.float64()))
    assert_oracle(quantize_batch_arrow(table, **options), layers, scale_dtype="float32", **options)


def test_a_missing_or_null_shape_is_one_row() -> None:
    weights = rows_of(families, 129)
    flat = {"a": weights.ravel(), "b": weights[0]}
    options: Options = {"bit_width": 3, "group_size": 64, "zero_point": "integer"}
    table = layer_table(flat)
    nulls = pa.nulls(2, pa.list_(pa.int64()))
    for given_table in (table.drop_columns(["shape"]), table.set_column(2, "shape", nulls)):
        result = quantize_batch_arrow(given_table, **options)
        assert_oracle(result, flat, scale_dtype="float32", **options)


# Determinism


def rechunked(table: pa.Table) -> Iterator[pa.Table]:
    """The same rows in other chunks, at other offsets, in other buffers."""
    rows = table.num_rows
    yield pa.concat_tables([table.slice(i, 1) for i in range(rows)])
    yield pa.concat_tables([table.slice(0, 1), table.slice(1, rows // 3), table[1 + rows // 3 :]])
    yield pa.concat_tables([table, table]).combine_chunks()[rows:]
    pairs = (table[max(i - 3, 0) : i + 2][min(i, 3) :] for i in range(0, rows, 2))
    yield pa.concat_tables(pairs)
    columns = {
        name: pa.chunked_array([column.combine_chunks()[:i], column.combine_chunks()[i:]])
        for i, (name, column) in enumerate(zip(table.column_names, table.columns, strict=True), 1)
    }
    yield pa.table(columns)


@pytest.fixture(scope="module")
def mixed() -> pa.Table:
    """Layers small and large enough for several work units, in no order."""
    rng = np.random.default_rng(8)
    layers = {f"small {n}": rows_of(families, n)[: n % 7 + 1] for n in COLUMNS}
    layers["large"] = rng.standard_normal((7, 60_001), np.float32)
    layers["a row"] = rng.standard_normal(300_001, np.float32)
    layers |= {f"empty {shape}": np.empty(shape, np.float32) for shape in EMPTY_SHAPES}
    return layer_table(layers)


@pytest.mark.parametrize("zero_point", ZERO_POINTS)
@pytest.mark.parametrize(("bit_width", "group_size"), [(3, 8), (4, 128), (6, -1), (8, 64)])
def test_threads_and_chunks_change_nothing(
    mixed: pa.Table, bit_width: int, group_size: int, zero_point: str
) -> None:
    options: Options = {
        "bit_width": bit_width,
        "group_size": group_size,
        "zero_point": zero_point,
    }
    expected = quantize_batch_arrow(mixed, **options)
    for threads in (1, 2, 3, 8):
        assert quantize_batch_arrow(mixed, threads=threads, **options).equals(expected)
    for table in rechunked(mixed):
        assert quantize_batch_arrow(table, **options).equals(expected)


@pytest.mark.parametrize("bit_width", BIT_WIDTHS)
def test_list_types_change_nothing(mixed: pa.Table, bit_width: int) -> None:
    expected = quantize_batch_arrow(mixed, bit_width)
    arrays = [row.values.to_numpy() for row in mixed["weights"]]
    for make in (pa.large_list, pa.list_view, pa.large_list_view):
        table = mixed.set_column(1, "weights", pa.array(arrays, make(pa.float32())))
        assert quantize_batch_arrow(table, bit_width).equals(expected)
    for binary in (pa.binary(), pa.large_binary(), pa.binary_view()):
        raw = pa.array([array.tobytes() for array in arrays], binary)
        table = mixed.set_column(1, "weights", raw)
        table = table.append_column("dtype", pa.array(["F32"] * table.num_rows))
        assert quantize_batch_arrow(table, bit_width).equals(expected)


@pytest.mark.parametrize("bit_width", BIT_WIDTHS)
def test_fixed_size_lists_change_nothing(bit_width: int) -> None:
    rows = rows_of(families, 257)
    layers = {f"{i:03}": row for i, row in enumerate(rows)}
    plain = layer_table(layers)
    fixed = layer_table(layers, pa.list_(pa.float32(), 257))
    expected = quantize_batch_arrow(plain, bit_width)
    assert quantize_batch_arrow(fixed, bit_width).equals(expected)
    assert quantize_batch_arrow(fixed[5:][3:20], bit_width).equals(expected[8:25])


# Scales that their type cannot hold


@pytest.mark.parametrize("zero_point", ZERO_POINTS)
@pytest.mark.parametrize("bit_width", BIT_WIDTHS)
def test_float16_scale_range(bit_width: int, zero_point: str) -> None:
    layers = {
        "small": floats(1e-9, -1e-9),
        "fine": floats(0.5, -0.5),
        "large": floats(1e9, -1e9, 0),
        "zeros": floats(0, 0),
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
        (2.0**-25, None),
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
def test_bfloat16_scale_range(zero_point: str) -> None:
    table = layer_table({"a": np.full(9, TINY)})
    with pytest.raises(QuantizationError) as caught:
        quantize_batch_arrow(table, zero_point=zero_point, scale_dtype="bfloat16")
    assert caught.value.errors[0].kind == "scale_range"


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


def step_of(group: Array, bit_width: int, zero_point: str) -> float:
    """The distance of two codes, in float64, and never under what float32 can hold."""
    lo, hi = float(group.min()), float(group.max())
    if zero_point == "symmetric":
        step = max(hi, -lo) / 2 ** (bit_width - 1)
    elif zero_point == "integer":
        step = (max(hi, 0) - min(lo, 0)) / (2**bit_width - 1)
    else:
        step = (hi - lo) / (2**bit_width - 1)
    return max(float(step), float(TINY))


def assert_sensible(
    result: pa.Table, row: int, weights: Array, zero_point: str, precision: float = 2.0**-22
) -> None:
    """Finite numbers that decode within a step; `precision` is that of scale and values."""
    name = result["layer_name"][row].as_py()
    quantized, values = stored(result, row), decoded(result, row)
    assert np.isfinite(quantized.scales).all(), name
    assert np.isfinite(quantized.zero_points).all(), name
    assert not np.signbit(quantized.zero_points[quantized.zero_points == 0]).any(), name
    assert (quantized.scales != 0 if zero_point == "symmetric" else quantized.scales > 0).all()
    assert np.isfinite(values).all(), name
    rows, columns = reference.matrix_shape(weights.shape)
    starts = reference.group_starts(columns, result["group_size"][row].as_py())
    bit_width = result["bit_width"][row].as_py()
    pairs = zip(weights.reshape(rows, columns), values.reshape(rows, columns), strict=True)
    for row_weights, row_values in pairs:
        errors = abs(row_weights.astype(np.float64) - row_values)
        for group, error in zip(
            np.split(row_weights, starts[1:]), np.split(errors, starts[1:]), strict=True
        ):
            largest = float(abs(group).max())
            step = step_of(group, bit_width, zero_point)
            assert error.max() <= step + largest * precision, (name, group)


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


def test_empty_layers() -> None:
    layers = {str(shape): np.empty(shape, np.float32) for shape in EMPTY_SHAPES}
    for group_size in (8, -1):
        result = quantize_batch_arrow(layer_table(layers), group_size=group_size, sort=False)
        for row, shape in enumerate(EMPTY_SHAPES):
            assert result["quantized_data"][row].as_py() == b""
            assert result["scales"][row].as_py() == []
            assert result["zero_points"][row].as_py() == []
            assert result["shape"][row].as_py() == list(shape)


# Properties


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
        assert_oracle(quantize_batch_arrow(table, **options), {"a": weights}, **options)


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
