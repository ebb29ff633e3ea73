"""ONNX models quantized, and how far their outputs may be from those of the decoded weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
from exports import decoded
from onnx import helper, numpy_helper
from onnx_models import Model, node, run

from pyarrowquant import quantize_stream, read_weights
from pyarrowquant.reading.onnx_model import messages

# What two products of random activations and weights keep of the direction.
LEAST_COSINE = {2: 0.2, 4: 0.97, 8: 0.9999}


def quantize(path: Path, bits: int = 4, **options: Any) -> pa.Table:
    return quantize_stream(read_weights(path), bits, **options).read_all()


def with_decoded(path: Path, result: pa.Table) -> Any:
    """The written model, with plain products with what the result decodes to."""
    proto = onnx.load(path)
    values = decoded(result)
    types = {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
    for made in graph_nodes(proto):
        if made.op_type == "MatMulNBits":
            name, _ = made.input[1].split(".codes")
            type_ = helper.tensor_dtype_to_np_dtype(types[made.input[2]])
            weight = np.ascontiguousarray(values[name].T).astype(type_)
            if f"{name}.decoded" not in types:
                types[f"{name}.decoded"] = 1
                tensor = numpy_helper.from_array(weight, f"{name}.decoded")
                proto.graph.initializer.append(tensor)
            made.CopyFrom(node("MatMul", [made.input[0], f"{name}.decoded"], made.output))
    return proto


def graph_nodes(proto: Any) -> list[Any]:
    return [m for m in messages(proto) if m.DESCRIPTOR.name == "NodeProto"]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def attempt_run(path: Path, model: Model) -> Any:
    try:
        return run(path, model.feeds)
    except Exception as error:
        return error
