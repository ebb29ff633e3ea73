"""Models of llama.cpp with float weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from pyarrowquant._core.quoting import quoted
from pyarrowquant._core.shapes import product
from pyarrowquant.formats._gguf_model import outline_of, write_outline
from pyarrowquant.formats._layers import as_float16, rounded
from pyarrowquant.formats._origin import Origin
from pyarrowquant.llama_cpp.models import LlamaCppModel
from pyarrowquant.llama_cpp.sources import is_float32
from pyarrowquant.reading.numbers import Array
from pyarrowquant.reading.safetensors import stored_in
from pyarrowquant.reading.stored import Stored, numbers
from pyarrowquant.reading.tensors import (
    DECODED,
    FLOATS,
    CodedTensor,
    MadeTensor,
    Piece,
    Tensor,
    UndecodableTensor,
)

_PIECE = 2**22  # numbers that are cast at once
# What safetensors calls them, and the number of a file of such weights.
_DTYPES = {"float32": ("F32", 0), "float16": ("F16", 1), "bfloat16": ("BF16", 32)}


def write_floats(
    model: LlamaCppModel, path: Path, dtype: str, overwrite: bool, check: Callable[[], object]
) -> int:
    """Write a model with matrices of a dtype; vectors, norms and routers are float32.

    What is written gets its name if `check`, which is called then, raises nothing.

    Returns
    -------
    int
        How many tensors were written.

    Raises
    ------
    ValueError
        A tensor cannot be decoded, or has weights beyond float16.
    """
    code, number = _DTYPES[dtype]
    tensors = [replace(one, tensor=_with_dtype(one, code)) for one in stored_in(model.shards)]
    outline = outline_of(model, tensors, {}, number, Origin())
    write_outline(outline, model, None, path, overwrite, check)
    return len(tensors)


def _with_dtype(stored: Stored, code: str) -> Tensor:
    tensor = stored.tensor
    if isinstance(tensor, UndecodableTensor):
        raise ValueError(
            f"{stored.location}: {quoted(tensor.name)} of dtype {tensor.dtype}: {tensor.problem}"
        )
    if tensor.dtype not in FLOATS:
        return tensor
    if is_float32(tensor.name, tensor.shape):
        code = "F32"
    if code == tensor.dtype and not isinstance(tensor, DECODED):
        return tensor
    pieces = [partial(_cast, tensor, piece, code) for piece in _pieces(stored)]
    return MadeTensor.of(tensor.name, code, tensor.shape, pieces)


def _pieces(stored: Stored) -> Sequence[Piece]:
    """Return what reads a tensor, a few rows after the other."""
    tensor = stored.tensor
    if isinstance(tensor, MadeTensor):
        return tensor.pieces
    if isinstance(tensor, CodedTensor):
        if (decode := tensor.decode_matrix) is None:
            return [tensor.decode]
        return [partial(decode, number) for number in range(tensor.shape[0])]
    if not tensor.shape or 0 in tensor.shape:
        return [stored.part]
    step = max(1, _PIECE // product(tensor.shape[1:]))
    starts = range(0, tensor.shape[0], step)
    return [partial(stored.part, slice(start, start + step)) for start in starts]


def _cast(tensor: Tensor, piece: Piece, code: str) -> Array:
    weights = numbers(piece(), tensor.dtype).astype(np.float32, copy=False)
    if code == "F32":
        return weights
    if code == "BF16":  # whose NaN rounding might make Inf
        return np.where(np.isnan(weights), np.uint16(0x7FC0), rounded(weights, "bfloat16"))
    halves = as_float16(weights)
    if np.isinf(halves).any() and np.isfinite(weights).all():
        raise ValueError(
            f"Layer {quoted(tensor.name)} has weights beyond float16, whose largest is 65504. Take "
            "bfloat16 or float32"
        )
    return halves
