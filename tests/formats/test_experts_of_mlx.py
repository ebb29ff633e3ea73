"""Experts that MLX has joined, which other engines do not know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from commands import run
from exports import quantized
from safetensors.numpy import load_file

from formats.expert_models import (
    BLOCK,
    EXPERTS,
    HIDDEN,
    INNER,
    MATRICES,
    OTHERS,
    saved,
    stacks,
)
from pyarrowquant import (
    Recipe,
    Rule,
    convert,
    dequantize_batch_arrow,
    plan,
)
from pyarrowquant.formats import write_bitsandbytes, write_compressed_tensors

SAID: Any = {"bit_width": 4, "group_size": 32, "method": "rtn", "scale_dtype": "float32"}


def from_mlx(folder: Path, kind: str, recipe: Recipe | None = None) -> Path:
    """A folder for MLX, whose experts are joined."""
    model_type = {"matrices": "qwen3_moe", "alternating": "gpt_oss"}[kind]
    tensors = MATRICES if kind == "matrices" else stacks(kind)
    source = saved(folder / "model", tensors, model_type)
    convert(source, folder / "joined", to="mlx", bit_width=8, group_size=32, recipe=recipe)
    return folder / "joined"


FLOATS = Recipe([Rule("*.experts.*", skip=True)])


@pytest.mark.parametrize("recipe", [None, FLOATS], ids=["codes", "floats"])
@pytest.mark.parametrize(
    ("kind", "to"),
    [
        ("matrices", "compressed-tensors"),
        ("matrices", "bitsandbytes"),
        ("matrices", "gguf"),
        ("alternating", "compressed-tensors"),
        ("alternating", "bitsandbytes"),
    ],
)
def test_experts_that_mlx_has_joined_are_for_mlx_alone(
    tmp_path: Path, kind: str, to: str, recipe: Recipe | None
) -> None:
    """Others would load the model without them, and compute with random ones."""
    source = from_mlx(tmp_path, kind, recipe)
    engine = "llama.cpp" if to == "gguf" else "transformers"
    text = (
        rf"MLX has joined.* {engine} does not know.*\.down_proj\.weight.*Give the model before MLX"
    )
    for call in (plan, convert):
        with pytest.raises(ValueError, match=text) as caught:
            call(source, tmp_path / f"out.{to}", to=to)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / f"out.{to}").exists()


def test_writers_refuse_experts_that_mlx_has_joined(tmp_path: Path) -> None:
    source = from_mlx(tmp_path, "matrices")
    name = "model.layers.0.self_attn.q_proj.weight"
    for encoding, write in (("int", write_compressed_tensors), ("nf4", write_bitsandbytes)):
        result = quantized(OTHERS[name], names=[name], encoding=encoding)
        with pytest.raises(ValueError, match="MLX has joined"):
            write(result, tmp_path / "out", model=source)


def decoded_by_mlx(folder: Path, module: str) -> np.ndarray:
    tensors = mx.load(str(folder / "model.safetensors"))
    config = json.loads((folder / "config.json").read_text())["quantization"]
    said = {**config, **config.get(module, {})}
    parts = [tensors.get(f"{module}.{part}") for part in ("weight", "scales", "biases")]
    if parts[1].dtype != mx.uint8:
        parts[1:] = [part.astype(mx.float32) for part in parts[1:]]
    found = mx.dequantize(*parts, said["group_size"], said["bits"], said["mode"])
    return np.array(found.astype(mx.float32))


@pytest.mark.parametrize("encoding", ["int", "mxfp8", "mxfp4", "nvfp4"])
@pytest.mark.parametrize(
    ("kind", "model_type", "stack_name"),
    [
        ("matrices", "qwen3_moe", "switch_mlp"),
        ("matrices", "mixtral", "switch_mlp"),  # of which mlx-lm joins single ones itself
        ("alternating", "gpt_oss", "experts"),
    ],
)
def test_experts_that_mlx_has_joined_are_quantized_again(
    tmp_path: Path, kind: str, model_type: str, stack_name: str, encoding: str
) -> None:
    """Each as by itself, and joined under the same names."""
    tensors = MATRICES if kind == "matrices" else stacks(kind)
    source = saved(tmp_path / "model", tensors, "gpt_oss" if kind != "matrices" else "qwen3_moe")
    first, second = tmp_path / "first", tmp_path / "second"
    said: Any = {"bit_width": 8, "group_size": 32} if encoding == "int" else {"encoding": encoding}
    convert(source, first, to="mlx", **said)
    config = json.loads((first / "config.json").read_text())
    (first / "config.json").write_text(json.dumps({**config, "model_type": model_type}))
    with pytest.warns(UserWarning, match="decoded first"):
        done = convert(first, second, to="mlx", **SAID)
    assert done.layers == 3 * EXPERTS + 1
    before, after = (mx.load(str(each / "model.safetensors")) for each in (first, second))
    assert after.keys() >= before.keys()
    for name in ("gate_proj", "up_proj", "down_proj"):
        module = f"{BLOCK}.{stack_name}.{name}"
        weights_before = decoded_by_mlx(first, module)
        names = [f"{number}" for number in range(EXPERTS)]
        result = quantized(*weights_before, names=names, **{**SAID, "zero_point": "float"})
        wanted = [
            np.float32(row["weights"]).reshape(row["shape"])
            for row in dequantize_batch_arrow(result).to_pylist()
        ]
        np.testing.assert_allclose(decoded_by_mlx(second, module), wanted, atol=1e-5, rtol=0)
    compared = run("compare", str(first), str(second), "--json")
    assert compared.exit_code == 0, compared.output
    errors = {row["layer_name"]: row for row in json.loads(compared.stdout)["layers"]}
    assert errors[f"{BLOCK}.{stack_name}.up_proj.weight"]["shape"] == [EXPERTS, INNER, HIDDEN]


@pytest.mark.parametrize("kind", ["matrices", "alternating"])
def test_experts_that_mlx_has_joined_are_decoded_with_a_warning(tmp_path: Path, kind: str) -> None:
    source = from_mlx(tmp_path, kind)
    done = run("dequantize", str(source), str(tmp_path / "out.safetensors"))
    assert done.exit_code == 0
    assert done.stderr.startswith("Experts that MLX has joined keep its names, which no other")
    assert done.stderr.count("\n") == 1
    assert any(
        name.endswith(".gate_proj.weight") for name in load_file(tmp_path / "out.safetensors")
    )
