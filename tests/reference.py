"""The oracle: round-to-nearest quantization in plain numpy float32, one rounding a step.

It shares nothing with the package. `layer_table` is the one thing about Arrow: the plain form in
which the tests hand their arrays over.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pyarrow as pa

Array = npt.NDArray[Any]

BIT_WIDTHS = (2, 3, 4, 5, 6, 8)
ZERO_POINTS = ("integer", "float", "symmetric")
SCALE_DTYPES: dict[str, Any] = {
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
}
SMALLEST_SCALE, LARGEST_SCALE = 2.0**-120, 2.0**120


class NotExact(ValueError):  # noqa: N818 - not an error: a question the oracle leaves open
    """A group's scale lies where no exact bytes are promised."""


class ScaleRange(ValueError):  # noqa: N818
    """A group's scale is Inf in the scale's type."""


class Quantized(NamedTuple):
    """One layer: its packed codes and, row-major, one scale and zero-point a group."""

    data: bytes
    scales: Array
    zero_points: Array


class Metrics(NamedTuple):
    """How far a decoded layer is from the original."""

    mse: float
    relative_error: float
    cosine: float
    max_abs_error: float


def matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of a layer: the first dimension, and all others together."""
    if len(shape) < 2:
        return 1, math.prod(shape)
    return shape[0], math.prod(shape[1:])


def group_starts(columns: int, group_size: int) -> Array:
    """The first column of every group of a row; empty for an empty row."""
    return np.arange(0, columns, columns or 1 if group_size == -1 else group_size)


def spread(values: Array, rows: int, columns: int, group_size: int) -> Array:
    """One value a group, repeated to one value a column."""
    starts = group_starts(columns, group_size)
    widths = np.diff(np.append(starts, columns))
    return np.repeat(values.reshape(rows, len(starts)), widths, axis=1)


def quantize(
    weights: Array, bit_width: int, group_size: int, zero_point: str, scale_dtype: str
) -> Quantized:
    """Round float32 weights to codes, over the minimum and maximum of each group."""
    assert weights.dtype == np.float32
    rows, columns = matrix_shape(weights.shape)
    if rows * columns == 0:
        return Quantized(b"", np.empty(0, np.float32), np.empty(0, np.float32))
    matrix = weights.reshape(rows, columns)
    starts = group_starts(columns, group_size)
    lo = np.minimum.reduceat(matrix, starts, axis=1)
    hi = np.maximum.reduceat(matrix, starts, axis=1)
    largest_code = np.float32(2**bit_width - 1)
    middle_code = np.float32(2 ** (bit_width - 1))
    with np.errstate(over="ignore", under="ignore"):
        if zero_point == "symmetric":
            spans = -np.where(hi >= -lo, hi, lo)
            scales, _ = choose_scales(spans, middle_code, scale_dtype)
            zeros = np.full_like(scales, middle_code)
        else:
            if zero_point == "integer":
                lo, hi = np.minimum(lo, np.float32(0)), np.maximum(hi, np.float32(0))
            scales, flat = choose_scales(hi - lo, largest_code, scale_dtype)
            zeros = -lo * (np.float32(1) / scales)
            middles = np.where((lo > 0) | (hi < 0), lo + (hi - lo) / np.float32(2), np.float32(0))
            zeros = np.where(flat, -middles, zeros)
            if zero_point == "integer":
                zeros = np.clip(np.rint(zeros), 0, largest_code)
        zeros = zeros + np.float32(0)  # never -0.0
        inverses = np.float32(1) / scales
        inverses = spread(inverses, rows, columns, group_size)
        steps = matrix * inverses + spread(zeros, rows, columns, group_size)
    assert steps.dtype == scales.dtype == zeros.dtype == np.float32
    codes = np.clip(np.rint(steps), 0, largest_code).astype(np.uint8)
    return Quantized(pack(codes, bit_width), scales.ravel(), zeros.ravel())


def choose_scales(
    spans: Array, steps: np.float32, scale_dtype: str
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """The step that divides each span, as the scale's type stores it; 1 for no span at all.

    So is a step that the type rounds to 0; such groups, which decode to one value, are the second.
    """
    scales = np.where(spans == 0, np.float32(1), spans / steps)
    if not np.isfinite(scales).all():
        raise NotExact("the span overflows")
    scales = scales.astype(SCALE_DTYPES[scale_dtype]).astype(np.float32)
    if scale_dtype != "float32" and not np.isfinite(scales).all():
        raise ScaleRange(scale_dtype)
    flat = scales == 0
    scales = np.where(flat, np.float32(1), scales)
    if not ((abs(scales) >= SMALLEST_SCALE) & (abs(scales) <= LARGEST_SCALE)).all():
        raise NotExact("the scale is beyond 2^-120 .. 2^120")
    return scales, flat


def pack(codes: Array, bit_width: int) -> bytes:
    """The codes of each row as one little-endian bit stream, padded with zeros to a byte."""
    rows, columns = codes.shape
    bits = (codes[:, :, None] >> np.arange(bit_width, dtype=np.uint8)) & 1
    bits = bits.reshape(rows, columns * bit_width)
    return np.packbits(bits, axis=1, bitorder="little").tobytes()


def row_bytes(columns: int, bit_width: int) -> int:
    """The bytes that one packed row takes."""
    return (columns * bit_width + 7) // 8


def unpack(packed: bytes, rows: int, columns: int, bit_width: int) -> Array:
    """The codes, one uint8 each, of shape (rows, columns)."""
    data = np.frombuffer(packed, np.uint8).reshape(rows, row_bytes(columns, bit_width))
    bits = np.unpackbits(data, axis=1, count=columns * bit_width, bitorder="little")
    bits = bits.reshape(rows, columns, bit_width)
    codes: Array = np.bitwise_or.reduce(bits << np.arange(bit_width, dtype=np.uint8), axis=2)
    return codes


def dequantize(
    quantized: Quantized, shape: tuple[int, ...], bit_width: int, group_size: int
) -> Array:
    """The float32 weights: (q - z) * s."""
    rows, columns = matrix_shape(shape)
    if rows * columns == 0:
        return np.empty(shape, np.float32)
    codes = unpack(quantized.data, rows, columns, bit_width).astype(np.float32)
    zeros = spread(quantized.zero_points, rows, columns, group_size)
    scales = spread(quantized.scales, rows, columns, group_size)
    with np.errstate(over="ignore", under="ignore"):
        decoded = (codes - zeros) * scales
    assert decoded.dtype == np.float32
    return decoded.reshape(shape)


def metrics(original: Array, decoded: Array) -> Metrics:
    """The four errors, in float64 from the float32 values."""
    w, v = original.ravel().astype(np.float64), decoded.ravel().astype(np.float64)
    if w.size == 0:
        return Metrics(0.0, 0.0, 1.0, 0.0)
    error = w - v
    squared = float(np.sum(error * error))
    norm_w, norm_v = math.sqrt(np.sum(w * w)), math.sqrt(np.sum(v * v))
    if norm_w == norm_v == 0:
        relative, cosine = 0.0, 1.0
    elif norm_w == 0 or norm_v == 0:
        relative, cosine = math.sqrt(squared) / norm_w if norm_w else math.inf, 0.0
    else:
        relative, cosine = math.sqrt(squared) / norm_w, float(np.sum(w * v)) / (norm_w * norm_v)
    return Metrics(squared / w.size, relative, cosine, float(np.max(abs(error))))


def signal_to_noise_db(original: Array, decoded: Array) -> float:
    """Decibels of the squared weights over the squared errors; Inf without any error."""
    w, v = original.ravel().astype(np.float64), decoded.ravel().astype(np.float64)
    signal, noise = float(np.sum(w * w)), float(np.sum((w - v) ** 2))
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def layer_table(layers: Mapping[str, Array], weights: pa.DataType | None = None) -> pa.Table:
    """Layers as Arrow input: list<float32>, or the given list type, with their shapes."""
    return pa.table(
        {
            "layer_name": pa.array(list(layers), pa.string()),
            "weights": pa.array(
                [array.ravel() for array in layers.values()], weights or pa.list_(pa.float32())
            ),
            "shape": pa.array([array.shape for array in layers.values()], pa.list_(pa.int64())),
        }
    )


def stored(result: pa.Table, row: int) -> Quantized:
    """One row of a quantized table."""
    return Quantized(
        result["quantized_data"][row].as_py(),
        result["scales"][row].values.to_numpy(zero_copy_only=False),
        result["zero_points"][row].values.to_numpy(zero_copy_only=False),
    )
