"""Dictionaries decoded, and tables as dictionaries: the inverses of what makes them."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest
from conftest import plain, plain_layers

from pyarrowquant import (
    QuantizationError,
    arrow_to_numpy,
    dequantize_batch,
    dequantize_batch_arrow,
    numpy_to_arrow_table,
    quantize_batch,
    quantize_batch_arrow,
)
from pyarrowquant._core.encodings import ENCODING_NAMES

pytestmark = pytest.mark.usefixtures("nothing_leaked")


def test_what_was_quantized_is_decoded(layers: dict[str, np.ndarray]) -> None:
    del layers["empty"]
    quantized = quantize_batch(layers, 8, group_size=32, metrics=True, sort=False)
    decoded = dequantize_batch(quantized)
    assert list(decoded) == list(layers)
    expected = dequantize_batch_arrow(quantize_batch_arrow(plain_layers(layers), 8, group_size=32))
    by_name = dict(zip(expected["layer_name"].to_pylist(), expected["weights"], strict=True))
    for name, array in decoded.items():
        assert array.shape == layers[name].shape
        assert array.ravel().tolist() == by_name[name].as_py()
    halves = dequantize_batch(quantized, dtype="float16", threads=1)
    assert halves["model.b"].dtype == np.float16
    assert dequantize_batch({}) == {}


def test_encodings_are_decoded_with_what_they_have() -> None:
    layers = {
        f"{name} {rows}": np.linspace(-1, 2, rows * 512, dtype=np.float32).reshape(rows, 512)
        for name in ENCODING_NAMES
        for rows in (1, 3)
    }
    quantized = {
        name: quantize_batch({name: array}, encoding=name.split()[0])[name]
        for name, array in layers.items()
    }
    decoded = dequantize_batch(quantized)
    assert list(decoded) == list(layers)
    for name, array in layers.items():
        table = quantize_batch_arrow(plain_layers({name: array}), encoding=name.split()[0])
        (expected,) = arrow_to_numpy(dequantize_batch_arrow(table)).values()
        assert np.array_equal(decoded[name], expected), name


WRONG: dict[str, tuple[Any, str]] = {
    "table": (pa.table({"a": [1]}), r"got Table. For a table use dequantize_batch_arrow\(\)"),
    "list": ([1], "Expected a dictionary of layers of quantize_batch"),
    "name": ({1: {}}, "Expected a string as layer name, got int: 1"),
    "layer": ({"a": b""}, "Layer 'a': Expected a dictionary as of quantize_batch"),
    "part": ({"a": {"scales": [1]}}, "Layer 'a' has no 'quantized_data'"),
    "encoding": (
        {"a": {**quantize_batch({"a": np.ones(4, np.float32)})["a"], "encoding": 3}},
        "Layer 'a': 'encoding' is 3, expected a string",
    ),
    "scales": ({"a": {"quantized_data": b"", "scales": "x"}}, "Layer 'a': 'scales' cannot be read"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_quantized_layer_is_named(what: str) -> None:
    given, message = WRONG[what]
    with pytest.raises(ValueError, match=message):
        dequantize_batch(given)


def test_corrupt_layers_are_all_named() -> None:
    quantized = quantize_batch({"a": np.ones(8, np.float32), "b": np.ones(8, np.float32)})
    quantized["a"]["quantized_data"] += b"?"
    quantized["b"]["scales"] = np.zeros(1)
    with pytest.raises(QuantizationError) as caught:
        dequantize_batch(quantized)
    assert [error.layer_name for error in caught.value.errors] == ["a", "b"]


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_tables_are_arrays_again_without_a_copy(dtype: Any) -> None:
    arrays = {"b": np.arange(12).reshape(3, 4).astype(dtype), "a": np.asarray(1.5, dtype)}
    found = arrow_to_numpy(numpy_to_arrow_table(arrays))
    assert list(found) == ["b", "a"]
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert np.shares_memory(found[name], array)
        assert not found[name].flags.writeable
        assert found[name].tobytes() == array.tobytes()


def test_tables_of_all_forms() -> None:
    matrix = np.arange(6, dtype=np.float64).reshape(2, 3)
    lists = pa.table({"layer_name": ["a"], "weights": [matrix.tolist()]})
    tensors = pa.table(
        {
            "layer_name": ["a"],
            "weights": pa.FixedShapeTensorArray.from_numpy_ndarray(np.array([matrix])),
        }
    )
    for table in (lists, tensors, lists.to_reader()):
        assert np.array_equal(arrow_to_numpy(table)["a"], matrix)
    assert arrow_to_numpy(plain([], [])) == {}
    rows = plain(["x", "a", "y"], [[9], matrix, [8]])[1:2]
    assert np.array_equal(arrow_to_numpy(rows)["a"], matrix)


def test_rows_that_are_no_arrays_are_all_named() -> None:
    table = pa.table(
        {
            "layer_name": ["a", "b", "a", None, "c"],
            "weights": [[1.0], [1.0, 2.0], [1.0], [1.0], None],
            "shape": pa.array([[1], [3], [1], [1], [1]], pa.list_(pa.int64())),
        }
    )
    with pytest.raises(QuantizationError) as caught:
        arrow_to_numpy(table)
    assert [(e.row, e.kind) for e in caught.value.errors] == [
        (1, "shape_mismatch"),
        (2, "duplicate"),
        (3, "null"),
        (4, "null"),
    ]
    with pytest.raises(ValueError, match="Missing required column 'weights'"):
        arrow_to_numpy(pa.table({"layer_name": ["a"]}))
    nulls = pa.table({"layer_name": ["a"], "weights": [[1.0, None]]})
    with pytest.raises(ValueError, match="'a' has null"):
        arrow_to_numpy(nulls)
