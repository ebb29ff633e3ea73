"""Layers with the importance of their columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from reference import Array, layer_table

from pyarrowquant import quantize_batch_arrow

Layers = Mapping[str, Array]
SMALLEST, LARGEST = 5e-324, 1.7976931348623157e308


def weighted(
    layers: Layers, importance: Mapping[str, Array | None], column: pa.DataType | None = None
) -> pa.Table:
    """Layers with the importance of their columns, null where there is none."""
    values = pa.array([importance.get(name) for name in layers], column or pa.list_(pa.float64()))
    return layer_table(layers).append_column("importance", values)


def searched(table: pa.Table, **options: Any) -> pa.Table:
    return quantize_batch_arrow(table, method="mse", sort=False, **options)


def layers_of(rows: int, columns: int) -> dict[str, Array]:
    rng = np.random.default_rng(rows * columns)
    return {
        "a": rng.standard_normal((rows, columns), np.float32),
        "b": rng.standard_t(3, (rows, columns)).astype(np.float32),
        "c": rng.standard_normal(columns, np.float32),
    }


def kinds_of_importance(columns: int, seed: int) -> dict[str, Array]:
    """Importances as they come, and such as try to break sums."""
    rng = np.random.default_rng(seed)
    return {
        "uniform": rng.random(columns),
        "squares": rng.standard_normal(columns) ** 2,
        "lognormal": np.exp(3 * rng.standard_normal(columns)),
        "many zeros": np.where(rng.random(columns) < 0.7, 0, rng.random(columns)),
        "one": np.where(np.arange(columns) == columns // 2, 7.0, 0),
        "one great": np.where(np.arange(columns) == columns // 2, 1e30, rng.random(columns)),
        "all magnitudes": 10.0 ** rng.uniform(-300, 300, columns),
        "32 bits of magnitudes": 10.0 ** rng.uniform(-44, 0, columns),
        "small but for the first": np.where(
            np.arange(columns) == 0, 1, 1e-42 * (1 + rng.random(columns))
        ),
        "smallest": np.full(columns, SMALLEST),
        "largest": np.where(rng.random(columns) < 0.5, LARGEST, LARGEST / 3),
        "smallest and largest": np.where(rng.random(columns) < 0.5, SMALLEST, LARGEST),
    }
