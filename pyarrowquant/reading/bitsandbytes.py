"""Codes of 4 bits of bitsandbytes: what its files say of a layer, and how it decodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyarrowquant._core.levels import NF4
from pyarrowquant._core.quoting import quoted
from pyarrowquant._core.results import Floats
from pyarrowquant._core.shapes import product
from pyarrowquant.reading.decoding import Parts, of_any_numbers
from pyarrowquant.reading.scales import ScaleError
from pyarrowquant.reading.stored import Stored
from pyarrowquant.reading.strict_json import parse_object
from pyarrowquant.reading.tensors import MOST_DIMENSIONS

# The end of the name of the tensor that says it all, and what its codes are called.
STATES = {
    ".quant_state.bitsandbytes__nf4": "NF4",
    ".quant_state.bitsandbytes__fp4": "FP4",
}
_MOST_BYTES = 1 << 16  # of what it says
_PIECE = 1 << 20  # weights that are decoded at a time
_LARGEST_BLOCK = 4096
_MOST = float(np.finfo(np.float32).max)
_LEVELS, _NESTED_LEVELS = 16, 256
# What codes stand for, by what they are called: the quant_map of a file says it once more, which
# bitsandbytes mostly leaves unread. Its floats of 4 bits have 1/192 in the place of 1/12.
_FP4 = np.array([0, 1 / 192, 2 / 3, 1, 1 / 3, 1 / 2, 1 / 6, 1 / 4], np.float32)
VALUES = {"NF4": NF4, "FP4": np.concatenate([_FP4, 0 - _FP4])}
_ROUNDED = 2**-8  # by which it may differ, as of a model that was stored as bfloat16
_BLOCKS = 1 << 14  # that are looked at, at a time


@dataclass(frozen=True)
class State:
    """What a layer's codes are decoded with.

    Attributes
    ----------
    shape : tuple of int
    block : int
        Weights that share a scale, one after the other over the ends of rows.
    nested_block : int
        Scales that share a scale of their own; 0 where scales are floats.
    offset : float
        What is added to scales that are codes themselves.
    """

    shape: tuple[int, ...]
    block: int
    nested_block: int
    offset: float

    @property
    def parts(self) -> dict[str, tuple[str, str, int]]:
        """The names, dtypes and sizes of the tensors beside the codes, by what they are."""
        scales = -(-product(self.shape) // self.block)
        if not self.nested_block:
            nested = {"scales": ("absmax", "F32", scales)}
        else:
            nested = {
                "scales": ("absmax", "U8", scales),
                "nested_scales": ("nested_absmax", "F32", -(-scales // self.nested_block)),
                "nested_levels": ("nested_quant_map", "F32", _NESTED_LEVELS),
            }
        return {"levels": ("quant_map", "F32", _LEVELS), **nested}


def state_of(stored: Stored) -> State:
    """Read what a tensor says, or raise ValueError where it is no state."""
    what = quoted(stored.tensor.name)
    size = stored.tensor.end - stored.tensor.begin
    if stored.tensor.dtype != "U8" or size > _MOST_BYTES:
        raise ValueError(f"{what} has dtype {stored.tensor.dtype} and {size} bytes")
    with stored.open_bytes() as data:
        said = parse_object(data.tobytes(), what)
    shape, block = said.get("shape"), said.get("blocksize")
    if (
        not isinstance(shape, list)
        or not 0 < len(shape) <= MOST_DIMENSIONS
        or not all(type(size) is int and size > 0 for size in shape)
    ):
        raise ValueError(f"{what} has the shape {quoted(shape)}")
    if type(block) is not int or not 0 < block <= _LARGEST_BLOCK:
        raise ValueError(f"{what} has blocks of {quoted(block)}")
    kind = said.get("quant_type")
    if isinstance(kind, str) and not stored.tensor.name.endswith(f"__{kind}"):
        raise ValueError(f"{what} has the quant_type {quoted(kind)}")
    if "nested_offset" not in said:
        return State(tuple(shape), block, 0, 0.0)
    return State(tuple(shape), block, *_nested(said, what))


def _nested(said: Mapping[str, Any], what: str) -> tuple[int, float]:
    block, offset = said.get("nested_blocksize"), said["nested_offset"]
    if type(block) is not int or not 0 < block <= _LARGEST_BLOCK:
        raise ValueError(f"{what} has nested blocks of {quoted(block)}")
    if type(offset) not in (int, float) or not abs(offset) <= _MOST:
        raise ValueError(f"{what} has the offset {quoted(offset)}")
    return block, float(offset)


def check_flat(state: State, coding: str, parts: Parts) -> None:
    """Raise ScaleError where levels are others than those of a coding, or a scale of 0 loses some.

    bitsandbytes gives blocks of zeros a scale of 0, and any code, but all of them the same.
    """
    levels, values = parts["levels"], VALUES[coding]
    differ = np.abs(levels.read().reshape(-1) - values) > _ROUNDED
    if differ.any():
        index = int(differ.argmax())
        raise ScaleError(
            levels,
            f"{quoted(levels.tensor.name)} has {levels.read().reshape(-1)[index]:g} at index "
            f"{index}, which for {coding} is {values[index]:g}",
        )
    if state.nested_block:
        return
    (zeros,) = np.nonzero(parts["scales"].read().reshape(-1) == 0)
    if not zeros.size:
        return
    with parts["codes"].open_bytes() as codes:
        for begin in range(0, zeros.size, _BLOCKS):
            blocks = zeros[begin : begin + _BLOCKS]
            places = blocks[:, np.newaxis] * state.block + np.arange(state.block)
            places = np.minimum(places, product(state.shape) - 1)  # the last one may be shorter
            found = values[codes[places // 2] >> np.where(places % 2, 0, 4) & 15]
            lost = (found != found[:, :1]).any(axis=1)
            if lost.any():
                raise ScaleError(
                    parts["scales"],
                    f"{quoted(parts['scales'].tensor.name)} has a scale of 0 at index "
                    f"{blocks[lost.argmax()]} for codes that differ, of which one at least is "
                    "not that of 0",
                )


@of_any_numbers
def decode_flat(state: State, coding: str, parts: Parts) -> Floats:
    """Decode pairs of codes, the first of which has the high bits."""
    levels = VALUES[coding]
    pairs = np.stack([levels[np.arange(256) >> 4], levels[np.arange(256) & 15]], axis=1)
    scales = _scales(state, parts)
    weights = np.empty(product(state.shape), np.float32)
    step = 2 * state.block * max(1, _PIECE // (2 * state.block))
    with parts["codes"].open_bytes() as codes:
        for begin in range(0, weights.size, step):
            piece = weights[begin : begin + step]
            end = begin + piece.size
            decoded = pairs[codes[begin // 2 : -(-end // 2)]].reshape(-1)[: piece.size]
            of_blocks = scales[begin // state.block : -(-end // state.block)]
            np.multiply(decoded, np.repeat(of_blocks, state.block)[: piece.size], out=piece)
    return weights.reshape(state.shape)


def _scales(state: State, parts: Parts) -> Floats:
    if not state.nested_block:
        scales: Floats = parts["scales"].read().reshape(-1)
        return scales
    levels, outer = (parts[key].read().reshape(-1) for key in ("nested_levels", "nested_scales"))
    with parts["scales"].open_bytes() as codes:
        inner = levels[codes]
    inner *= np.repeat(outer, state.nested_block)[: inner.size]
    inner += np.float32(state.offset)
    nested: Floats = inner
    return nested
