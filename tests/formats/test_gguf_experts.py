"""Stacks of experts in GGUF: matrices of the same type, one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from commands import run
from gguf_models import written
from safetensors.numpy import save_file

import pyarrowquant
from pyarrowquant import (
    Rule,
    compare,
    convert,
    dequantize_batch_arrow,
    numpy_to_arrow_table,
    plan,
    quantize_batch_arrow,
    read_weights,
)
from pyarrowquant.formats import write_gguf

RNG = np.random.default_rng(3)
NAME = "blk.0.ffn_down_exps.weight"


def weights(*shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) / 50).astype(np.float32)


def tensors(path: Path) -> dict[str, Any]:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def experts_of(folder: Path, stack: np.ndarray, **others: np.ndarray) -> Path:
    model = {NAME: stack, **{f"blk.0.{name}.weight": array for name, array in others.items()}}
    keys = {"block_count": 1, "expert_count": len(stack)}
    return written(folder / "m.gguf", model, "qwen2moe", **keys)


@pytest.mark.parametrize(
    ("options", "settings", "type_name"),
    [
        ({}, {"encoding": "q6_k", "method": "mse"}, "Q6_K"),
        ({"recipe": "Q3_K_S", "method": "rtn"}, {"encoding": "q3_k"}, "Q3_K"),
        ({"recipe": "MXFP4_MOE"}, {"encoding": "mxfp4", "method": "mse"}, "MXFP4"),
        ({"encoding": "iq4_nl"}, {"encoding": "iq4_nl", "method": "mse"}, "IQ4_NL"),
        (
            {"bit_width": 4},
            {
                "group_size": 32,
                "zero_point": "symmetric",
                "scale_dtype": "float16",
                "method": "mse",
            },
            "Q4_0",
        ),
    ],
)
@pytest.mark.parametrize("rows", [3, 200])  # one unit of work has them all, or a part of a matrix
def test_experts_have_the_bytes_of_each_alone(
    tmp_path: Path, options: dict[str, Any], settings: dict[str, Any], type_name: str, rows: int
) -> None:
    stack = weights(3, rows, 512)
    source = experts_of(tmp_path, stack, ffn_gate_inp=weights(3, 512))
    done = convert(source, tmp_path / "x.gguf", **options)
    found = tensors(tmp_path / "x.gguf")
    assert found["blk.0.ffn_gate_inp.weight"].tensor_type.name == "F32"
    tensor = found[NAME]
    assert (tensor.tensor_type.name, tensor.shape.tolist()) == (type_name, [512, rows, 3])
    assert done.bits_per_weight == pytest.approx(8 * int(tensor.n_bytes) / stack.size)
    alone = numpy_to_arrow_table({str(i): matrix for i, matrix in enumerate(stack)})
    write_gguf(quantize_batch_arrow(alone, **settings), tmp_path / "alone.gguf")
    matrices = tensors(tmp_path / "alone.gguf")
    each = [matrices[str(i)].data.tobytes() for i in range(3)]
    assert tensor.data.tobytes() == b"".join(each)


def test_gguf_decodes_what_the_table_has(tmp_path: Path) -> None:
    stack = weights(2, 5, 256)
    result = quantize_batch_arrow(numpy_to_arrow_table({NAME: stack}), encoding="q6_k")
    write_gguf(result, tmp_path / "x.gguf")
    write_gguf(result, tmp_path / "y.gguf", model=experts_of(tmp_path, stack))
    wanted = np.array(dequantize_batch_arrow(result)["weights"][0].as_py(), np.float32)
    for name in ("x.gguf", "y.gguf"):
        tensor = tensors(tmp_path / name)[NAME]
        found = gguf.dequantize(tensor.data, tensor.tensor_type)
        assert found.shape == stack.shape
        assert np.array_equal(found.ravel(), wanted)
    read = read_weights(tmp_path / "y.gguf").read_all()
    assert compare(read, result)["max_abs_error"].to_pylist() == [0.0]
    shown = run("compare", str(tmp_path / "m.gguf"), str(tmp_path / "y.gguf"))
    assert (shown.exit_code, "2x5x256" in shown.stdout) == (0, True)
    decoded = run("dequantize", str(tmp_path / "y.gguf"), str(tmp_path / "d.arrow"))
    assert decoded.exit_code == 0
    assert read_weights(tmp_path / "d.arrow").read_all()["shape"].to_pylist() == [[2, 5, 256]]


def test_rows_of_experts_are_those_of_their_matrices(tmp_path: Path) -> None:
    """All of an expert is a multiple of 256, but not a row of it."""
    stacks = {"ffn_up_exps": weights(2, 8, 288), "ffn_gate_exps": weights(2, 16, 48)}
    source = experts_of(tmp_path, weights(2, 4, 256), **stacks)
    with (
        pytest.warns(UserWarning, match=r"these get 5 bits in groups of 32 .*ffn_up"),
        pytest.warns(UserWarning, match=r"does not take their shape: blk\.0\.ffn_gate_exps"),
    ):
        convert(source, tmp_path / "x.gguf")
    kinds = {name: tensor.tensor_type.name for name, tensor in tensors(tmp_path / "x.gguf").items()}
    assert kinds["blk.0.ffn_up_exps.weight"] == "Q5_0"
    assert kinds["blk.0.ffn_gate_exps.weight"] == "F32"
    ragged = quantize_batch_arrow(
        numpy_to_arrow_table({"a": weights(2, 16, 48)}),
        group_size=32,
        zero_point="symmetric",
        scale_dtype="float16",
    )
    with pytest.raises(ValueError, match="'a': 48 columns are no multiple of 32"):
        write_gguf(ragged, tmp_path / "y.gguf")
    deep = quantize_batch_arrow(numpy_to_arrow_table({"a": weights(2, 2, 2, 256)}), encoding="q4_k")
    with pytest.raises(ValueError, match=r"nor of a stack of them"):
        write_gguf(deep, tmp_path / "y.gguf")


def test_recipes_and_budgets_are_for_experts_too(tmp_path: Path) -> None:
    source = experts_of(tmp_path, weights(2, 8, 256), attn_q=weights(8, 256))
    recipe = pyarrowquant.Recipe([Rule(ndim=3, encoding="q2_k")], extends="Q8_0")
    convert(source, tmp_path / "x.gguf", recipe=recipe)
    assert tensors(tmp_path / "x.gguf")[NAME].tensor_type.name == "Q2_K"
    done = convert(source, tmp_path / "y.gguf", bits_per_weight=5.0)
    assert done.layers == 2
    assert done.bits_per_weight <= 5.0
    done = convert(source, tmp_path / "z.gguf", recipe="Q2_K", quality_floor=0.995)
    assert tensors(tmp_path / "z.gguf")[NAME].tensor_type.name in ("Q4_K", "Q5_K")


@pytest.mark.filterwarnings("ignore:.*does not load")  # by mlx-lm
def test_other_formats_name_experts(tmp_path: Path) -> None:
    model = {
        "model.layers.0.mlp.experts.down_proj": weights(2, 8, 128),
        "model.layers.0.mlp.up_proj.weight": weights(64, 128),
    }
    (tmp_path / "model").mkdir()
    save_file(model, tmp_path / "model" / "model.safetensors")
    (tmp_path / "model" / "config.json").write_text('{"model_type": "own_moe"}')
    for to in ("compressed-tensors", "mlx", "onnx"):
        planned = plan(tmp_path / "model", tmp_path / f"{to}.out", to=to, tensors_only=to == "onnx")
        (left,) = planned.unquantized
        assert left.reason == "stacks of experts, which the format does not hold quantized"
