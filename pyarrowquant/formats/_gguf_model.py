"""GGUF models, some of their tensors replaced by quantized ones."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from pyarrowquant._core.cells import Bytes
from pyarrowquant._core.layout import Coded
from pyarrowquant._core.quoting import quoted
from pyarrowquant._core.rows import ITEM_BYTES
from pyarrowquant._core.shapes import product
from pyarrowquant.errors import users_level
from pyarrowquant.formats._by_name import LayersByName
from pyarrowquant.formats._gguf_blocks import blocks_of, layers_of, type_name_of
from pyarrowquant.formats._gguf_mixes import MIXES
from pyarrowquant.formats._gguf_mxfp4 import TYPE as MXFP4
from pyarrowquant.formats._gguf_mxfp4 import Mxfp4Stack
from pyarrowquant.formats._gguf_size import ALIGNMENT, key_bytes, number_key, text_key
from pyarrowquant.formats._gguf_split import (
    Placed,
    cut,
    part_bytes,
    part_name,
    say_part,
    writer_of_part,
)
from pyarrowquant.formats._origin import Origin
from pyarrowquant.formats._outline import (
    KnownRegion,
    Outline,
    OutlinedFile,
    Region,
    part_region,
)
from pyarrowquant.formats._outputs import Outputs
from pyarrowquant.llama_cpp.metadata import Metadata
from pyarrowquant.llama_cpp.models import LlamaCppModel
from pyarrowquant.reading.gguf import import_gguf
from pyarrowquant.reading.gguf_header import Header
from pyarrowquant.reading.numbers import Array
from pyarrowquant.reading.stored import Stored, numbers
from pyarrowquant.reading.tensors import (
    DECODED,
    FLOATS,
    Tensor,
    decoded_bytes,
    decoded_pieces,
)

# What the writer or the new tensors decide.
_OWN_KEYS = frozenset(
    {
        "general.architecture",
        "general.alignment",
        "general.file_type",
        "general.quantization_version",
    }
)
_PIECE = 2**22  # numbers that are looked at at once
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


def write_requantized(results: Any, model: LlamaCppModel, path: Path, overwrite: bool) -> None:
    """Write the model, with the layers of `results` in the place of its own."""
    opened = layers_of(results)
    with LayersByName(opened, path.parent) as layers:
        stored = {one.tensor.name: one.tensor for one in model.stored}
        _check_names(layers, stored, model.location.path)
        file_type = file_type_of(layers, Origin())
        outline = outline_of(model, model.stored, layers, file_type, Origin())
        write_outline(outline, model, layers, path, overwrite)


def write_outline(
    outline: Outline,
    model: LlamaCppModel,
    layers: LayersByName | None,
    path: Path,
    overwrite: bool,
) -> None:
    """Write what was made of a model to a file that is none of its own."""
    if os.path.realpath(path) in {os.path.realpath(file.path) for file in model.files}:
        raise ValueError(f"'{path}' is the source model: give another path")
    with Outputs([path], overwrite) as outputs:
        if layers is None:
            outline.write(outputs.temporary(path), {})
        else:
            outline.write(outputs.temporary(path), layers, layers.forget_pages)


def outline_of(
    model: LlamaCppModel,
    tensors: Sequence[Stored],
    layers: Mapping[str, Coded],
    file_type: int | None,
    origin: Origin,
) -> Outline:
    """Return the outline of a file of tensors with the keys of a model.

    Parameters
    ----------
    model : LlamaCppModel
    tensors : sequence of Stored
    layers : mapping
        What stands in the place of those of the same names.
    file_type : int or None
        llama.cpp's number of such files.
    origin : Origin
    """
    gguf = import_gguf("Writing")
    writer = gguf.GGUFWriter(None, _architecture(model.header, model.location.path))
    _copy_metadata(gguf, writer, model.header)
    _say_type(gguf, writer, file_type)
    _say_importance(gguf, writer, origin)
    regions = [_region(one, layers.get(one.tensor.name)) for one in tensors]
    placed = [
        Placed(one.tensor.name, one.tensor.shape or (1,), region.size)
        for one, region in zip(tensors, regions, strict=True)
    ]
    types = []
    for one in tensors:
        coded = layers.get(one.tensor.name)
        types.append(_type_of(one.tensor) if coded is None else str(type_name_of(coded)))
    if origin.split is None:
        return Outline([OutlinedFile("", _header(gguf, writer, placed, types), regions, ALIGNMENT)])
    empty = [len(_header(gguf, each, (), ())) + part_bytes() for each in (writer, writer_of_part())]
    cuts = cut(placed, origin.split, *empty)
    files = []
    for number, some in enumerate(cuts):
        part = writer_of_part() if number else writer
        say_part(part, number, len(cuts), len(tensors))
        header = _header(gguf, part, placed[some], types[some])
        name = part_name(origin.split.name, number + 1, len(cuts))
        files.append(OutlinedFile(name, header, regions[some], ALIGNMENT, is_beside=True))
    return Outline(files)


def _header(gguf: Any, writer: Any, tensors: Sequence[Placed], types: Sequence[str]) -> bytes:
    """Return what a file begins with, up to the data of its tensors."""
    states = gguf.gguf_writer.WriterState
    writer.state = states.NO_FILE
    for tensor, type_ in zip(tensors, types, strict=True):
        kind = gguf.GGMLQuantizationType[type_]
        # float32 stands for: the shape is one of elements
        writer.add_tensor_info(tensor.name, tensor.shape, np.float32, tensor.size, kind)
    written = BytesIO()
    writer.fout, writer.state = [written], states.EMPTY  # as if it were open
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    return written.getvalue()


def check_finite(model: LlamaCppModel, quantized: Collection[str | None]) -> None:
    """Raise where a tensor that stays as it is has NaN or Inf, as quantizing does for others."""
    for one in model.stored:
        tensor = one.tensor
        if tensor.name in quantized or tensor.dtype not in FLOATS:
            continue
        if isinstance(tensor, DECODED):
            start = 0
            for piece in decoded_pieces(tensor):
                _refuse_non_finite(model, tensor, numbers(piece, tensor.dtype), start)
                start += piece.size
            continue
        with one.open() as array:
            flat = array.reshape(-1)
            for start in range(0, flat.size, _PIECE):
                piece = numbers(flat[start : start + _PIECE], tensor.dtype)
                _refuse_non_finite(model, tensor, piece, start)


def _refuse_non_finite(model: LlamaCppModel, tensor: Tensor, weights: Array, start: int) -> None:
    wrong = np.flatnonzero(~np.isfinite(weights))
    if wrong.size:
        raise ValueError(
            f"'{model.location}': {quoted(tensor.name)} has NaN or Inf at index "
            f"{start + wrong[0]}. Take weights that are finite: llama.cpp would compute NaN"
        )


def requantized_keys(model: LlamaCppModel, origin: Origin) -> list[int]:
    """Return the bytes of the keys of such a file."""
    gguf = import_gguf("Writing")
    header = model.header
    copied = [
        key_bytes(key, value, type_, element)
        for key, value, type_, element in _taken_over(header)
        if element is None or len(value)
    ]
    architecture = _architecture(header, str(model.location))
    importance = [
        key_bytes(key, value, int(kind), None)
        for key, value, kind in _importance_keys(gguf, origin)
    ]
    return [
        *copied,
        *importance,
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


def _architecture(header: Header | Metadata, model: str) -> str:
    architecture = header.value("general.architecture")
    if not isinstance(architecture, str):
        raise ValueError(f"{model}: the model does not say its general.architecture")
    return architecture


def _taken_over(header: Header | Metadata) -> Iterator[tuple[str, Any, int, int | None]]:
    """Give the keys that the new file has too, as `Header.items` does."""
    for key, value, type_, element in header.items():
        if key not in _OWN_KEYS and not key.startswith(_LEFT_OUT):
            yield key, value, type_, element


def _copy_metadata(gguf: Any, writer: Any, header: Header | Metadata) -> None:
    types = gguf.GGUFValueType
    for key, value, type_, element in _taken_over(header):
        if element is None:
            writer.add_key_value(key, value, types(type_))
        elif len(value):
            writer.add_key_value(key, value, types(type_), types(element))
        else:
            warnings.warn(
                f"Left out, as gguf does not write empty arrays: the key {quoted(key)}",
                UserWarning,
                stacklevel=users_level(),
            )


def file_type_of(layers: Mapping[str, Coded], origin: Origin) -> int | None:
    """Return the number of a file of mostly one type."""
    if origin.mix is not None:
        return MIXES[origin.mix].file_type
    types: Counter[str] = Counter()
    for layer in layers.values():
        types[str(type_name_of(layer))] += product(layer.shape)
    return _FILE_TYPES[types.most_common(1)[0][0]] if types else None


def _say_type(gguf: Any, writer: Any, file_type: int | None) -> None:
    kind = gguf.GGUFValueType.UINT32
    writer.add_key_value("general.quantization_version", gguf.GGML_QUANT_VERSION, kind)
    if file_type is not None:
        writer.add_key_value("general.file_type", file_type, kind)


def _say_importance(gguf: Any, writer: Any, origin: Origin) -> None:
    for key, value, kind in _importance_keys(gguf, origin):
        writer.add_key_value(key, value, kind)


def _importance_keys(gguf: Any, origin: Origin) -> list[tuple[str, Any, Any]]:
    """Return what llama-quantize says of a file of importance: keys, values, types."""
    importance = origin.importance
    if importance is None:
        return []
    kinds = gguf.GGUFValueType
    said = (
        ("file", importance.name, kinds.STRING),
        ("dataset", importance.dataset, kinds.STRING),
        ("entries_count", importance.count, kinds.UINT32),
        ("chunks_count", importance.chunks, kinds.UINT32),
    )
    return [(f"{_IMPORTANCE}{key}", value, kind) for key, value, kind in said if value is not None]


def _region(stored: Stored, coded: Coded | None) -> Region:
    """Return the data of a tensor, which a packed layer may stand for."""
    if coded is not None:
        return part_region(coded, blocks_of(coded))
    tensor = stored.tensor
    if (stack := Mxfp4Stack.of(tensor)) is not None:
        return KnownRegion(stack.nbytes, stack.blocks)
    if isinstance(tensor, DECODED):
        size = ITEM_BYTES[tensor.dtype] * product(tensor.shape)
        return KnownRegion(size, partial(decoded_bytes, tensor))
    return KnownRegion(tensor.end - tensor.begin, partial(_copied, stored))


def _type_of(tensor: Tensor) -> str:
    """Return the type that a tensor has in the file which is not quantized."""
    return tensor.dtype if Mxfp4Stack.of(tensor) is None else MXFP4


def _copied(stored: Stored) -> Iterator[Bytes]:
    with stored.open_bytes() as data:
        yield data
