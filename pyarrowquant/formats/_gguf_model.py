"""GGUF models, some of their tensors replaced by quantized ones."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from pyarrowquant._core.laying import Part, pieces
from pyarrowquant._core.results import Packed
from pyarrowquant.formats._by_name import LayersByName
from pyarrowquant.formats._gguf_blocks import blocks_of, layers_of, type_name_of
from pyarrowquant.formats._gguf_mixes import MIXES
from pyarrowquant.formats._origin import Origin
from pyarrowquant.formats._outputs import Outputs
from pyarrowquant.reading.gguf import GgufModel, import_gguf
from pyarrowquant.reading.gguf_header import Header
from pyarrowquant.reading.stored import Stored
from pyarrowquant.reading.tensors import Tensor

# What the writer or the new tensors decide.
_OWN_KEYS = frozenset(
    {
        "general.architecture",
        "general.alignment",
        "general.file_type",
        "general.quantization_version",
    }
)
_IMPORTANCE = "quantize.imatrix."
_LEFT_OUT = (_IMPORTANCE, "split.")  # of what was before, and of several files
# llama.cpp's numbers for files of mostly one type.
_FILE_TYPES = {
    "Q4_0": 2,
    "Q4_1": 3,
    "Q8_0": 7,
    "Q5_0": 8,
    "Q5_1": 9,
    "Q2_K": 10,
    "Q3_K": 12,  # as of Q3_K_M, Q4_K_M and Q5_K_M
    "Q4_K": 15,
    "Q5_K": 17,
    "Q6_K": 18,
    "IQ4_NL": 25,
    "IQ4_XS": 30,
    "MXFP4": 38,
}


def write_requantized(
    results: Any, model: GgufModel, path: Path, overwrite: bool, origin: Origin
) -> None:
    """Write the model, with the layers of `results` in the place of its own."""
    gguf = import_gguf("Writing")
    opened = layers_of(results)
    location = model.location.path
    if os.path.realpath(path) in {os.path.realpath(file.path) for file in model.files}:
        raise ValueError(f"'{path}' is the source model: give another path")
    header = model.header
    with Outputs([path], overwrite) as outputs, LayersByName(opened, path.parent) as layers:
        _check_names(layers, {one.tensor.name: one.tensor for one in model.stored}, location)
        writer = gguf.GGUFWriter(outputs.temporary(path), _architecture(header, location))
        try:
            _copy_metadata(gguf, writer, header)
            _say_types(gguf, writer, layers, origin)
            _say_importance(gguf, writer, origin)
            for one in model.stored:
                _add_info(gguf, writer, one.tensor, layers.get(one.tensor.name))
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for one in model.stored:
                _write_data(writer, one, layers.get(one.tensor.name))
                layers.forget_pages()
        finally:
            writer.close()


def _check_names(layers: LayersByName, tensors: dict[str, Tensor], model: str) -> None:
    lines = []
    for name, layer in layers.items():
        if name not in tensors:
            lines.append(f"The model '{model}' has no tensor '{name}'")
        elif layer.shape != tensors[name].shape:
            lines.append(
                f"Layer '{name}' has shape {list(layer.shape)}, in the model '{model}' it is "
                f"{list(tensors[name].shape)}"
            )
    if lines:
        end = "Layers must be those that read_weights gives for this model"
        raise ValueError("\n".join([*lines, end]))


def _architecture(header: Header, model: str) -> str:
    architecture = header.value("general.architecture")
    if not isinstance(architecture, str):
        raise ValueError(f"{model}: the model does not say its general.architecture")
    return architecture


def _copy_metadata(gguf: Any, writer: Any, header: Header) -> None:
    for key, value in header.values.items():
        if key in _OWN_KEYS or key.startswith(_LEFT_OUT):
            continue
        type_ = gguf.GGUFValueType(value.type)
        if value.count is None:
            writer.add_key_value(key, header.value(key), type_)
        elif value.count:  # gguf does not write an empty array
            writer.add_key_value(key, header.value(key), gguf.GGUFValueType.ARRAY, type_)


def _say_types(gguf: Any, writer: Any, layers: LayersByName, origin: Origin) -> None:
    kind = gguf.GGUFValueType.UINT32
    writer.add_key_value("general.quantization_version", gguf.GGML_QUANT_VERSION, kind)
    if origin.mix is not None:
        writer.add_key_value("general.file_type", MIXES[origin.mix].file_type, kind)
        return
    types: Counter[str] = Counter()
    for layer in layers.values():
        types[str(type_name_of(layer))] += layer.shape[0] * layer.columns
    if types:
        ((usual, _),) = types.most_common(1)
        writer.add_key_value("general.file_type", _FILE_TYPES[usual], kind)


def _say_importance(gguf: Any, writer: Any, origin: Origin) -> None:
    """Say what llama-quantize does of a file of importance."""
    importance = origin.importance
    if importance is None:
        return
    kinds = gguf.GGUFValueType
    said: dict[str, tuple[Any, Any]] = {
        "file": (importance.name, kinds.STRING),
        "dataset": (importance.dataset, kinds.STRING),
        "entries_count": (importance.count, kinds.UINT32),
        "chunks_count": (importance.chunks, kinds.UINT32),
    }
    for key, (value, kind) in said.items():
        if value is not None:
            writer.add_key_value(f"{_IMPORTANCE}{key}", value, kind)


def _add_info(gguf: Any, writer: Any, tensor: Tensor, layer: Packed | None) -> None:
    name, size = tensor.dtype, tensor.end - tensor.begin
    if layer is not None:
        name = str(type_name_of(layer))
        block, block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
        size = layer.shape[0] * layer.columns // block * block_bytes
    type_ = gguf.GGMLQuantizationType[name]
    # float32 stands for: the shape is one of elements
    writer.add_tensor_info(tensor.name, tensor.shape or (1,), np.float32, size, type_)


@dataclass(frozen=True)
class _Blocks:
    """What gguf's writer wants of an array: blocks that are laid out as they are written."""

    layer: Packed
    part: Part

    @property
    def nbytes(self) -> int:
        return len(self.layer.codes) * self.part.row_bytes

    def tofile(self, file: IO[bytes]) -> None:
        for piece in pieces(self.layer, self.part):
            file.write(piece.data)


def _write_data(writer: Any, stored: Stored, layer: Packed | None) -> None:
    if layer is not None:
        writer.write_tensor_data(_Blocks(layer, blocks_of(layer)))
        return
    with stored.open_bytes() as data:
        writer.write_tensor_data(data)
