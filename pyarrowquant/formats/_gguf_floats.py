"""Models of llama.cpp with float weights."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from pyarrowquant._core.shapes import product
from pyarrowquant.formats._gguf_model import write_model
from pyarrowquant.formats._origin import Origin
from pyarrowquant.llama_cpp.folder import is_float32
from pyarrowquant.llama_cpp.models import LlamaCppModel
from pyarrowquant.reading.location import Location
from pyarrowquant.reading.numbers import Array
from pyarrowquant.reading.stored import Stored, numbers
from pyarrowquant.reading.tensors import DECODED, FLOATS, MadeTensor, Tensor, UndecodableTensor

# The number of a file of such weights, and the bytes of one of them.
_DTYPES = {"float32": ("F32", 0, 4), "float16": ("F16", 1, 2), "bfloat16": ("BF16", 32, 2)}


def write_floats(model: LlamaCppModel, path: Path, dtype: str, overwrite: bool) -> int:
    """Write a model with matrices of a dtype; vectors, norms and routers are float32.

    Returns
    -------
    int
        How many tensors were written.

    Raises
    ------
    ValueError
        A tensor cannot be decoded, or has weights beyond float16.
    """
    code, number, size = _DTYPES[dtype]
    tensors = [
        Stored(
            shard.location,
            shard.size,
            _with_dtype(shard.location, shard.size, tensor, code, size),
        )
        for shard in model.shards
        for tensor in shard.tensors
    ]
    write_model(model, tensors, None, number, path, overwrite, Origin())
    return len(tensors)


def _with_dtype(location: Location, size: int, tensor: Tensor, code: str, bytes_: int) -> Tensor:
    if isinstance(tensor, UndecodableTensor):
        raise ValueError(f"{location}: {tensor.name} of dtype {tensor.dtype}: {tensor.problem}")
    if tensor.dtype not in FLOATS:
        return tensor
    if is_float32(tensor.name, tensor.shape):
        code, bytes_ = "F32", 4
    if code == tensor.dtype and not isinstance(tensor, DECODED):
        return tensor
    make = partial(_cast, Stored(location, size, tensor), code)
    return MadeTensor(tensor.name, code, tensor.shape, 0, bytes_ * product(tensor.shape), make)


def _cast(stored: Stored, code: str) -> Array:
    tensor = stored.tensor
    if isinstance(tensor, DECODED):
        weights = numbers(tensor.decode(), tensor.dtype)
    else:
        weights = stored.read()
    if code == "F32":
        return weights.astype(np.float32, copy=False)
    if code == "BF16":
        return _bfloat16(weights)
    with np.errstate(over="ignore"):
        halves = weights.astype(np.float16)
    if np.isinf(halves).any() and np.isfinite(weights).all():
        raise ValueError(
            f"Layer '{tensor.name}' has weights beyond float16, whose largest is 65504. Take "
            "bfloat16 or float32"
        )
    return halves


def _bfloat16(weights: Array) -> Array:
    """Round to nearest, ties to even, and give the bits."""
    bits = weights.astype(np.float32, copy=False).view(np.uint32)
    rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(weights), np.uint16(0x7FC0), rounded)
