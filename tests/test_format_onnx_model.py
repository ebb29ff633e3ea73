"""Existing ONNX models with their weights quantized, run by ONNX Runtime."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pyarrow as pa
import pytest
from conftest import attempt
from exports import data_file, decoded, failing_stream, files, quantized, weights
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from onnx_models import FLOAT16, MODELS, Model, activations, block, mlp, node, random, run, tied

from pyarrowquant import Recipe, Rule, compare, quantize_batch_arrow, quantize_stream, read_weights
from pyarrowquant.formats import write_onnx
from pyarrowquant.reading.onnx_model import messages

KINDS = [
    (2, "integer", 16),
    (2, "symmetric", -1),
    (4, "integer", 32),
    (4, "float", 64),
    (4, "symmetric", 128),
    (8, "integer", 32),
    (8, "symmetric", 16),
]
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


def attempt_run(path: Path, model: Model) -> Any:
    try:
        return run(path, model.feeds)
    except Exception as error:
        return error


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
    assert read_weights(once).read_all()["layer_name"].to_pylist() == ["down"]
    write_onnx(quantize(once, 8), twice, model=once)
    assert [entry.domain for entry in onnx.load(twice).opset_import] == ["", "com.microsoft"]
    (found,), (exact,) = run(twice, model.feeds), run(source, model.feeds)
    assert cosine(found, exact) > LEAST_COSINE[8]


HOLDS = (
    "MatMulNBits holds matrices of 2, 4 or 8 bits with a group_size that is a power of two and at "
    "least 16, or -1; with 8 bits, zero_point integer or symmetric. Quantize such layers with "
    "other settings, or leave them out. Layers must be those that read_weights gives for this model"
)


@pytest.mark.parametrize(
    ("array", "name", "options", "dtype", "problem"),
    [
        (
            *(weights(1, 100, 64), "other", {}, np.float32),
            "the model has no MatMul or Gemm with a constant of this name",
        ),
        (
            *(weights(1, 100, 64), "bias", {}, np.float32),
            "the model has no MatMul or Gemm with a constant of this name",
        ),
        (
            *(weights(1, 64, 100), "up", {}, np.float32),
            "shape [64, 100], the model's is [100, 64]",
        ),
        (weights(1, 100, 64), "up", {"bit_width": 3}, np.float32, "3 bits"),
        (weights(1, 100, 64), "up", {"group_size": 48}, np.float32, "group_size 48"),
        (
            *(weights(1, 100, 64), "up", {}, np.float16),
            "the model computes with float16, and its scales are not float16: quantize with "
            'scale_dtype="float16"',
        ),
        (
            *(weights(1, 100, 64), "up", {"zero_point": "float", "scale_dtype": "float16"}),
            np.float16,
            "the model computes with float16, and its zero-points are not float16: quantize with "
            "zero_point integer or symmetric",
        ),
        (
            *(weights(1, 100, 64), "up", {}, "bfloat16"),
            "the model computes with bfloat16, which MatMulNBits does not on the CPU; convert it "
            "to float32 or float16 before",
        ),
    ],
)
def test_refusals(
    tmp_path: Path, array: np.ndarray, name: str, options: Any, dtype: Any, problem: str
) -> None:
    model = mlp()
    type_ = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    model.arrays = {key: a.astype(type_) for key, a in model.arrays.items()}
    source = model.save(tmp_path / "model.onnx")
    before = files(tmp_path)
    result = quantized(array, names=[name], **options)
    for results in (result, failing_stream(result, AssertionError("is not reached"))):
        with pytest.raises(ValueError, match="The model cannot hold") as caught:
            write_onnx(results, tmp_path / "out.onnx", model=source)
        assert str(caught.value) == f"The model cannot hold layer '{name}': {problem}\n{HOLDS}"
        assert files(tmp_path) == before


def test_layers_that_come_twice(tmp_path: Path) -> None:
    source = mlp().save(tmp_path / "model.onnx")
    before = files(tmp_path)
    result = quantize(source)
    with pytest.raises(ValueError, match="Layer 'up' comes twice"):
        write_onnx(pa.concat_tables([result, result]), tmp_path / "out.onnx", model=source)
    assert files(tmp_path) == before


def test_the_source_is_never_replaced(tmp_path: Path) -> None:
    source, data = tmp_path / "model.onnx", tmp_path / "other.onnx.data"
    onnx.save(
        mlp().proto(), source, save_as_external_data=True, location=data.name, size_threshold=0
    )
    (tmp_path / "link.onnx").symlink_to(source)
    (tmp_path / "here").symlink_to(tmp_path)
    result = quantize(source)
    before = files(tmp_path)
    for path, file in (
        (source, source),
        (tmp_path / "link.onnx", tmp_path / "link.onnx"),
        (tmp_path / "here" / "model.onnx", tmp_path / "here" / "model.onnx"),
        (data, data),
    ):
        text = f"'{file}' is a file of the source model: give another path"
        with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
            write_onnx(result, path, model=source, overwrite=True)
        assert files(tmp_path) == before


def test_existing_files_are_not_replaced_unasked(tmp_path: Path) -> None:
    source, path = mlp().save(tmp_path / "model.onnx"), tmp_path / "out.onnx"
    result = quantize(source)
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"exists. Use overwrite=True to replace it"):
        write_onnx(result, path, model=source)
    before = files(tmp_path)
    broken = failing_stream(result, OSError("the disk is gone"))
    with pytest.raises(OSError, match="the disk is gone"):
        write_onnx(broken, path, model=source, overwrite=True)
    assert files(tmp_path) == before
    write_onnx(result, path, model=source, overwrite=True)
    assert set(files(tmp_path)) == {"model.onnx", "out.onnx", data_file(path).name}


def test_models_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = mlp().save(tmp_path / "model.onnx")
    result = quantize(source)
    with pytest.raises(FileNotFoundError, match=r"No such file or folder: 'missing.onnx'"):
        write_onnx(result, tmp_path / "out.onnx", model="missing.onnx")
    with pytest.raises(ValueError, match="is a folder; give the name of the model's file"):
        write_onnx(result, tmp_path / "out.onnx", model=tmp_path)
    with pytest.raises(TypeError, match="path must be a str or a path"):
        write_onnx(result, tmp_path / "out.onnx", model=3)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"^Writing ONNX needs onnx: pip install"):
        write_onnx(result, tmp_path / "out.onnx", model=source)


def test_models_that_the_checker_does_not_take(tmp_path: Path) -> None:
    """Those that onnxruntime runs all the same are written; where only ours is wrong, it is not."""
    model = mlp()
    proto = model.proto()
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    source, path = tmp_path / "model.onnx", tmp_path / "out.onnx"
    onnx.save(proto, source)
    with pytest.raises(onnx.checker.ValidationError, match="Field 'shape'"):
        onnx.checker.check_model(source)
    write_onnx(quantize(source, 8), path, model=source)
    (found,), (exact,) = run(path, model.feeds), run(source, model.feeds)
    assert cosine(found, exact) > LEAST_COSINE[8]


def test_models_that_are_not_valid_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which a defect of ours would make them."""
    source = mlp().save(tmp_path / "model.onnx")
    result = quantize(source)
    before = files(tmp_path)

    def break_model(model: Any, *_: Any) -> None:
        del model.graph.node[0]

    monkeypatch.setattr("pyarrowquant.formats._onnx_graph._remove_unused", break_model)
    with pytest.raises(ValueError, match=r"model\.onnx does not give a valid ONNX model: .*sorted"):
        write_onnx(result, tmp_path / "out.onnx", model=source)
    assert files(tmp_path) == before


