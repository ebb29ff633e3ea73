"""GGUF models, some of their tensors replaced by quantized ones."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from pyarrowquant._core.cells import Bytes
from pyarrowquant._core.laying import whole
from pyarrowquant._core.results import Packed
from pyarrowquant.formats._by_name import LayersByName
from pyarrowquant.formats._gguf_blocks import blocks_of, layers_of, type_name_of
from pyarrowquant.formats._gguf_size import copied_key, number_key, text_key
from pyarrowquant.formats._outputs import Outputs
from pyarrowquant.reading.gguf import GgufModel, import_gguf
from pyarrowquant.reading.gguf_header import Header
from pyarrowquant.reading.location import MappedFile, ReadFile
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


def write_requantized(results: Any, model: GgufModel, path: Path, overwrite: bool) -> None:
    """Write the model, with the layers of `results` in the place of its own."""
    gguf = import_gguf("Writing")
    opened = layers_of(results)
    location = model.location
    if os.path.realpath(location.path) == os.path.realpath(path):
        raise ValueError(f"'{path}' is the source model: give another path")
    header = model.header
    tensors = header.tensors
    with (
        Outputs([path], overwrite) as outputs,
        LayersByName(opened, path.parent) as layers,
        location.open() as source,
    ):
        _check_names(layers, {tensor.name: tensor for tensor in tensors}, location.path)
        writer = gguf.GGUFWriter(outputs.temporary(path), _architecture(header, location.path))
        try:
            _copy_metadata(gguf, writer, header)
            _say_types(gguf, writer, layers)
            for tensor in tensors:
                _add_info(gguf, writer, tensor, layers.get(tensor.name))
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for tensor in tensors:
                writer.write_tensor_data(_data(tensor, layers.get(tensor.name), source))
                source.forget_pages()
                layers.forget_pages()
        finally:
            writer.close()


def requantized_keys(model: GgufModel) -> list[int]:
    """Return the bytes of the keys of such a file."""
    header = model.header
    copied = [
        copied_key(value)
        for key, value in header.values.items()
        if key not in _OWN_KEYS and value.count != 0
    ]
    architecture = _architecture(header, str(model.location))
    return [
        *copied,
        text_key("general.architecture", architecture),
        number_key("general.quantization_version"),
        number_key("general.file_type"),
    ]


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
        if key in _OWN_KEYS:
            continue
        type_ = gguf.GGUFValueType(value.type)
        if value.count is None:
            writer.add_key_value(key, header.value(key), type_)
        elif value.count:  # gguf does not write an empty array
            writer.add_key_value(key, header.value(key), gguf.GGUFValueType.ARRAY, type_)


def _say_types(gguf: Any, writer: Any, layers: LayersByName) -> None:
    kind = gguf.GGUFValueType.UINT32
    writer.add_key_value("general.quantization_version", gguf.GGML_QUANT_VERSION, kind)
    types: Counter[str] = Counter()
    for layer in layers.values():
        types[str(type_name_of(layer))] += layer.shape[0] * layer.columns
    if types:
        ((usual, _),) = types.most_common(1)
        writer.add_key_value("general.file_type", _FILE_TYPES[usual], kind)


def _add_info(gguf: Any, writer: Any, tensor: Tensor, layer: Packed | None) -> None:
    name, size = tensor.dtype, tensor.end - tensor.begin
    if layer is not None:
        name = str(type_name_of(layer))
        block, block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
        size = layer.shape[0] * layer.columns // block * block_bytes
    type_ = gguf.GGMLQuantizationType[name]
    # float32 stands for: the shape is one of elements
    writer.add_tensor_info(tensor.name, tensor.shape or (1,), np.float32, size, type_)


def _data(tensor: Tensor, layer: Packed | None, source: MappedFile | ReadFile) -> Bytes:
    if layer is not None:
        return whole(layer, blocks_of(layer))
    buffer = source.buffer(tensor.begin, tensor.end - tensor.begin)
    return np.frombuffer(buffer, np.uint8) if buffer.size else np.empty(0, np.uint8)
