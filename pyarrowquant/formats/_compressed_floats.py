"""Tensors of layers whose codes are floats, or bytes with a sign, for compressed-tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from pyarrowquant._core import laying
from pyarrowquant._core.group_sizes import BLOCK, TENSOR, blocks_in
from pyarrowquant._core.layout import Coded
from pyarrowquant._core.results import Packed
from pyarrowquant._core.shapes import product
from pyarrowquant.formats._compressed_schemes import PAIRS
from pyarrowquant.formats._layers import rounded
from pyarrowquant.formats._outline import LayerRegion, part_region
from pyarrowquant.formats._safetensors import Entry
from pyarrowquant.reading.safetensors import DTYPES

GlobalScale = Callable[[Packed], float]


def layer_entry(
    layer: Coded,
    suffix: str,
    dtype: str,
    shape: tuple[int, ...],
    size: int,
    pieces: Callable[[Packed], Iterable[Any]],
) -> Entry:
    """Return a tensor that is made of a layer, named like it with a suffix."""
    return Entry(f"{layer.name}{suffix}", dtype, shape, [LayerRegion(size, layer, pieces)])


def part_entry(
    layer: Coded, suffix: str, dtype: str, shape: tuple[int, ...], part: laying.Part
) -> Entry:
    """Return a tensor that is a part of a layer."""
    return Entry(f"{layer.name}{suffix}", dtype, shape, [part_region(layer, part)])


def float_entries(layer: Coded, dtype: str, global_scale: GlobalScale) -> Iterator[Entry]:
    """Give the tensors of a layer of floats.

    Parameters
    ----------
    layer : Coded
    dtype : str
        Of the model.
    global_scale : callable
        Returns what the scales of a layer of NVFP4 are multiples of.
    """
    rows, columns = layer.shape
    packed = layer.encoding in PAIRS
    width = columns // 2 if packed else columns
    suffix, stored = ("_packed", "U8") if packed else ("", "F8_E4M3")
    yield part_entry(layer, suffix, stored, (rows, width), laying.codes(width))
    if layer.encoding == "fp8":
        yield _scale(layer, dtype)
        return
    shape = rows, laying.groups_of(layer)
    if layer.encoding != "nvfp4":
        yield part_entry(layer, "_scale", "U8", shape, laying.exponents(layer))
        return

    def scales(packed: Packed) -> Iterable[Any]:
        return laying.pieces(packed, laying.small_scales(layer, global_scale(packed)))

    def divisor(packed: Packed) -> Iterable[Any]:
        yield np.array([1 / global_scale(packed)], "<f4").view(np.uint8)

    yield layer_entry(layer, "_scale", "F8_E4M3", shape, shape[0] * shape[1], scales)
    yield layer_entry(layer, "_global_scale", "F32", (1,), 4, divisor)


def int8_entries(layer: Coded, dtype: str) -> Iterator[Entry]:
    """Give the tensors of a layer of bytes with a sign."""
    rows, columns = layer.shape
    yield part_entry(layer, "", "I8", (rows, columns), laying.signed_codes(layer))
    yield _scale(layer, dtype)


def float_names(name: str, encoding: str) -> Iterable[str]:
    """Return the names of the tensors of a layer of floats."""
    yield f"{name}_packed" if encoding in PAIRS else name
    yield f"{name}_scale"
    if encoding == "nvfp4":
        yield f"{name}_global_scale"


def _scale(layer: Coded, dtype: str) -> Entry:
    """Scales of the model's dtype: of the tensor, of its blocks or of its rows."""
    rows, columns = layer.shape
    if layer.group_size not in (TENSOR, BLOCK):
        return part_entry(layer, "_scale", DTYPES[dtype], (rows, 1), laying.scales(layer, dtype))
    blocks = (blocks_in(rows), blocks_in(columns)) if layer.group_size == BLOCK else (1,)
    size = product(blocks) * (4 if dtype == "float32" else 2)

    def scales(packed: Packed) -> Iterable[Any]:
        yield rounded(packed.decoding.super_scales, dtype).view(np.uint8)

    return layer_entry(layer, "_scale", DTYPES[dtype], blocks, size, scales)
