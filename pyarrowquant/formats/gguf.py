"""GGUF files, whose tensors ggml reads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pyarrowquant import _arguments
from pyarrowquant.formats._files import Outputs, Spool
from pyarrowquant.formats._layers import (
    Bytes,
    Kept,
    KeptLayers,
    Names,
    Packed,
    Results,
    as_float16,
    is_of,
)

_BLOCK = 32
_MOST_DIMENSIONS = 4
_SYMMETRIC = {4: "Q4_0", 5: "Q5_0", 8: "Q8_0"}
_OTHERS = {4: "Q4_1", 5: "Q5_1"}
_OWN_KEYS = {
    "general.architecture": "give it as architecture",
    "general.alignment": "it is always 32",
}


def write_gguf(
    results: Any,
    path: str | os.PathLike[str],
    *,
    kept: Any = None,
    architecture: str = "unknown",
    metadata: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a GGUF file of the layers, under their own names.

    Codes and scales are those of `results`, in blocks of 32:

    ====  ===========  ====================  =================
    bits  zero-points  type                  decodes to
    ====  ===========  ====================  =================
    4     symmetric    Q4_0                  (q - 8) * scale
    4     other        Q4_1                  q * scale + m
    5     symmetric    Q5_0                  (q - 16) * scale
    5     other        Q5_1                  q * scale + m
    8     symmetric    Q8_0                  (q - 128) * scale
    ====  ===========  ====================  =================

    m is -zero_point * scale in float32, rounded to float16. The other types decode to exactly
    what `dequantize_batch_arrow` gives. Needs the extra ``pyarrowquant[gguf]``.

    gguf reads any such file. llama.cpp also wants names and metadata of an architecture that it
    knows, and for ``llama`` another order of the rows of some layers; nothing is renamed or
    reordered here.

    Data is spooled to a nameless temporary file in the folder of `path`, since the header comes
    first: while writing, the folder takes twice the room of the result, and memory holds one
    batch.

    Parameters
    ----------
    results : pyarrow.Table, RecordBatchReader or any Arrow producer
        What `quantize_batch_arrow` or `quantize_stream` gave. Layers are matrices of a number of
        columns that 32 divides, quantized with ``group_size=32`` and ``scale_dtype="float16"``.
        Whether zero-points are symmetric is found from their values. A stream is read batch by
        batch.
    path : str or path
        The file.
    kept : pyarrow.Table, RecordBatchReader or any Arrow producer, optional
        Layers that are not quantized, as for `quantize_batch_arrow`; float32, float16 or bfloat16
        and of up to four dimensions. Their names and bytes go into the file as they are.
    architecture : str
        ``general.architecture`` of the file.
    metadata : mapping, optional
        Keys, and values that are bool, int, float, str, or a list of one of these. An int is
        stored as uint32 if it fits, else as int32, uint64 or int64; in a list as int32 or int64.
        A float is stored as float32.
    overwrite : bool
        Whether the file may be replaced.

    Raises
    ------
    ValueError
        GGUF cannot hold a layer; the text names all such layers (of a stream, of the first batch
        that has some), and says what GGUF can hold. Or a row is corrupt, a name comes twice, or an
        argument is out of bounds. Nothing is left behind then.
    FileExistsError
        The file exists.
    ImportError
        The extra is not installed.
    """
    gguf = _gguf()
    path = Path(path)
    architecture = _arguments.text("architecture", architecture)
    values = _metadata(gguf, metadata)
    layers = layers_of(results)
    kept_layers = KeptLayers(kept, _kept_problem)
    with Outputs([path], _arguments.boolean("overwrite", overwrite)) as outputs:
        writer = gguf.GGUFWriter(outputs.temporary(path), architecture)
        try:
            for key, value, types in values:
                writer.add_key_value(key, value, *types)
            _write_tensors(gguf, writer, layers, kept_layers, path.parent)
        finally:
            writer.close()


def _gguf() -> Any:
    try:
        import gguf
    except ImportError:
        raise ImportError("Writing GGUF needs gguf: pip install pyarrowquant[gguf]") from None
    return gguf


def _type_name(layer: Packed) -> str | None:
    if layer.zero_point == "symmetric" and layer.bits in _SYMMETRIC:
        return _SYMMETRIC[layer.bits]
    return _OTHERS.get(layer.bits)


def layers_of(results: Any) -> Results:
    """Open results; a layer that GGUF cannot hold is an error."""
    return Results(
        results,
        "GGUF",
        _problem,
        'GGUF holds matrices of group_size 32 and scale_dtype="float16", the columns a multiple '
        "of 32: 4 and 5 bits with any zero_point, 8 bits with a symmetric one. Quantize such "
        "layers with other settings, or give them in kept",
    )


def _problem(layer: Packed) -> str | None:
    if problem := layer.matrix_problem():
        return problem
    if layer.group != _BLOCK:
        return f"group_size {layer.group_size}"
    if layer.columns % _BLOCK:
        return f"{layer.columns} columns are no multiple of 32"
    type_name = _type_name(layer)
    if type_name is None:
        kind = f" with {layer.zero_point} zero-points" if layer.bits in _SYMMETRIC else ""
        return f"{layer.bits} bits{kind}"
    if not is_of(layer.scales, "float16"):
        return 'its scales are not float16: quantize with scale_dtype="float16"'
    if type_name in _OTHERS.values() and not np.isfinite(as_float16(layer.biases)).all():
        return "-zero_point * scale is beyond float16"
    return None


