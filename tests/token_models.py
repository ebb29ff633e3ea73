"""A small ONNX model of tokens, with its tokenizer and a text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hf_folders
import numpy as np
import onnx
from onnx import helper, numpy_helper

TEXT = "The quick brown fox jumps over 12 lazy dogs; it's a well-known pangram. " * 40
WIDTH = 64
RANDOM = np.random.default_rng(8)
INT64, FLOAT, FLOAT16 = onnx.TensorProto.INT64, onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
node, value = helper.make_node, helper.make_tensor_value_info


def arrays() -> dict[str, np.ndarray]:
    shapes = {
        "table": (hf_folders.ROWS, WIDTH),
        "up": (WIDTH, 96),
        "gate": (WIDTH, 96),
        "down": (WIDTH, 96),  # transposed
        "bias": (WIDTH,),
        "pooled": (WIDTH, 32),
    }
    return {
        name: RANDOM.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()
    }


def model(opset: int = 17, more: Sequence[Any] = ()) -> Any:
    """Tokens to vectors, two products of one input, a Gemm of rows, and a product of the mean."""
    nodes = [
        node("Gather", ["table", "input_ids"], ["x"]),
        node("Cast", ["attention_mask"], ["mask"], to=FLOAT),
        node("Unsqueeze", ["mask", "last"], ["masked"]),
        node("Mul", ["x", "masked"], ["in"]),
        node("MatMul", ["in", "up"], ["a"]),
        node("MatMul", ["in", "gate"], ["b"]),
        node("Mul", ["a", "b"], ["c"]),
        node("Reshape", ["c", "rows"], ["d"]),
        node("Gemm", ["d", "down", "bias"], ["e"], transB=1),
        node("ReduceMean", ["e"], ["f"], keepdims=1, axes=[0])
        if opset < 18
        else node("ReduceMean", ["e", "first"], ["f"], keepdims=1),
        node("MatMul", ["f", "pooled"], ["y"]),
    ]
    numbers = {"last": np.array([-1]), "rows": np.array([-1, 96]), "first": np.array([0])}
    graph = helper.make_graph(
        nodes,
        "graph",
        [
            value("input_ids", INT64, ["batch", "length"]),
            value("attention_mask", INT64, ["batch", "length"]),
            *more,
        ],
        [value("y", FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in {**ARRAYS, **numbers}.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


ARRAYS = arrays()
# The layers, and what they are multiplied with.
INPUTS = {"up": "in", "gate": "in", "down": "d", "pooled": "f"}


def saved(folder: Path, proto: Any) -> tuple[Path, Path]:
    """Write a model and its tokenizer, and a text."""
    path, text = folder / "model.onnx", folder / "a.txt"
    onnx.save(proto, path)
    hf_folders.bpe().save(str(folder / "tokenizer.json"))
    text.write_text(TEXT)
    return path, text
