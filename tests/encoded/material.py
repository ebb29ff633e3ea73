"""Weights of many kinds, and what tests look at in results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from commands import succeeded

from pyarrowquant import dequantize_batch_arrow

Array = np.ndarray


def families(columns: int) -> Iterator[Array]:
    """Rows that float16 super-scales can hold."""
    rng = np.random.default_rng(columns)
    normal = rng.standard_normal((9, columns))
    yield normal[0]
    yield rng.standard_t(2, columns)
    yield abs(normal[1]) + 0.5
    yield -abs(normal[2]) - 0.5
    yield normal[3] * np.where(np.arange(columns) // 16 % 3 == 0, 1e-4, 10)
    yield np.full(columns, 0.3)
    yield np.full(columns, -77.7)
    yield np.zeros(columns)
    yield np.where(rng.random(columns) < 0.5, -0.0, 0.0)
    yield np.where(np.arange(columns) // 32 % 2 == 0, 0, normal[4])
    yield np.where(np.arange(columns) == columns - 1, -9.0, normal[5])
    yield normal[6] * 1e-7  # whose super-scales are subnormal
    yield normal[7] * 1e-30
    yield np.where(np.arange(columns) == 0, 1.0, normal[8] * 1e-9)


def column(result: pa.Table, name: str, row: int) -> Array:
    values = result[name][row]
    return values.values.to_numpy() if values.is_valid else np.empty(0, np.float32)


KINDS = ["normal", "student", "positive", "constant", "zeros", "sparse", "wide"]


def weights_of(shape: tuple[int, ...], kind: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = {
        "normal": lambda: rng.standard_normal(shape),
        "student": lambda: rng.standard_t(2, shape),
        "positive": lambda: abs(rng.standard_normal(shape)) + 1,
        "constant": lambda: np.full(shape, rng.standard_normal()),
        "zeros": lambda: np.zeros(shape),
        "sparse": lambda: rng.standard_normal(shape) * (rng.random(shape) < 0.05),
        "wide": lambda: rng.standard_normal(shape) * 10 ** rng.uniform(-4, 4, shape),
    }[kind]()
    return np.asarray(values, np.float32)


def table_of(weights: np.ndarray) -> pa.Table:
    values = pa.array(weights.ravel(), pa.float32())
    lists = pa.ListArray.from_arrays(pa.array([0, weights.size], pa.int32()), values)
    return pa.table({"layer_name": ["w"], "weights": lists, "shape": [list(weights.shape)]})


def squared_error(weights: np.ndarray, result: pa.Table) -> np.ndarray:
    decoded = dequantize_batch_arrow(result)["weights"][0].values.to_numpy()
    assert np.isfinite(decoded).all()
    return np.square(decoded.astype(np.float64) - weights.ravel().astype(np.float64))


def raw(result: pa.Table) -> list[object]:
    """All that a table has, NaN compared by its name."""
    return [repr(column) for column in result.to_pylist()]


def check_errors(source: Path, file: Path, relative_error: float) -> None:
    """Compare results with their source, and with what they decode to, by the commands."""

    def compared(original: Path) -> float:
        said = json.loads(succeeded("compare", original, file, "--json"))
        found: float = said["totals"]["relative_error"]
        return found

    assert compared(source) == pytest.approx(relative_error)
    decoded = file.parent / "decoded.arrow"
    succeeded("dequantize", file, decoded)
    assert compared(decoded) == pytest.approx(0, abs=1e-12)
