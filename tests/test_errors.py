"""What each mistake raises: class, text, fields, and what is left of the other layers."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import INPUT_SCHEMA, OnlyStream, assert_same, plain, plain_layers, with_column

from pyarrowquant import (
    LayerError,
    QuantizationError,
    SkippedLayerWarning,
    numpy_to_arrow_table,
    quantize_batch,
    quantize_batch_arrow,
    quantize_stream,
    validate_arrow_input,
)

pytestmark = pytest.mark.usefixtures("nothing_leaked")

NAN = float("nan")
INF = float("inf")


def failure(source: Any, **options: Any) -> QuantizationError:
    """Return what quantizing the source raises."""
    with pytest.raises(QuantizationError) as caught:
        quantize_batch_arrow(source, **options)
    return caught.value


def fields(error: LayerError) -> tuple[str | None, int, int | None, str]:
    """Return the fields that a program would branch on."""
    return error.layer_name, error.row, error.index, error.kind


def with_value(value: float, index: int, size: int = 100) -> np.ndarray:
    """Return ones with one other value."""
    weights = np.ones(size, np.float32)
    weights[index] = value
    return weights


def bad_table() -> pa.Table:
    """Return good layers between bad ones, one of each kind that plain tables can show."""
    names = ["good.z", "nan", "inf", None, "hole", "null", "shape", "good.a"]
    weights = [[1.0, -2.0], [1.0, NAN], [INF], [3.0], [4.0, None], None, [5.0, 6.0], [7.0] * 300]
    shapes = [[2], [2], None, None, [2], None, [3, 1], [2, 150]]
    return pa.table([names, weights, shapes], schema=INPUT_SCHEMA)


BAD_FIELDS = [
    ("nan", 1, 1, "non_finite"),
    ("inf", 2, 0, "non_finite"),
    (None, 3, None, "null"),
    ("hole", 4, 1, "null"),
    ("null", 5, None, "null"),
    ("shape", 6, None, "shape_mismatch"),
]


# Arguments


@pytest.mark.parametrize("bit_width", [7, 0, 1, -4, 9, 16, 2**40])
def test_bit_width_that_does_not_exist(bit_width: int) -> None:
    text = f"Invalid bit_width: {bit_width}. Must be 2, 4, or 8 (3, 5 and 6 also work)"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        quantize_batch_arrow(plain([], []), bit_width)


@pytest.mark.parametrize("bit_width", ["4", True, None, 4.0, [4]], ids=repr)
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
    ("group_size", None),
    ("method", 3),
    ("method", None),
    ("zero_point", 8),
    ("scale_dtype", np.float32),
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
    pa.list_(pa.list_(pa.float32())): "list<item: list<item: float>>",
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
        ("shape", pa.list_(pa.uint8()), "list<int64>"),
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


# Layers


@pytest.mark.parametrize(
    ("value", "shown"), [(NAN, r"NaN"), (INF, r"\+?Inf"), (-INF, r"-Inf")], ids=repr
)
def test_non_finite_text(value: float, shown: str) -> None:
    error = failure(plain(["x"], [with_value(value, 50)]))
    head = re.escape("Layer 'x' contains NaN or Inf at index 50 (")
    tail = re.escape("). Replace such values first, for example with np.nan_to_num()")
    assert re.fullmatch(head + shown + tail, error.errors[0].message)
    assert error.errors[0].message in str(error)
    assert fields(error.errors[0]) == ("x", 0, 50, "non_finite")


def test_shape_mismatch_text() -> None:
    table = with_column(plain(["x"], [np.ones(100)]), "shape", pa.array([[10, 20]]))
    error = failure(table)
    text = "Layer 'x': Shape mismatch: shape [10, 20] has 200 elements, weights has 100"
    assert error.errors[0].message == text
    assert text in str(error)
    assert fields(error.errors[0]) == ("x", 0, None, "shape_mismatch")


@pytest.mark.parametrize("dtype", [pa.float16(), pa.float32(), pa.float64()], ids=str)
@pytest.mark.parametrize("index", [0, 7, 127, 128, 299])
def test_index_of_the_first_bad_value(dtype: pa.DataType, index: int) -> None:
    weights = with_value(NAN, index, 300)
    weights[-1] = INF if index < 299 else NAN
    column = pa.array([weights.astype(dtype.to_pandas_dtype())], pa.list_(dtype))
    error = failure(pa.table({"layer_name": ["x"], "weights": column}))
    assert fields(error.errors[0]) == ("x", 0, index, "non_finite")


@pytest.mark.parametrize("kind", ["F16", "BF16"])
def test_index_of_a_bad_raw_value(kind: str) -> None:
    nan = {"F16": 0x7E00, "BF16": 0x7FC0}[kind]
    data = np.array([0] * 40 + [nan, 0], "<u2").tobytes()
    error = failure(pa.table({"layer_name": ["x"], "weights": [data], "dtype": [kind]}))
    assert fields(error.errors[0]) == ("x", 0, 40, "non_finite")


@pytest.mark.parametrize("shape", [(1, 2**19), (2**19, 1), (512, 1024)], ids=str)
def test_first_bad_value_of_a_layer_that_many_workers_share(shape: tuple[int, int]) -> None:
    weights = np.ones(2**19, np.float32)
    weights[[300_000, 2**19 - 1]] = NAN
    errors = failure(plain(["big"], [weights.reshape(shape)]), threads=2).errors
    assert [fields(error) for error in errors] == [("big", 0, 300_000, "non_finite")]


def test_every_failing_layer_is_in_one_exception() -> None:
    error = failure(bad_table())
    assert [fields(layer) for layer in error.errors] == BAD_FIELDS
    assert all(name in str(error) for name in ("nan", "inf", "hole", "null", "shape"))


def test_rows_count_over_all_chunks() -> None:
    table = pa.concat_tables([bad_table(), bad_table()])
    errors = failure(OnlyStream(table)).errors
    rows = [row for _, row, _, _ in BAD_FIELDS]
    assert [error.row for error in errors] == rows + [row + 8 for row in rows]


def test_null_texts_name_the_row() -> None:
    by_row = {error.row: error for error in failure(bad_table()).errors}
    assert "row 3" in by_row[3].message.lower()
    assert "'null'" in by_row[5].message
    assert "row 5" in by_row[5].message.lower()
    assert "'hole'" in by_row[4].message
    assert all("null" in by_row[row].message for row in (3, 4, 5))


def test_thousand_failing_layers_are_all_listed() -> None:
    names = [f"n{i}" for i in range(1000)]
    error = failure(plain(names, [[NAN]] * 1000))
    assert [layer.layer_name for layer in error.errors] == names
    assert "n0" in str(error)


@pytest.mark.parametrize("weights", [[1e30, -1e30], [1e-30, -1e-30]], ids=["Inf", "0"])
def test_scale_that_its_dtype_cannot_hold(weights: list[float]) -> None:
    error = failure(plain(["x"], [weights]), scale_dtype="float16")
    assert (error.errors[0].layer_name, error.errors[0].kind) == ("x", "scale_range")
    assert "float16" in error.errors[0].message
    assert len(quantize_batch_arrow(plain(["x"], [weights]))) == 1


@pytest.mark.parametrize("name", ["", "it's", 'a "b"', "été", "tab\tnewline\n", "a\0b", "x" * 300])
def test_odd_names_in_errors(name: str) -> None:
    error = failure(plain([name], [[NAN]]))
    assert error.errors[0].layer_name == name


def test_errors_pickle() -> None:
    error = failure(bad_table())
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is QuantizationError
    assert str(copy) == str(error)
    assert [fields(layer) for layer in copy.errors] == BAD_FIELDS
    assert [layer.message for layer in copy.errors] == [layer.message for layer in error.errors]


def test_layer_error_pickles() -> None:
    layer = LayerError("a", 3, None, "null", "Layer 'a' is null")
    copy = pickle.loads(pickle.dumps(layer))
    assert type(copy) is LayerError
    assert fields(copy) == ("a", 3, None, "null")
    assert copy.message == "Layer 'a' is null"


def test_quantization_error_is_a_value_error() -> None:
    assert issubclass(QuantizationError, ValueError)
    assert issubclass(SkippedLayerWarning, Warning)


# continue_on_error


def skipping(source: Any, **options: Any) -> tuple[pa.Table, list[str]]:
    """Return the result and the texts of the warnings about skipped layers."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = quantize_batch_arrow(source, continue_on_error=True, **options)
    assert all(warning.category is SkippedLayerWarning for warning in caught)
    return result, [str(warning.message) for warning in caught]


