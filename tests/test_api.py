"""The public names, the dictionary form, and the results as tables to keep."""

from __future__ import annotations

import gc
import inspect
import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import duckdb
import ml_dtypes
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from conftest import INPUT_SCHEMA, Batches, assert_same, numbered_batches, plain, plain_layers

import pyarrowquant
from pyarrowquant import (
    QuantizationError,
    SkippedLayerWarning,
    compare,
    dequantize_batch_arrow,
    numpy_to_arrow_table,
    quantize_batch,
    quantize_batch_arrow,
    quantize_stream,
    validate_arrow_input,
)

pytestmark = pytest.mark.usefixtures("nothing_leaked")

RESULT_SCHEMA = pa.schema(
    [
        ("layer_name", pa.string()),
        ("quantized_data", pa.binary()),
        ("scales", pa.list_(pa.float32())),
        ("zero_points", pa.list_(pa.float32())),
        ("shape", pa.list_(pa.int64())),
        ("bit_width", pa.uint8()),
        ("group_size", pa.int32()),
    ]
)
METRICS = ["mse", "relative_error", "cosine", "max_abs_error"]


# Names and signatures

PUBLIC = [
    "InternalError",
    "LayerError",
    "QuantizationError",
    "SkippedLayerWarning",
    "compare",
    "dequantize_batch_arrow",
    "numpy_to_arrow_table",
    "quantize_batch",
    "quantize_batch_arrow",
    "quantize_stream",
    "validate_arrow_input",
]
OPTIONS = {
    "group_size": 128,
    "method": "rtn",
    "zero_point": "integer",
    "scale_dtype": "float32",
    "metrics": False,
    "threads": None,
    "progress": None,
}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name(name: str) -> None:
    assert name in pyarrowquant.__all__
    assert inspect.getdoc(getattr(pyarrowquant, name))


def parameters(function: Callable[..., Any]) -> tuple[list[tuple[str, Any]], dict[str, Any]]:
    """Return the positional parameters with their defaults, and the keyword-only ones."""
    found = inspect.signature(function).parameters.values()
    keyword_only = {p.name: p.default for p in found if p.kind is p.KEYWORD_ONLY}
    return [(p.name, p.default) for p in found if p.name not in keyword_only], keyword_only


@pytest.mark.parametrize(
    ("function", "first", "options"),
    [
        (quantize_batch_arrow, "table", {**OPTIONS, "sort": True}),
        (quantize_stream, "source", OPTIONS),
        (quantize_batch, None, OPTIONS),
    ],
)
def test_signature(
    function: Callable[..., Any], first: str | None, options: dict[str, Any]
) -> None:
    positional, keyword_only = parameters(function)
    assert positional[1:] == [("bit_width", 4), ("continue_on_error", False)]
    assert first is None or positional[0] == (first, inspect.Parameter.empty)
    assert {name: keyword_only.get(name, "absent") for name in options} == options


def test_other_signatures() -> None:
    assert "sort" not in inspect.signature(quantize_stream).parameters
    assert parameters(dequantize_batch_arrow) == (
        [("result", inspect.Parameter.empty)],
        {"dtype": "float32", "threads": None},
    )
    assert parameters(compare) == (
        [("original", inspect.Parameter.empty), ("result", inspect.Parameter.empty)],
        {"threads": None},
    )
    assert parameters(validate_arrow_input) == ([("table", inspect.Parameter.empty)], {})
    assert len(parameters(numpy_to_arrow_table)[0]) == 1


@pytest.mark.parametrize("name", [name for name in PUBLIC if name[0].islower()])
def test_every_parameter_has_a_type(name: str) -> None:
    signature = inspect.signature(getattr(pyarrowquant, name))
    assert signature.return_annotation is not inspect.Signature.empty
    assert all(p.annotation is not p.empty for p in signature.parameters.values())


def test_package_is_typed() -> None:
    assert files("pyarrowquant").joinpath("py.typed").is_file()


# Dictionaries of numpy arrays


def as_rows(table: pa.Table) -> dict[str, dict[str, Any]]:
    """Return the rows of a result by name."""
    return {row.pop("layer_name"): row for row in table.to_pylist()}


