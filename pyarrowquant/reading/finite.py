"""Codes that decode to no number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np

from pyarrowquant._core.quoting import quoted
from pyarrowquant._core.results import Floats
from pyarrowquant._core.shapes import product
from pyarrowquant.errors import QuantizationError
from pyarrowquant.reading.location import Location
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.safetensors import ShardedModel
from pyarrowquant.reading.tensors import CodedTensor, Tensor


def with_finite_codes(model: Model) -> Model:
    """Return a model of which to decode NaN or Inf is an error, with file, tensor and index.

    Without it, they are numbers like others, which quantizing refuses layer by layer.
    """
    if not isinstance(model, ShardedModel):
        return model
    files = {tensor.name: shard.location for shard in model.shards for tensor in shard.tensors}

    def become(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, CodedTensor):
            return tensor
        return _finite(tensor, files[tensor.name])

    return model.with_tensors(become)


@contextmanager
def naming_file(model: Model) -> Iterator[None]:
    """Say in which file the codes are of a layer that fails, where that is the first one."""
    try:
        yield
    except QuantizationError as error:
        coded = {
            tensor.name: shard.location
            for shard in (model.shards if isinstance(model, ShardedModel) else ())
            for tensor in shard.tensors
            if isinstance(tensor, CodedTensor)
        }
        file = coded.get(error.errors[0].layer_name or "") if error.errors else None
        if file is None:
            raise
        raise type(error)(f"{file}: {error}", error.errors) from None


def _finite(tensor: CodedTensor, file: Location) -> CodedTensor:
    read = tensor.decode_matrix
    return replace(
        tensor,
        decode=partial(_decoded, tensor, file, tensor.decode),
        decode_matrix=None if read is None else partial(_matrix, tensor, file, read),
    )


def _decoded(tensor: CodedTensor, file: Location, decode: Callable[[], Floats]) -> Floats:
    return _checked(tensor, file, decode(), 0)


def _matrix(
    tensor: CodedTensor, file: Location, decode: Callable[[int], Floats], number: int
) -> Floats:
    first = number * product(tensor.shape[1:])
    return _checked(tensor, file, decode(number), first)


def _checked(tensor: CodedTensor, file: Location, weights: Floats, first: int) -> Floats:
    wrong = ~np.isfinite(weights.reshape(-1))
    if wrong.any():
        index = int(wrong.argmax())
        what = "NaN" if np.isnan(weights.reshape(-1)[index]) else "Inf"
        raise ValueError(
            f"{file}: {quoted(tensor.name)} has {what} at index {first + index}, which is no "
            "weight. Fetch the files again, or give the model with float weights"
        )
    return weights
