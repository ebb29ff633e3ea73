"""Weights behind a Cast, and weights that functions multiply with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from exports import decoded, files
from onnx import helper, numpy_helper
from onnx_models import FLOAT, FLOAT16, activations, node, random, run

from pyarrowquant import convert, quantize_batch_arrow, read_weights
from pyarrowquant.formats import write_onnx

OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("pkg", 1)]
X = activations(1, 5, 64)
DTYPES = {"F16": np.float16, "BF16": ml_dtypes.bfloat16, "F32": np.float32}
BFLOAT16 = onnx.TensorProto.BFLOAT16


def save(path: Path, nodes: list[Any], arrays: dict[str, np.ndarray], **more: Any) -> Path:
    of = more.pop("of", FLOAT)
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", of, [None, 64])],
        [helper.make_tensor_value_info("y", of, [None, 32])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=OPSETS, ir_version=8, **more), path)
    return path


def assert_products(source: Path, path: Path, names: set[str], **options: Any) -> None:
    """Quantize all products of a model, and run it: it computes with the decoded weights."""
    table = read_weights(source).read_all()
    in_order = table["layer_name"].to_pylist()
    assert set(in_order) == names
    results = quantize_batch_arrow(table, 8, group_size=32, **options)
    write_onnx(results, path, model=source)
    graph = onnx.load(path).graph
    assert {each.op_type for each in graph.node} == {"MatMulNBits"}
    assert {tensor.name.rsplit(".", 1)[0] for tensor in graph.initializer} == names
    dtype = np.float16 if options else np.float32
    wanted = X.astype(dtype)
    for name in in_order:
        wanted = wanted @ decoded(results)[name].T
    np.testing.assert_allclose(run(path, {"x": X.astype(dtype)})[0], wanted, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("stored", ["F16", "BF16"])
@pytest.mark.parametrize("order", ["Cast", "Cast Transpose", "Transpose Cast", "Cast Cast"])
def test_weights_that_are_stored_in_a_smaller_type(tmp_path: Path, stored: str, order: str) -> None:
    """The model computes with float32, so scales of that type are right."""
    weights = random(2, 64, 32).astype(DTYPES[stored])
    transposes = "Transpose" in order
    nodes, name = [], "w"
    for number, kind in enumerate(order.split()):
        said = {"to": FLOAT} if kind == "Cast" else {"perm": [1, 0]}
        nodes.append(node(kind, [name], [f"w{number}"], **said))
        name = f"w{number}"
    source = save(
        tmp_path / "model.onnx",
        [*nodes, node("MatMul", ["x", name], ["y"])],
        {"w": weights.T.copy() if transposes else weights},
    )
    assert_products(source, tmp_path / "out.onnx", {"w"})
    done = convert(source, tmp_path / "converted.onnx", group_size=32)
    assert done.layers == 1
    assert not done.unquantized


def test_weights_that_are_multiplied_in_a_smaller_type(tmp_path: Path) -> None:
    source = save(
        tmp_path / "model.onnx",
        [node("Cast", ["w"], ["h"], to=FLOAT16), node("MatMul", ["x", "h"], ["y"])],
        {"w": random(2, 64, 32)},
        of=FLOAT16,
    )
    assert_products(source, tmp_path / "out.onnx", {"w"}, scale_dtype="float16")
    convert(source, tmp_path / "converted.onnx", group_size=32)
    results = quantize_batch_arrow(read_weights(source), group_size=32)
    with pytest.raises(ValueError, match="the model computes with float16, and its scales are not"):
        write_onnx(results, tmp_path / "no.onnx", model=source)


def test_what_is_multiplied_as_bfloat16_or_as_whole_numbers(tmp_path: Path) -> None:
    nodes = [node("Cast", ["w"], ["c"], to=BFLOAT16), node("MatMul", ["x", "c"], ["y"])]
    source = save(tmp_path / "a.onnx", nodes, {"w": random(2, 64, 32)}, of=BFLOAT16)
    with pytest.raises(ValueError, match="the model computes with bfloat16"):
        convert(source, tmp_path / "out.onnx", group_size=32)
    assert set(files(tmp_path)) == {"a.onnx"}
    nodes[0] = node("Cast", ["w"], ["c"], to=onnx.TensorProto.INT32)
    source = save(tmp_path / "b.onnx", nodes, {"w": random(2, 64, 32)}, of=onnx.TensorProto.INT32)
    with pytest.raises(ValueError, match="no MatMul or Gemm multiplies by a constant matrix"):
        list(read_weights(source))


def test_a_weight_of_two_types_is_one_layer_of_the_first(tmp_path: Path) -> None:
    """The other product keeps the float weight."""
    w = random(2, 64, 64)
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Cast", ["w"], ["h"], to=FLOAT16),
        node("Cast", ["a"], ["b"], to=FLOAT16),
        node("MatMul", ["b", "h"], ["c"]),
        node("Cast", ["c"], ["d"], to=FLOAT),
        node("MatMul", ["d", "v"], ["y"]),
    ]
    source = save(tmp_path / "model.onnx", nodes, {"w": w, "v": random(3, 64, 32)})
    convert(source, tmp_path / "out.onnx", bit_width=8, group_size=32)
    kinds = [each.op_type for each in onnx.load(tmp_path / "out.onnx").graph.node]
    assert kinds == ["MatMulNBits", "Cast", "Cast", "MatMul", "Cast", "MatMulNBits"]
    feeds = {"x": X}
    np.testing.assert_allclose(run(tmp_path / "out.onnx", feeds), run(source, feeds), atol=0.1)


def function(name: str, *nodes: Any, inputs: str = "x w") -> Any:
    return helper.make_function("pkg", name, inputs.split(), ["y"], nodes, OPSETS)


def call(name: str, inputs: str, output: str) -> Any:
    return node(name, inputs.split(), [output], domain="pkg")


def test_functions_and_functions_of_functions(tmp_path: Path) -> None:
    constant = numpy_helper.from_array(random(4, 48, 32), "c")
    functions = [
        function("Lin", node("MatMul", ["x", "w"], ["y"])),
        function("Twice", call("Lin", "x w", "a"), call("Lin", "a v", "y"), inputs="x w v"),
        function("Own", node("Constant", [], ["c"], value=constant), call("Lin", "x c", "y")),
    ]
    arrays = {"w": random(2, 64, 40), "v": random(3, 40, 48)}
    source = save(
        tmp_path / "model.onnx",
        [call("Twice", "x w v", "a"), call("Own", "a w", "y")],
        arrays,
        functions=functions,
    )
    names = set(read_weights(source).read_all()["layer_name"].to_pylist())
    assert names > {"w", "v"}
    assert len(names) == 3
    assert_products(source, tmp_path / "out.onnx", names)
    done = convert(source, tmp_path / "converted.onnx", group_size=16)
    assert done.layers == 3


def test_functions_without_an_end_are_refused(tmp_path: Path) -> None:
    ways = {
        "calls itself": [
            function("A", call("B", "x w", "y")),
            function("B", call("A", "x w", "y")),
        ],
        "the most allowed is": [
            function(f"F{i}", *[call(f"F{i + 1}", "x w", f"y{k}") for k in range(9)],
                     node("Identity", ["y0"], ["y"]))
            for i in range(12)
        ] + [function("F12", node("MatMul", ["x", "w"], ["y"]))],
    }  # fmt: skip
    for text, functions in ways.items():
        source = save(
            tmp_path / "model.onnx",
            [call(functions[0].name, "x w", "y")],
            {"w": random(2, 64, 32)},
            functions=functions,
        )
        with pytest.raises(ValueError, match=rf"model\.onnx.*{text}"):
            list(read_weights(source))