@pytest.mark.parametrize("threads", [1, 2])
def test_survivors_equal_a_run_without_the_bad_layers(threads: int) -> None:
    table = bad_table()
    result, texts = skipping(table, threads=threads)
    assert_same(result, quantize_batch_arrow(table.take([0, 7])))
    messages = [error.message for error in failure(table).errors]
    assert all(message in text for message, text in zip(messages, texts, strict=True))


def test_each_warning_names_its_layer() -> None:
    _, texts = skipping(plain(["a", "b", "c"], [[NAN], [1.0], [INF]]))
    assert len(texts) == 2
    assert "'a'" in texts[0]
    assert "'c'" in texts[1]


def test_warning_points_at_the_caller() -> None:
    with pytest.warns(SkippedLayerWarning) as caught:
        quantize_batch_arrow(plain(["a"], [[NAN]]), continue_on_error=True)
    assert caught[0].filename == __file__


def test_same_name_fails_twice_and_warns_twice() -> None:
    _, texts = skipping(plain(["a", "a"], [[NAN], [NAN]]))
    assert len(texts) == 2


def test_no_layer_survives() -> None:
    good = quantize_batch_arrow(plain(["a"], [[1.0]]))
    result, texts = skipping(plain(["a", "b"], [[NAN], [INF]]))
    assert len(texts) == 2
    assert len(result) == 0
    assert result.schema.equals(good.schema, check_metadata=True)