def test_external_data_that_is_damaged(tmp_path: Path) -> None:
    """Also of tensors that are no layers, before anything is written."""
    source = tmp_path / "model.onnx"
    onnx.save(tied().proto(), source, save_as_external_data=True, location="d", size_threshold=0)
    result = quantize(source)
    data = (tmp_path / "d").read_bytes()
    (tmp_path / "d").write_bytes(data[:-1])
    with pytest.raises(ValueError, match="'ids': its external data ends at"):
        write_onnx(result, tmp_path / "out.onnx", model=source)
    (tmp_path / "d").unlink()
    with pytest.raises(FileNotFoundError, match=r"the file of its data, .* is missing"):
        write_onnx(result, tmp_path / "out.onnx", model=source)
    proto = onnx.load(source, load_external_data=False)
    proto.graph.initializer[2].external_data[0].value = "../d"
    (tmp_path / "d").write_bytes(data)
    onnx.save(proto, source)
    with pytest.raises(ValueError, match="the file of its data must lie in the model's folder"):
        write_onnx(result, tmp_path / "out.onnx", model=source)


@settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_changed_bytes(tmp_path: Path, data: Any) -> None:
    """A damaged model is written or refused, and no other exception comes."""
    name = data.draw(st.sampled_from(["gemm", "branches", "tied", "constants"]))
    path = tmp_path / "model.onnx"
    MODELS[name]().save(path)
    result = quantize(path)
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, 1500))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    try:
        error = attempt(write_onnx, result, tmp_path / "out.onnx", model=path, overwrite=True)
        assert error is None or isinstance(error, ValueError)
    except FileNotFoundError:
        pass


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
