"""Tensors of an ONNX model that are no layers: biases, norms, kernels of convolutions."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from pyarrowquant._core.quoting import quoted
from pyarrowquant.reading.location import Location
from pyarrowquant.reading.onnx_model import messages, size_of
from pyarrowquant.reading.tensors import Tensor

# The safetensors names of TensorProto.DataType, as far as there are such names.
_DTYPES = {
    1: "F32",
    2: "U8",
    3: "I8",
    4: "U16",
    5: "I16",
    6: "I32",
    7: "I64",
    8: "STRING",
    9: "BOOL",
    10: "F16",
    11: "F64",
    12: "U32",
    13: "U64",
    14: "C64",
    15: "C128",
    16: "BF16",
    17: "F8_E4M3",
    18: "F8_E4M3FNUZ",
    19: "F8_E5M2",
    20: "F8_E5M2FNUZ",
    21: "U4",
    22: "I4",
    23: "F4",
    24: "F8_E8M0",
}


def other_tensors(model: Any, layers: Collection[str], location: Location) -> Iterator[Tensor]:
    """Give the initializers of all graphs and the values of Constant nodes, but for layers.

    Tensors of inner graphs that have the name of a layer are not told from it.
    """
    for message in messages(model):
        kind = message.DESCRIPTOR.name
        if kind == "GraphProto":
            sparse = (tensor.values for tensor in message.sparse_initializer)
            found = [(tensor.name, tensor) for tensor in (*message.initializer, *sparse)]
        elif kind == "NodeProto" and message.op_type == "Constant" and message.output:
            values = (attribute.t for attribute in message.attribute if attribute.HasField("t"))
            found = [(message.output[0], tensor) for tensor in values]
        else:
            continue
        for name, tensor in found:
            if name not in layers:
                yield _described(_text(name), tensor, location)


# Nodes whose constant inputs are codes; the last one decodes them for another node.
_CODED = frozenset(
    {
        "MatMulNBits",
        "MatMulBnb4",
        "MatMulFpQ4",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul",
        "QLinearMatMul",
        "QGemm",
        "DequantizeLinear",
    }
)


def coded_products(model: Any) -> list[Any]:
    """Return the nodes that multiply with constant codes, or decode them."""
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer if len(tensor.dims) > 1}
    return [
        node
        for node in graph.node
        if node.op_type in _CODED and not constants.isdisjoint(node.input)
    ]


def _described(name: str, tensor: Any, location: Location) -> Tensor:
    dtype = _DTYPES.get(tensor.data_type, f"type {tensor.data_type}")
    size = size_of(tensor, f"{location}: tensor {quoted(name)}")
    if size is None:
        size = sum(map(len, tensor.string_data))
    return Tensor(name, dtype, tuple(tensor.dims), 0, size)


def _text(name: Any) -> str:
    """Return a name as text, which protobuf does not check."""
    return name if isinstance(name, str) else name.decode(errors="replace")
