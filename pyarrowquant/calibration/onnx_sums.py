"""An ONNX graph that gives the sums of the squares of what its layers are multiplied with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pyarrowquant.reading.onnx import OnnxModel
from pyarrowquant.reading.onnx_model import import_onnx

_AXES_AS_INPUT = 18  # the version of operators since which ReduceSumSquare has them as such


@dataclass(frozen=True)
class Sums:
    """Outputs of a graph, and whose inputs they are about.

    Attributes
    ----------
    squares : str
        A float64 for each column.
    size : str
        The number of inputs, and that of columns.
    layers : list of str
    """

    squares: str
    size: str
    layers: list[str] = field(default_factory=list)


def give_sums(model: OnnxModel) -> list[Sums]:
    """Change the graph of a model so that it gives these, and nothing else.

    Layers that are multiplied within If, Loop and Scan are left out; where all are, or where there
    are none, that is an error.
    """
    if not model.layers:
        raise ValueError(
            f"{model.location} has no MatMul or Gemm with a float weight. If it is quantized, "
            "calibrate the model that it was made from"
        )
    onnx = import_onnx("Running")
    proto = model.proto
    graph = proto.graph
    found: dict[tuple[str, int], Sums] = {}
    for layer in model.layers:
        columns = layer.weight.shape[1]
        for use in layer.weight.uses:
            if use.graph is not graph:
                continue
            inputs = graph.node[use.index].input[0]
            sums = found.get((inputs, columns))
            if sums is None:
                sums = found[inputs, columns] = _add(onnx, proto, len(found), inputs, columns)
            sums.layers.append(layer.weight.name)
    if not found:
        raise ValueError(
            f"{model.location}: all layers are within If, Loop or Scan, where inputs are not seen. "
            "Give a model without these; of a decoder, that for the first tokens"
        )
    del graph.output[:]  # so that what only they need is not computed
    dtypes = onnx.TensorProto
    for sums in found.values():
        for name, dtype in ((sums.squares, dtypes.DOUBLE), (sums.size, dtypes.INT64)):
            graph.output.append(onnx.helper.make_tensor_value_info(name, dtype, None))
    return list(found.values())


def _add(onnx: Any, proto: Any, number: int, inputs: str, columns: int) -> Sums:
    """Add nodes that sum up an input, of any number of dimensions, in float64."""
    name = f"pyarrowquant.sums.{number}"
    node, array = onnx.helper.make_node, onnx.numpy_helper.from_array
    shape, rows, axes, squares = (f"{name}.{each}" for each in ("shape", "rows", "axes", "squares"))
    version = next(each.version for each in proto.opset_import if each.domain in ("", "ai.onnx"))
    graph = proto.graph
    graph.initializer.append(array(np.array([-1, columns]), shape))
    reduced = [f"{rows}.float64"]
    said: dict[str, Any] = {"axes": [0]}
    if version >= _AXES_AS_INPUT:
        graph.initializer.append(array(np.array([0]), axes))
        reduced, said = [*reduced, axes], {}
    graph.node.extend(
        [
            node("Reshape", [inputs, shape], [rows]),
            node("Cast", [rows], [reduced[0]], to=onnx.TensorProto.DOUBLE),
            node("ReduceSumSquare", reduced, [squares], keepdims=0, **said),
            node("Shape", [rows], [f"{name}.size"]),
        ]
    )
    return Sums(squares, f"{name}.size")
