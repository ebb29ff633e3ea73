"""The files of a model's folder, with layers as bitsandbytes has them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pyarrowquant._core import laying
from pyarrowquant._core.cells import Bytes
from pyarrowquant.formats._bitsandbytes_config import quantization_config
from pyarrowquant.formats._by_name import LayersByName
from pyarrowquant.formats._compressed_files import kept_entry
from pyarrowquant.formats._double_scales import NESTED_BLOCK, NESTED_LEVELS, DoubleScales
from pyarrowquant.formats._layers import Names
from pyarrowquant.formats._model_folder import ModelFolder, copy_files
from pyarrowquant.formats._safetensors import Entry, write_tensors
from pyarrowquant.reading.safetensors import INDEX

ENCODING = "nf4"
BLOCK = 64  # weights that share a scale
LEVELS = np.array(
    [
        *(-1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022833234, -0.09105003625154495, 0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1),
    ],
    np.float32,
)
_STATE = f"quant_state.bitsandbytes__{ENCODING}"
_LONGEST_NUMBER = 24  # characters of a float in JSON


def write_files(
    layers: LayersByName, source: ModelFolder, dtype: str, folder: Path, double: bool
) -> None:
    """Write all files of the model.

    Parameters
    ----------
    layers : LayersByName
    source : ModelFolder
    dtype : str
        Of the model.
    folder : Path
    double : bool
        Whether scales become codes, too.
    """
    config = quantization_config(layers, source.tensors, source.config, dtype, double)
    names = Names()
    weight_map: dict[str, str] = {}
    total_size = 0
    for shard in source.shards:
        entries: list[Entry] = []
        for tensor in shard.tensors:
            if tensor.name in layers:
                entries += _entries(layers, tensor.name, dtype, double)
            else:
                entries.append(kept_entry(shard, tensor, dtype))
        for entry in entries:
            weight_map[names.add(entry.name)] = shard.location.name
            total_size += entry.size
        write_tensors(folder / shard.location.name, entries)
    if source.has_index:
        index = {"metadata": {"total_size": total_size}, "weight_map": weight_map}
        _write_json(folder / INDEX, index)
    _write_json(folder / "config.json", {**source.config, "quantization_config": config})
    copy_files(source.other_files(), source.path, folder)


def tensor_names(name: str, double: bool) -> list[str]:
    """Return the names of what a layer becomes."""
    parts = ["absmax", "quant_map", _STATE]
    if double:
        parts += ["nested_absmax", "nested_quant_map"]
    return [name, *(f"{name}.{part}" for part in parts)]


def bits_of_scales(blocks: int, double: bool) -> int:
    """Return the bits that so many scales take, with the levels of their layer."""
    levels = 32 * LEVELS.size
    if not double:
        return 32 * blocks + levels
    return 8 * blocks + 32 * -(-blocks // NESTED_BLOCK) + levels + 32 * NESTED_LEVELS.size


def _entries(layers: LayersByName, name: str, dtype: str, double: bool) -> Iterator[Entry]:
    """Give the tensors of a layer, whose data is made when it is written."""
    layer = layers[name]
    said: dict[str, Any] = {
        "quant_type": ENCODING,
        "blocksize": BLOCK,
        "dtype": dtype,
        "shape": list(layer.shape),
    }
    if double:
        said |= {"nested_blocksize": NESTED_BLOCK, "nested_dtype": "float32", "nested_offset": 0.0}

    def codes() -> Iterator[Bytes]:
        for piece in laying.pieces(layers[name], laying.codes(layer.codes.shape[1])):
            # the first of a pair has the high bits there
            yield piece << np.uint8(4) | piece >> np.uint8(4)
        layers.forget_pages()

    def made(data: Callable[[], npt.NDArray[Any]]) -> Iterator[Bytes]:
        yield _bytes(data())
        layers.forget_pages()

    def entry(part: str, dtype: str, count: int, data: Callable[[], npt.NDArray[Any]]) -> Entry:
        size = count * (4 if dtype == "F32" else 1)
        return Entry(f"{name}.{part}", dtype, (count,), size, partial(made, data))

    def doubled() -> DoubleScales:
        return DoubleScales.of(layers[name])

    def state() -> npt.NDArray[np.uint8]:
        found = {"nested_offset": doubled().offset} if double else {}
        text = json.dumps({**said, **found}).encode()
        return np.frombuffer(text.ljust(state_size), np.uint8)

    state_size = len(json.dumps(said)) + _LONGEST_NUMBER
    count = layer.scales.size
    yield Entry(name, "U8", (layer.codes.size, 1), layer.codes.size, codes)
    if double:
        blocks = -(-count // NESTED_BLOCK)
        yield entry("absmax", "U8", count, lambda: doubled().codes)
        yield entry("nested_absmax", "F32", blocks, lambda: doubled().scales)
        yield entry("nested_quant_map", "F32", NESTED_LEVELS.size, lambda: NESTED_LEVELS)
    else:
        yield entry("absmax", "F32", count, lambda: layers[name].scales)
    yield entry("quant_map", "F32", LEVELS.size, lambda: LEVELS)
    yield entry(_STATE, "U8", state_size, state)


def _bytes(values: npt.NDArray[Any]) -> Bytes:
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return little.reshape(-1).view(np.uint8)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
