"""Tensors of layers whose codes are floats, or bytes with a sign, for compressed-tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np

from pyarrowquant._core import laying
from pyarrowquant._core.cells import Bytes
from pyarrowquant._core.group_sizes import BLOCK, TENSOR, blocks_in
from pyarrowquant._core.results import Packed
from pyarrowquant.formats._compressed_schemes import PAIRS
from pyarrowquant.formats._layers import rounded
from pyarrowquant.formats._model_folder import DTYPES
from pyarrowquant.formats._safetensors import Entry

Pieces = Callable[[laying.Part], Iterator[Bytes]]


def float_entries(
    layer: Packed, dtype: str, pieces: Pieces, global_scale: float | None
) -> Iterator[Entry]:
    """Give the tensors of a layer of floats.

    Parameters
    ----------
    layer : Packed
    dtype : str
        Of the model.
    pieces : callable
        Lays out a part of the layer.
    global_scale : float or None
        What the scales of NVFP4 are multiples of.
    """
    rows, columns = layer.shape
    packed = layer.encoding in PAIRS
    width = columns // 2 if packed else columns
    codes = partial(pieces, laying.codes(width))
    name = f"{layer.name}_packed" if packed else layer.name
    yield Entry(name, "U8" if packed else "F8_E4M3", (rows, width), rows * width, codes)
    if layer.encoding == "fp8":
        yield _scale(layer, dtype, pieces)
        return
    groups = layer.scales.shape[1]
    shape, size = (rows, groups), rows * groups
    if global_scale is None:
        exponents = partial(pieces, laying.exponents(layer))
        yield Entry(f"{layer.name}_scale", "U8", shape, size, exponents)
        return
    scales = partial(pieces, laying.small_scales(layer, global_scale))
    yield Entry(f"{layer.name}_scale", "F8_E4M3", shape, size, scales)
    divisor = np.array([1 / global_scale], "<f4").view(np.uint8)
    yield Entry(f"{layer.name}_global_scale", "F32", (1,), 4, lambda: [divisor])


def int8_entries(layer: Packed, dtype: str, pieces: Pieces) -> Iterator[Entry]:
    """Give the tensors of a layer of bytes with a sign."""
    rows, columns = layer.shape
    codes = partial(pieces, laying.signed_codes(layer))
    yield Entry(layer.name, "I8", (rows, columns), rows * columns, codes)
    yield _scale(layer, dtype, pieces)


def float_names(name: str, encoding: str) -> Iterable[str]:
    """Return the names of the tensors of a layer of floats."""
    yield f"{name}_packed" if encoding in PAIRS else name
    yield f"{name}_scale"
    if encoding == "nvfp4":
        yield f"{name}_global_scale"


def _scale(layer: Packed, dtype: str, pieces: Pieces) -> Entry:
    """Scales of the model's dtype: of the tensor, of its blocks or of its rows."""
    rows, columns = layer.shape
    if layer.group_size in (TENSOR, BLOCK):
        blocks = (blocks_in(rows), blocks_in(columns)) if layer.group_size == BLOCK else (1,)
        data = rounded(layer.decoding.super_scales, dtype).view(np.uint8)
        return Entry(f"{layer.name}_scale", DTYPES[dtype], blocks, data.nbytes, lambda: [data])
    size = rows * (4 if dtype == "float32" else 2)
    scales = partial(pieces, laying.scales(layer, dtype))
    return Entry(f"{layer.name}_scale", DTYPES[dtype], (rows, 1), size, scales)
