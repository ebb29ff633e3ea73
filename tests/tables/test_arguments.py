"""Arguments and columns that are wrong: what is raised before any layer is read."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import plain

from pyarrowquant import (
    QuantizationError,
    quantize_batch_arrow,
    quantize_stream,
    validate_arrow_input,
)

pytestmark = pytest.mark.usefixtures("nothing_leaked")


# Arguments


@pytest.mark.parametrize("bit_width", [7, 0, 1, -4, 9, 16, 2**40])
def test_bit_width_that_does_not_exist(bit_width: int) -> None:
    text = f"Invalid bit_width: {bit_width}. Must be 2, 4, or 8 (3, 5 and 6 also work)"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        quantize_batch_arrow(plain([], []), bit_width)


@pytest.mark.parametrize("bit_width", ["4", True, 4.0, [4]], ids=repr)
def test_bit_width_of_a_wrong_type(bit_width: object) -> None:
    with pytest.raises(TypeError, match="bit_width"):
        quantize_batch_arrow(plain([], []), bit_width)


WRONG_VALUES: list[tuple[str, object, list[str]]] = [
    ("group_size", 0, ["multiple of 8", "-1"]),
    ("group_size", 12, ["multiple of 8", "-1"]),
    ("group_size", -2, ["multiple of 8", "-1"]),
    ("group_size", -8, ["multiple of 8", "-1"]),
    ("group_size", 2**70, []),
    ("method", "best", ["rtn"]),
    ("method", "RTN", ["rtn"]),
    ("zero_point", "none", ["integer", "float", "symmetric"]),
    ("scale_dtype", "float64", ["float32", "float16", "bfloat16"]),
    ("encoding", "int4", ["int", "q2_k", "fp8"]),
    ("encoding", "Q4_K", ["q4_k"]),
    ("threads", 0, ["threads", "1"]),
    ("threads", -1, ["threads", "1"]),
    ("threads", 2**70, ["threads"]),
]


@pytest.mark.parametrize(("argument", "value", "choices"), WRONG_VALUES, ids=repr)
def test_wrong_value(argument: str, value: object, choices: list[str]) -> None:
    with pytest.raises(ValueError, match=argument) as caught:
        quantize_batch_arrow(plain([], []), **{argument: value})
    text = str(caught.value)
    assert not isinstance(caught.value, QuantizationError)
    assert all(word in text for word in [str(value), *choices])


WRONG_TYPES: list[tuple[str, object]] = [
    ("group_size", 3.5),
    ("group_size", "128"),
    ("group_size", True),
    ("method", 3),
    ("method", None),
    ("zero_point", 8),
    ("scale_dtype", np.float32),
    ("encoding", 4),
    ("encoding", None),
    ("threads", "x"),
    ("threads", 1.0),
    ("threads", True),
    ("progress", "yes"),
    ("progress", 3),
]


@pytest.mark.parametrize(("argument", "value"), WRONG_TYPES, ids=repr)
def test_wrong_type(argument: str, value: object) -> None:
    with pytest.raises(TypeError, match=argument):
        quantize_batch_arrow(plain([], []), **{argument: value})


@pytest.mark.parametrize("argument", ["bit_width", "group_size", "method", "threads"])
def test_wrong_arguments_raise_with_continue_on_error_too(argument: str) -> None:
    wrong: dict[str, Any] = {"bit_width": 7, "group_size": 12, "method": "?", "threads": 0}
    with pytest.raises(ValueError, match=argument):
        quantize_batch_arrow(
            plain(["a"], [[1.0]]), continue_on_error=True, **{argument: wrong[argument]}
        )


def test_stream_checks_its_arguments_at_the_call() -> None:
    with pytest.raises(ValueError, match="Invalid bit_width: 7"):
        quantize_stream(plain([], []), 7)
    with pytest.raises(TypeError, match="threads"):
        quantize_stream(plain([], []), threads="x")


# Schemas

CALLS = [quantize_batch_arrow, validate_arrow_input, quantize_stream]


def schema_error(call: Any, **types: pa.DataType) -> str:
    """Return the text for an empty table whose columns have these types."""
    columns = {
        "layer_name": pa.string(),
        "weights": pa.list_(pa.float32()),
        "shape": pa.list_(pa.int64()),
        **types,
    }
    schema = pa.schema({name: dtype for name, dtype in columns.items() if dtype is not None})
    with pytest.raises(ValueError, match=r"[Cc]olumn") as caught:
        call(schema.empty_table())
    return str(caught.value)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("column", ["layer_name", "weights"])
def test_missing_column(call: Any, column: str) -> None:
    assert schema_error(call, **{column: None}) == (
        f"Missing required column '{column}'. Expected schema: layer_name: string, "
        "weights: list<float32>, shape: list<int64> (optional)"
    )


@pytest.mark.parametrize("call", CALLS)
def test_raw_weights_need_a_dtype_column(call: Any) -> None:
    text = schema_error(call, weights=pa.binary())
    assert text.startswith("Missing required column 'dtype'")


WEIGHTS_TYPES = {
    pa.int32(): "int32",
    pa.float32(): "float",
    pa.float64(): "double (float64)",
    pa.string(): "string",
    pa.binary(4): "fixed_size_binary[4]",
    pa.list_(pa.int32()): "list<item: int32>",
    pa.list_(pa.string()): "list<item: string>",
    pa.list_(pa.list_(pa.int32())): "list<item: list<item: int32>>",
    pa.null(): "null",
    pa.date32(): "date32[day]",
    pa.decimal128(10, 2): "decimal128(10, 2)",
    pa.map_(pa.string(), pa.float32()): "map<string, float>",
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("dtype", WEIGHTS_TYPES, ids=str)
def test_weights_of_a_wrong_type(call: Any, dtype: pa.DataType) -> None:
    named = f"Column 'weights' has type {WEIGHTS_TYPES[dtype]}"
    text = schema_error(call, weights=dtype)
    assert text.startswith(named)
    assert "; expected type list<float32>" in text


@pytest.mark.parametrize(
    ("column", "dtype", "expected"),
    [
        ("layer_name", pa.int64(), "string"),
        ("layer_name", pa.binary(), "string"),
        ("layer_name", pa.list_(pa.string()), "string"),
        ("layer_name", pa.dictionary(pa.int8(), pa.int64()), "string"),
        ("shape", pa.int64(), "list<int64>"),
        ("shape", pa.string(), "list<int64>"),
        ("shape", pa.list_(pa.float32()), "list<int64>"),
        ("shape", pa.list_(pa.list_(pa.int64())), "list<int64>"),
    ],
    ids=str,
)
def test_other_columns_of_a_wrong_type(column: str, dtype: pa.DataType, expected: str) -> None:
    text = schema_error(quantize_batch_arrow, **{column: dtype})
    assert text.startswith(f"Column '{column}' has type ")
    assert f"; expected type {expected}" in text


def test_dtype_column_of_a_wrong_type() -> None:
    text = schema_error(quantize_batch_arrow, weights=pa.binary(), dtype=pa.int8())
    assert text.startswith("Column 'dtype' has type int8; expected type string")


def test_wrong_schema_raises_with_continue_on_error_too() -> None:
    with pytest.raises(ValueError, match="Missing required column 'weights'"):
        quantize_batch_arrow(pa.table({"layer_name": ["a"]}), continue_on_error=True)
