"""Results that are well laid out and mean nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from conftest import plain, with_column

from pyarrowquant import quantize_batch_arrow

NAN = float("nan")
INF = float("inf")

WEIGHTS = np.linspace(-1, 1, 3 * 20, dtype=np.float32).reshape(3, 20)


def result_with(column: str, value: Any) -> pa.Table:
    """Quantize three layers and replace one value of the middle one, named bad."""
    table = plain(["a", "bad", "c"], [WEIGHTS] * 3)
    result = quantize_batch_arrow(table, group_size=8)
    values = result[column].to_pylist()
    values[1] = value(values[1]) if callable(value) else value
    return with_column(result, column, pa.array(values, result.schema.field(column).type))


CORRUPT: list[tuple[str, Any]] = [
    ("quantized_data", lambda data: data[:-1]),
    ("quantized_data", lambda data: data + b"?"),
    ("quantized_data", b""),
    ("quantized_data", None),
    ("scales", lambda scales: scales[:-1]),
    ("scales", lambda scales: [*scales, 1.0]),
    ("scales", []),
    ("scales", None),
    ("scales", lambda scales: [*scales[:-1], None]),
    ("scales", lambda scales: [*scales[:-1], 0.0]),
    ("scales", lambda scales: [*scales[:-1], -0.0]),
    ("scales", lambda scales: [*scales[:-1], NAN]),
    ("scales", lambda scales: [*scales[:-1], INF]),
    ("scales", lambda scales: [*scales[:-1], -INF]),
    ("zero_points", lambda points: points[:-1]),
    ("zero_points", lambda points: [*points, 1.0]),
    ("zero_points", []),
    ("zero_points", None),
    ("zero_points", lambda points: [None, *points[1:]]),
    ("zero_points", lambda points: [NAN, *points[1:]]),
    ("zero_points", lambda points: [INF, *points[1:]]),
    ("shape", None),
    ("shape", []),
    ("shape", [3]),
    ("shape", [3, 21]),
    ("shape", [20, 3]),
    ("shape", [3, -20]),
    ("shape", [-3, -20]),
    ("shape", [3, None]),
    ("shape", [2**62, 2**62]),
    ("shape", [2**62 + 15, 4]),
    ("shape", [3, 2**63 - 1]),
    ("shape", [0, 2**62, 2**62]),
    ("shape", [2**62, 0]),
    ("bit_width", 0),
    ("bit_width", 1),
    ("bit_width", 7),
    ("bit_width", 8),
    ("bit_width", 255),
    ("bit_width", None),
    ("group_size", 0),
    ("group_size", 12),
    ("group_size", -2),
    ("group_size", -1),
    ("group_size", 16),
    ("group_size", -(2**31)),
    ("group_size", None),
]
