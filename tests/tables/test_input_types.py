"""Every type that weights and shapes may have, against the plain form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest
from conftest import INPUT_SCHEMA, assert_same, attempt, plain, plain_layers, with_column
from hypothesis import given, settings
from hypothesis import strategies as st

from pyarrowquant import QuantizationError, quantize_batch_arrow

pytestmark = pytest.mark.usefixtures("nothing_leaked")

STRINGS = [pa.string(), pa.large_string(), pa.string_view()]
LISTS = [pa.list_, pa.large_list, pa.list_view, pa.large_list_view]
FLOATS = [pa.float16(), pa.float32(), pa.float64()]
BINARIES = [pa.binary(), pa.large_binary(), pa.binary_view()]
RAW = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "BF16": ml_dtypes.bfloat16}


@pytest.fixture
def table(layers: dict[str, np.ndarray]) -> pa.Table:
    """Make the plain input."""
    return plain_layers(layers)


@pytest.fixture
def expected(table: pa.Table) -> pa.Table:
    """Quantize the plain input."""
    return quantize_batch_arrow(table)


def raw_table(names: Sequence[str], arrays: Sequence[Any], kind: str, binary: Any) -> pa.Table:
    """Weights as raw bytes of the named dtype, with their shapes."""
    data = [np.asarray(array).astype(RAW[kind]).tobytes() for array in arrays]
    return pa.table(
        {
            "layer_name": pa.array(names),
            "weights": pa.array(data, binary),
            "dtype": pa.array([kind] * len(data)),
            "shape": pa.array([np.shape(array) for array in arrays], pa.list_(pa.int64())),
        }
    )


def unaligned(data: bytes, before: int = 1) -> pa.Array:
    """One binary value that begins `before` bytes into an aligned buffer."""
    memory = pa.allocate_buffer(before + len(data))
    np.frombuffer(memory, np.uint8)[before:] = np.frombuffer(data, np.uint8)
    offsets = pa.py_buffer(np.array([before, before + len(data)], np.int32))
    return pa.Array.from_buffers(pa.binary(), 1, [None, offsets, memory])


# Weights


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("make_list", LISTS, ids=lambda make: make.__name__)
def test_list_of_floats(
    make_list: Callable[..., pa.DataType], dtype: pa.DataType, table: pa.Table, expected: pa.Table
) -> None:
    weights = [np.array(row, dtype.to_pandas_dtype()) for row in table["weights"].to_pylist()]
    column = pa.array(weights, make_list(dtype))
    assert_same(quantize_batch_arrow(with_column(table, "weights", column)), expected)
    padded = pa.concat_arrays([column[:3], column])[3:]
    assert_same(quantize_batch_arrow(with_column(table, "weights", padded)), expected)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("offset", [0, 1, 3])
def test_fixed_size_list(dtype: pa.DataType, offset: int) -> None:
    weights = np.random.default_rng(3).standard_normal((6, 150)).astype(np.float16)
    flat = pa.array(weights.ravel().astype(dtype.to_pandas_dtype()), dtype)
    lists = pa.FixedSizeListArray.from_arrays(flat, 150)[offset:]
    names = [f"n{i}" for i in range(offset, 6)]
    table = pa.table({"layer_name": names, "weights": lists})
    assert_same(
        quantize_batch_arrow(table), quantize_batch_arrow(plain(names, list(weights[offset:])))
    )


def test_fixed_size_list_whose_values_are_a_slice() -> None:
    values = pa.array(np.arange(100, dtype=np.float32))[7:71]
    table = pa.table(
        {"layer_name": ["a", "b"], "weights": pa.FixedSizeListArray.from_arrays(values, 32)}
    )
    arrays = [np.arange(7, 39), np.arange(39, 71)]
    assert_same(quantize_batch_arrow(table), quantize_batch_arrow(plain(["a", "b"], arrays)))


@pytest.mark.parametrize("make_view", [pa.ListViewArray, pa.LargeListViewArray])
def test_list_views_overlap_and_go_backwards(make_view: Any) -> None:
    values = np.random.default_rng(4).standard_normal(90).astype(np.float32)
    spans = [(50, 40), (0, 64), (20, 0), (10, 60)]
    column = make_view.from_arrays(
        [start for start, _ in spans], [size for _, size in spans], pa.array(values)
    )
    names = [f"n{i}" for i in range(len(spans))]
    arrays = [values[start : start + size] for start, size in spans]
    table = pa.table({"layer_name": names, "weights": column})
    assert_same(quantize_batch_arrow(table), quantize_batch_arrow(plain(names, arrays)))


def test_name_and_nullability_of_the_list_item_do_not_matter(
    table: pa.Table, expected: pa.Table
) -> None:
    item = pa.field("element", pa.float32(), nullable=False)
    column = pa.array(table["weights"].to_pylist(), pa.list_(item))
    assert_same(quantize_batch_arrow(with_column(table, "weights", column)), expected)


def test_validity_bitmap_without_a_null(table: pa.Table, expected: pa.Table) -> None:
    def all_valid(column: pa.Array) -> pa.Array:
        """The column with a bitmap of ones where pyarrow had none."""
        bitmap = pa.py_buffer(b"\xff" * (len(column) // 8 + 1))
        offsets = column.buffers()[1]
        children = [column.values] if pa.types.is_list(column.type) else None
        buffers = [bitmap, offsets] if children else [bitmap, offsets, column.buffers()[2]]
        return pa.Array.from_buffers(column.type, len(column), buffers, children=children)

    columns = [all_valid(column.combine_chunks()) for column in table.columns]
    assert_same(quantize_batch_arrow(pa.table(columns, schema=INPUT_SCHEMA)), expected)


def test_float64_rounds_to_nearest_float32() -> None:
    one, step = 1.0, 2.0**-24
    biggest = float(np.finfo(np.float32).max)
    values = [one + step, one + 3 * step, one + step * 1.001, biggest + 2.0**102, 2.0**-149, 1e-60]
    wide = np.repeat(np.array(values), 8)
    table = pa.table({"layer_name": ["a"], "weights": pa.array([wide], pa.list_(pa.float64()))})
    narrow = plain(["a"], [wide.astype(np.float32)])
    options = {"group_size": 8, "zero_point": "float"}
    result = quantize_batch_arrow(table, **options)
    assert_same(
        result.drop_columns("shape"), quantize_batch_arrow(narrow, **options).drop_columns("shape")
    )


def test_float64_beyond_float32_counts_as_inf() -> None:
    beyond = float(np.finfo(np.float32).max) + 2.0**103
    table = pa.table(
        {"layer_name": ["a"], "weights": pa.array([[1.0, -beyond]], pa.list_(pa.float64()))}
    )
    with pytest.raises(QuantizationError) as caught:
        quantize_batch_arrow(table)
    error = caught.value.errors[0]
    assert (error.layer_name, error.index, error.kind) == ("a", 1, "non_finite")


@pytest.mark.parametrize("kind", RAW)
@pytest.mark.parametrize("binary", BINARIES, ids=str)
def test_raw_bytes(binary: pa.DataType, kind: str, layers: dict[str, np.ndarray]) -> None:
    arrays = [array.astype(RAW[kind]).astype(np.float32) for array in layers.values()]
    expected = quantize_batch_arrow(plain(list(layers), arrays))
    table = raw_table(list(layers), list(layers.values()), kind, binary)
    assert_same(quantize_batch_arrow(table), expected)
    padded = pa.concat_tables([table[:3], table]).combine_chunks()[3:]
    assert_same(quantize_batch_arrow(padded), expected)


@pytest.mark.parametrize("binary", BINARIES, ids=str)
def test_raw_bytes_of_mixed_dtypes(binary: pa.DataType, layers: dict[str, np.ndarray]) -> None:
    kinds = [list(RAW)[i % 3] for i in range(len(layers))]
    parts = [
        raw_table([name], [array], kind, binary)
        for (name, array), kind in zip(layers.items(), kinds, strict=True)
    ]
    arrays = [
        array.astype(RAW[kind]).astype(np.float32)
        for array, kind in zip(layers.values(), kinds, strict=True)
    ]
    assert_same(
        quantize_batch_arrow(pa.concat_tables(parts).combine_chunks()),
        quantize_batch_arrow(plain(list(layers), arrays)),
    )


@pytest.mark.parametrize("dtype", STRINGS, ids=str)
def test_type_of_the_dtype_column(dtype: pa.DataType) -> None:
    table = raw_table(["a"], [[1.5, -2.0]], "BF16", pa.binary())
    table = with_column(table, "dtype", table["dtype"].cast(dtype))
    assert_same(quantize_batch_arrow(table), quantize_batch_arrow(plain(["a"], [[1.5, -2.0]])))


@pytest.mark.parametrize("kind", RAW)
def test_binary_views_around_the_inline_limit(kind: str) -> None:
    arrays = [np.arange(size, dtype=np.float32) for size in range(9)]
    names = [f"n{size}" for size in range(9)]
    table = raw_table(names, arrays, kind, pa.binary_view())
    assert_same(quantize_batch_arrow(table), quantize_batch_arrow(plain(names, arrays)))


@pytest.mark.parametrize("before", range(1, 9))
@pytest.mark.parametrize("kind", RAW)
def test_raw_bytes_at_any_address(kind: str, before: int) -> None:
    array = np.arange(-100, 101, dtype=np.float32)
    column = unaligned(array.astype(RAW[kind]).tobytes(), before)
    table = pa.table({"layer_name": ["a"], "weights": column, "dtype": [kind]})
    expected = quantize_batch_arrow(plain(["a"], [array]))
    assert_same(quantize_batch_arrow(table), expected)


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("kind", ["F16", "BF16"])
def test_every_finite_16_bit_pattern_is_widened_exactly(kind: str, before: int) -> None:
    values = np.arange(2**16, dtype=np.uint16).view(RAW[kind])
    values = values[np.isfinite(values.astype(np.float32))]
    # a group of one value keeps it: with a float zero-point, s = 1 and z = -value
    data = np.repeat(values, 8).tobytes()
    table = pa.table({"layer_name": ["a"], "weights": unaligned(data, before), "dtype": [kind]})
    row = quantize_batch_arrow(table, group_size=8, zero_point="float")
    zero_points = row["zero_points"].combine_chunks().flatten().to_numpy()
    np.testing.assert_array_equal(-zero_points, values.astype(np.float32))


@pytest.mark.parametrize("make_list", LISTS, ids=lambda make: make.__name__)
def test_every_finite_half_in_a_list_is_widened_exactly(
    make_list: Callable[..., pa.DataType],
) -> None:
    values = np.arange(2**16, dtype=np.uint16).view(np.float16)
    values = values[np.isfinite(values)]
    column = pa.array([np.repeat(values, 8)], make_list(pa.float16()))
    table = pa.table({"layer_name": ["a"], "weights": column})
    row = quantize_batch_arrow(table, group_size=8, zero_point="float")
    zero_points = row["zero_points"].combine_chunks().flatten().to_numpy()
    np.testing.assert_array_equal(-zero_points, values.astype(np.float32))


VALUE = st.floats(width=16, allow_nan=False, allow_infinity=False)
ROWS = st.lists(st.none() | st.lists(VALUE | st.none(), max_size=12) | st.lists(VALUE), max_size=6)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(
    rows=ROWS,
    make_list=st.sampled_from(LISTS),
    dtype=st.sampled_from(FLOATS),
    before=st.integers(0, 9),
    cut=st.integers(0, 6),
)
def test_any_layout_reads_the_same(
    rows: list[list[float | None] | None],
    make_list: Callable[..., pa.DataType],
    dtype: pa.DataType,
    before: int,
    cut: int,
) -> None:
    # numpy halves, since pyarrow takes no Python floats for them
    exact = [row and [v if v is None else np.float16(v) for v in row] for row in rows]
    column = pa.array([[np.float16(9), None]] * before + exact, make_list(dtype))[before:]
    names = [f"n{row}" for row in range(len(rows))]
    chunks = pa.chunked_array([column[:cut], column[cut:]])
    table = pa.table({"layer_name": pa.array(names, pa.string()), "weights": chunks})
    result = attempt(quantize_batch_arrow, table)
    bad = [index for index, row in enumerate(rows) if row is None or None in row]
    if bad:
        assert [(error.row, error.kind) for error in result.errors] == [(r, "null") for r in bad]
    else:
        assert_same(result, quantize_batch_arrow(plain(names, rows)))


# Shapes


@pytest.mark.parametrize("dtype", [pa.int64(), pa.int32()], ids=str)
@pytest.mark.parametrize("make_list", [pa.list_, pa.large_list], ids=["list", "large_list"])
def test_shape_type(
    make_list: Callable[..., pa.DataType], dtype: pa.DataType, table: pa.Table, expected: pa.Table
) -> None:
    column = table["shape"].combine_chunks().cast(make_list(dtype))
    assert_same(quantize_batch_arrow(with_column(table, "shape", column)), expected)
    sliced = pa.concat_arrays([column[:3], column])[3:]
    assert_same(quantize_batch_arrow(with_column(table, "shape", sliced)), expected)


@pytest.mark.parametrize("dtype", [pa.int64(), pa.int32()], ids=str)
@pytest.mark.parametrize("offset", [0, 1, 2])
def test_fixed_size_shape(dtype: pa.DataType, offset: int) -> None:
    arrays = [np.arange(12.0).reshape(shape) for shape in ((3, 4), (2, 6), (12, 1), (1, 12))]
    names = [f"n{i}" for i in range(4)]
    column = pa.array([array.shape for array in arrays], pa.list_(dtype, 2))
    table = with_column(plain(names, arrays), "shape", column)[offset:]
    assert_same(
        quantize_batch_arrow(table), quantize_batch_arrow(plain(names[offset:], arrays[offset:]))
    )


SHAPE_TYPES = [pa.list_(pa.int64()), pa.large_list(pa.int32()), pa.list_(pa.int64(), 2)]


@pytest.mark.parametrize("dtype", SHAPE_TYPES, ids=str)
def test_null_shape_is_one_row(dtype: pa.DataType) -> None:
    matrix = np.arange(40.0).reshape(4, 10)
    table = plain(["a", "b", "c"], [matrix, matrix, matrix])
    shapes = pa.array([[4, 10], None, [10, 4]], dtype)
    expected = plain(["a", "b", "c"], [matrix, matrix.ravel(), matrix.reshape(10, 4)])
    assert_same(
        quantize_batch_arrow(with_column(table, "shape", shapes)), quantize_batch_arrow(expected)
    )


def test_absent_shape_is_one_row(table: pa.Table, layers: dict[str, np.ndarray]) -> None:
    flat = plain(list(layers), [array.ravel() for array in layers.values()])
    assert_same(quantize_batch_arrow(table.drop_columns("shape")), quantize_batch_arrow(flat))


def test_shape_column_of_type_null_is_as_good_as_absent() -> None:
    table = pa.table({"layer_name": ["a"], "weights": [[1.0, 2.0]], "shape": pa.nulls(1)})
    assert quantize_batch_arrow(table)["shape"].to_pylist() == [[2]]
