"""Tensors of a model that results leave out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa

from pyarrowquant._core.binary import is_binary
from pyarrowquant.errors import users_level
from pyarrowquant.reading.model import Model


def left_out(
    model: Model, results: pa.Table, lacks: Callable[[Sequence[int], str | None], str | None]
) -> pa.RecordBatchReader:
    """Read a model again, without the layers of the results.

    Parameters
    ----------
    lacks : callable
        Says from a shape and a dtype, None where the type of the weights says it, what the format
        has no place for, or None. Such tensors are left out and told.
    """
    names = set(results["layer_name"].to_pylist())

    def is_held(name: object, shape: Sequence[int], dtype: str | None) -> bool:
        lacking = lacks(shape, dtype)
        if lacking is not None:
            warnings.warn(
                f"Left out, as the format has no {lacking}: {name}",
                UserWarning,
                stacklevel=users_level(),
            )
        return lacking is None

    others = {
        tensor.name
        for tensor in model.tensors or ()
        if tensor.name not in names and not is_held(tensor.name, tensor.shape, tensor.dtype)
    }
    layers = model.without(names | others).reader(only_floats=False)

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in layers:
            raw = is_binary(batch["weights"].type)
            kinds = batch["dtype"].to_pylist() if raw else [None] * batch.num_rows
            for row, name in enumerate(batch["layer_name"].to_pylist()):
                if name in names or name in others:
                    continue
                layer = batch.slice(row, 1)
                shape = layer["shape"][0].as_py() if raw else ()
                if is_held(name, shape, kinds[row]):
                    yield layer

    return pa.RecordBatchReader.from_batches(layers.schema, batches())