def assert_dictionary_equals(result: dict[str, dict[str, Any]], table: pa.Table) -> None:
    """Check a dictionary result against the Arrow result of the same layers."""
    expected = as_rows(table)
    assert result.keys() == expected.keys()
    for name, row in result.items():
        for values in (row["scales"], row["zero_points"]):
            assert isinstance(values, np.ndarray)
            assert values.dtype == np.float32
        assert isinstance(row["quantized_data"], bytes)
        assert isinstance(row["shape"], list)
        assert all(type(dim) is int for dim in row["shape"])
        assert {**row, "scales": list(row["scales"]), "zero_points": list(row["zero_points"])} == (
            expected[name]
        )


def numpy_layers() -> dict[str, np.ndarray]:
    """Return layers of 0 to 3 dimensions, none of them empty."""
    rng = np.random.default_rng(5)
    shapes = {"b": (6, 200), "a": (300,), "C": (3, 4, 32), "été": (1, 1), "scalar": ()}
    return {name: np.asarray(rng.standard_normal(s), np.float32) for name, s in shapes.items()}


@pytest.mark.parametrize(
    "options", [{}, {"bit_width": 3, "group_size": -1, "zero_point": "symmetric"}], ids=str
)
def test_dictionary_equals_arrow(options: dict[str, Any]) -> None:
    layers = numpy_layers()
    result = quantize_batch(layers, **options)
    assert_dictionary_equals(result, quantize_batch_arrow(plain_layers(layers), **options))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
def test_16_bit_arrays_are_widened(dtype: Any) -> None:
    narrow = {name: array.astype(dtype) for name, array in numpy_layers().items()}
    wide = {name: array.astype(np.float32) for name, array in narrow.items()}
    assert_dictionary_equals(quantize_batch(narrow), quantize_batch_arrow(plain_layers(wide)))
    result = quantize_batch_arrow(numpy_to_arrow_table(narrow))
    assert_same(result, quantize_batch_arrow(plain_layers(wide)))


def test_arrays_of_mixed_types() -> None:
    types = [np.float32, np.float16, ml_dtypes.bfloat16]
    mixed = {
        name: array.astype(types[i % 3]) for i, (name, array) in enumerate(numpy_layers().items())
    }
    wide = {name: array.astype(np.float32) for name, array in mixed.items()}
    assert_dictionary_equals(quantize_batch(mixed), quantize_batch_arrow(plain_layers(wide)))


def test_no_arrays() -> None:
    assert quantize_batch({}) == {}
    assert len(quantize_batch_arrow(numpy_to_arrow_table({}))) == 0


def test_read_only_arrays_are_welcome() -> None:
    array = np.arange(16, dtype=np.float32)
    array.flags.writeable = False
    assert quantize_batch({"a": array})["a"]["shape"] == [16]


def test_dictionary_with_metrics() -> None:
    row = quantize_batch({"a": np.arange(64, dtype=np.float32)}, metrics=True)["a"]
    assert all(isinstance(row[name], float) for name in METRICS)


def test_dictionary_continue_on_error() -> None:
    layers = {"a": np.ones(8, np.float32), "bad": np.full(8, np.nan, np.float32)}
    with pytest.raises(QuantizationError, match="'bad'"):
        quantize_batch(layers)
    with pytest.warns(SkippedLayerWarning, match="'bad'"):
        result = quantize_batch(layers, continue_on_error=True)
    assert_dictionary_equals(result, quantize_batch_arrow(plain(["a"], [np.ones(8)])))


FLOATS = np.ones((4, 6), np.float32)
WRONG_ARRAYS: list[tuple[object, str]] = [
    ([1.0, 2.0], r"Expected numpy array|not a numpy array"),
    (None, r"Expected numpy array|not a numpy array"),
    (pa.array([1.0]), r"Expected numpy array|not a numpy array"),
    (np.float32(1), r"Expected numpy array|not a numpy array"),
    (np.ones(4), r"expected 'float32'"),
    (np.ones(4, np.int32), r"expected 'float32'"),
    (np.ones(4, ">f4"), r"expected 'float32'"),
    (np.ones(4, np.complex64), r"expected 'float32'"),
    (np.array([None]), r"expected 'float32'"),
    (np.ones(4, ml_dtypes.float8_e4m3fn), r"expected 'float32'"),
    (FLOATS.T, r"not contiguous"),
    (FLOATS[:, ::2], r"not contiguous"),
    (FLOATS[::-1], r"not contiguous"),
    (np.broadcast_to(np.float32(1), (3, 3)), r"not contiguous"),
    (np.ma.masked_array(np.ones(2, np.float32), [True, False]), r"masked"),
    (np.zeros(0, np.float32), r"empty"),
    (np.zeros((3, 0), np.float32), r"empty"),
]


