"""Sums over layers."""

from __future__ import annotations

import tracemalloc

import numpy as np

import pyarrowquant
from pyarrowquant import Settings
from pyarrowquant.conversion.quantized import QuantizedLayer
from pyarrowquant.conversion.totals import Totals


def test_a_layer_without_error_takes_no_memory_beside_its_weights() -> None:
    weights = np.full((2048, 2048), 3, np.float32)
    table = pyarrowquant.quantize_batch_arrow(pyarrowquant.numpy_to_arrow_table({"a": weights}))
    layer = QuantizedLayer("a", Settings(), 4 * weights.size, 0.0, 0.0, 1.0, 0.0)
    totals = Totals()
    tracemalloc.start()
    totals.add(table.to_batches()[0], [layer])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < weights.nbytes
    assert totals.to_dict()["norm"] == 9 * weights.size * 2**1074
    assert totals.relative_error == 0
