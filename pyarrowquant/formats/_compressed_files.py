"""The files of a model's folder, with packed layers as compressed-tensors has them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pyarrowquant._core import laying
from pyarrowquant._core.cells import Bytes
from pyarrowquant._core.encodings import INTEGER
from pyarrowquant._core.layout import Coded
from pyarrowquant._core.results import Packed
from pyarrowquant.formats._by_name import LayersByName
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
from pyarrowquant.formats._compressed_warnings import warn_of_different, warn_of_int8_experts
from pyarrowquant.formats._layers import Names
from pyarrowquant.formats._model_folder import DTYPES, ModelFolder, copy_files, kept_entry
from pyarrowquant.formats._outline import Outline
from pyarrowquant.formats._safetensors import Entry, outlined
from pyarrowquant.reading.safetensors import INDEX, Shard


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
    shared = global_scales(layers)
    outline = outline_of(layers, source, dtype, int8, lambda layer: shared[layer.name])
    outline.write(folder, layers, layers.forget_pages)


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
        As of `write_folder`.
    global_scale : callable
        As of `float_entries`.
    """
    config = quantization_config(layers, source.tensors, source.config, dtype, int8)
    warn_of_different(layers, source.tensors, int8)
    if int8:
        warn_of_int8_experts(layers.values())
    shared = _Shared(dtype, is_symmetric(layers.values()), int8, global_scale)
    names = Names()
    weight_map: dict[str, str] = {}
    total_size = 0
    files = []
    for shard in source.shards:
        name = shard.location.name
        entries = list(_entries(shard, layers, shared))
        for entry in entries:
            weight_map[names.add(entry.name)] = name
            total_size += entry.size
        files.append(outlined(name, entries))

    def finish(folder: Path) -> None:
        if source.has_index:
            index = {"metadata": {"total_size": total_size}, "weight_map": weight_map}
            _write_json(folder / INDEX, index)
        _write_json(folder / "config.json", {**source.config, "quantization_config": config})
        copy_files(source.other_files(), source.path, folder)

    return Outline(files, finish)


@dataclass(frozen=True)
class _Shared:
    """What all layers of a model have in common.

    Attributes
    ----------
    dtype : str
    symmetric : bool
    int8 : bool
        As of `write_folder`.
    global_scale : callable
        As of `float_entries`.
    """

    dtype: str
    symmetric: bool
    int8: bool
    global_scale: GlobalScale


def _entries(shard: Shard, layers: Mapping[str, Coded], shared: _Shared) -> Iterator[Entry]:
    """Give the tensors of a shard, those of a packed layer in the place of its weights."""
    for tensor in shard.tensors:
        if tensor.name in layers:
            yield from _packed_entries(layers[tensor.name], shared)
        else:
            yield kept_entry(shard, tensor, shared.dtype)


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


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
