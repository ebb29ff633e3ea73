"""Tables, ONNX models and layers that fail: each of their tensors is accounted for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import run, succeeded
from models import write_table
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from pyarrowquant import UnquantizedTensor, convert, plan

UP, NORM, BIAS = "layers.0.up.weight", "layers.0.norm.weight", "layers.0.bias"
ARRAYS = {
    UP: np.ones((32, 64)),
    NORM: np.ones(64),
    BIAS: np.ones((1, 7)),
}


def lists(dtype: pa.DataType, shape: bool = True) -> pa.Table:
    table = pa.table(
        {
            "layer_name": list(ARRAYS),
            "weights": pa.array([a.ravel() for a in ARRAYS.values()], pa.list_(dtype)),
            "shape": [list(a.shape) for a in ARRAYS.values()],
        }
    )
    return table if shape else table.drop_columns("shape")


def raw() -> pa.Table:
    table = pa.table(
        {
            "layer_name": [*ARRAYS, "ids"],
            "weights": [*(a.astype("<f2").tobytes() for a in ARRAYS.values()), bytes(24)],
            "shape": [*(list(a.shape) for a in ARRAYS.values()), [3]],
            "dtype": ["F16", "F16", "F16", "I64"],
        }
    )
    return table.set_column(2, "shape", table["shape"].combine_chunks())


def named(tensors: tuple[UnquantizedTensor, ...]) -> dict[str, tuple[str, int, bool, str]]:
    return {each.name: (each.dtype, each.bytes, each.kept, each.reason) for each in tensors}


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".ipc", ".feather"])
@pytest.mark.parametrize("to", ["parquet", "gguf", "onnx", "mlx"])
def test_tables_are_accounted_for(tmp_path: Path, suffix: str, to: str) -> None:
    source = tmp_path / f"m{suffix}"
    write_table(raw(), source, rows=2)
    planned = plan(source, tmp_path / "out", to=to)
    done = convert(source, tmp_path / "out", to=to)
    assert done.layers == 1
    assert done.unquantized == planned.unquantized
    found = named(done.unquantized)
    kept = to in ("gguf", "mlx")
    vector = "of fewer than two dimensions" if to == "parquet" else "no matrices"
    assert found.keys() == {NORM, BIAS, "ids"}
    assert found["ids"] == ("I64", 24, kept, "of dtype I64")
    assert found[NORM][:3] == ("F16", 128, kept)
    if to != "mlx":
        assert found[NORM][3] == (vector if to != "onnx" else "no matrices")
        assert found[BIAS] == ("F16", 14, kept, "biases")


@pytest.mark.parametrize("dtype", [pa.float16(), pa.float32(), pa.float64()])
def test_lists_are_accounted_for_and_kept(tmp_path: Path, dtype: pa.DataType) -> None:
    import gguf

    pq.write_table(lists(dtype), tmp_path / "m.parquet")
    done = convert(tmp_path / "m.parquet", tmp_path / "out.gguf")
    size = dtype.bit_width // 8
    name = f"F{dtype.bit_width}"
    assert named(done.unquantized) == {
        NORM: (name, 64 * size, True, "no matrices"),
        BIAS: (name, 7 * size, True, "biases"),
    }
    reader = gguf.GGUFReader(tmp_path / "out.gguf")
    assert {t.name: t.tensor_type.name for t in reader.tensors} == {
        UP: "Q4_0",
        NORM: name,
        BIAS: name,
    }
    kept = next(t for t in reader.tensors if t.name == NORM)
    np.testing.assert_array_equal(kept.data, np.ones(64))


def test_rows_without_a_shape_are_counted(tmp_path: Path) -> None:
    pq.write_table(lists(pa.float32(), shape=False), tmp_path / "m.parquet")
    done = convert(tmp_path / "m.parquet", tmp_path / "out.parquet", recipe="all")
    assert (done.layers, done.unquantized) == (3, ())
    planned = plan(tmp_path / "m.parquet", tmp_path / "new.parquet", recipe="all")
    assert [layer.shape for layer in planned.layers] == [(2048,), (64,), (7,)]


def test_the_command_names_tensors_of_tables(tmp_path: Path) -> None:
    pq.write_table(lists(pa.float32()), tmp_path / "m.parquet")
    said = succeeded("quantize", tmp_path / "m.parquet", tmp_path / "out.arrow")
    assert f"Left out, of fewer than two dimensions: {NORM} (256 B)\n" in said


def onnx_model() -> onnx.ModelProto:
    """Lookup, convolution, norm and product, a Constant node and a branch."""
    tensors = {
        "table": np.ones((9, 32), np.float32),
        "kernel": np.ones((4, 1, 3), np.float32),
        "scale": np.ones(32, np.float32),
        "up": np.ones((32, 32), np.float32),
        "bias": np.ones(32, np.float32),
        "axes": np.array([0]),
    }
    words = helper.make_tensor("words", TensorProto.STRING, [2], [b"ab", b"c"])
    constant = numpy_helper.from_array(np.ones(2, np.float16), "anything")
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["looked"]),
        helper.make_node("Mul", ["looked", "scale"], ["normed"]),
        helper.make_node("MatMul", ["normed", "up"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["out"]),
        helper.make_node("Constant", [], ["halves"], value=constant),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 32])],
        [*(numpy_helper.from_array(a, name) for name, a in tensors.items()), words],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("to", ["onnx", "parquet", "gguf"])
@pytest.mark.filterwarnings("ignore:Left out, as the format has no STRING:UserWarning")
def test_onnx_models_are_accounted_for(tmp_path: Path, to: str) -> None:
    onnx.save(onnx_model(), tmp_path / "m.onnx")
    out = tmp_path / f"out.{to}"
    planned = plan(tmp_path / "m.onnx", out)
    done = convert(tmp_path / "m.onnx", out)
    assert planned.unquantized == done.unquantized
    other = "no constant matrices of a MatMul or Gemm"
    kept = to == "onnx"
    assert named(done.unquantized) == {
        "table": ("F32", 1152, kept, other),
        "kernel": ("F32", 48, kept, other),
        "scale": ("F32", 128, kept, other),
        "bias": ("F32", 128, kept, other),
        "axes": ("I64", 8, kept, "of dtype I64"),
        "words": ("STRING", 3, kept, "of dtype STRING"),
        "halves": ("F16", 4, kept, other),
    }
    assert done.layers == 1


@pytest.mark.filterwarnings("ignore:Skipped:UserWarning")
@pytest.mark.parametrize("to", ["parquet", "gguf", "mlx"])
@pytest.mark.parametrize("budget", [{}, {"bits_per_weight": 6}])
def test_layers_that_fail_are_accounted_for(
    tmp_path: Path, to: str, budget: dict[str, float]
) -> None:
    broken = np.ones((32, 64), np.float32)
    broken[3, 4] = np.nan
    tensors = {UP: np.ones((32, 64), np.float32), "broken.weight": broken}
    save_file(tensors, tmp_path / "m.safetensors")
    done = convert(
        tmp_path / "m.safetensors", tmp_path / "out", to=to, continue_on_error=True, **budget
    )
    assert done.layers == len(done.skipped) == 1
    kept = to != "parquet"
    expected = {"broken.weight": ("F32", 8192, kept, "with NaN or Inf")}
    assert named(done.unquantized) == expected


@pytest.mark.parametrize("to", ["parquet", "gguf"])
def test_rows_that_fail_are_accounted_for(tmp_path: Path, to: str) -> None:
    table = lists(pa.float32())
    shapes = pa.array([[32, 64], [64], [2, 32]], pa.list_(pa.int64()))
    nothing = pa.table({"layer_name": [None], "weights": [[1.0]], "shape": [[1]]}, table.schema)
    table = pa.concat_tables([table.set_column(2, "shape", shapes), nothing])
    pq.write_table(table, tmp_path / "m.parquet")
    options = ["--to", to, "--recipe", "all", "--continue-on-error", "--json"]
    result = run("quantize", tmp_path / "m.parquet", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    found = {each["name"]: each for each in json.loads(result.stdout)["unquantized"]}
    assert found[BIAS]["kept"] is False
    assert found[BIAS]["reason"] == "with more or fewer weights than their shape has"
    assert found.keys() == ({BIAS} if to == "parquet" else {BIAS, NORM})