def _kept_problem(layer: Kept) -> str | None:
    if len(layer.shape) > _MOST_DIMENSIONS:
        return f"shape {list(layer.shape)} has more than four dimensions, the most in GGUF"
    if 0 in layer.shape:
        return f"shape {list(layer.shape)} has no weights"
    return None


def _metadata(gguf: Any, metadata: object) -> list[tuple[str, Any, tuple[Any, ...]]]:
    """Keys and values with their GGUF types."""
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, Mapping):
        raise TypeError(f"metadata must be a mapping, got {type(metadata).__name__}: {metadata!r}")
    types = gguf.GGUFValueType
    # the types of the format are told by what gguf would not find out itself
    values = {
        "general.quantization_version": gguf.GGML_QUANT_VERSION,
        **metadata,
    }
    entries: list[tuple[str, Any, tuple[Any, ...]]] = []
    for key, value in values.items():
        if not isinstance(key, str):
            raise TypeError(f"A key of metadata must be a str, got {type(key).__name__}: {key!r}")
        if key in _OWN_KEYS:
            raise ValueError(f"metadata has the key '{key}': {_OWN_KEYS[key]}")
        if isinstance(value, (list, tuple)):
            element = _list_type(key, value)
            entries.append((key, list(value), (types.ARRAY, types[element])))
        else:
            entries.append((key, value, (types[_value_type(key, value)],)))
    return entries


def _value_type(key: str, value: object) -> str:
    if isinstance(value, bool):
        return "BOOL"
    if isinstance(value, float):
        return "FLOAT32"
    if isinstance(value, str):
        return "STRING"
    if isinstance(value, int):
        bounds = (("UINT32", 0, 32), ("INT32", 31, 31), ("UINT64", 0, 64), ("INT64", 63, 63))
        for name, below, above in bounds:
            if (-(2**below) if below else 0) <= value < 2**above:
                return name
        raise ValueError(f"metadata '{key}': {value} is beyond 64 bits")
    raise TypeError(
        f"metadata '{key}' must be a bool, int, float, str or a list of one of these, "
        f"got {type(value).__name__}: {value!r}"
    )


def _list_type(key: str, values: list[Any] | tuple[Any, ...]) -> str:
    if not values:
        raise ValueError(f"metadata '{key}' is an empty list")
    if len({type(value) for value in values}) > 1:
        raise TypeError(f"metadata '{key}' is a list of more than one type")
    names = {_value_type(key, value) for value in values}
    if type(values[0]) is not int:
        return names.pop()
    if "UINT64" in names and max(values) >= 2**63:
        raise ValueError(f"metadata '{key}': a list of ints holds no more than 63 bits")
    small = all(-(2**31) <= value < 2**31 for value in values)
    return "INT32" if small else "INT64"


def _write_tensors(gguf: Any, writer: Any, layers: Results, kept: KeptLayers, folder: Path) -> None:
    names = Names()
    places: list[tuple[int, int]] = []
    with Spool(folder) as spool:

        def end(name: str, shape: tuple[int, ...], type_name: str, start: int) -> None:
            """Take what was spooled since `start` as a tensor."""
            size = spool.size - start
            places.append((start, size))
            type_ = gguf.GGMLQuantizationType[type_name]
            # float32 stands for: the shape is one of elements
            writer.add_tensor_info(names.add(name), shape or (1,), np.float32, size, type_)

        for layer in layers:
            start, type_name = spool.size, str(_type_name(layer))
            for rows, codes in layer.unpacked():
                spool.append(_blocks(layer, rows, codes, type_name))
            end(layer.name, layer.shape, type_name, start)
        for layer_kept in kept:
            start = spool.size
            spool.append(layer_kept.data)
            end(layer_kept.name, layer_kept.shape, layer_kept.dtype, start)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for start, size in places:
            writer.write_tensor_data(spool.view(start, size))


def _blocks(layer: Packed, rows: slice, codes: Bytes, type_name: str) -> Bytes:
    """Blocks of some rows as ggml lays them out: scale, m, fifth bits, codes."""
    blocks = codes.reshape(-1, _BLOCK)

    def halves(values: Any) -> Bytes:
        stored = as_float16(values[rows]).astype("<f2").reshape(-1, 1)
        return stored.view(np.uint8)

    parts = [halves(layer.scales)]
    if type_name in _OTHERS.values():
        parts.append(halves(layer.biases))
    if layer.bits == 8:
        parts.append(np.bitwise_xor(blocks, 0x80, dtype=np.uint8))  # q - 128 as int8
    else:
        if layer.bits == 5:
            parts.append(np.packbits(blocks >> 4, axis=1, bitorder="little"))
        low, high = blocks[:, : _BLOCK // 2], blocks[:, _BLOCK // 2 :]
        parts.append(np.bitwise_or(low & 15, high << 4, dtype=np.uint8))
    return np.concatenate(parts, axis=1)
