"""Layers whose weights are beyond float16, to which engines decode those of some models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from pyarrowquant import dequantize_batch_arrow
from pyarrowquant._core.nested import flat
from pyarrowquant._core.quoting import quoted
from pyarrowquant.reading.config import CONFIG
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.safetensors import ShardedModel

_LARGEST, _LEAST_INF = 65504, 65520  # which is rounded to Inf


def beyond_float16(results: pa.RecordBatch, model: Model) -> list[str]:
    """Say which layers of a model that is loaded as float16 have weights beyond it.

    Parameters
    ----------
    results : pyarrow.RecordBatch
    model : Model
        With the names of the layers.
    """
    if not isinstance(model, ShardedModel) or model.loaded_dtype != "float16":
        return []
    told = []
    for row in (results.slice(row, 1) for row in range(results.num_rows)):
        if _bound(row) < _LEAST_INF:
            continue
        largest = _largest(dequantize_batch_arrow(pa.Table.from_batches([row])), "weights")
        if largest >= _LEAST_INF:
            told.append(
                f"'{model.location}': layer {quoted(row['layer_name'][0].as_py())} decodes to "
                f"weights of up to {largest:g}, and the largest number of float16 is {_LARGEST}: "
                f"engines would compute with Inf. Let {CONFIG} say the dtype bfloat16 or float32"
            )
    return told


def _bound(row: pa.RecordBatch) -> float:
    """Return what no weight of a layer exceeds: quick to tell, and mostly far below."""
    level = _largest(row, "levels") or 2.0 ** row["bit_width"][0].as_py() - 1
    return _largest(row, "scales") * (level + _largest(row, "zero_points"))


def _largest(row: Any, column: str) -> float:
    """Return the largest magnitude in a column of a row; 0 where there is none."""
    if column not in row.schema.names or not row[column][0].is_valid:
        return 0.0
    return float(np.abs(flat(row[column][0]).to_numpy()).max(initial=0))
