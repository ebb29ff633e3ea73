"""The files of a model's folder, with packed layers as compressed-tensors has them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pyarrowquant._core import laying
from pyarrowquant._core.cells import Bytes
from pyarrowquant._core.encodings import INTEGER
from pyarrowquant.formats._by_name import LayersByName
from pyarrowquant.formats._compressed_config import quantization_config
from pyarrowquant.formats._compressed_floats import float_entries, int8_entries
from pyarrowquant.formats._compressed_global import global_scales
from pyarrowquant.formats._compressed_schemes import is_symmetric, scheme_of
from pyarrowquant.formats._compressed_warnings import warn_of_different
from pyarrowquant.formats._layers import Names, rounded
from pyarrowquant.formats._model_folder import DTYPES, ModelFolder, copy_files, pieces_of
from pyarrowquant.formats._safetensors import Entry, write_tensors
from pyarrowquant.reading.safetensors import INDEX, Shard
from pyarrowquant.reading.tensors import CodedTensor, MadeTensor, Tensor, decoded_bytes


def write_files(
    layers: LayersByName, source: ModelFolder, dtype: str, folder: Path, int8: bool
) -> None:
    """Write all files of the model.

    Parameters
    ----------
    layers : LayersByName
    source : ModelFolder
    dtype : str
        Of the model.
    folder : Path
    int8 : bool
        As of `write_folder`.
    """
    if not layers:
        raise ValueError(
            "The results have no layers. Copy the model, or quantize some of its layers"
        )
    config = quantization_config(layers, source.tensors, source.config, dtype, int8)
    warn_of_different(layers, source.tensors, int8)
    shared = _Shared(dtype, is_symmetric(layers.values()), int8, global_scales(layers))
    names = Names()
    weight_map: dict[str, str] = {}
    total_size = 0
    for shard in source.shards:
        entries = list(_entries(shard, layers, shared))
        for entry in entries:
            weight_map[names.add(entry.name)] = shard.location.name
            total_size += entry.size
        write_tensors(folder / shard.location.name, entries)
    if source.has_index:
        index = {"metadata": {"total_size": total_size}, "weight_map": weight_map}
        _write_json(folder / INDEX, index)
    _write_json(folder / "config.json", {**source.config, "quantization_config": config})
    copy_files(source.other_files(), source.path, folder)


@dataclass(frozen=True)
class _Shared:
    """What all layers of a model have in common.

    Attributes
    ----------
    dtype : str
    symmetric : bool
    int8 : bool
        As of `write_folder`.
    global_scales : dict
        Of layers of NVFP4, by their names.
    """

    dtype: str
    symmetric: bool
    int8: bool
    global_scales: dict[str, float]


def _entries(shard: Shard, layers: LayersByName, shared: _Shared) -> Iterator[Entry]:
    """Give the tensors of a shard, those of a packed layer in the place of its weights."""
    for tensor in shard.tensors:
        if tensor.name in layers:
            yield from _packed_entries(layers, tensor.name, shared)
        else:
            yield kept_entry(shard, tensor, shared.dtype)


def kept_entry(shard: Shard, tensor: Tensor, dtype: str) -> Entry:
    """Return a tensor of a shard as it is; what is codes is decoded to the dtype of the model."""
    if isinstance(tensor, CodedTensor):
        size = decoded_size(tensor, dtype)
        decoded = partial(_decoded, tensor, dtype)
        return Entry(tensor.name, DTYPES[dtype], tensor.shape, size, decoded)
    if isinstance(tensor, MadeTensor):
        made = partial(decoded_bytes, tensor)
        return Entry(tensor.name, tensor.dtype, tensor.shape, tensor.stored_bytes, made)
    pieces = partial(pieces_of, shard, tensor)
    return Entry(tensor.name, tensor.dtype, tensor.shape, tensor.end - tensor.begin, pieces)


def decoded_size(tensor: CodedTensor, dtype: str) -> int:
    """Return the bytes of a layer that is decoded to the dtype of the model."""
    return math.prod(tensor.shape) * (4 if dtype == "float32" else 2)


def _decoded(tensor: CodedTensor, dtype: str) -> Iterator[Bytes]:
    yield rounded(tensor.decode(), dtype).reshape(-1).view(np.uint8)


def _packed_entries(layers: LayersByName, name: str, shared: _Shared) -> Iterator[Entry]:
    layer, dtype = layers[name], shared.dtype
    rows, columns = layer.shape
    groups = layer.scales.shape[1]

    def pieces(part: laying.Part) -> Iterator[Bytes]:
        yield from laying.pieces(layers[name], part)
        layers.forget_pages()

    def zero_points() -> Iterator[Bytes]:
        yield laying.zero_points_packed_down(layers[name])
        layers.forget_pages()

    if layer.encoding != INTEGER:
        yield from float_entries(layer, dtype, pieces, shared.global_scales.get(name))
        return
    if scheme_of(layer, shared.int8).int8:
        yield from int8_entries(layer, dtype, pieces)
        return
    width = words(columns * layer.bits)
    codes = partial(pieces, laying.codes(4 * width))
    yield Entry(f"{name}_packed", "I32", (rows, width), rows * width * 4, codes)
    size = rows * groups * (4 if dtype == "float32" else 2)
    scales = partial(pieces, laying.scales(layer, dtype))
    yield Entry(f"{name}_scale", DTYPES[dtype], (rows, groups), size, scales)
    shape = np.array([rows, columns], "<i8").tobytes()
    yield Entry(f"{name}_shape", "I64", (2,), 16, lambda: [shape])
    if not shared.symmetric:
        height = words(rows * layer.bits)
        size = height * groups * 4
        yield Entry(f"{name}_zero_point", "I32", (height, groups), size, zero_points)


def words(bits: int) -> int:
    """Return how many words of 32 bits hold so many."""
    return -(-bits // 32)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
