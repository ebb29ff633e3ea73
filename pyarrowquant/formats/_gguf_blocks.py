"""Packed layers as blocks of ggml."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from pyarrowquant._core.encodings import INTEGER
from pyarrowquant._core.laying import Part, blocks, encoded_blocks
from pyarrowquant._core.layout import Coded
from pyarrowquant._core.results import Packed
from pyarrowquant._core.settings import Settings
from pyarrowquant._core.shapes import product
from pyarrowquant.formats._layers import (
    NAMED,
    Results,
    as_float16,
    is_of,
    planned_scales_fit,
    refuse,
)
from pyarrowquant.recipes.planned import PlannedLayout

_BLOCK = 32
_SYMMETRIC = {4: "Q4_0", 5: "Q5_0", 8: "Q8_0"}
_OTHERS = {4: "Q4_1", 5: "Q5_1"}
ENCODED = {
    "q2_k": "Q2_K",
    "q3_k": "Q3_K",
    "q4_k": "Q4_K",
    "q5_k": "Q5_K",
    "q6_k": "Q6_K",
    "iq4_nl": "IQ4_NL",
    "iq4_xs": "IQ4_XS",
    "mxfp4": "MXFP4",
}
# Columns and bytes of their blocks.
_BLOCKS = {
    "q2_k": (256, 84),
    "q3_k": (256, 110),
    "q4_k": (256, 144),
    "q5_k": (256, 176),
    "q6_k": (256, 210),
    "iq4_nl": (32, 18),
    "iq4_xs": (256, 136),
    "mxfp4": (32, 17),
}
ENCODINGS = (INTEGER, *ENCODED)

_HOLDS = (
    "GGUF holds matrices, and stacks of them, of group_size 32 and "
    'scale_dtype="float16", the columns a multiple of 32: '
    "4 and 5 bits with any zero_point, 8 bits with a symmetric one; and of the encodings "
    f"{', '.join(ENCODED)}, the columns a multiple of 256, or of 32 for iq4_nl and mxfp4. "
    "Quantize such layers with other settings, such as encoding='q2_k' or encoding='q3_k' for "
    "fewer bits, or leave them out by a rule with skip"
)
_NO_FLOAT16 = 'its scales are not float16: quantize with scale_dtype="float16"'


def layers_of(results: Any, is_checked: bool = False) -> Results:
    """Open results; a layer that GGUF cannot hold is an error."""
    return Results(results, "GGUF", _problem, _HOLDS, ENCODINGS, is_checked)


def check_layouts(layers: Iterable[PlannedLayout]) -> None:
    """Raise where GGUF cannot hold layers that will be coded like this."""
    refuse(layers, _planned_problem, "GGUF", _HOLDS, ENCODINGS, NAMED)


def _planned_problem(layer: PlannedLayout) -> str | None:
    fits = layer.encoding in ENCODED or planned_scales_fit(layer, "float16")
    return _layout_problem(layer) or (None if fits else _NO_FLOAT16)


def _problem(layer: Packed) -> str | None:
    if problem := _layout_problem(layer):
        return problem
    if layer.encoding in ENCODED:
        return None
    if not is_of(layer.scales, "float16"):
        return _NO_FLOAT16
    if type_name_of(layer) in _OTHERS.values() and not np.isfinite(as_float16(layer.biases)).all():
        return "-zero_point * scale is beyond float16"
    return None


def settings_problem(settings: Settings) -> str | None:
    """Say why no layer of these settings becomes blocks, and what does."""
    if settings.encoding in ENCODED:
        return None
    if settings.group_size != _BLOCK:
        return f"group_size {settings.group_size}: quantize with group_size={_BLOCK}"
    if problem := _type_problem(settings.bit_width, settings.zero_point):
        if settings.bit_width in _SYMMETRIC:
            return f'{problem}: quantize with zero_point="symmetric"'
        kind = f"encoding='q{settings.bit_width}_k'"
        return f"{problem}: quantize with bit_width=4, 5 or 8, or with {kind}"
    return None if settings.scale_dtype == "float16" else _NO_FLOAT16


def _type_problem(bits: int, zero_point: str) -> str | None:
    """Say why no type of ggml has evenly spaced codes like these."""
    if _type_of(bits, zero_point) is not None:
        return None
    return f"{bits} bits" + (f" with {zero_point} zero-points" if bits in _SYMMETRIC else "")


def _layout_problem(layer: Coded) -> str | None:
    if len(layer.shape) not in (2, 3):
        return f"shape {list(layer.shape)} is not that of a matrix, nor of a stack of them"
    if 0 in layer.shape:
        return f"shape {list(layer.shape)} has no weights"
    columns = layer.shape[-1]
    if layer.encoding in ENCODED:
        block = columns_of_block(layer.encoding)
        return f"{columns} columns are no multiple of {block}" if columns % block else None
    if layer.group != _BLOCK:
        return f"group_size {layer.group_size}"
    if columns % _BLOCK:
        return f"{columns} columns are no multiple of 32"
    return _type_problem(layer.bits, layer.zero_point)


def as_matrix(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of the matrices of a stack below each other; any other as it is.

    Rows are whole blocks, so that the rows of a stack as a layer has them, one for each matrix, are
    the same blocks.
    """
    if len(shape) < 3:
        return tuple(shape)
    return product(shape[:-1]), shape[-1]


def columns_of_block(encoding: str) -> int:
    """Return how many columns blocks of ggml have."""
    return _BLOCKS[encoding][0] if encoding in ENCODED else _BLOCK


def type_name_of(layer: Coded) -> str | None:
    """Return the type of ggml that holds the layer, or None."""
    if layer.encoding in ENCODED:
        return ENCODED[layer.encoding]
    return _type_of(layer.bits, layer.zero_point)


def _type_of(bits: int, zero_point: str) -> str | None:
    if zero_point == "symmetric" and bits in _SYMMETRIC:
        return _SYMMETRIC[bits]
    return _OTHERS.get(bits)


def blocks_of(layer: Coded) -> Part:
    """Blocks as ggml lays them out."""
    if layer.encoding in ENCODED:
        return encoded_blocks(layer, *_BLOCKS[layer.encoding])
    return blocks(layer, symmetric=type_name_of(layer) in _SYMMETRIC.values())
