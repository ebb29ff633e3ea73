"""Tensors of a model that results leave out."""

from __future__ import annotations

import warnings
from collections.abc import Container, Iterator

import pyarrow as pa

from pyarrowquant._core.binary import is_binary
from pyarrowquant.errors import users_level
from pyarrowquant.reading.model import Model


def left_out(
    model: Model, results: pa.Table, dtypes: Container[str], empty: bool = True
) -> pa.RecordBatchReader:
    """Read a model again, without the layers of the results.

    What is of another dtype than these, or empty where that is not allowed, is left out and told.
    """
    names = set(results["layer_name"].to_pylist())
    layers = model.reader(only_floats=False)

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in layers:
            raw = is_binary(batch["weights"].type)
            kinds = batch["dtype"].to_pylist() if raw else [None] * batch.num_rows
            for row, name in enumerate(batch["layer_name"].to_pylist()):
                if name in names:
                    continue
                layer = batch.slice(row, 1)
                if not empty and raw and 0 in layer["shape"][0].as_py():
                    lacks = "empty tensors"
                elif kinds[row] is not None and kinds[row] not in dtypes:
                    lacks = str(kinds[row])
                else:
                    yield layer
                    continue
                warnings.warn(
                    f"Left out, as the format has no {lacks}: {name}",
                    UserWarning,
                    stacklevel=users_level(),
                )

    return pa.RecordBatchReader.from_batches(layers.schema, batches())
