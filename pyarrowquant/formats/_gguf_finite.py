"""Tensors that a GGUF file takes over as they are: their numbers must be finite."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from pyarrowquant._core.cells import Bytes
from pyarrowquant._core.quoting import quoted
from pyarrowquant.llama_cpp.models import LlamaCppModel
from pyarrowquant.reading.gguf import import_gguf
from pyarrowquant.reading.numbers import Array
from pyarrowquant.reading.stored import Stored, numbers
from pyarrowquant.reading.tensors import DECODED, FLOATS, Tensor, decoded_pieces

_PIECE = 2**22  # numbers, or bytes of blocks, that are looked at at once
_EXPONENT = 0x7C00  # of float16: with all of its bits set, a number is NaN or Inf
_NAN = 0xFF  # of E8M0
_AT_START = """Q1_0 Q4_0 Q5_0 Q8_0 IQ1_S IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S IQ4_NL IQ4_XS"""
# Where blocks have scales and minimums of float16.
_HALVES = {
    **dict.fromkeys(_AT_START.split(), (0,)),
    **dict.fromkeys(("Q4_1", "Q5_1", "Q4_K", "Q5_K"), (0, 2)),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q6_K": (208,),
    "TQ1_0": (52,),
    "TQ2_0": (64,),
}
_OTHERS = ("IQ1_M", "MXFP4")


def check_finite(model: LlamaCppModel, quantized: Collection[str | None]) -> None:
    """Raise where a tensor that stays as it is has NaN or Inf, as quantizing does for others.

    Of blocks only the scales are looked at: codes are whole numbers.
    """
    for one in model.stored:
        tensor = one.tensor
        if tensor.name in quantized:
            continue
        if tensor.dtype in _HALVES or tensor.dtype in _OTHERS:
            _check_blocks(model, one)
        elif tensor.dtype in FLOATS:
            _check_floats(model, one)


def _check_floats(model: LlamaCppModel, one: Stored) -> None:
    tensor, start = one.tensor, 0
    if isinstance(tensor, DECODED):
        for piece in decoded_pieces(tensor):
            _refuse(model, tensor, ~np.isfinite(numbers(piece, tensor.dtype)), start)
            start += piece.size
        return
    with one.open() as array:
        flat = array.reshape(-1)
        for start in range(0, flat.size, _PIECE):
            piece = numbers(flat[start : start + _PIECE], tensor.dtype)
            _refuse(model, tensor, ~np.isfinite(piece), start)


def _check_blocks(model: LlamaCppModel, one: Stored) -> None:
    gguf = import_gguf("Reading")
    type_ = gguf.GGMLQuantizationType[one.tensor.dtype]
    weights, size = gguf.GGML_QUANT_SIZES[type_]
    with one.open_bytes() as data:
        blocks = data.reshape(-1, size)
        step = _PIECE // size
        for start in range(0, len(blocks), step):
            for wrong in _without_scale(one.tensor.dtype, blocks[start : start + step]):
                _refuse(model, one.tensor, wrong, start, weights)


def _without_scale(dtype: str, blocks: Bytes) -> Iterator[Array]:
    """Give which blocks have a scale, and which a minimum, that is NaN or Inf."""
    if dtype == "MXFP4":
        yield blocks[:, 0] == _NAN
    elif dtype == "IQ1_M":  # whose last four numbers have a quarter of the scale each
        quarters = np.ascontiguousarray(blocks[:, -8:]).view("<u2") >> 12
        yield _is_not_finite(quarters @ np.array([1, 1 << 4, 1 << 8, 1 << 12], np.uint16))
    else:
        for offset in _HALVES[dtype]:
            yield _is_not_finite(np.ascontiguousarray(blocks[:, offset : offset + 2]).view("<u2"))


def _is_not_finite(halves: Array) -> Array:
    found: Array = (halves & _EXPONENT) == _EXPONENT
    return found


def _refuse(model: LlamaCppModel, tensor: Tensor, wrong: Any, start: int, weights: int = 1) -> None:
    """Raise where something is wrong of what has so many weights each."""
    if not wrong.any():
        return
    index = weights * (start + int(wrong.reshape(-1).argmax()))
    raise ValueError(
        f"'{model.location}': {quoted(tensor.name)} has NaN or Inf at index {index}. Take weights "
        "that are finite: llama.cpp would compute NaN"
    )