@pytest.mark.parametrize("call", [quantize_batch, numpy_to_arrow_table])
@pytest.mark.parametrize(("array", "text"), WRONG_ARRAYS, ids=lambda value: repr(value)[:30])
def test_wrong_array(call: Callable[..., Any], array: object, text: str) -> None:
    with pytest.raises((ValueError, TypeError), match=text) as caught:
        call({"good": FLOATS, "the.layer": array})
    assert "the.layer" in str(caught.value)


def test_wrong_arrays_come_with_the_fix() -> None:
    with pytest.raises((ValueError, TypeError), match=r"astype"):
        quantize_batch({"a": np.ones(4)})
    with pytest.raises((ValueError, TypeError), match=r"np\.ascontiguousarray\(\)"):
        quantize_batch({"a": FLOATS.T})


@pytest.mark.parametrize("thing", [None, [FLOATS], FLOATS, "a", {1, 2}], ids=repr)
@pytest.mark.parametrize("call", [quantize_batch, numpy_to_arrow_table])
def test_no_dictionary(call: Callable[..., Any], thing: object) -> None:
    with pytest.raises((ValueError, TypeError), match="dictionary"):
        call(thing)


@pytest.mark.parametrize("key", [1, None, b"a", ("a",)], ids=repr)
@pytest.mark.parametrize("call", [quantize_batch, numpy_to_arrow_table])
def test_key_that_is_no_string(call: Callable[..., Any], key: object) -> None:
    with pytest.raises((ValueError, TypeError), match="string"):
        call({key: FLOATS})


@pytest.mark.parametrize("call", [quantize_batch, numpy_to_arrow_table])
def test_name_that_utf8_cannot_hold(call: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"utf-?8|surrogate"):
        call({"\ud800": FLOATS})


# Validation


def test_validation_reads_no_data() -> None:
    source = Batches(numbered_batches(3))
    assert validate_arrow_input(source.reader()) is None
    assert source.pulled == 0


def test_validation_of_a_table_returns_none(layers: dict[str, np.ndarray]) -> None:
    table = plain_layers(layers)
    assert validate_arrow_input(table) is None
    assert validate_arrow_input(pl.from_arrow(table)) is None
    assert validate_arrow_input(plain(["a"], [[float("nan")]])) is None


# Results


@pytest.mark.parametrize("metrics", [False, True])
def test_result_schema(metrics: bool, layers: dict[str, np.ndarray]) -> None:
    expected = RESULT_SCHEMA
    for name in METRICS if metrics else []:
        expected = expected.append(pa.field(name, pa.float64()))
    result = quantize_batch_arrow(plain_layers(layers), metrics=metrics)
    assert result.schema.equals(expected)
    assert isinstance(result, pa.Table)
    result.validate(full=True)
    assert all(column.null_count == 0 for column in result.columns)


