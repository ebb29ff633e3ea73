"""GGUF models, some of their tensors replaced by quantized ones."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pyarrowquant._core.cells import Bytes
from pyarrowquant._core.file_names import is_same
from pyarrowquant._core.layout import Coded
from pyarrowquant._core.quoting import quoted
from pyarrowquant._core.shapes import product
from pyarrowquant.formats._by_name import LayersByName
from pyarrowquant.formats._gguf_blocks import blocks_of, layers_of, type_name_of
from pyarrowquant.formats._gguf_layout import Placed, header
from pyarrowquant.formats._gguf_mixes import MIXES
from pyarrowquant.formats._gguf_mxfp4 import TYPE as MXFP4
from pyarrowquant.formats._gguf_mxfp4 import Mxfp4Stack
from pyarrowquant.formats._gguf_split import cut, part_keys, part_name
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
from pyarrowquant.reading.gguf_header import DEFAULT_ALIGNMENT, Header
from pyarrowquant.reading.gguf_keys import number_key, text_key
from pyarrowquant.reading.stored import Stored
from pyarrowquant.reading.tensors import DECODED, Tensor, decoded_bytes, decoded_bytes_of

_ARCHITECTURE = "general.architecture"
# What the new tensors decide.
_FILE_TYPE, _VERSION = "general.file_type", "general.quantization_version"
_ALIGNMENT = "general.alignment"
_OWN_KEYS = frozenset({_ARCHITECTURE, _FILE_TYPE, _VERSION, _ALIGNMENT})
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
    check: Callable[[], object] = lambda: None,
) -> None:
    """Write what was made of a model to a file that is none of its own."""
    real = Path(os.path.realpath(path))
    if any(is_same(real, Path(os.path.realpath(file.path))) for file in model.files):
        raise ValueError(f"'{path}' is the source model: give another path")
    with Outputs([path], overwrite) as outputs:
        if layers is None:
            outline.write(outputs.temporary(path), {})
        else:
            outline.write(outputs.temporary(path), layers, layers.forget_pages)
        check()


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
    keys = keys_of(model, file_type, origin)
    alignment = alignment_of(model)
    regions = [_region(one, layers.get(one.tensor.name)) for one in tensors]
    placed = [
        Placed(one.tensor.name, one.tensor.shape, region.size)
        for one, region in zip(tensors, regions, strict=True)
    ]
    types = [_type_of(one.tensor, layers.get(one.tensor.name)) for one in tensors]
    if origin.split is None:
        start = header(keys, placed, types, alignment)
        return Outline([OutlinedFile("", start, regions, alignment)])
    # Only the first part says what the model is.
    aligned = _alignment_keys(model)
    first, others = (len(header([*each, *part_keys(0, 0, 0)], (), ())) for each in (keys, aligned))
    cuts = cut(placed, origin.split, first, others, alignment)
    files = []
    for number, some in enumerate(cuts):
        own = [*(aligned if number else keys), *part_keys(number, len(cuts), len(tensors))]
        start = header(own, placed[some], types[some], alignment)
        name = part_name(origin.split.name, number + 1, len(cuts))
        files.append(OutlinedFile(name, start, regions[some], alignment, is_beside=True))
    return Outline(files)


def keys_of(model: LlamaCppModel, file_type: int | None, origin: Origin) -> list[bytes]:
    """Return what the header of such a file has for each key.

    Parameters
    ----------
    model : LlamaCppModel
        Whose keys are taken over, but for what the new tensors decide.
    file_type : int or None
        llama.cpp's number of such files.
    origin : Origin
    """
    gguf = import_gguf("Writing")
    keys = [text_key(_ARCHITECTURE, _architecture(model.header, str(model.location)))]
    keys += _alignment_keys(model)
    for name, key in model.header.encoded_keys():
        if name not in _OWN_KEYS and not name.startswith(_LEFT_OUT):
            keys.append(key)
    keys.append(number_key(_VERSION, gguf.GGML_QUANT_VERSION))
    if file_type is not None:
        keys.append(number_key(_FILE_TYPE, file_type))
    return [*keys, *_importance_keys(origin)]


def alignment_of(model: LlamaCppModel) -> int:
    """Return the alignment of the file: llama.cpp maps no tensors that are nearer to each other."""
    return max(model.header.alignment, DEFAULT_ALIGNMENT)


def _alignment_keys(model: LlamaCppModel) -> list[bytes]:
    is_said = any(name == _ALIGNMENT for name, _ in model.header.encoded_keys())
    return [number_key(_ALIGNMENT, alignment_of(model))] if is_said else []


def _check_names(layers: LayersByName, tensors: dict[str, Tensor], model: str) -> None:
    lines = []
    for name, layer in layers.items():
        if name not in tensors:
            lines.append(f"The model '{model}' has no tensor {quoted(name)}")
        elif layer.shape != tensors[name].shape:
            lines.append(
                f"Layer {quoted(name)} has shape {list(layer.shape)}, in the model '{model}' it is "
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


def file_type_of(layers: Mapping[str, Coded], origin: Origin) -> int | None:
    """Return the number of a file of mostly one type."""
    if origin.mix is not None:
        return MIXES[origin.mix].file_type
    types: Counter[str] = Counter()
    for layer in layers.values():
        types[str(type_name_of(layer))] += product(layer.shape)
    return _FILE_TYPES[types.most_common(1)[0][0]] if types else None


def _importance_keys(origin: Origin) -> Iterator[bytes]:
    """Give what llama-quantize says of a file of importance."""
    importance = origin.importance
    if importance is None:
        return
    for key, text in (("file", importance.name), ("dataset", importance.dataset)):
        if text is not None:
            yield text_key(_IMPORTANCE + key, text)
    counts = (("entries_count", importance.count), ("chunks_count", importance.chunks))
    for key, count in counts:
        if count is not None:
            yield number_key(_IMPORTANCE + key, count)


def _region(stored: Stored, coded: Coded | None) -> Region:
    """Return the data of a tensor, which a packed layer may stand for."""
    if coded is not None:
        return part_region(coded, blocks_of(coded))
    tensor = stored.tensor
    if (stack := Mxfp4Stack.of(tensor)) is not None:
        return KnownRegion(stack.nbytes, stack.blocks)
    if isinstance(tensor, DECODED):
        return KnownRegion(decoded_bytes_of(tensor), partial(decoded_bytes, tensor))
    return KnownRegion(tensor.end - tensor.begin, partial(_copied, stored))


def _type_of(tensor: Tensor, coded: Coded | None) -> int:
    """Return the number of the type that a tensor has in the file, where a layer stands for it."""
    if coded is not None:
        name = str(type_name_of(coded))
    else:
        name = tensor.dtype if Mxfp4Stack.of(tensor) is None else MXFP4
    return int(import_gguf("Writing").GGMLQuantizationType[name])


def _copied(stored: Stored) -> Iterator[Bytes]:
    with stored.open_bytes() as data:
        yield data
