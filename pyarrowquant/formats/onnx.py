"""ONNX models of MatMulNBits nodes, which ONNX Runtime multiplies without decoding them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from pyarrowquant import _arguments
from pyarrowquant.formats._files import Outputs, write_array
from pyarrowquant.formats._layers import Bytes, Floats, Names, Packed, Results

Array = npt.NDArray[Any]

_BIT_WIDTHS = (2, 4, 8)
_LEAST_BLOCK = 16
_OPSET = 17
_IR_VERSION = 8
_BYTES_A_PIECE = 1 << 22
# Where tensors begin in the file of data: large ones at pages, as memory maps want it.
_ALIGNMENT = 64
_LARGE, _LARGE_ALIGNMENT = 1 << 20, 1 << 16


def write_onnx(results: Any, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write an ONNX model that has a MatMulNBits node for each layer.

    A layer ``P`` of N rows and K columns becomes the node ``P``, which multiplies an input
    ``P.input`` (float32, of K columns) with the transposed matrix and gives ``P.output`` (N
    columns). Its weights are the initializers ``P.codes``, ``P.scales`` and, unless zero-points
    are symmetric, ``P.zero_points``. They lie in a file of external data beside the model, named
    as the model with ``.data`` at the end; the two have to stay together. Nodes and initializers
    are meant to be put into a model's graph. Needs the extra ``pyarrowquant[onnx]``.

    Data goes to its file as it comes: memory holds one batch.

    Parameters
    ----------
    results : pyarrow.Table, RecordBatchReader or any Arrow producer
        What `quantize_batch_arrow` or `quantize_stream` gave. Layers are matrices of 2, 4 or 8
        bits with a `group_size` that is a power of two and at least 16, or -1; 8 bits have
        integer or symmetric zero-points. Any number of columns will do. A stream is read batch
        by batch.
    path : str or path
        The model's file.
    overwrite : bool
        Whether the two files may be replaced.

    Raises
    ------
    ValueError
        MatMulNBits cannot hold a layer; the text names all such layers (of a stream, of the first
        batch that has some), and says what it can hold. Or a row is corrupt, or a name comes
        twice. Nothing is left behind then.
    FileExistsError
        One of the files exists.
    ImportError
        The extra is not installed.

    Notes
    -----
    Rows whose last group is shorter are padded to whole groups. A row of one group gets the next
    power of two as its block_size.
    """
    onnx = _onnx()
    path = Path(path)
    data_path = path.with_name(f"{path.name}.data")
    layers = layers_of(results)
    with Outputs([data_path, path], _arguments.boolean("overwrite", overwrite)) as outputs:
        with outputs.temporary(data_path).open("xb") as file:
            model = _model(onnx, layers, file, data_path.name)
        outputs.temporary(path).write_bytes(model.SerializeToString())


def _onnx() -> Any:
    try:
        import onnx
    except ImportError:
        raise ImportError("Writing ONNX needs onnx: pip install pyarrowquant[onnx]") from None
    return onnx


def _block(layer: Packed) -> int:
    """Columns of a block; one block a row may be larger than the row."""
    if layer.group < layer.columns:
        return layer.group
    return max(_LEAST_BLOCK, 1 << (layer.columns - 1).bit_length())


def layers_of(results: Any) -> Results:
    """Open results; a layer that MatMulNBits cannot hold is an error."""
    return Results(
        results,
        "MatMulNBits",
        _problem,
        "MatMulNBits holds matrices of 2, 4 or 8 bits with a group_size that is a power of two "
        "and at least 16, or -1; with 8 bits, zero_point integer or symmetric. Quantize such "
        "layers with other settings, or leave them out",
    )


def _problem(layer: Packed) -> str | None:
    if problem := layer.matrix_problem():
        return problem
    if layer.bits not in _BIT_WIDTHS:
        return f"{layer.bits} bits"
    block = _block(layer)
    if block < _LEAST_BLOCK or block & (block - 1):
        return f"group_size {layer.group_size}"
    if layer.bits == 8 and layer.zero_point == "float":
        return "8 bits with float zero-points"
    return None


def _model(onnx: Any, layers: Results, file: IO[bytes], location: str) -> Any:
    """Write the data of all layers; returns the model that refers to it."""
    graph = onnx.GraphProto(name="pyarrowquant")
    float32, uint8 = onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8
    names = Names()

    def tensor(name: str, type_: int, dims: Sequence[int], pieces: Iterable[Array]) -> str:
        size = math.prod(dims) * (4 if type_ == float32 else 1)
        file.write(bytes(-file.tell() % (_LARGE_ALIGNMENT if size >= _LARGE else _ALIGNMENT)))
        made = graph.initializer.add(name=names.add(name), data_type=type_, dims=dims)
        made.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", file.tell()), ("length", size)):
            made.external_data.add(key=key, value=str(value))
        for piece in pieces:
            write_array(file, piece)
        return name

    def value(name: str, columns: int) -> Any:
        return onnx.helper.make_tensor_value_info(names.add(name), float32, ["rows", columns])

    for layer in layers:
        name, block = layer.name, _block(layer)
        rows, groups = layer.scales.shape
        width = block * layer.bits // 8
        inputs = [
            f"{name}.input",
            tensor(f"{name}.codes", uint8, (rows, groups, width), _padded(layer, groups * width)),
            tensor(f"{name}.scales", float32, (rows, groups), [layer.scales]),
        ]
        if layer.zero_point != "symmetric":  # 2^(b-1) is what the node takes without
            zero_points: Array = layer.zero_points
            if layer.zero_point == "integer":
                zero_points = _packed(zero_points, layer.bits)
            type_ = uint8 if layer.zero_point == "integer" else float32
            label = f"{name}.zero_points"
            inputs.append(tensor(label, type_, zero_points.shape, [zero_points]))
        node = onnx.helper.make_node(
            "MatMulNBits",
            inputs,
            [f"{name}.output"],
            name=name,
            domain="com.microsoft",
            K=layer.columns,
            N=rows,
            bits=layer.bits,
            block_size=block,
        )
        graph.node.append(node)
        graph.input.append(value(f"{name}.input", layer.columns))
        graph.output.append(value(f"{name}.output", rows))
    opsets = [
        onnx.helper.make_opsetid("", _OPSET),
        onnx.helper.make_opsetid("com.microsoft", 1),
    ]
    return onnx.helper.make_model(
        graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="pyarrowquant"
    )


def _padded(layer: Packed, width: int) -> Iterator[Bytes]:
    """Rows of codes with zeros at their ends, so many at a time as fit into some MiB."""
    step = max(1, _BYTES_A_PIECE // width)
    for start in range(0, len(layer.codes), step):
        codes = layer.codes[start : start + step]
        yield np.pad(codes, ((0, 0), (0, width - codes.shape[1])))


def _packed(zero_points: Floats, bits: int) -> Bytes:
    """Whole zero-points in rows of packed bits, low ones first."""
    rows = len(zero_points)
    stream = np.unpackbits(zero_points.astype(np.uint8)[:, :, None], axis=2, bitorder="little")
    return np.packbits(stream[:, :, :bits].reshape(rows, -1), axis=1, bitorder="little")
