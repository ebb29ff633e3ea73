"""The files of a model's folder, with layers as bitsandbytes has them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pyarrowquant._core import laying
from pyarrowquant._core.cells import Bytes
from pyarrowquant._core.layout import Coded
from pyarrowquant._core.levels import NF4
from pyarrowquant._core.results import Packed
from pyarrowquant.formats._bitsandbytes_config import quantization_config
from pyarrowquant.formats._double_scales import NESTED_BLOCK, NESTED_LEVELS, DoubleScales
from pyarrowquant.formats._folder_outline import folder_outline
from pyarrowquant.formats._model_folder import ModelFolder
from pyarrowquant.formats._outline import LayerRegion, Outline
from pyarrowquant.formats._safetensors import Entry

ENCODING = "nf4"
BLOCK = 64  # weights that share a scale
_STATE = f"quant_state.bitsandbytes__{ENCODING}"
_LONGEST_NUMBER = 24  # characters of a float in JSON


def outline_of(
    layers: Mapping[str, Coded], source: ModelFolder, dtype: str, double: bool
) -> Outline:
    """Return the outline of all files of the model.

    Parameters
    ----------
    layers : mapping
        Layers by their names.
    source : ModelFolder
    dtype : str
        Of the model.
    double : bool
        Whether scales become codes, too.
    """
    config = quantization_config(layers, source.tensors, source.config, dtype, double)
    return folder_outline(
        source, layers, lambda layer: _entries(layer, dtype, double), dtype, config
    )


def tensor_names(name: str, double: bool) -> list[str]:
    """Return the names of what a layer becomes."""
    parts = ["absmax", "quant_map", _STATE]
    if double:
        parts += ["nested_absmax", "nested_quant_map"]
    return [name, *(f"{name}.{part}" for part in parts)]


def bits_of_scales(blocks: int, double: bool) -> int:
    """Return the bits that so many scales take, with the levels of their layer."""
    levels = 32 * NF4.size
    if not double:
        return 32 * blocks + levels
    return 8 * blocks + 32 * -(-blocks // NESTED_BLOCK) + levels + 32 * NESTED_LEVELS.size


def _entries(layer: Coded, dtype: str, double: bool) -> Iterator[Entry]:
    """Give the tensors of a layer."""
    said: dict[str, Any] = {
        "quant_type": ENCODING,
        "blocksize": BLOCK,
        "dtype": dtype,
        "shape": list(layer.shape),
    }
    if double:
        said |= {"nested_blocksize": NESTED_BLOCK, "nested_dtype": "float32", "nested_offset": 0.0}

    def entry(
        part: str, dtype: str, count: int, data: Callable[[Packed], npt.NDArray[Any]]
    ) -> Entry:
        size = count * (4 if dtype == "F32" else 1)
        region = LayerRegion(size, layer, lambda packed: [_bytes(data(packed))])
        return Entry(f"{layer.name}.{part}", dtype, (count,), [region])

    def state(packed: Packed) -> npt.NDArray[np.uint8]:
        found = {"nested_offset": DoubleScales.of(packed).offset} if double else {}
        text = json.dumps({**said, **found}).encode()
        return np.frombuffer(text.ljust(state_size), np.uint8)

    state_size = len(json.dumps(said)) + _LONGEST_NUMBER
    rows = layer.shape[0]
    size = rows * layer.columns // 2
    count = rows * laying.groups_of(layer)
    yield Entry(layer.name, "U8", (size, 1), [LayerRegion(size, layer, _codes)])
    if double:
        blocks = -(-count // NESTED_BLOCK)
        yield entry("absmax", "U8", count, lambda packed: DoubleScales.of(packed).codes)
        yield entry("nested_absmax", "F32", blocks, lambda packed: DoubleScales.of(packed).scales)
        yield entry("nested_quant_map", "F32", NESTED_LEVELS.size, lambda _: NESTED_LEVELS)
    else:
        yield entry("absmax", "F32", count, lambda packed: packed.scales)
    yield entry("quant_map", "F32", NF4.size, lambda _: NF4)
    yield entry(_STATE, "U8", state_size, state)


def _codes(layer: Packed) -> Iterator[Bytes]:
    for piece in laying.pieces(layer, laying.codes(layer.codes.shape[1])):
        # the first of a pair has the high bits there
        yield piece << np.uint8(4) | piece >> np.uint8(4)


def _bytes(values: npt.NDArray[Any]) -> Bytes:
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return little.reshape(-1).view(np.uint8)
