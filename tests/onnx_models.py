"""Small ONNX models, and what they compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

node = helper.make_node
FLOAT, FLOAT16, BOOL = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BOOL


@dataclass
class Model:
    """A model, what it is fed, and the layers that it has."""

    nodes: Sequence[Any]
    arrays: Mapping[str, np.ndarray]
    feeds: Mapping[str, np.ndarray]
    layers: Mapping[str, np.ndarray]
    outputs: Mapping[str, int] = field(default_factory=lambda: {"y": 2})  # dimensions
    left: Mapping[str, int] = field(default_factory=dict)  # nodes that are not replaced
    opset: int = 17

    def proto(self) -> Any:
        def value(name: str, array: np.ndarray, shape: Sequence[Any]) -> Any:
            type_ = helper.np_dtype_to_tensor_dtype(array.dtype)
            return helper.make_tensor_value_info(name, type_, shape)

        some = next(iter(self.feeds.values()))
        graph = helper.make_graph(
            self.nodes,
            "graph",
            [value(name, array, array.shape) for name, array in self.feeds.items()],
            [value(name, some, [None] * count) for name, count in self.outputs.items()],
            [numpy_helper.from_array(array, name) for name, array in self.arrays.items()],
        )
        made = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8
        )
        helper.set_model_props(made, {"author": "somebody"})
        return made

    def save(self, path: Path) -> Path:
        onnx.save(self.proto(), path)
        return path


def random(seed: int, *shape: int) -> np.ndarray:
    """Weights with which activations keep their size."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)


def activations(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def run(model: Path | Any, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    source = model if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(feeds)))


def mlp(columns: int = 64) -> Model:
    up, down = random(1, columns, 100), random(2, 100, 24)
    return Model(
        [
            node("MatMul", ["x", "up"], ["a"], "first"),
            node("Add", ["a", "bias"], ["b"], "add"),
            node("Relu", ["b"], ["c"], "relu"),
            node("MatMul", ["c", "down"], ["y"], "second"),
        ],
        {"up": up, "bias": random(3, 100), "down": down},
        {"x": activations(4, 5, columns)},
        {"up": up.T, "down": down.T},
    )


def shared() -> Model:
    w = random(1, 48, 48)
    return Model(
        [
            node("MatMul", ["x", "w"], ["a"], "first"),
            node("Tanh", ["a"], ["b"]),
            node("MatMul", ["b", "w"], ["y"], "second"),
        ],
        {"w": w},
        {"x": activations(2, 5, 48)},
        {"w": w.T},
    )


def gemm() -> Model:
    """Biases of all forms, none too, and Gemms that are more than a product."""
    a, b, c, d = random(1, 64, 40), random(2, 32, 40), random(3, 32, 56), random(4, 24, 56)
    e = random(5, 24, 16)
    return Model(
        [
            node("Gemm", ["x", "a", "row"], ["1"], "straight"),
            node("Gemm", ["1", "b", "column"], ["2"], "transposed", transB=1),
            node("Gemm", ["2", "c"], ["3"], "no bias", beta=2.0),
            node("Gemm", ["3", "d", "scalar"], ["4"], transB=1, alpha=1.0, beta=1.0),
            node("Gemm", ["4", "e", "matrix"], ["5"], "alpha", alpha=0.5),
            node("Gemm", ["4", "e", "matrix"], ["6"], "beta", beta=0.5),
            node("Gemm", ["turned", "e", "matrix"], ["7"], "transA", transA=1),
            node("Gemm", ["4", "e", "matrix"], ["8"], "plain"),
            node("Sum", ["5", "6", "7", "8"], ["y"]),
        ],
        {
            **{"a": a, "b": b, "c": c, "d": d, "e": e},
            "row": random(6, 40),
            "column": random(7, 5, 1),
            "scalar": np.float32(0.5),
            "matrix": random(8, 5, 16),
            "turned": random(9, 24, 5),
        },
        {"x": activations(10, 5, 64)},
        {"a": a.T, "b": b, "c": c.T, "d": d, "e": e.T},
        left={"Gemm": 3},
    )


