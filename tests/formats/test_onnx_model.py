"""Existing ONNX models with their weights quantized, run by ONNX Runtime."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pytest
from exports import data_file, files
from onnx import helper
from onnx_models import FLOAT16, MODELS, Model, activations, block, mlp, node, random, run, tied

from formats.quantized_onnx import (
    LEAST_COSINE,
    attempt_run,
    cosine,
    graph_nodes,
    quantize,
    with_decoded,
)
from pyarrowquant import (
    Recipe,
    Rule,
    compare,
    convert,
    quantize_batch_arrow,
    quantize_stream,
    read_weights,
)
from pyarrowquant.formats import write_onnx

KINDS = [
    (2, "integer", 16),
    (2, "symmetric", -1),
    (4, "integer", 32),
    (4, "float", 64),
    (4, "symmetric", 128),
    (8, "integer", 32),
    (8, "symmetric", 16),
]


@pytest.mark.parametrize(("bits", "zero_point", "group"), KINDS)
@pytest.mark.parametrize("external", [False, True], ids=["embedded", "external"])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_outputs_of_onnxruntime(
    tmp_path: Path,
    make: Callable[[], Model],
    external: bool,
    bits: int,
    zero_point: str,
    group: int,
) -> None:
    """They are those of the decoded weights, and near those of the source."""
    model = make()
    source, path = tmp_path / "source" / "model.onnx", tmp_path / "out.onnx"
    source.parent.mkdir()
    onnx.save(
        model.proto(),
        source,
        save_as_external_data=external,
        location="some.data",
        size_threshold=100,  # onnxruntime wants shapes in the model
        convert_attribute=True,
    )
    before = files(source.parent)
    result = quantize(source, bits, zero_point=zero_point, group_size=group)
    write_onnx(result, path, model=source)
    assert files(source.parent) == before
    assert set(files(tmp_path)) == {
        *("source", "out.onnx", data_file(path).name),
        *(f"source/{name}" for name in before),
    }
    onnx.checker.check_model(path)
    products = sum(made.op_type == "MatMulNBits" for made in graph_nodes(onnx.load(path)))
    assert products >= len(model.layers)
    kinds = Counter(made.op_type for made in graph_nodes(onnx.load(path)))
    for kind in ("MatMul", "Gemm", *model.left):
        assert kinds[kind] >= model.left.get(kind, 0)
        if kind in ("MatMul", "Gemm", "Constant"):
            assert kinds[kind] == model.left.get(kind, 0)
    for condition in (True, False) if "condition" in model.feeds else (True,):
        feeds = dict(model.feeds)
        if "condition" in feeds:
            feeds["condition"] = np.array(condition)
        found, original = run(path, feeds), run(source, feeds)
        exact = run(with_decoded(path, result), feeds)
        for name, one, other, first in zip(model.outputs, found, exact, original, strict=True):
            if name == "shown":  # the weight itself, which stays
                np.testing.assert_array_equal(one, first)
                continue
            assert one.shape == first.shape
            np.testing.assert_allclose(one, other, rtol=0, atol=2e-5 * np.abs(other).max())
            assert cosine(one, first) > LEAST_COSINE[bits]


@pytest.mark.parametrize("columns", [33, 100, 200, 264, 700])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_shorter_last_groups(tmp_path: Path, bits: int, columns: int) -> None:
    model = mlp(columns)
    source = model.save(tmp_path / "model.onnx")
    result = quantize(source, bits)
    write_onnx(result, tmp_path / "out.onnx", model=source)
    (found,), (exact,) = (
        run(one, model.feeds)
        for one in (tmp_path / "out.onnx", with_decoded(tmp_path / "out.onnx", result))
    )
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-5 * np.abs(exact).max())


@pytest.mark.parametrize("opset", range(7, 29))
def test_opsets(tmp_path: Path, opset: int) -> None:
    """All that onnxruntime runs at all."""
    model = mlp()
    model.opset = opset
    source = model.save(tmp_path / "model.onnx")
    before = attempt_run(source, model)
    if isinstance(before, Exception):
        pytest.skip(f"onnxruntime does not run the source: {before}")
    result = quantize(source, 8)
    write_onnx(result, tmp_path / "out.onnx", model=source)
    (found,) = run(tmp_path / "out.onnx", model.feeds)
    assert cosine(found, before[0]) > LEAST_COSINE[8]
    made = onnx.load(tmp_path / "out.onnx")
    assert {entry.domain: entry.version for entry in made.opset_import} == {
        "": opset,
        "com.microsoft": 1,
    }
    assert made.ir_version == 8


@pytest.mark.parametrize(
    ("bits", "zero_point"),
    [(bits, kind) for bits in (2, 4, 8) for kind in ("integer", "symmetric")],
)
@pytest.mark.parametrize("make", [mlp, MODELS["gemm"], MODELS["tied"], block])
def test_float16(tmp_path: Path, make: Callable[[], Model], bits: int, zero_point: str) -> None:
    model = make()

    def half(arrays: Any) -> Any:
        return {
            name: array.astype(np.float16) if array.dtype == np.float32 else array
            for name, array in arrays.items()
        }

    wide = run(model.proto(), model.feeds)[0]
    model.arrays, model.feeds, model.layers = map(half, (model.arrays, model.feeds, model.layers))
    source, path = model.save(tmp_path / "model.onnx"), tmp_path / "out.onnx"
    result = quantize(source, bits, zero_point=zero_point, group_size=32, scale_dtype="float16")
    write_onnx(result, path, model=source)
    found = run(path, model.feeds)[0]
    assert found.dtype == np.float16
    exact = run(with_decoded(path, result), model.feeds)[0].astype(np.float32)
    # The decoded weights are rounded to float16 there, and sums here or there.
    np.testing.assert_allclose(found, exact, rtol=0, atol=2e-2 * np.abs(exact).max())
    assert cosine(found, exact) > 0.9999
    assert cosine(found, wide) > LEAST_COSINE[bits] - 1e-3
    types = {tensor.name: tensor.data_type for tensor in onnx.load(path).graph.initializer}
    assert all(types[name] == FLOAT16 for name in types if name.endswith(".scales"))


def test_all_else_is_untouched(tmp_path: Path) -> None:
    """Nodes, tensors in whatever form, and what is said of the model."""
    model = tied()
    proto = model.proto()
    proto.producer_name, proto.doc_string = "somebody", "a model"
    proto.graph.doc_string = "a graph"
    proto.functions.append(
        helper.make_function(
            "own",
            "Twice",
            ["a"],
            ["b"],
            [node("Add", ["a", "a"], ["b"])],
            [helper.make_opsetid("", 17)],
        )
    )
    proto.opset_import.append(helper.make_opsetid("own", 1))
    some = helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, ["n", 32])
    proto.graph.value_info.append(some)
    proto.graph.initializer.append(helper.make_tensor("list", onnx.TensorProto.FLOAT, [2], [1, 2]))
    values = helper.make_tensor("sparse", onnx.TensorProto.FLOAT, [1], [3])
    indices = helper.make_tensor("", onnx.TensorProto.INT64, [1], [0])
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    source, path = tmp_path / "model.onnx", tmp_path / "out.onnx"
    onnx.save(proto, source)
    write_onnx(quantize(source).slice(0, 1), path, model=source)  # w
    made = onnx.load(path, load_external_data=False)
    assert [tensor.name for tensor in made.graph.initializer[-3:]] == [
        *("w.codes", "w.scales", "w.zero_points"),
    ]
    del made.graph.initializer[-3:]
    for index in (1, 2):
        assert made.graph.node[index].op_type == "MatMulNBits"
        assert list(made.graph.node[index].input[1:]) == ["w.codes", "w.scales", "w.zero_points"]
    made.graph.node[1].CopyFrom(proto.graph.node[1])
    made.graph.node[2].CopyFrom(proto.graph.node[3])
    made.graph.node.insert(2, proto.graph.node[2])  # passed w on to the second product
    assert made.opset_import.pop().domain == "com.microsoft"
    assert made.SerializeToString(deterministic=True) == proto.SerializeToString(deterministic=True)


def test_external_tensors_are_copied_one_by_one(tmp_path: Path) -> None:
    """Byte for byte, also odd ones, and once where tensors share their data."""
    model = mlp()
    proto = model.proto()
    data = np.random.default_rng(1).integers(0, 256, 9_000_000, np.uint8).tobytes()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "first").write_bytes(data)
    (tmp_path / "second").write_bytes(data[:10])

    def add(name: str, type_: int, dims: list[int], **entries: Any) -> None:
        tensor = proto.graph.initializer.add(name=name, data_type=type_, dims=dims)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=str(value))

    types = onnx.TensorProto
    add("large", types.UINT8, [8_500_000], location="sub/first", offset=3, length=8_500_000)
    add("again", types.INT8, [8_500_000], location="sub/first", offset=3)
    add("nibbles", types.INT4, [19], location="second", checksum="ab")
    add("empty", types.FLOAT, [0, 4], location="second", offset=10, length=0)
    source, path = tmp_path / "model.onnx", tmp_path / "out.onnx"
    onnx.save(proto, source)
    write_onnx(quantize(source), path, model=source)
    loaded = {t.name: t for t in onnx.load(path).graph.initializer}
    assert loaded["large"].raw_data == loaded["again"].raw_data == data[3:8_500_003]
    assert loaded["nibbles"].raw_data == data[:10]
    assert loaded["empty"].raw_data == b""
    assert loaded["bias"] == proto.graph.initializer[1]
    kept = onnx.load(path, load_external_data=False).graph.initializer
    places = {t.name: {e.key: e.value for e in t.external_data} for t in kept}
    assert places["large"] == places["again"]
    assert {place["location"] for name, place in places.items() if name != "bias"} == {
        data_file(path).name
    }
    assert data_file(path).stat().st_size < 8_500_000 + 200_000
    run(path, model.feeds)


def test_some_layers_of_several_settings(tmp_path: Path) -> None:
    model = block()
    source, path = model.save(tmp_path / "model.onnx"), tmp_path / "out.onnx"
    recipe = Recipe(
        [
            Rule("layers.0.*", skip=True),
            Rule("*.up", bit_width=8, group_size=32),
            Rule("*.down", zero_point="symmetric"),
        ],
        default={"bit_width": 4, "group_size": 64, "method": "mse"},
    )
    write_onnx(quantize_stream(read_weights(source), recipe=recipe), path, model=source)
    made = onnx.load(path)
    said = {
        one.name: {a.name: a.i for a in one.attribute}
        for one in made.graph.node
        if one.op_type == "MatMulNBits"
    }
    assert set(said) == {f"layers.1.{name}" for name in ("q", "k", "v", "o", "up", "down")}
    assert said["layers.1.up"] == {"K": 64, "N": 256, "bits": 8, "block_size": 32}
    tensors = {tensor.name: tensor for tensor in made.graph.initializer}
    assert "layers.1.down.zero_points" not in tensors
    assert "layers.1.q" not in tensors
    for tensor in model.proto().graph.initializer:
        if not tensor.name.startswith("layers.1."):
            assert tensors[tensor.name] == tensor
    (found,), (exact,) = run(path, model.feeds), run(source, model.feeds)
    assert cosine(found, exact) > 0.995


def test_no_layers(tmp_path: Path) -> None:
    model = mlp()
    source, path = model.save(tmp_path / "model.onnx"), tmp_path / "out.onnx"
    write_onnx(quantize(source).slice(0, 0), path, model=source)
    assert onnx.load(path) == model.proto()


def test_streams_give_the_same_files(tmp_path: Path) -> None:
    source = block().save(tmp_path / "model.onnx")
    for name, results in (
        ("table", quantize_stream(read_weights(source)).read_all()),
        ("stream", quantize_stream(read_weights(source, batch_bytes=1))),
    ):
        (tmp_path / name).mkdir()
        write_onnx(results, tmp_path / name / "out.onnx", model=source)
    assert files(tmp_path / "table") == files(tmp_path / "stream")


def test_names_that_the_model_has(tmp_path: Path) -> None:
    model = MODELS["gemm"]()
    model.arrays = {**model.arrays, "a.codes": random(1, 2), "a.codes_": random(2, 3)}
    model.nodes = [node("Identity", ["x"], ["2.product"], "straight.bias"), *model.nodes]
    source, path = model.save(tmp_path / "model.onnx"), tmp_path / "out.onnx"
    result = quantize(source, 8)
    write_onnx(result, path, model=source)
    made = onnx.load(path)
    assert made.graph.node[1].input[1] == "a.codes__"
    (found,), (exact,) = run(path, model.feeds), run(source, model.feeds)
    assert cosine(found, exact) > 0.999


def test_existing_com_microsoft(tmp_path: Path) -> None:
    """A model that was quantized before gets the rest."""
    model = mlp()
    source, once, twice = model.save(tmp_path / "m.onnx"), tmp_path / "1.onnx", tmp_path / "2.onnx"
    write_onnx(quantize(source, 8).slice(0, 1), once, model=source)
    assert read_weights(once).read_all()["layer_name"].to_pylist() == ["down", "up"]
    convert(once, twice, bit_width=8)
    assert [entry.domain for entry in onnx.load(twice).opset_import] == ["", "com.microsoft"]
    (found,), (exact,) = run(twice, model.feeds), run(source, model.feeds)
    assert cosine(found, exact) > LEAST_COSINE[8]


def test_compare_with_the_source(tmp_path: Path) -> None:
    source = mlp().save(tmp_path / "model.onnx")
    result = quantize_batch_arrow(read_weights(source).read_all(), 8, metrics=True)
    assert compare(read_weights(source), result)["mse"].equals(result["mse"])


def test_memory_holds_a_few_batches(tmp_path: Path) -> None:
    """The source's external data is never in memory as a whole."""
    wide = 512
    nodes, arrays, x = [], {}, "x"
    for i in range(12):
        arrays[f"w{i}"] = random(i, wide, wide)
        arrays[f"k{i}"] = random(i, wide, wide)
        nodes.append(node("MatMul", [x, f"w{i}"], [f"a{i}"]))
        nodes.append(node("Add", [f"a{i}", f"k{i}"], [f"b{i}"]))
        x = f"b{i}"
    nodes.append(node("Identity", [x], ["y"]))
    model = Model(nodes, arrays, {"x": activations(1, wide, wide)}, {})
    source = tmp_path / "model.onnx"
    onnx.save(model.proto(), source, save_as_external_data=True, location="d", size_threshold=1024)
    most = 0
    before = pa.total_allocated_bytes()

    def batches() -> Any:
        nonlocal most
        reader = quantize_stream(read_weights(source, batch_bytes=wide * wide * 4))
        for batch in reader:
            most = max(most, pa.total_allocated_bytes() - before)
            yield batch

    schema = quantize(source).schema
    stream = pa.RecordBatchReader.from_batches(schema, batches())
    write_onnx(stream, tmp_path / "out.onnx", model=source)
    assert most < 4 * wide * wide * 4
