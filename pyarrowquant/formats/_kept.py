"""Tensors of a model that results leave out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy.typing as npt
import pyarrow as pa

from pyarrowquant._core.binary import is_binary
from pyarrowquant._core.nested import element_type, flat
from pyarrowquant.formats._format import Format
from pyarrowquant.formats._layers import rounded
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.safetensors import DTYPES, ShardedModel
from pyarrowquant.reading.tensors import SCHEMA, CodedTensor, MadeTensor, Tensor, batch_of


def left_out(model: Model, results: pa.Table, target: Format) -> pa.RecordBatchReader:
    """Read a model again, without the layers of the results.

    Parameters
    ----------
    model : Model
    results : pyarrow.Table
    target : Format
        Which may have no place for some.
    """
    names = set(results["layer_name"].to_pylist())
    kept: dict[str, Tensor] = {}
    lost: set[str] = set()
    for tensor in model.all_tensors:
        if tensor.name in names or not model.is_read(tensor):
            continue
        if target.lacks(tensor) is None:
            kept[tensor.name] = tensor
        else:
            lost.add(tensor.name)
    layers = model.without(names | lost).reader(only_floats=False)

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in layers:
            for row, name in enumerate(batch["layer_name"].to_pylist()):
                if name in kept:
                    layer = batch.slice(row, 1)
                    yield _as_bytes(layer, kept[name]) if doubles else layer

    weights = layers.schema.field("weights").type
    doubles = not is_binary(weights) and element_type(weights) == pa.float64()
    return pa.RecordBatchReader.from_batches(SCHEMA if doubles else layers.schema, batches())


def with_codes_as(model: Model, dtype: str) -> Model:
    """Return a model whose codes are decoded to a dtype of 16 or 32 bits, as safetensors has it."""
    if not isinstance(model, ShardedModel):
        return model

    def become(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, CodedTensor):
            return tensor
        return MadeTensor.of(tensor.name, dtype, tensor.shape, [partial(_decoded, tensor, dtype)])

    shards = [
        replace(shard, tensors=[become(tensor) for tensor in shard.tensors])
        for shard in model.shards
    ]
    return ShardedModel(model.location, shards)


def _decoded(tensor: CodedTensor, dtype: str) -> npt.NDArray[Any]:
    (name,) = (name for name, code in DTYPES.items() if code == dtype)
    return rounded(tensor.decode(), name)


def _as_bytes(layer: pa.RecordBatch, tensor: Tensor) -> pa.RecordBatch:
    """Return a list of float64 as raw bytes, which formats can have that lack it as a weight."""
    values = flat(layer["weights"][0]).to_numpy()
    size = tensor.end - tensor.begin
    return batch_of([replace(tensor, begin=0, end=size)], pa.py_buffer(values.astype("<f8")))
