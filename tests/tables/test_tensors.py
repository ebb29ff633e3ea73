"""Weights as tensors and as lists of lists, against the plain form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import run
from conftest import OnlyStream, assert_same, plain
from hostile import array_of, overwritten
from hypothesis import given, settings
from hypothesis import strategies as st

from pyarrowquant import (
    QuantizationError,
    Recipe,
    Rule,
    compare,
    convert,
    quantize_batch_arrow,
    quantize_stream,
    validate_arrow_input,
)

pytestmark = pytest.mark.usefixtures("nothing_leaked")

LISTS = [pa.list_, pa.large_list, pa.list_view, pa.large_list_view, lambda t: pa.list_(t, 5)]
FLOATS = [pa.float16(), pa.float32(), pa.float64()]
INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]


@pytest.fixture
def matrices() -> np.ndarray:
    """Three matrices of 5 rows and 5 columns, exact in float16."""
    return np.random.default_rng(0).integers(-99, 99, (3, 5, 5)).astype(np.float32)


def table(weights: Any, **columns: Any) -> pa.Table:
    return pa.table({"layer_name": list("abcdef")[: len(weights)], "weights": weights, **columns})


def expected_of(arrays: Any, **options: Any) -> pa.Table:
    return quantize_batch_arrow(plain(list("abcdef")[: len(arrays)], arrays), **options)


@pytest.mark.parametrize("element", FLOATS, ids=str)
@pytest.mark.parametrize("inner", range(5))
@pytest.mark.parametrize("outer", range(5))
def test_lists_of_lists(outer: int, inner: int, element: Any, matrices: np.ndarray) -> None:
    dtype = LISTS[outer](LISTS[inner](element))
    plain_lists = pa.array(matrices.tolist(), pa.list_(pa.list_(element)))
    weights = pa.array(plain_lists.to_pylist(), dtype)
    for source in (table(weights), OnlyStream(table(weights))):
        assert_same(quantize_batch_arrow(source), expected_of(matrices))
    sliced = table(weights).slice(1, 1)
    assert quantize_batch_arrow(sliced)["shape"].to_pylist() == [[5, 5]]
    chunks = pa.concat_tables([table(weights)[i : i + 1] for i in range(3)])
    assert_same(quantize_batch_arrow(chunks), expected_of(matrices))


@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 3, 4), (2, 1, 3, 2, 2)], ids=str)
def test_fixed_shape_tensors(shape: tuple[int, ...]) -> None:
    arrays = np.random.default_rng(1).standard_normal((4, *shape), np.float32)
    dtype = pa.fixed_shape_tensor(pa.float32(), shape)
    storage = pa.array(arrays.reshape(4, -1).tolist(), dtype.storage_type)
    whole = table(pa.ExtensionArray.from_storage(dtype, storage))
    validate_arrow_input(whole)
    assert_same(quantize_batch_arrow(whole), expected_of(arrays))
    assert_same(quantize_batch_arrow(OnlyStream(whole[1:3])), quantize_batch_arrow(whole)[1:3])
    parts = pa.concat_tables([whole[:1], whole[1:1], whole[1:4]])
    assert_same(quantize_batch_arrow(parts), expected_of(arrays))
    assert_same(quantize_stream(parts.to_reader()).read_all().combine_chunks(), expected_of(arrays))
    assert compare(whole, plain(list("abcd"), arrays))["mse"].to_pylist() == [0.0] * 4
    longer = pa.array(arrays.reshape(4, -1).tolist() + arrays.reshape(4, -1).tolist())
    longer = longer.cast(dtype.storage_type)[3:5]
    result = quantize_batch_arrow(table(pa.ExtensionArray.from_storage(dtype, longer)))
    assert_same(result, expected_of(arrays[[3, 0]]))


def test_tensors_whose_dimensions_are_in_another_order_are_refused() -> None:
    transposed = np.zeros((3, 5, 4), np.float32).transpose(0, 2, 1)
    weights = pa.FixedShapeTensorArray.from_numpy_ndarray(transposed)
    with pytest.raises(ValueError, match=r"'weights' has type .* not in the order of its dimens"):
        quantize_batch_arrow(table(weights))


def test_polars_and_duckdb(matrices: np.ndarray) -> None:
    arrays = polars.Series(matrices.tolist(), dtype=polars.Array(polars.Float32, (5, 5)))
    frame = polars.DataFrame({"layer_name": ["a", "b", "c"], "weights": arrays})
    assert_same(quantize_batch_arrow(frame), expected_of(matrices))
    lists = polars.Series(matrices.tolist(), dtype=polars.List(polars.List(polars.Float32)))
    assert_same(quantize_batch_arrow(frame.with_columns(weights=lists)), expected_of(matrices))
    deep = polars.Series(
        np.zeros((2, 2, 3, 4)).tolist(), dtype=polars.Array(polars.Float32, (2, 3, 4))
    )
    result = quantize_batch_arrow(polars.DataFrame({"layer_name": ["a", "b"], "weights": deep}))
    assert result["shape"].to_pylist() == [[2, 3, 4]] * 2
    for weights in ("[[1.0::float, 2], [3, 4]]", "[[1, 2], [3, 4]]::float[2][2]"):
        found = quantize_batch_arrow(duckdb.sql(f"select 'a' layer_name, {weights} weights"))
        assert_same(found, expected_of([np.array([[1, 2], [3, 4]])]))


def test_layers_of_different_shapes_share_a_column() -> None:
    weights = pa.array([[[1.0, 2.0]], [[1.0], [2.0], [3.0]], [], [[], []]])
    result = quantize_batch_arrow(table(weights))
    assert result["shape"].to_pylist() == [[1, 2], [3, 1], [0, 0], [2, 0]]


def test_ragged_lists_name_their_layers() -> None:
    weights = pa.array([[[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], [3.0]], [[1.0], [], [2.0, 3.0]]])
    with pytest.raises(QuantizationError) as caught:
        quantize_batch_arrow(table(weights))
    assert [(e.layer_name, e.kind) for e in caught.value.errors] == [
        ("b", "shape_mismatch"),
        ("c", "shape_mismatch"),
    ]
    assert caught.value.errors[0].message == (
        "Layer 'b': Shape mismatch: a list in weights has 2 elements, and the one at its index 1 "
        "has 1. All must be of one length"
    )
    with pytest.warns(UserWarning, match="Skipped"):
        kept = quantize_batch_arrow(table(weights), continue_on_error=True)
    assert_same(kept, expected_of([np.array([[1, 2], [3, 4]])]))


def test_nulls_are_errors() -> None:
    weights = pa.array([[[1.0, 2.0]], None, [[1.0, 2.0], None], [[1.0, None]]])
    with pytest.raises(QuantizationError) as caught:
        quantize_batch_arrow(table(weights))
    assert [(e.row, e.index, e.kind) for e in caught.value.errors] == [
        (1, None, "null"),
        (2, None, "null"),
        (3, 1, "null"),
    ]


def test_a_shape_column_must_agree(matrices: np.ndarray) -> None:
    shapes = pa.array([[5, 5], None, [25]], pa.list_(pa.int64()))
    for weights in (
        pa.array(matrices.tolist()).cast(pa.list_(pa.list_(pa.float32()))),
        pa.FixedShapeTensorArray.from_numpy_ndarray(matrices),
    ):
        given = table(weights, shape=shapes)
        assert_same(quantize_batch_arrow(given[:2]), expected_of(matrices[:2]))
        with pytest.raises(QuantizationError) as caught:
            quantize_batch_arrow(given)
        assert str(caught.value) == (
            "Layer 'c': Shape mismatch: shape is [25], and weights are lists of shape [5, 5]"
        )


@pytest.mark.parametrize("integer", INTEGERS, ids=str)
def test_shapes_of_any_integers(integer: pa.DataType) -> None:
    weights = np.arange(200 * 3, dtype=np.float32).reshape(200, 3)
    size = 200 if integer != pa.int8() else 100
    given = plain(["a"], [weights[:size]])
    shape = pa.array([[size, 3]], pa.list_(integer))
    assert_same(
        quantize_batch_arrow(given.set_column(2, "shape", shape)), quantize_batch_arrow(given)
    )


def test_a_dimension_beyond_int64_is_an_error() -> None:
    shape = pa.array([[2**63, 2]], pa.list_(pa.uint64()))
    with pytest.raises(QuantizationError, match="9223372036854775808, which is beyond 2\\^63-1"):
        quantize_batch_arrow(plain(["a"], [[1, 2]]).set_column(2, "shape", shape))


def test_recipes_see_the_shape(matrices: np.ndarray) -> None:
    recipe = Recipe([Rule(ndim=2, min_columns=5, bit_width=8)], "skip")
    for weights in (
        pa.array(matrices.tolist()).cast(pa.list_(pa.list_(pa.float32()))),
        pa.FixedShapeTensorArray.from_numpy_ndarray(matrices),
    ):
        result = quantize_batch_arrow(table(weights), recipe=recipe)
        assert result["bit_width"].to_pylist() == [8, 8, 8]
        fitted = Recipe.fit(table(weights), 12)
        assert fitted.expected is not None


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_files_of_tensors(suffix: str, tmp_path: Path, matrices: np.ndarray) -> None:
    source = tmp_path / f"in.{suffix}"
    whole = table(pa.FixedShapeTensorArray.from_numpy_ndarray(matrices))
    if suffix == "parquet":
        pq.write_table(whole, source)
    else:
        with pa.ipc.new_file(source, whole.schema) as writer:
            writer.write_table(whole)
    done = convert(source, tmp_path / "out.parquet", bit_width=4)
    assert (done.layers, done.weights) == (3, 75)
    assert pq.read_table(tmp_path / "out.parquet")["shape"].to_pylist() == [[5, 5]] * 3
    shown = run("inspect", source)
    assert shown.exit_code == 0, shown.output
    assert "5x5" in shown.stdout
    compared = run("compare", source, tmp_path / "out.parquet")
    assert compared.exit_code == 0, compared.output


def lists_of(outer: list[int], inner: list[int], values: int = 12) -> pa.Table:
    """Lists of lists with any offsets."""
    numbers = pa.array(np.arange(values, dtype=np.float32))

    def array(count: int, offsets: pa.Buffer, child: pa.Array) -> pa.Array:
        return array_of(pa.list_(child.type), count - 1, offsets, children=[child])

    def build(*buffers: pa.Buffer) -> pa.Table:
        return table(array(len(outer), buffers[0], array(len(inner), buffers[1], numbers)))

    return overwritten(build, np.array(outer, np.int32), np.array(inner, np.int32))


OFFSETS = st.lists(
    st.integers(-2, 14) | st.sampled_from([2**31 - 1, -(2**31), 1 << 20]), min_size=2, max_size=6
)


@settings(max_examples=250, deadline=None, derandomize=True, database=None)
@given(OFFSETS, OFFSETS)
def test_offsets_of_any_kind(outer: list[int], inner: list[int]) -> None:
    weights = lists_of(outer, inner)
    try:
        weights.validate(full=True)
        rows = weights["weights"].to_pylist()
        ragged = any(len({len(each) for each in row}) > 1 for row in rows)
    except pa.ArrowInvalid:
        ragged = True
    if ragged:
        with pytest.raises(ValueError, match=r"(?i)offset|length|size"):
            quantize_batch_arrow(OnlyStream(weights))
    else:
        found = quantize_batch_arrow(OnlyStream(weights))
        assert_same(
            found,
            expected_of(
                [
                    np.array(row, np.float32).reshape(len(row), -1) if row else np.zeros((0, 0))
                    for row in rows
                ]
            ),
        )


@pytest.mark.parametrize("offset", [0, 1, 2, 2**31, 2**60])
def test_fixed_lists_that_end_behind_their_values(offset: int) -> None:
    values = pa.array(np.arange(8, dtype=np.float32))
    inner = pa.Array.from_buffers(pa.list_(pa.float32(), 2), 4, [None], children=[values])
    outer = pa.Array.from_buffers(
        pa.list_(inner.type, 2), 1, [None], offset=offset, children=[inner]
    )
    if offset < 2:
        assert quantize_batch_arrow(table(outer)).num_rows == 1
    else:
        with pytest.raises(ValueError, match=r"Column 'weights' is corrupt"):
            quantize_batch_arrow(table(outer))
