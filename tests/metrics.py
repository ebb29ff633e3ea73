"""Layers to measure the errors of, and how closely sums in another order agree."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import reference
from reference import Array

METRICS = reference.Metrics._fields
TINY = np.float32(2.0**-149)
EMPTY_SHAPES = [(0,), (0, 5), (3, 0)]


@functools.cache
def make_layers() -> dict[str, Array]:
    """Layers of one to several work units, and such as have no error or no weights."""
    rng = np.random.default_rng(6)
    layers = {
        "gaussian": rng.standard_normal((40, 300)),
        "large": rng.standard_normal((7, 60_001)),
        "a row": rng.standard_normal(300_001),
        "one": np.array([0.7]),
        "scalar": np.array(-3.0),
        "positive": rng.random((3, 5, 43)) + 100,
        "heavy tails": rng.standard_t(2, (9, 129)),
        "magnitudes": rng.standard_normal((9, 100)) * 10 ** rng.uniform(-4, 3, (9, 100)),
        "constant": np.full((5, 9), 0.3),
        "zeros": np.zeros((2, 100)),
        "minus zeros": np.full(9, -0.0),
        "mostly zeros": np.where(np.arange(1000) == 777, 1.0, 0.0),
    }
    layers |= {f"empty {shape}": np.empty(shape) for shape in EMPTY_SHAPES}
    return {name: np.asarray(array, np.float32) for name, array in layers.items()}


def assert_metrics(actual: reference.Metrics, expected: reference.Metrics, size: int) -> None:
    # n float64 additions of terms of one sign, in any order, err by at most n * 2^-53 of the sum.
    # The oracle's sums err as well, and a few roundings follow.
    tolerance = (2 * size + 16) * 2.0**-53
    assert actual.mse == pytest.approx(expected.mse, rel=tolerance, abs=0)
    assert actual.relative_error == pytest.approx(expected.relative_error, rel=tolerance, abs=0)
    # The terms of w.w' differ in sign, but their magnitudes add up to at most |w||w'|.
    assert actual.cosine == pytest.approx(expected.cosine, rel=0, abs=2 * tolerance)
    assert actual.max_abs_error == expected.max_abs_error  # a maximum has no rounding
