"""Values that are well laid out and mean nothing, in inputs and in results to decode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import OnlyStream, alive_bytes, attempt, plain, with_column
from corrupt import CORRUPT, WEIGHTS, result_with
from hypothesis import given, settings
from hypothesis import strategies as st

from pyarrowquant import QuantizationError, dequantize_batch_arrow, quantize_batch_arrow

pytestmark = pytest.mark.usefixtures("nothing_leaked")

VALUES = np.arange(1, 9, dtype=np.float32)
NAN = float("nan")
INF = float("inf")


# Inputs


def failure(source: Any) -> list[tuple[str | None, int, int | None, str]]:
    """Return the fields of the errors that quantizing the source raises."""
    with pytest.raises(QuantizationError) as caught:
        quantize_batch_arrow(source)
    for error in caught.value.errors:
        assert error.layer_name is None or f"'{error.layer_name}'" in error.message
    return [(e.layer_name, e.row, e.index, e.kind) for e in caught.value.errors]


NULL_LISTS = [
    make(dtype)
    for make in (pa.list_, pa.large_list, pa.list_view, pa.large_list_view)
    for dtype in (pa.float16(), pa.float32(), pa.float64())
]


@pytest.mark.parametrize("dtype", NULL_LISTS, ids=str)
@pytest.mark.parametrize("wrap", [lambda table: table, OnlyStream], ids=["table", "stream"])
def test_null_inside_weights(dtype: pa.DataType, wrap: Callable[[pa.Table], Any]) -> None:
    good = np.array([1.0, 2.0], np.float16)
    bad = [*np.ones(70, np.float16), None, good[0], None]
    weights = pa.array([good, good, bad, good], dtype)[1:]
    table = pa.table({"layer_name": ["a", "b", "c"], "weights": weights})
    assert failure(wrap(table)) == [("b", 1, 70, "null")]


def test_null_inside_fixed_size_lists() -> None:
    rows = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, None], None]
    weights = pa.array(rows, pa.list_(pa.float32(), 3))[1:]
    table = pa.table({"layer_name": ["a", "b", "c"], "weights": weights})
    assert failure(table) == [("b", 1, 2, "null"), ("c", 2, None, "null")]


def test_values_under_a_null_are_not_looked_at() -> None:
    values = pa.array([1.0, 2.0, float("nan"), 4.0], pa.float32())
    nulls = pa.array([False, True, False])
    weights = pa.ListArray.from_arrays(pa.array([0, 2, 3, 4], pa.int32()), values, mask=nulls)
    table = pa.table({"layer_name": ["a", "b", "c"], "weights": weights})
    assert failure(table) == [("b", 1, None, "null")]


def raw(data: bytes | None, dtype: str | None) -> pa.Table:
    """One layer, named x, of raw bytes."""
    columns = [pa.array(["x"]), pa.array([data], pa.binary()), pa.array([dtype], pa.string())]
    return pa.table(columns, names=["layer_name", "weights", "dtype"])


@pytest.mark.parametrize(
    ("data", "dtype", "kind"),
    [
        (b"12345", "F32", "shape_mismatch|corrupt"),
        (b"123", "F16", "shape_mismatch|corrupt"),
        (b"1", "BF16", "shape_mismatch|corrupt"),
        (None, "F32", "null"),
        (b"1234", None, "null"),
        (b"1234", "I8", "corrupt"),
        (b"1234", "f32", "corrupt"),
        (b"1234", "", "corrupt"),
        (b"1234", "F32\0", "corrupt"),
    ],
)
def test_raw_bytes_that_mean_nothing(data: bytes | None, dtype: str | None, kind: str) -> None:
    ((name, row, _, found),) = failure(raw(data, dtype))
    assert (name, row) == ("x", 0)
    assert found in kind.split("|")


def test_unknown_dtype_text_names_value_and_choices() -> None:
    with pytest.raises(QuantizationError) as caught:
        quantize_batch_arrow(raw(b"1234", "I8"))
    assert all(word in str(caught.value) for word in ("'x'", "I8", "F32", "F16", "BF16"))


SHAPES = {
    "overflow": [2**62, 4],
    "overflow to the right count": [2**61 + 1, 8],
    "many overflows": [2**62] * 9,
    "negative": [-8],
    "two negatives": [-2, -4],
    "wildcard": [-1],
    "smallest": [-(2**63)],
    "zero and negative": [0, -1],
    "zero": [0],
    "zero and huge": [0, 2**62, 2**62],
    "empty but eight weights": [],
    "null": [8, None],
    "only null": [None],
}


@pytest.mark.parametrize("what", SHAPES)
def test_shape_that_cannot_be(what: str) -> None:
    column = pa.array([SHAPES[what]], pa.list_(pa.int64()))
    table = with_column(plain(["x"], [VALUES]), "shape", column)
    ((name, row, _, kind),) = failure(table)
    assert (name, row) == ("x", 0)
    assert kind in (("null", "shape_mismatch") if "null" in what else ("shape_mismatch",))


@pytest.mark.parametrize("wrong", [[-2, -4], [2**30, 2**30], [8, None]], ids=str)
def test_int32_shape_that_cannot_be(wrong: list[int | None]) -> None:
    column = pa.array([wrong], pa.list_(pa.int32(), 2))
    table = with_column(plain(["x"], [VALUES]), "shape", column)
    assert failure(table)[0][3] in ("null", "shape_mismatch")


@pytest.mark.parametrize(
    "shape", [[0, 2**62, 2**62], [2**62, 0], [2**40, 0], [0, 2**63 - 1], [3, 0, 2]], ids=str
)
def test_empty_layer_of_huge_dimensions(shape: list[int]) -> None:
    column = pa.array([shape], pa.list_(pa.int64()))
    table = with_column(plain(["x"], [[]]), "shape", column)
    result = attempt(quantize_batch_arrow, table)
    if isinstance(result, QuantizationError):
        assert [layer.kind for layer in result.errors] == ["shape_mismatch"]
        return
    row = result.to_pylist()[0]
    assert (row["quantized_data"], row["scales"], row["zero_points"]) == (b"", [], [])
    assert row["shape"] == shape
    assert dequantize_batch_arrow(result)["weights"].to_pylist() == [[]]


# Results given to dequantize_batch_arrow


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("column", "value"), CORRUPT, ids=lambda value: repr(value)[:20])
def test_corrupt_result_is_refused(column: str, value: Any, dtype: str) -> None:
    result = result_with(column, value)
    with pytest.raises(QuantizationError, match="'bad'") as caught:
        dequantize_batch_arrow(result, dtype=dtype)
    errors = caught.value.errors
    assert [(error.layer_name, error.row) for error in errors] == [("bad", 1)]
    assert errors[0].kind in ("corrupt", "null", "shape_mismatch")


def test_null_name_of_a_result_is_refused() -> None:
    with pytest.raises(QuantizationError, match=r"(?i)row 1") as caught:
        dequantize_batch_arrow(result_with("layer_name", None))
    error = caught.value.errors[0]
    assert (error.layer_name, error.row, error.kind) == (None, 1, "null")


def test_every_corrupt_row_is_reported() -> None:
    tables = [result_with("scales", []), result_with("bit_width", 7)]
    with pytest.raises(QuantizationError) as caught:
        dequantize_batch_arrow(pa.concat_tables(tables))
    assert [error.row for error in caught.value.errors] == [1, 4]


COLUMNS = ["layer_name", "quantized_data", "scales", "zero_points", "shape"]


@pytest.mark.parametrize("column", [*COLUMNS, "bit_width", "group_size"])
def test_missing_column_of_a_result(column: str) -> None:
    result = quantize_batch_arrow(plain(["a"], [WEIGHTS]))
    with pytest.raises(ValueError, match=f"Missing required column '{column}'"):
        dequantize_batch_arrow(result.drop_columns(column))


@pytest.mark.parametrize("column", [*COLUMNS, "bit_width", "group_size"])
@pytest.mark.parametrize("dtype", [pa.date32(), pa.list_(pa.string())], ids=str)
def test_wrong_type_of_a_result_column(column: str, dtype: pa.DataType) -> None:
    result = quantize_batch_arrow(plain(["a"], [WEIGHTS]))
    result = with_column(result, column, pa.nulls(1, dtype))
    with pytest.raises(ValueError, match=f"Column '{column}' has type "):
        dequantize_batch_arrow(result)


@pytest.mark.parametrize("thing", [None, {"a": 1}, 3, "result"], ids=repr)
def test_what_is_no_result_is_named(thing: object) -> None:
    with pytest.raises((ValueError, TypeError), match=r"(?i)table"):
        dequantize_batch_arrow(thing)


def test_unknown_dtype_to_decode_to() -> None:
    result = quantize_batch_arrow(plain(["a"], [WEIGHTS]))
    with pytest.raises(ValueError, match="float32"):
        dequantize_batch_arrow(result, dtype="int8")
    with pytest.raises(TypeError, match="dtype"):
        dequantize_batch_arrow(result, dtype=32)


# Fuzzing: either an error or as many weights as the shape says

NUMBERS = st.floats(width=32) | st.sampled_from([0.0, 1.0, -1.0])
ROW = st.fixed_dictionaries(
    {
        "layer_name": st.just("x"),
        "quantized_data": st.binary(max_size=40),
        "scales": st.lists(NUMBERS, max_size=4),
        "zero_points": st.lists(NUMBERS, max_size=4),
        "shape": st.lists(st.integers(0, 9) | st.sampled_from([-1, 2**31, 2**62]), max_size=3),
        "bit_width": st.sampled_from([2, 3, 4, 5, 6, 8]) | st.integers(0, 255),
        "group_size": st.sampled_from([-1, 8, 16, 128]) | st.integers(-(2**31), 2**31 - 1),
    }
)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(row=ROW)
def test_fuzz_results(row: dict[str, Any]) -> None:
    schema = quantize_batch_arrow(plain([], [])).schema
    result = pa.Table.from_pylist([row], schema=schema)
    weights = attempt(dequantize_batch_arrow, result)
    if isinstance(weights, QuantizationError):
        assert "'x'" in str(weights)
    else:
        assert len(weights["weights"][0]) == int(np.prod(np.array(row["shape"], object)))


def test_refusing_releases_everything() -> None:
    before = alive_bytes()
    for column, value in CORRUPT:
        with pytest.raises(QuantizationError):
            dequantize_batch_arrow(result_with(column, value))
    assert alive_bytes() == before
