"""Weights of ONNX models as streams of layers, and what is wrong with them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import ml_dtypes
import numpy as np
import onnx
import pytest
from child import run_child
from conftest import attempt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import SCHEMA, mappings_of
from onnx import helper, numpy_helper
from onnx_models import FLOAT, MODELS, Model, activations, mlp, node, random, tied

from pyarrowquant import read_weights

pytestmark = pytest.mark.usefixtures("nothing_leaked")


def layers_of(path: Path | str, **options: Any) -> dict[str, np.ndarray]:
    """What is read, in its order; names come once."""
    reader = read_weights(path, **options)
    assert reader.schema == SCHEMA
    dtypes = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "F64": np.float64}
    rows = reader.read_all().to_pylist()
    found = {
        row["layer_name"]: np.frombuffer(row["weights"], dtypes[row["dtype"]]).reshape(row["shape"])
        for row in rows
    }
    assert len(found) == len(rows)
    return found


def assert_layers(found: dict[str, np.ndarray], wanted: Any) -> None:
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("batch_bytes", [1, 20_000, 256 << 20])
@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_layers(
    tmp_path: Path, make: Callable[[], Model], external: bool, batch_bytes: int
) -> None:
    model = make()
    path = tmp_path / "model.onnx"
    onnx.save(
        model.proto(),
        path,
        save_as_external_data=external,
        location="model.onnx.data",
        size_threshold=0,
        convert_attribute=True,
    )
    assert_layers(layers_of(path, batch_bytes=batch_bytes), model.layers)


@pytest.mark.parametrize("batch_bytes", [1, 20_000, 40_000, 256 << 20])
def test_batches_are_bounded(tmp_path: Path, batch_bytes: int) -> None:
    path = mlp(64).save(tmp_path / "model.onnx")  # layers of 25,600 and 9,600 bytes
    sizes = [
        [len(weights) for weights in batch["weights"].to_pylist()]
        for batch in read_weights(path, batch_bytes=batch_bytes)
    ]
    assert sizes == ([[25_600, 9_600]] if batch_bytes >= 35_200 else [[25_600], [9_600]])


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
@pytest.mark.parametrize("fields", [False, True], ids=["raw", "fields"])
def test_types(tmp_path: Path, dtype: Any, fields: bool) -> None:
    """Also those that are not in raw_data: 16 bits as whole numbers there."""
    w, v = random(1, 30, 41).astype(dtype), random(2, 41, 7)
    proto = Model([node("MatMul", ["x", "w"], ["y"])], {"w": w}, {"x": v[:0]}, {}).proto()
    if fields:
        del proto.graph.initializer[0]
        type_ = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        made = helper.make_tensor("w", type_, w.shape, w.ravel())
        assert not made.HasField("raw_data")
        proto.graph.initializer.append(made)
    onnx.save(proto, tmp_path / "model.onnx")
    if dtype is np.float64:
        with pytest.raises(ValueError, match=r"no tensor can be quantized, of 1, .* F64"):
            read_weights(tmp_path / "model.onnx")
    assert_layers(layers_of(tmp_path / "model.onnx", only_floats=False), {"w": w.T})


def test_float32_fields(tmp_path: Path) -> None:
    w = random(1, 30, 41)
    proto = Model([node("MatMul", ["x", "w"], ["y"])], {}, {"x": w}, {}).proto()
    proto.graph.initializer.append(helper.make_tensor("w", FLOAT, w.shape, w.ravel()))
    onnx.save(proto, tmp_path / "model.onnx")
    assert_layers(layers_of(tmp_path / "model.onnx"), {"w": w.T})


def test_whole_numbers_of_64_bits_in_fields(tmp_path: Path) -> None:
    """Of which float64 would lose the last bits."""
    w = np.array([[1, 2**63 + 1], [2**64 - 1, 3]], np.uint64)
    proto = Model([node("MatMul", ["x", "w"], ["y"])], {}, {"x": activations(1, 2, 2)}, {}).proto()
    type_ = helper.np_dtype_to_tensor_dtype(w.dtype)
    proto.graph.initializer.append(helper.make_tensor("w", type_, w.shape, w.ravel().tolist()))
    onnx.save(proto, tmp_path / "model.onnx")
    (row,) = read_weights(tmp_path / "model.onnx", only_floats=False).read_all().to_pylist()
    assert row["weights"] == w.T.tobytes()


def test_several_external_files_in_folders(tmp_path: Path) -> None:
    model = mlp()
    proto = model.proto()
    for tensor in proto.graph.initializer:
        path = tmp_path / "weights" / f"{tensor.name}.bin"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"before" + tensor.raw_data + b"after")
        size = len(tensor.raw_data)
        tensor.ClearField("raw_data")
        external(tensor, location=f"./weights/{tensor.name}.bin", offset=6, length=size)
    onnx.save(proto, tmp_path / "model.onnx")
    assert_layers(layers_of(tmp_path / "model.onnx"), model.layers)
    (tmp_path / "weights" / "bias.bin").unlink()  # is not read
    assert_layers(layers_of(tmp_path / "model.onnx"), model.layers)
    memory = fsspec.filesystem("memory")
    try:
        memory.put(str(tmp_path), "/hub", recursive=True)
        assert_layers(layers_of("memory://hub/model.onnx"), model.layers)
        assert_layers(layers_of("/hub/model.onnx", filesystem=memory), model.layers)
    finally:
        memory.rm("/hub", recursive=True)


def external(tensor: Any, **entries: Any) -> None:
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))


def test_what_need_not_be_transposed_is_mapped(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(tied().proto(), path, save_as_external_data=True, location="data", size_threshold=0)
    batches = list(read_weights(path, batch_bytes=1))
    (mapped,) = mappings_of(tmp_path / "data")
    inside = [batch["weights"].buffers()[-1].address in mapped for batch in batches]
    assert inside == [False, True]  # w is transposed, the embedding is not


def test_large_layers_are_transposed_in_tiles(tmp_path: Path) -> None:
    w = random(1, 300, 517)
    model = Model([node("MatMul", ["x", "w"], ["y"])], {"w": w}, {"x": w}, {})
    assert_layers(layers_of(model.save(tmp_path / "model.onnx")), {"w": w.T})


def test_overridable_weights_are_no_layers(tmp_path: Path) -> None:
    proto = mlp().proto()
    proto.graph.input.append(helper.make_tensor_value_info("up", FLOAT, [64, 100]))
    onnx.save(proto, tmp_path / "model.onnx")
    assert list(layers_of(tmp_path / "model.onnx")) == ["down"]


NOTHING = (
    "no MatMul or Gemm multiplies by a constant matrix, so there is nothing to quantize. Matrices "
    "that are inputs of the graph too are not constant"
)


@pytest.mark.parametrize(
    ("nodes", "shape"),
    [
        ([node("MatMul", ["w", "x"], ["y"])], (8, 8)),
        ([node("MatMul", ["x", "w"], ["y"], domain="own")], (8, 8)),
        ([node("MatMul", ["x", "w"], ["y"])], (1, 8, 8)),
        ([node("MatMul", ["x", "w"], ["y"])], (8,)),
        ([node("MatMul", ["x", "w"], ["y"])], (8, 0)),
        ([node("Conv", ["x", "w"], ["y"])], (8, 8)),
        ([node("Transpose", ["w"], ["v"], perm=[0, 0]), node("MatMul", ["x", "v"], ["y"])], (8, 8)),
    ],
)
def test_models_without_layers(tmp_path: Path, nodes: list[Any], shape: tuple[int, ...]) -> None:
    w = np.ones(shape, np.float32)
    path = Model(nodes, {"w": w}, {"x": activations(1, 8, 8)}, {}).save(tmp_path / "model.onnx")
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}: {NOTHING}')}$"):
        read_weights(path)


def test_missing_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = mlp().save(tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    text = r"^Reading ONNX needs onnx: pip install 'pyarrowquant\[onnx\]'$"
    with pytest.raises(ImportError, match=text):
        read_weights(path)


def test_other_files_do_not_need_onnx() -> None:
    run_child("assert 'onnx' not in sys.modules, 'is imported with the package'")


# What is wrong with a file


def one_weight(tensor: Any) -> Any:
    proto = Model([node("MatMul", ["x", "w"], ["y"])], {}, {"x": activations(1, 2, 4)}, {}).proto()
    proto.graph.initializer.append(tensor)
    return proto


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ({"location": "/etc/passwd"}, "must lie in the model's folder, it is '/etc/passwd'"),
        ({"location": "../data"}, "must lie in the model's folder, it is '../data'"),
        ({"location": "a/../../data"}, "must lie in the model's folder, it is 'a/../../data'"),
        ({"location": "a//data"}, "must lie in the model's folder, it is 'a//data'"),
        ({"location": "a\\data"}, r"must lie in the model's folder, it is 'a\\data'"),
        ({"location": "C:data"}, "must lie in the model's folder, it is 'C:data'"),
        ({"location": "da\0ta"}, r"must lie in the model's folder, it is 'da\x00ta'"),
        ({"location": "."}, "must lie in the model's folder, it is '.'"),
        ({"location": ""}, "must lie in the model's folder, it is ''"),
        ({}, "must lie in the model's folder, it is None"),
        ({"location": "data", "offset": -1}, "the offset of its external data is '-1', no number"),
        ({"location": "data", "offset": "1_0"}, "external data is '1_0', no number"),
        ({"location": "data", "length": "9" * 5000}, "the length of its external data is '999"),
        ({"location": "data", "length": 31}, "shape [4, 2] has 32 bytes, its external data has 31"),
        ({"location": "data", "offset": 9}, "its external data ends at 41, 'data' has 40 bytes"),
        ({"location": "data", "offset": 10**18}, "'data' has 40 bytes"),
    ],
)
def test_external_data(tmp_path: Path, entries: dict[str, Any], problem: str) -> None:
    (tmp_path / "inside").mkdir()
    for folder in (tmp_path, tmp_path / "inside"):
        (folder / "data").write_bytes(bytes(40))
    tensor = onnx.TensorProto(name="w", data_type=FLOAT, dims=[4, 2])
    external(tensor, **entries)
    path = tmp_path / "inside" / "model.onnx"
    onnx.save(one_weight(tensor), path)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}: tensor ')}'w'") as raised:
        read_weights(path)
    assert problem in str(raised.value)
    assert len(str(raised.value)) < 1000


def test_missing_external_data(tmp_path: Path) -> None:
    tensor = onnx.TensorProto(name="w", data_type=FLOAT, dims=[4, 2])
    external(tensor, location="data")
    path = tmp_path / "model.onnx"
    onnx.save(one_weight(tensor), path)
    text = f"{path}: tensor 'w': the file of its data, '{tmp_path}/data', is missing"
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(text)}$"):
        read_weights(path)


def test_external_data_cut_short_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(mlp().proto(), path, save_as_external_data=True, location="data", size_threshold=0)
    reader = read_weights(path)
    (tmp_path / "data").write_bytes(bytes(100))
    with pytest.raises(ValueError, match="are beyond its 100"):
        reader.read_all()


@pytest.mark.parametrize(
    ("dims", "size", "problem"),
    [
        ([-4, -2], 32, "has shape [-4, -2], which is negative"),
        ([4, 2], 31, "shape [4, 2] has 32 bytes, its data has 31"),
        ([4, 2], 0, "shape [4, 2] has 32 bytes, its data has 0"),
        ([2**62, 2**62], 32, "shape [4611686018427387904, 4611686018427387904] has"),
    ],
)
def test_embedded_data(tmp_path: Path, dims: list[int], size: int, problem: str) -> None:
    tensor = onnx.TensorProto(name="w", data_type=FLOAT, dims=dims, raw_data=bytes(size))
    path = tmp_path / "model.onnx"
    onnx.save(one_weight(tensor), path)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}: tensor ')}'w'") as raised:
        read_weights(path)
    assert problem in str(raised.value)


@pytest.mark.parametrize("external_data", [False, True])
def test_negative_dimensions_of_external_data(tmp_path: Path, external_data: bool) -> None:
    (tmp_path / "data").write_bytes(bytes(32))
    tensor = onnx.TensorProto(name="w", data_type=FLOAT, dims=[-4, 2])
    if external_data:
        external(tensor, location="data", length=32)
    onnx.save(one_weight(tensor), tmp_path / "model.onnx")
    with pytest.raises(ValueError, match=r"has shape \[-4, 2\], which is negative"):
        read_weights(tmp_path / "model.onnx")


def test_names_that_come_twice(tmp_path: Path) -> None:
    proto = mlp().proto()
    proto.graph.initializer.append(numpy_helper.from_array(random(1, 64, 100), "up"))
    onnx.save(proto, tmp_path / "model.onnx")
    with pytest.raises(ValueError, match=r"model\.onnx: two tensors are named 'up'$"):
        read_weights(tmp_path / "model.onnx")
    proto = mlp().proto()
    constant = node("Constant", [], ["up"], value=numpy_helper.from_array(random(1, 64, 100)))
    proto.graph.node.insert(0, constant)
    onnx.save(proto, tmp_path / "model.onnx")
    with pytest.raises(ValueError, match=r"model\.onnx: two tensors are named 'up'$"):
        read_weights(tmp_path / "model.onnx")


def test_names_that_are_no_text(tmp_path: Path) -> None:
    path = mlp().save(tmp_path / "model.onnx")
    path.write_bytes(path.read_bytes().replace(b"down", b"d\xff\xfen"))
    with pytest.raises(ValueError, match=r"the name b'd\\xff\\xfen' is not UTF-8$"):
        read_weights(path)


@pytest.mark.parametrize("data", [b"", b"hello world", b"\x08\x08", b"{}"])
def test_other_files(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: no ONNX model that can be"):
        read_weights(path)


def only_value_errors(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        error = attempt(lambda: read_weights(path).read_all())
    except FileNotFoundError as missing:  # the file of data has got another name
        error = missing
    if isinstance(error, Exception):
        assert str(error).startswith(str(path))
        assert "\n" not in str(error)


@pytest.mark.parametrize("make", [mlp, MODELS["branches"], MODELS["constants"]])
def test_truncated_files(tmp_path: Path, make: Callable[[], Model]) -> None:
    path = make().save(tmp_path / "model.onnx")
    data = path.read_bytes()
    for length in {*range(0, len(data), 997), *range(len(data) - 60, len(data))}:
        only_value_errors(path, data[:length])


@settings(
    deadline=None,
    max_examples=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_changed_bytes(tmp_path: Path, data: Any) -> None:
    """In all but the weights themselves."""
    path = tmp_path / "model.onnx"
    if not path.exists():
        onnx.save(
            MODELS["gemm"]().proto(),
            path,
            save_as_external_data=True,
            location="d",
            size_threshold=0,
        )
        (tmp_path / "whole").write_bytes(path.read_bytes())
    whole = bytearray((tmp_path / "whole").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    only_value_errors(path, bytes(whole))
