"""Stacks of codes with rows and columns as checkpoints of floats have them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial

import numpy as np

from pyarrowquant._core.results import Floats
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.safetensors import ShardedModel
from pyarrowquant.reading.tensors import CodedTensor, Tensor


def turned_names(model: Model) -> set[str]:
    """Return the names of stacks whose matrices have rows for columns in a float checkpoint."""
    return {
        tensor.name
        for tensor in model.tensors or ()
        if isinstance(tensor, CodedTensor) and tensor.is_turned
    }


def as_floats(model: Model, names: Collection[str] | None = None) -> Model:
    """Return a model that decodes such stacks to what a float checkpoint has.

    transformers has codes of gpt-oss as ``[expert, output, input]``, and floats of the same names
    as ``[expert, input, output]``.

    Parameters
    ----------
    model : Model
    names : collection of str, optional
        Of stacks; by default all.
    """
    found = turned_names(model)
    names = found if names is None else found.intersection(names)
    if not names or not isinstance(model, ShardedModel):
        return model
    return model.with_tensors(lambda tensor: _turned(tensor) if tensor.name in names else tensor)


def _turned(tensor: Tensor) -> CodedTensor:
    assert isinstance(tensor, CodedTensor)
    assert tensor.decode_matrix is not None
    experts, rows, columns = tensor.shape
    shape = experts, columns, rows
    matrix = partial(_matrix, tensor.decode_matrix)
    return replace(
        tensor,
        shape=shape,
        decode=partial(_joined, shape, matrix),
        decode_matrix=matrix,
        read_mxfp4=None,
        is_turned=False,
    )


def _matrix(decode: Callable[[int], Floats], number: int) -> Floats:
    return np.ascontiguousarray(decode(number).T)


def _joined(shape: tuple[int, ...], matrix: Callable[[int], Floats]) -> Floats:
    whole = np.empty(shape, np.float32)
    for number, each in enumerate(whole):
        each[...] = matrix(number)
    return whole
