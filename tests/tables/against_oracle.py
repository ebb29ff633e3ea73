"""Results compared with the numpy oracle, and layers that try its formulas."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa
import reference
from reference import BIT_WIDTHS, Array, stored

GROUP_SIZES = (8, 32, 40, 64, 128, -1, 4096)
COLUMNS = (1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 100, 127, 128, 129, 255, 257, 300, 1000)
TINY = np.float32(2.0**-149)

Layers = Mapping[str, Array]
Options = dict[str, Any]


def floats(*values: Any) -> Array:
    return np.array(values, np.float32)


def assert_oracle(result: pa.Table, layers: Layers, **options: Any) -> None:
    """Each row of the result is, to the byte, what the oracle makes of its layer."""
    assert result["layer_name"].to_pylist() == list(layers)
    for row, (name, weights) in enumerate(layers.items()):
        expected = reference.quantize(weights, **options)
        actual = stored(result, row)
        assert actual.scales.tobytes() == expected.scales.tobytes(), name
        assert actual.zero_points.tobytes() == expected.zero_points.tobytes(), name
        assert actual.data == expected.data, name
        assert result["shape"][row].as_py() == list(weights.shape), name
        assert result["bit_width"][row].as_py() == options["bit_width"], name
        assert result["group_size"][row].as_py() == options["group_size"], name


@contextmanager
def told(groups: int) -> Iterator[None]:
    """One warning counts so many groups whose scales are too small for their type; none for 0."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    texts = [str(warning.message) for warning in caught]
    assert len(texts) == min(groups, 1), texts
    assert all(text.startswith(f"{groups} group") for text in texts), texts


def decoded(result: pa.Table, row: int) -> Array:
    """The oracle's own decoding of one row."""
    return reference.dequantize(
        stored(result, row),
        tuple(result["shape"][row].as_py()),
        result["bit_width"][row].as_py(),
        result["group_size"][row].as_py(),
    )


def families(columns: int) -> Iterator[Array]:
    """Rows of `columns` values, each of one kind that float16 scales can hold."""
    rng = np.random.default_rng(columns)
    normal = rng.standard_normal((8, columns)) * 0.05
    yield normal[0]
    yield rng.standard_t(2, columns)
    yield abs(normal[1]) + 1e-3
    yield -abs(normal[2]) - 1e-3
    yield 1000 + normal[3]
    yield np.full(columns, 0.3)
    yield np.full(columns, -77.7)
    yield np.zeros(columns)
    yield np.full(columns, -0.0)
    yield np.where(rng.random(columns) < 0.5, -0.0, normal[4])
    yield np.where(rng.random(columns) < 0.5, -0.0, -abs(normal[4]))
    yield np.where(rng.random(columns) < 0.5, -0.0, 0.0)
    yield np.where(np.arange(columns) == columns // 2, 9.0, normal[5])
    yield np.where(np.arange(columns) == columns - 1, -9.0, normal[5])
    yield normal[6].astype(np.float16)
    yield normal[7].astype(ml_dtypes.bfloat16)
    for bit_width in BIT_WIDTHS:
        yield from ties(columns, bit_width)


def ties(columns: int, bit_width: int) -> Iterator[Array]:
    """Multiples of half a step, for ranges that begin at 0, above it and half a step below."""
    halves = np.arange(columns) * 7 % (2 * 2**bit_width - 1) / 2
    largest = 2**bit_width - 1
    yield halves * 0.25
    yield halves * 0.3
    yield (halves - largest / 2) * 0.5
    yield (halves + 5) * 0.125
    yield -halves
    yield (halves - 2 ** (bit_width - 1)) * 2


def wide_families(columns: int) -> Iterator[Array]:
    """Rows of values whose scales need the exponents of float32."""
    rng = np.random.default_rng(columns)
    normal = rng.standard_normal((4, columns))
    yield normal[0] * 10 ** rng.uniform(-30, 30, columns)
    yield normal[1] * np.repeat(10 ** rng.uniform(-30, 30, columns), 8)[:columns]
    yield normal[2] * np.where(rng.random(columns) < 0.5, 1e-30, 1e30)
    yield np.full(columns, 1e30)
    yield np.full(columns, -1e-30)
    yield 1 + rng.integers(0, 3, columns) * 2.0**-23
    yield -1000 - rng.integers(0, 9, columns) * 2.0**-14
    yield np.where(np.arange(columns) % 8 == 0, normal[3], 1e-40)


def rows_of(kinds: Callable[[int], Iterator[Array]], columns: int) -> Array:
    """One row a family."""
    return np.array(list(kinds(columns)), np.float32)


@functools.cache
def table_layers(wide: bool) -> dict[str, Array]:
    """All families in rows of every length, and some in every rank from 0 to 4."""
    kinds = wide_families if wide else families
    layers = {f"2-D, {n} columns": rows_of(kinds, n) for n in COLUMNS}
    layers["2-D, more than 4096"] = rows_of(kinds, 4099)[:: 1 if wide else 8]
    layers["3-D"] = rows_of(kinds, 129).reshape(-1, 3, 43)
    layers["4-D"] = rows_of(kinds, 300).reshape(-1, 5, 6, 10)
    layers["4-D of one"] = rows_of(kinds, 1)[:1].reshape(1, 1, 1, 1)
    for n in (1, 9, 100, 300):
        layers |= {f"1-D, {n} columns, {i}": row for i, row in enumerate(rows_of(kinds, n)[:16])}
    layers["0-D"] = np.array(-0.7, np.float32)
    layers |= {f"empty {shape}": np.empty(shape, np.float32) for shape in EMPTY_SHAPES}
    return layers


EMPTY_SHAPES = [(0,), (0, 5), (3, 0), (2, 0, 4), (0, 0)]


def step_of(group: Array, bit_width: int, zero_point: str) -> float:
    """The distance of two codes, in float64, and never under what float32 can hold."""
    lo, hi = float(group.min()), float(group.max())
    if zero_point == "symmetric":
        step = max(hi, -lo) / 2 ** (bit_width - 1)
    elif zero_point == "integer":
        step = (max(hi, 0) - min(lo, 0)) / (2**bit_width - 1)
    else:
        step = (hi - lo) / (2**bit_width - 1)
    return max(float(step), float(TINY))


def assert_sensible(
    result: pa.Table, row: int, weights: Array, zero_point: str, precision: float = 2.0**-22
) -> None:
    """Finite numbers that decode within a step; `precision` is that of scale and values."""
    name = result["layer_name"][row].as_py()
    quantized, values = stored(result, row), decoded(result, row)
    assert np.isfinite(quantized.scales).all(), name
    assert np.isfinite(quantized.zero_points).all(), name
    assert not np.signbit(quantized.zero_points[quantized.zero_points == 0]).any(), name
    assert (quantized.scales != 0 if zero_point == "symmetric" else quantized.scales > 0).all()
    assert np.isfinite(values).all(), name
    rows, columns = reference.matrix_shape(weights.shape)
    starts = reference.group_starts(columns, result["group_size"][row].as_py())
    bit_width = result["bit_width"][row].as_py()
    pairs = zip(weights.reshape(rows, columns), values.reshape(rows, columns), strict=True)
    for row_weights, row_values in pairs:
        errors = abs(row_weights.astype(np.float64) - row_values)
        for group, error in zip(
            np.split(row_weights, starts[1:]), np.split(errors, starts[1:]), strict=True
        ):
            largest = float(abs(group).max())
            step = step_of(group, bit_width, zero_point)
            assert error.max() <= step + largest * precision, (name, group)
