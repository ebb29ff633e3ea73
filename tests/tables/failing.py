"""Tables that fail, and what quantizing them raises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import INPUT_SCHEMA

from pyarrowquant import LayerError, QuantizationError, quantize_batch_arrow

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