def batched() -> Model:
    """Activations of three dimensions and of one; products that no constant matrix is in."""
    w, v = random(1, 40, 56), random(2, 56, 40)
    return Model(
        [
            node("MatMul", ["x", "w"], ["a"]),
            node("MatMul", ["a", "v"], ["b"]),
            node("MatMul", ["b", "stack"], ["c"]),
            node("Transpose", ["c"], ["d"], perm=[0, 2, 1]),
            node("MatMul", ["c", "d"], ["e"]),
            node("MatMul", ["left", "e"], ["f"]),
            node("ReduceSum", ["e", "axes"], ["g"], keepdims=0),
            node("Concat", ["g", "zeros"], ["h"], axis=0),
            node("MatMul", ["h", "w"], ["vector"]),
            node("ReduceSum", ["f"], ["s"], keepdims=0),
            node("Add", ["vector", "s"], ["y"]),
        ],
        {
            **{"w": w, "v": v, "stack": np.stack([random(3, 40, 6)] * 3), "left": random(4, 2, 7)},
            "axes": np.array([0, 1], np.int64),
            "zeros": np.zeros(33, np.float32),
        },
        {"x": activations(5, 3, 7, 40)},
        {"w": w.T, "v": v.T},
        outputs={"y": 1},
        left={"MatMul": 3},
    )


def tied() -> Model:
    """An embedding that is the output head too, behind a Transpose; a weight that is an output."""
    table, w = random(1, 90, 32), random(2, 32, 32)
    return Model(
        [
            node("Gather", ["table", "ids"], ["a"]),
            node("MatMul", ["a", "w"], ["b"]),
            node("Identity", ["w"], ["same"]),
            node("MatMul", ["b", "same"], ["c"]),
            node("Transpose", ["table"], ["head"]),
            node("Add", ["c", "x"], ["d"]),
            node("MatMul", ["d", "head"], ["y"]),
            node("Identity", ["w"], ["shown"]),
        ],
        {"table": table, "w": w, "ids": np.array([3, 0, 89, 3, 1], np.int64)},
        {"x": activations(3, 5, 32)},
        {"w": w.T, "table": table},
        outputs={"y": 2, "shown": 2},
        left={"Identity": 1, "Gather": 1},
    )


def constants() -> Model:
    """Weights of Constant nodes, and chains that nothing else uses."""
    w, v, u = random(1, 48, 32), random(2, 40, 32), random(3, 40, 40)
    return Model(
        [
            node("Constant", [], ["w"], value=numpy_helper.from_array(w, "its own name")),
            node("Constant", [], ["half"], value_float=0.5),
            node("Constant", [], ["v"], value=numpy_helper.from_array(v)),
            node("MatMul", ["x", "w"], ["a"]),
            node("Mul", ["a", "half"], ["b"]),
            node("Identity", ["v"], ["v.same"]),
            node("Transpose", ["v.same"], ["v.turned"], perm=[1, 0]),
            node("MatMul", ["b", "v.turned"], ["c"]),
            node("Transpose", ["u"], ["u.turned"], perm=[1, 0]),
            node("Transpose", ["u.turned"], ["u.back"]),
            node("MatMul", ["c", "u.back"], ["d"]),
            node("MatMul", ["d", "u.turned"], ["y"], "other direction"),
        ],
        {"u": u},
        {"x": activations(4, 5, 48)},
        {"w": w.T, "v": v, "u": u.T},
        left={"Constant": 1, "MatMul": 1, "Transpose": 1},
    )


