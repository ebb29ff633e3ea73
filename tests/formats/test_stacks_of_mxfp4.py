"""Experts of gpt-oss in MXFP4, which are kept as a checkpoint of floats has them."""

from __future__ import annotations

from pathlib import Path

import gguf
import hf_folders
import ml_dtypes
import numpy as np
import pytest
from commands import run, succeeded
from exports import quantized
from mixture_models import GPT_OSS, gpt_oss
from quantized_models import E2M1
from safetensors.numpy import load_file

from pyarrowquant import convert, plan
from pyarrowquant.formats import write_bitsandbytes, write_compressed_tensors

FORMATS = ["compressed-tensors", "bitsandbytes"]
STACKS = [
    f"model.layers.{layer}.mlp.experts.{name}_proj"
    for layer in range(2)
    for name in ("gate_up", "down")
]


def written(folder: Path, dtype: str) -> dict[str, np.ndarray]:
    """Write a model; return its stacks as a checkpoint of floats has them: inputs, then outputs."""
    tensors = gpt_oss(coded=True)
    hf_folders.write(folder, tensors, model_type="gpt_oss", dtype=dtype, **GPT_OSS)
    found = {}
    for name in STACKS:
        blocks, scales = tensors[f"{name}_blocks"], tensors[f"{name}_scales"]
        codes = np.stack([blocks & 15, blocks >> 4], axis=-1).reshape(*scales.shape, 32)
        groups = E2M1[codes] * np.ldexp(np.float32(1), scales.astype(int) - 127)[..., None]
        found[name] = groups.reshape(*scales.shape[:-1], -1).swapaxes(1, 2)
    return found


def assert_stacks(file: Path, wanted: dict[str, np.ndarray], dtype: str) -> None:
    found = load_file(file)
    for name, stack in wanted.items():
        assert found[name].dtype == np.dtype(getattr(ml_dtypes, dtype, dtype))
        np.testing.assert_array_equal(found[name].astype(np.float32), stack)
        assert f"{name}_blocks" not in found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("to", FORMATS)
def test_folders_keep_stacks_of_floats(tmp_path: Path, to: str, dtype: str) -> None:
    source, out = tmp_path / "model", tmp_path / "out"
    wanted = written(source, dtype)
    planned = plan(source, out, to=to)
    convert(source, out, to=to)
    shapes = {each.name: each.shape for each in planned.unquantized}
    assert {name: shapes[name] for name in STACKS} == {
        name: stack.shape for name, stack in wanted.items()
    }
    assert_stacks(out / "model.safetensors", wanted, dtype)
    for names in ((source, out), (out, source)):
        shown = succeeded("compare", *names)
        assert all(f"{name} " in shown for name in STACKS)


@pytest.mark.parametrize("to", FORMATS)
def test_writers_keep_stacks_of_floats(tmp_path: Path, to: str) -> None:
    wanted = written(tmp_path / "model", "float32")
    name = "model.layers.0.self_attn.o_proj.weight"
    weights = load_file(tmp_path / "model" / "model.safetensors")[name]
    if to == "bitsandbytes":
        result = quantized(weights, names=[name], encoding="nf4")
        write_bitsandbytes(result, tmp_path / "out", model=tmp_path / "model")
    else:
        result = quantized(weights, names=[name])
        write_compressed_tensors(result, tmp_path / "out", model=tmp_path / "model")
    assert_stacks(tmp_path / "out" / "model.safetensors", wanted, "float32")


def test_dequantize_writes_a_checkpoint_of_floats(tmp_path: Path) -> None:
    """It becomes the same GGUF file as the codes do."""
    source, floats = tmp_path / "model", tmp_path / "floats"
    wanted = written(source, "float32")
    written(floats, "float32")
    file = floats / "model.safetensors"
    succeeded("dequantize", source, file, "--overwrite")
    assert_stacks(file, wanted, "float32")
    for names in ((source, file), (file, source), (source, source)):
        shown = run("compare", *names)
        assert (shown.exit_code, "relative error 0.00000" in shown.stdout) == (0, True)
    tensors = []
    for folder in (source, floats):
        succeeded("dequantize", folder, folder.with_suffix(".gguf"))
        tensors.append(gguf.GGUFReader(folder.with_suffix(".gguf")).tensors)
    for first, second in zip(*tensors, strict=True):
        assert first.name == second.name
        np.testing.assert_array_equal(first.data, second.data)
