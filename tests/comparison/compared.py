"""Tables to compare, and the errors that they must have."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest
import reference
from conftest import plain
from metrics import METRICS, assert_metrics
from reference import Array

from pyarrowquant import QuantizationError, compare

NAN, INF = float("nan"), float("inf")
COMPARED = pa.schema(
    [
        ("layer_name", pa.string()),
        ("shape", pa.list_(pa.int64())),
        *((name, pa.float64()) for name in (*METRICS, "signal_to_noise_db", "norm")),
    ]
)
RAW = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}


def raw_table(layers: dict[str, Array], kind: str) -> pa.Table:
    """Raw bytes of a dtype."""
    return pa.table(
        {
            "layer_name": list(layers),
            "weights": pa.array([a.astype(RAW[kind]).tobytes() for a in layers.values()]),
            "dtype": [kind] * len(layers),
            "shape": pa.array([a.shape for a in layers.values()], pa.list_(pa.int64())),
        }
    )


def assert_errors_of_the_quantizer(compared: pa.Table, result: pa.Table) -> None:
    """To the bit, as equal float64 columns are: none is NaN and no -0.0 can be here."""
    assert compared["layer_name"].equals(result["layer_name"])
    assert compared["shape"].equals(result["shape"])
    for name in METRICS:
        assert compared[name].equals(result[name]), name


def assert_row(compared: pa.Table, row: int, weights: Array, decoded: Array) -> None:
    """A row has the oracle's errors."""
    actual = reference.Metrics(*(compared[name][row].as_py() for name in METRICS))
    assert_metrics(actual, reference.metrics(weights, decoded), weights.size)
    decibels = compared["signal_to_noise_db"][row].as_py()
    expected = reference.signal_to_noise_db(weights, decoded)
    assert decibels == pytest.approx(expected, rel=1e-12, abs=1e-9)
    norm = np.linalg.norm(weights.astype(np.float64).ravel())
    assert compared["norm"][row].as_py() == pytest.approx(norm, rel=1e-12)


def failure(original: Any, result: Any) -> QuantizationError:
    """Return what comparing raises."""
    with pytest.raises(QuantizationError) as caught:
        compare(original, result)
    return caught.value


def one(weights: list[Any], shape: list[int] | None = None, name: str | None = "a") -> pa.Table:
    return plain([name], [np.array(weights).reshape(shape or [-1])])


FINE = [1.0, 2.0, 4.0, 8.0]
