"""Method "rtn" of every encoding is, to the byte, what its formulas give in numpy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import reference
from methods import quantized

from encoded import oracle
from encoded.fixed import FIXED
from encoded.material import column, families
from pyarrowquant import QuantizationError, dequantize_batch_arrow

# Some of their weights are so small that scales vanish, which is said.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.* rounds to 0"),
    pytest.mark.usefixtures("nothing_leaked"),
]

Array = np.ndarray
COLUMNS = (1, 8, 15, 17, 33, 64, 100, 255, 257, 300, 777)
OTHERS: list[dict[str, Any]] = [
    {"group_size": 32, "scale_dtype": "bfloat16"},
    {"group_size": 64, "scale_dtype": "float16"},
]
CASES = [(name, {}) for name in FIXED] + [("fp8", options) for options in OTHERS]


def ties(levels: Array) -> Iterator[Array]:
    """Numbers halfway between levels, the largest of which makes the scale a power of two."""
    values = np.unique(levels[np.isfinite(levels)].astype(np.float64))
    halves = (values[:-1] + values[1:]) / 2
    for scale in (1.0, 0.25):
        row = np.tile([values[0], *halves], 4) * scale
        yield row
        yield -row


def layers_of(name: str) -> dict[str, Array]:
    layers: dict[str, Array] = {
        f"2-D, {n} columns": np.array(list(families(n)), np.float32) for n in COLUMNS
    }
    levels = oracle.LEVELS.get(name)
    if levels is None:
        levels = np.arange(2 ** FIXED[name].bit_width) - {"q3_k": 4, "q6_k": 32}.get(name, 0)
    for i, row in enumerate(ties(np.asarray(levels))):
        layers[f"ties {i}"] = row.astype(np.float32)[None]
    layers["1-D"] = layers["2-D, 777 columns"][0]
    layers["3-D"] = layers["2-D, 300 columns"].reshape(-1, 3, 100)
    layers["0-D"] = np.array(-0.7, np.float32)
    layers |= {f"empty {shape}": np.empty(shape, np.float32) for shape in [(0,), (0, 5), (3, 0)]}
    return layers


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_bytes(name: str, options: dict[str, Any]) -> None:
    layers = layers_of(name)
    result = quantized(layers, encoding=name, **options)
    decoded = dequantize_batch_arrow(result)["weights"]
    bits = FIXED[name].bit_width
    for row, (layer, weights) in enumerate(layers.items()):
        wanted = oracle.encode(weights, name, *options.values())
        scales, zero_points = column(result, "scales", row), column(result, "zero_points", row)
        assert np.array_equal(scales, wanted.scales), layer
        if len(zero_points) or name not in oracle.LEVELS:
            assert np.array_equal(zero_points, wanted.zero_points), layer
        assert np.array_equal(column(result, "super_scales", row), wanted.super_scales), layer
        assert np.array_equal(column(result, "super_minimums", row), wanted.super_minimums), layer
        data = result["quantized_data"][row].as_py()
        assert data == reference.pack(wanted.codes, bits), layer
        rows, columns = reference.matrix_shape(weights.shape)
        levels = column(result, "levels", row) if name in oracle.LEVELS else np.arange(2.0**bits)
        assert np.array_equal(levels, oracle.LEVELS.get(name, levels))
        size = result["group_size"][row].as_py()
        values = levels.astype(np.float32)[wanted.codes]
        values -= reference.spread(wanted.zero_points, rows, columns, size)
        values *= reference.spread(wanted.scales, rows, columns, size)
        assert np.array_equal(decoded[row].values.to_numpy(), values.ravel()), layer


LARGEST = np.finfo(np.float32).max


@pytest.mark.parametrize("name", FIXED)
def test_the_largest_numbers(name: str) -> None:
    weights = np.linspace(-1, 1, 256, dtype=np.float32) * LARGEST
    try:
        wanted = oracle.encode(weights, name)
    except oracle.OutOfRange:
        scale = "scale .* of the group" if name == "iq4_nl" else "super-scale .* of the 256 columns"
        with pytest.raises(
            QuantizationError,
            match=f"{scale} at index 0 is beyond .* '{name}' stores, .* 65504. Use",
        ):
            quantized({"w": weights}, encoding=name)
        return
    result = quantized({"w": weights}, encoding=name)
    assert np.array_equal(column(result, "scales", 0), wanted.scales)
    for method in ("rtn", "mse"):
        found = quantized({"w": weights}, encoding=name, method=method)
        values = dequantize_batch_arrow(found)["weights"][0].values.to_numpy()
        assert np.isfinite(values).all(), method


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_refused_with_their_place(name: str, bad: float) -> None:
    layers = {"good": np.ones((2, 300), np.float32), "bad": np.ones((2, 300), np.float32)}
    layers["bad"][1, 270] = bad
    for method in ("rtn", "mse"):
        with pytest.raises(QuantizationError, match=r"Layer 'bad'.* at index 570 ") as caught:
            quantized(layers, encoding=name, method=method)
        assert [error.layer_name for error in caught.value.errors] == ["bad"]
