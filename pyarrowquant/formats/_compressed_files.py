"""The files of a model's folder, with packed layers as compressed-tensors has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from pyarrowquant._core import laying
from pyarrowquant._core.cells import Bytes
from pyarrowquant._core.encodings import INTEGER
from pyarrowquant._core.layout import Coded
from pyarrowquant._core.results import Packed
from pyarrowquant.formats._compressed_config import quantization_config
from pyarrowquant.formats._compressed_floats import (
    GlobalScale,
    float_entries,
    int8_entries,
    layer_entry,
    part_entry,
)
from pyarrowquant.formats._compressed_global import global_scales
from pyarrowquant.formats._compressed_schemes import is_symmetric, scheme_of
from pyarrowquant.formats._compressed_warnings import warn_of_different
from pyarrowquant.formats._folder_outline import folder_outline
from pyarrowquant.formats._model_folder import ModelFolder
from pyarrowquant.formats._outline import Outline
from pyarrowquant.formats._safetensors import Entry
from pyarrowquant.reading.safetensors import DTYPES


def outline_of_results(layers: Mapping[str, Packed], source: ModelFolder, dtype: str) -> Outline:
    """Return the outline of all files of the model, of layers that are packed already."""
    if not layers:
        raise ValueError(
            "The results have no layers. Copy the model, or quantize some of its layers"
        )
    shared = global_scales(layers)
    return outline_of(layers, source, dtype, False, lambda layer: shared[layer.name])


def outline_of(
    layers: Mapping[str, Coded],
    source: ModelFolder,
    dtype: str,
    int8: bool,
    global_scale: GlobalScale,
) -> Outline:
    """Return the outline of all files of the model.

    Parameters
    ----------
    layers : mapping
        Layers by their names.
    source : ModelFolder
    dtype : str
        Of the model.
    int8 : bool
        Whether layers of 8 bits by row have activations of 8 bits, too.
    global_scale : callable
        As of `float_entries`.
    """
    config = quantization_config(layers, source.tensors, source.config, dtype, int8)
    warn_of_different(layers, source.tensors, int8)
    shared = _Shared(dtype, is_symmetric(layers.values()), int8, global_scale)
    return folder_outline(
        source, layers, lambda layer: _packed_entries(layer, shared), dtype, config
    )


@dataclass(frozen=True)
class _Shared:
    """What all layers of a model have in common.

    Attributes
    ----------
    dtype : str
    symmetric : bool
    int8 : bool
        As of `outline_of`.
    global_scale : callable
        As of `float_entries`.
    """

    dtype: str
    symmetric: bool
    int8: bool
    global_scale: GlobalScale


def _packed_entries(layer: Coded, shared: _Shared) -> Iterator[Entry]:
    dtype = shared.dtype
    rows, columns = layer.shape
    if layer.encoding != INTEGER:
        yield from float_entries(layer, dtype, shared.global_scale)
        return
    if scheme_of(layer, shared.int8).int8:
        yield from int8_entries(layer, dtype)
        return
    groups = laying.groups_of(layer)
    width = words(columns * layer.bits)
    yield part_entry(layer, "_packed", "I32", (rows, width), laying.codes(4 * width))
    yield part_entry(layer, "_scale", DTYPES[dtype], (rows, groups), laying.scales(layer, dtype))
    shape = np.array([rows, columns], "<i8").tobytes()
    yield Entry.known(f"{layer.name}_shape", "I64", (2,), len(shape), lambda: [shape])
    if not shared.symmetric:
        height = words(rows * layer.bits)
        size = height * groups * 4
        yield layer_entry(layer, "_zero_point", "I32", (height, groups), size, _zero_points)


def _zero_points(layer: Packed) -> Iterator[Bytes]:
    yield laying.zero_points_packed_down(layer)


def words(bits: int) -> int:
    """Return how many words of 32 bits hold so many."""
    return -(-bits // 32)