def test_nothing_wrong_warns_nothing(layers: dict[str, np.ndarray]) -> None:
    result, texts = skipping(plain_layers(layers))
    assert texts == []
    assert_same(result, quantize_batch_arrow(plain_layers(layers)))


def test_warnings_as_errors_raise() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", SkippedLayerWarning)
        with pytest.raises(SkippedLayerWarning, match="'a'"):
            quantize_batch_arrow(plain(["a"], [[NAN]]), continue_on_error=True)


# Order


def test_sorted_by_bytes() -> None:
    # UTF-16 order would put the emoji before U+FFFF, a locale would mix cases
    names = ["😀", "é", "b", "B", "", "\uffff", "a", "ab", "a.b", "Z"]
    result = quantize_batch_arrow(plain(names, [[1.0]] * len(names)))
    assert result["layer_name"].to_pylist() == sorted(names, key=str.encode)
    assert result["layer_name"].to_pylist()[:4] == ["", "B", "Z", "a"]


@pytest.mark.parametrize("rows_a_chunk", [1, 3, 1000])
def test_duplicate_names_keep_the_input_order(rows_a_chunk: int) -> None:
    names = ["b", "a", "b", "a", "c", "a"] * 20
    arrays = [np.ones(size + 1) for size in range(len(names))]
    table = plain(names, arrays)
    reader = table.to_reader(max_chunksize=rows_a_chunk)
    result = quantize_batch_arrow(reader, threads=2)
    order = sorted(range(len(names)), key=lambda row: names[row])
    assert result["layer_name"].to_pylist() == [names[row] for row in order]
    assert result["shape"].to_pylist() == [[row + 1] for row in order]


def test_sort_false_keeps_the_input_order() -> None:
    names = ["b", "a", "C", "a"]
    table = plain(names, [[1.0] * size for size in (1, 2, 3, 4)])
    result = quantize_batch_arrow(table, sort=False)
    assert result["layer_name"].to_pylist() == names
    assert result["shape"].to_pylist() == [[1], [2], [3], [4]]


@pytest.mark.parametrize(
    "call",
    [
        lambda layers: quantize_batch(layers, continue_on_error=True),
        lambda layers: quantize_batch_arrow(numpy_to_arrow_table(layers), continue_on_error=True),
    ],
)
def test_warnings_name_the_callers_line(call: Callable[[Any], object]) -> None:
    with pytest.warns(SkippedLayerWarning) as caught:
        call({"bad": np.array([np.nan], np.float32)})
    assert [warning.filename for warning in caught] == [__file__]
