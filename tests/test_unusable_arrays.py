"""Arrays of a dictionary that cannot be quantized are failing layers like any other."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from pyarrowquant import (
    QuantizationError,
    Recipe,
    Rule,
    SkippedLayerWarning,
    numpy_to_arrow_table,
    quantize_batch,
    quantize_batch_arrow,
    read_weights,
)

GOOD = np.sin(np.arange(64, dtype=np.float32)).reshape(4, 16)
NAN = np.full((1, 8), np.nan, np.float32)
UNUSABLE: dict[str, tuple[Any, str]] = {
    "transposed": (GOOD.T, "not contiguous"),
    "double": (GOOD.astype(np.float64), "expected 'float32'"),
    "list": ([1.0, 2.0], "not a numpy array"),
    "masked": (np.ma.masked_array(GOOD), "Expected numpy array"),
    "empty": (np.empty((0, 4), np.float32), "is empty"),
}


@pytest.mark.parametrize("what", UNUSABLE)
def test_unusable_array_is_left_out(what: str) -> None:
    array, message = UNUSABLE[what]
    with pytest.warns(SkippedLayerWarning, match=f"Skipped: Layer 'bad'.*{message}") as warned:
        result = quantize_batch({"a": GOOD, "bad": array, "z": GOOD}, continue_on_error=True)
    assert len(warned) == 1
    expected = quantize_batch({"a": GOOD, "z": GOOD})
    assert list(result) == ["a", "z"]
    for name, layer in expected.items():
        assert result[name]["quantized_data"] == layer["quantized_data"]
        assert result[name]["scales"].tobytes() == layer["scales"].tobytes()
        assert result[name]["zero_points"].tobytes() == layer["zero_points"].tobytes()


def test_nothing_but_unusable_arrays() -> None:
    with pytest.warns(SkippedLayerWarning):
        assert quantize_batch({"bad": GOOD.T}, continue_on_error=True) == {}


def test_all_failing_layers_are_named_in_one_exception() -> None:
    weights = {"a": GOOD, "t": GOOD.T, "n": NAN, "e": np.empty(0, np.float32)}
    with pytest.raises(QuantizationError, match=r"^3 layers failed:\n") as caught:
        quantize_batch(weights)
    found = [(error.layer_name, error.row, error.kind) for error in caught.value.errors]
    assert found == [("t", 1, "array"), ("n", 2, "non_finite"), ("e", 3, "array")]
    assert all(error.message in str(caught.value) for error in caught.value.errors)
    assert not isinstance(caught.value, TypeError)
    with pytest.raises(QuantizationError, match=r"^2 layers failed:\n"):
        numpy_to_arrow_table(weights)


def test_what_is_no_array_is_a_type_error_too() -> None:
    with pytest.raises(TypeError, match="not a numpy array") as caught:
        quantize_batch({"a": GOOD, "list": [1.0], "n": NAN})  # type: ignore[dict-item]
    assert isinstance(caught.value, QuantizationError)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (type(copy), copy.errors) == (type(caught.value), caught.value.errors)


def test_wrong_arguments_come_before_layers() -> None:
    with pytest.raises(ValueError, match="Invalid bit_width: 7"):
        quantize_batch({"bad": GOOD.T}, 7, continue_on_error=True)


TABLE = numpy_to_arrow_table({"a": GOOD})
WRONG_TYPES: dict[str, Any] = {
    "bit_width": lambda: quantize_batch_arrow(TABLE, bit_width="4"),  # type: ignore[arg-type]
    "table": lambda: quantize_batch_arrow([1]),
    "recipe": lambda: quantize_batch_arrow(TABLE, recipe=5),  # type: ignore[arg-type]
    "progress": lambda: quantize_batch_arrow(TABLE, progress=3),  # type: ignore[arg-type]
    "floor": lambda: quantize_batch_arrow(TABLE, quality_floor="high"),  # type: ignore[arg-type]
    "dictionary": lambda: quantize_batch([GOOD]),  # type: ignore[arg-type]
    "key": lambda: quantize_batch({1: GOOD}, continue_on_error=True),  # type: ignore[dict-item]
    "path": lambda: read_weights(3),  # type: ignore[arg-type]
    "rule": lambda: Rule(skip=1),  # type: ignore[arg-type]
    "rules": lambda: Recipe(["a"]),  # type: ignore[list-item]
    "fit": lambda: Recipe.fit(TABLE, "4"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("what", WRONG_TYPES)
@pytest.mark.parametrize("caught_as", [TypeError, ValueError])
def test_wrong_type_is_caught_as_either(what: str, caught_as: type[Exception]) -> None:
    with pytest.raises(caught_as):
        WRONG_TYPES[what]()
