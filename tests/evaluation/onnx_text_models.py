"""Small ONNX models of text with a tokenizer, and what they compute, in numpy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hf_folders
import numpy as np
import onnx
from onnx import helper, numpy_helper
from tokenizers import processors

WIDTH, INNER = 64, 96
WORDS = "The quick brown fox jumps over 12 lazy dogs; it's a well-known pangram. "
INT64, FLOAT = onnx.TensorProto.INT64, onnx.TensorProto.FLOAT
node, value = helper.make_node, helper.make_tensor_value_info


def weights(seed: int = 8) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    shapes = {"table": (hf_folders.ROWS, WIDTH), "up": (WIDTH, INNER), "down": (INNER, WIDTH)}
    shapes["head"] = (WIDTH, hf_folders.ROWS)
    scales = {"table": 1, "up": 0.1, "down": 0.2, "head": 0.4}
    return {
        name: (random.standard_normal(shape) * scales[name]).astype(np.float32)
        for name, shape in shapes.items()
    }


def hidden(arrays: dict[str, np.ndarray], tokens: Sequence[int]) -> np.ndarray:
    """What becomes of tokens, by where they stand."""
    inner = arrays["table"][list(tokens)].astype(np.float64) @ arrays["up"]
    return np.tanh(inner + 0.01 * np.arange(len(tokens))[:, None]) @ arrays["down"]


def logits(arrays: dict[str, np.ndarray], tokens: Sequence[int]) -> np.ndarray:
    return np.asarray(hidden(arrays, tokens) @ arrays["head"])


def proto(arrays: dict[str, np.ndarray], output: str, dimensions: int = 3) -> Any:
    """A model that gives logits, last_hidden_state or sentence_embedding."""
    nodes = [
        node("Gather", ["table", "input_ids"], ["x"]),
        node("MatMul", ["x", "up"], ["a"]),
        node("Cast", ["position_ids"], ["positions"], to=FLOAT),
        node("Mul", ["positions", "step"], ["small"]),
        node("Unsqueeze", ["small", "last"], ["column"]),
        node("Add", ["a", "column"], ["b"]),
        node("Tanh", ["b"], ["c"]),
        node("MatMul", ["c", "down"], ["hidden"]),
    ]
    if output == "logits":
        nodes.append(node("MatMul", ["hidden", "head"], ["logits"]))
    elif output == "sentence_embedding":
        nodes.append(node("ReduceMax", ["hidden"], [output], axes=[1], keepdims=0))
        dimensions = 2
    else:
        nodes.append(node("Identity", ["hidden"], [output]))
    used = {name: array for name, array in arrays.items() if name != "head" or output == "logits"}
    used |= {"last": np.array([-1]), "step": np.float32(0.01)}
    graph = helper.make_graph(
        nodes,
        "graph",
        [value(name, INT64, ["batch", "length"]) for name in ("input_ids", "position_ids")],
        [value(output, FLOAT, [None] * dimensions)],
        [numpy_helper.from_array(np.asarray(each), name) for name, each in used.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def tokenizer() -> Any:
    """One that begins and ends texts with special tokens."""
    made = hf_folders.bpe()
    begin, end = hf_folders.SPECIAL
    made.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        special_tokens=[(each, made.token_to_id(each)) for each in hf_folders.SPECIAL],
    )
    return made


def saved(path: Path, made: Any) -> Path:
    """Write a model, and its tokenizer beside it."""
    path.parent.mkdir(exist_ok=True)
    onnx.save(made, path)
    tokenizer().save(str(path.parent / "tokenizer.json"))
    return path
