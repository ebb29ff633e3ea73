"""The same codes from every input type, with any number of threads and any chunks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest
from reference import BIT_WIDTHS, ZERO_POINTS, layer_table, stored

from pyarrowquant import quantize_batch_arrow
from tables.against_oracle import COLUMNS, EMPTY_SHAPES, Options, assert_oracle, families, rows_of

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
