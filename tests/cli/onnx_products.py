"""An ONNX model of two products."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def onnx_model(path: Path, dtype: type = np.float32) -> dict[str, np.ndarray]:
    """Write two MatMuls with a Relu between; gives their weights as layers."""
    import onnx
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(1)
    layers = {"up": (64, 128), "down": (32, 64)}
    weights = {name: rng.standard_normal(shape).astype(dtype) for name, shape in layers.items()}
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [
        helper.make_node("MatMul", ["x", "up"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "down"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", kind, ["rows", 128])]
    outputs = [helper.make_tensor_value_info("y", kind, ["rows", 32])]
    tensors = [
        numpy_helper.from_array(np.ascontiguousarray(w.T), name) for name, w in weights.items()
    ]
    graph = helper.make_graph(nodes, "model", inputs, outputs, tensors)
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return weights