def branches() -> Model:
    """Weights in the branches of If: those of the graph around, and others."""
    w, v, body = random(1, 40, 24), random(2, 40, 24), random(3, 24, 24)

    def output(name: str) -> Any:
        return helper.make_tensor_value_info(name, FLOAT, [None, None])

    then = helper.make_graph(
        [
            node("MatMul", ["x", "w"], ["t"], "then"),
            node("MatMul", ["t", "own"], ["then.y"], "own"),
        ],
        "then",
        [],
        [output("then.y")],
        [numpy_helper.from_array(body, "own")],
    )
    otherwise = helper.make_graph(
        [
            node("Transpose", ["v.turned"], ["else.v"]),
            node("Gemm", ["x", "else.v", "bias"], ["else.y"], "else"),
        ],
        "else",
        [],
        [output("else.y")],
    )
    return Model(
        [
            node("Transpose", ["v"], ["v.turned"]),
            node("If", ["condition"], ["a"], then_branch=then, else_branch=otherwise),
            node("MatMul", ["x", "w"], ["b"], "outside"),
            node("Add", ["a", "b"], ["y"]),
        ],
        {"w": w, "v": v, "bias": random(4, 24)},
        {"x": activations(5, 5, 40), "condition": np.array(True)},
        {"v": v.T, "w": w.T},  # else_branch comes first
        left={"MatMul": 1},
    )


def block(width: int = 64, heads: int = 4, layers: int = 2) -> Model:
    """Encoder layers: attention, two norms and a network of two products."""
    arrays: dict[str, np.ndarray] = {
        "split": np.array([0, 0, heads, width // heads], np.int64),
        "join": np.array([0, 0, width], np.int64),
        "root": np.float32(np.sqrt(width // heads)),
        "ones": np.ones(width, np.float32),
    }
    nodes: list[Any] = []
    wide = {"q": width, "k": width, "v": width, "o": width, "up": 4 * width}
    x = "x"
    for i in range(layers):
        p = f"layers.{i}."
        for j, (name, columns) in enumerate(wide.items()):
            arrays[p + name] = random(10 * i + j, width, columns)
        arrays[p + "down"] = random(10 * i + 9, 4 * width, width)
        nodes.append(node("LayerNormalization", [x, "ones"], [p + "n"]))
        for name, order in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
            nodes += [
                node("MatMul", [p + "n", p + name], [p + name + "1"], p + name),
                node("Reshape", [p + name + "1", "split"], [p + name + "2"]),
                node("Transpose", [p + name + "2"], [p + name + "3"], perm=order),
            ]
        nodes += [
            node("MatMul", [p + "q3", p + "k3"], [p + "s"]),
            node("Div", [p + "s", "root"], [p + "s1"]),
            node("Softmax", [p + "s1"], [p + "s2"]),
            node("MatMul", [p + "s2", p + "v3"], [p + "a"]),
            node("Transpose", [p + "a"], [p + "a1"], perm=[0, 2, 1, 3]),
            node("Reshape", [p + "a1", "join"], [p + "a2"]),
            node("MatMul", [p + "a2", p + "o"], [p + "a3"], p + "o"),
            node("Add", [x, p + "a3"], [p + "r"]),
            node("LayerNormalization", [p + "r", "ones"], [p + "n2"]),
            node("MatMul", [p + "n2", p + "up"], [p + "u"], p + "up"),
            node("Relu", [p + "u"], [p + "u1"]),
            node("MatMul", [p + "u1", p + "down"], [p + "d"], p + "down"),
            node("Add", [p + "r", p + "d"], [p + "y"]),
        ]
        x = p + "y"
    nodes.append(node("Identity", [x], ["y"]))
    return Model(
        nodes,
        arrays,
        {"x": activations(99, 2, 9, width)},
        {name: a.T for name, a in arrays.items() if name.startswith("layers.")},
        outputs={"y": 3},
        left={"MatMul": 2 * layers},
    )


MODELS: dict[str, Callable[[], Model]] = {
    made.__name__: made for made in (mlp, shared, gemm, batched, tied, constants, branches, block)
}
