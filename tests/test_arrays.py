"""Dictionaries of numpy arrays, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest
from conftest import assert_same, plain, plain_layers

from pyarrowquant import (
    QuantizationError,
    SkippedLayerWarning,
    numpy_to_arrow_table,
    quantize_batch,
    quantize_batch_arrow,
)

pytestmark = pytest.mark.usefixtures("nothing_leaked")
METRICS = ["mse", "relative_error", "cosine", "max_abs_error"]


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