@pytest.mark.parametrize("bit_width", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("group_size", [8, 128, -1])
def test_options_are_stored_in_every_row(bit_width: int, group_size: int) -> None:
    result = quantize_batch_arrow(
        plain(["a", "b"], [np.ones((3, 50))] * 2), bit_width, group_size=group_size
    )
    groups = 3 * (1 if group_size == -1 else -(-50 // group_size))
    for row in result.to_pylist():
        assert (row["bit_width"], row["group_size"]) == (bit_width, group_size)
        assert len(row["quantized_data"]) == 3 * -(-50 * bit_width // 8)
        assert len(row["scales"]) == len(row["zero_points"]) == groups


@pytest.mark.parametrize("zero_point", ["integer", "float", "symmetric"])
@pytest.mark.parametrize("scale_dtype", ["float32", "float16", "bfloat16"])
def test_schema_metadata(zero_point: str, scale_dtype: str) -> None:
    table = plain(["a"], [[1.0, 2.0]])
    result = quantize_batch_arrow(table, zero_point=zero_point, scale_dtype=scale_dtype)
    metadata = json.loads(result.schema.metadata[b"pyarrowquant"])
    version = metadata.pop("version")
    assert metadata.pop("format_version") == 1
    assert metadata == {"method": "rtn", "zero_point": zero_point, "scale_dtype": scale_dtype}
    assert version


def test_typed_empty_table_gives_a_typed_empty_table() -> None:
    full = quantize_batch_arrow(plain(["a"], [[1.0]]))
    for empty in (INPUT_SCHEMA.empty_table(), pa.Table.from_batches([], INPUT_SCHEMA)):
        result = quantize_batch_arrow(empty)
        assert len(result) == 0
        assert result.schema.equals(full.schema, check_metadata=True)
        assert len(dequantize_batch_arrow(result)) == 0


def to_parquet(table: pa.Table, path: Path) -> pa.Table:
    pq.write_table(table, path)
    return pq.read_table(path)


def to_ipc(table: pa.Table, path: Path) -> pa.Table:
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def to_feather(table: pa.Table, path: Path) -> pa.Table:
    pyarrow.feather.write_feather(table, str(path), compression="zstd")
    return pyarrow.feather.read_table(str(path))


@pytest.mark.parametrize("store", [to_parquet, to_ipc, to_feather])
def test_stored_result_comes_back(
    store: Callable[[pa.Table, Path], pa.Table], tmp_path: Path, layers: dict[str, np.ndarray]
) -> None:
    result = quantize_batch_arrow(plain_layers(layers), metrics=True)
    back = store(result, tmp_path / "stored")
    assert back.equals(result)
    assert back.schema.metadata[b"pyarrowquant"] == result.schema.metadata[b"pyarrowquant"]
    assert_same(dequantize_batch_arrow(back), dequantize_batch_arrow(result))


@pytest.mark.parametrize(
    "store", [pl.from_arrow, duckdb.connect().from_arrow], ids=["polars", "duckdb"]
)
def test_result_decodes_from_other_libraries(
    store: Callable[[pa.Table], Any], layers: dict[str, np.ndarray]
) -> None:
    result = quantize_batch_arrow(plain_layers(layers))
    back = dequantize_batch_arrow(store(result))
    assert back.equals(dequantize_batch_arrow(result))


def test_rows_decode_by_themselves(layers: dict[str, np.ndarray]) -> None:
    result = quantize_batch_arrow(plain_layers(layers))
    weights = dequantize_batch_arrow(result)
    rows = [4, 1, 1]
    assert dequantize_batch_arrow(result.take(rows)).equals(weights.take(rows))
    assert dequantize_batch_arrow(result[2:4]).equals(weights[2:4])
    twice = pa.concat_tables([result[3:], quantize_batch_arrow(plain(["n"], [[1.0]]), 8)])
    assert len(dequantize_batch_arrow(twice)) == len(result) - 2


def test_results_outlive_inputs() -> None:
    array = np.random.default_rng(6).standard_normal((64, 512)).astype(np.float32)
    expected = quantize_batch_arrow(plain(["a"], [array])).to_pylist()
    table = numpy_to_arrow_table({"a": array})
    result = quantize_batch_arrow(table)
    weights = dequantize_batch_arrow(result)
    decoded = weights.to_pylist()
    array[:] = 0
    del array, table
    gc.collect()
    reused = [np.full((64, 512), 7.0, np.float32) for _ in range(8)]
    assert result.to_pylist() == expected
    column = result["quantized_data"]
    del result, reused
    gc.collect()
    assert column[0].as_py() == expected[0]["quantized_data"]
    assert weights.to_pylist() == decoded


def test_input_is_not_changed(layers: dict[str, np.ndarray]) -> None:
    table = plain_layers(layers)
    quantize_batch_arrow(table)
    assert_same(table, plain_layers(layers))
