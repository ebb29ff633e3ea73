"""Quantized folders become folders of the model as it was before, of other numbers."""

from __future__ import annotations

import json
from pathlib import Path

import hf_folders
import ml_dtypes
import numpy as np
import pytest
from commands import failed, succeeded
from models import write_shards
from safetensors.numpy import load_file

QUANTIZED = [
    ("compressed-tensors", "--recipe", "W4A16"),
    ("compressed-tensors", "--recipe", "FP8_BLOCK"),
    ("compressed-tensors", "--recipe", "NVFP4A16"),
    ("mlx", "--bits", "4"),
    ("mlx", "--encoding", "mxfp4"),
    ("bitsandbytes", "--double"),
]


def tensors_in(folder: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for path in folder.glob("*.safetensors"):
        found |= load_file(path)
    return found


def source(folder: Path, dtype: str) -> Path:
    """A model in two shards, with files beside them."""
    tensors = {name: array.astype(dtype) for name, array in hf_folders.llama().items()}
    hf_folders.write(folder, tensors, dtype=dtype)
    (folder / "model.safetensors").unlink()
    names = list(tensors)
    write_shards(
        folder,
        {
            f"model-0000{i + 1}-of-00002.safetensors": {name: tensors[name] for name in names[i::2]}
            for i in (0, 1)
        },
    )
    (folder / "LICENSE").write_text("free")
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("options", QUANTIZED, ids=" ".join)
def test_a_plain_folder(tmp_path: Path, options: tuple[str, ...], dtype: str) -> None:
    model = source(tmp_path / "model", dtype)
    original, out, plain = tensors_in(model), tmp_path / "out", tmp_path / "plain-1.5"
    succeeded("quantize", model, out, "--to", *options)
    succeeded("dequantize", out, tmp_path / "decoded.safetensors")
    decoded = load_file(tmp_path / "decoded.safetensors")
    said = json.loads(succeeded("dequantize", out, plain, "--json"))
    found = tensors_in(plain)
    assert found.keys() == original.keys()
    coded = {name for name, array in found.items() if not np.array_equal(array, original[name])}
    assert len(coded) == said["layers"] > 5
    for name, array in found.items():
        assert array.dtype == original[name].dtype
        np.testing.assert_array_equal(array, decoded[name].astype(array.dtype), name)
    assert json.loads((plain / "config.json").read_text()) == json.loads(
        (model / "config.json").read_text()
    )
    for name in ("LICENSE", "tokenizer.json", "tokenizer_config.json"):
        assert (plain / name).read_bytes() == (model / name).read_bytes()
    assert said["bytes"] == sum(path.stat().st_size for path in plain.iterdir())


def test_files_that_say_other_codes_stay_behind(tmp_path: Path) -> None:
    """vLLM reads the first where config.json says no quantization."""
    model, coded = source(tmp_path / "model", "float16"), tmp_path / "coded"
    succeeded("quantize", model, coded, "--to", "compressed-tensors")
    for folder in (model, coded):
        for name in ("hf_quant_config.json", "quant_config.json", "quantize_config.json"):
            (folder / name).write_text("{}")
    succeeded("dequantize", coded, tmp_path / "plain")
    for to in ("compressed-tensors", "mlx", "bitsandbytes"):
        succeeded("quantize", model, tmp_path / to, "--to", to)
    for out in ("plain", "compressed-tensors", "mlx", "bitsandbytes"):
        assert not list((tmp_path / out).glob("*quant*_config.json"))
        assert (tmp_path / out / "LICENSE").read_text() == "free"


def test_its_index_names_all_tensors(tmp_path: Path) -> None:
    model, plain = source(tmp_path / "model", "float16"), tmp_path / "plain"
    succeeded("quantize", model, tmp_path / "out", "--to", "compressed-tensors")
    succeeded("dequantize", tmp_path / "out", plain, "--to", "folder")
    index = json.loads((plain / "model.safetensors.index.json").read_text())
    for name, file in index["weight_map"].items():
        assert name in load_file(plain / file)
    assert index["weight_map"].keys() == tensors_in(model).keys()
    assert index["metadata"]["total_size"] == sum(a.nbytes for a in tensors_in(plain).values())


def test_numbers_are_rounded_to_the_model_s_dtype(tmp_path: Path) -> None:
    """Scales of 16 bits times codes have more bits than bfloat16."""
    model, plain = source(tmp_path / "model", "bfloat16"), tmp_path / "plain"
    succeeded("quantize", model, tmp_path / "out", "--to", "compressed-tensors")
    succeeded("dequantize", tmp_path / "out", plain)
    succeeded("dequantize", tmp_path / "out", tmp_path / "exact.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    exact = load_file(tmp_path / "exact.safetensors")[name]
    assert np.any(exact.astype(ml_dtypes.bfloat16).astype(np.float32) != exact)


def test_refusals(tmp_path: Path) -> None:
    model, out = source(tmp_path / "model", "float16"), tmp_path / "out"
    succeeded("quantize", model, out, "--to", "compressed-tensors")
    assert "leave it out" in failed("dequantize", out, tmp_path / "p", "--dtype", "float32", code=2)
    assert "has nothing that is quantized" in failed("dequantize", model, tmp_path / "p")
    assert "exists" in failed("dequantize", out, model)
    file = out / "model-00001-of-00002.safetensors"
    assert "is no Hugging Face folder" in failed(
        "dequantize", file, tmp_path / "p", "--to", "folder", code=2
    )
    assert not (tmp_path / "p").exists()
    (out / "config.json").unlink()
    assert "End it with" in failed("dequantize", out, tmp_path / "p", code=2)


def test_experts_that_mlx_has_joined(tmp_path: Path) -> None:
    model, out = tmp_path / "model", tmp_path / "out"
    tensors = {
        f"model.layers.0.mlp.experts.{i}.{part}_proj.weight": np.ones((64, 64), np.float32)
        for i in range(4)
        for part in ("gate", "up", "down")
    }
    config = {"model_type": "qwen3_moe", "architectures": ["OwnForCausalLM"], "num_experts": 4}
    hf_folders.write(model, {**hf_folders.llama(), **tensors}, **config)
    succeeded("quantize", model, out, "--to", "mlx")
    said = failed("dequantize", out, tmp_path / "plain")
    assert "experts that MLX has joined" in said
    assert not (tmp_path / "plain").exists()


def test_a_model_is_replaced_as_a_whole(tmp_path: Path) -> None:
    model, out = source(tmp_path / "model", "float16"), tmp_path / "out"
    succeeded("quantize", model, out, "--to", "compressed-tensors")
    succeeded("dequantize", out, tmp_path / "plain")
    before = tensors_in(tmp_path / "plain")
    succeeded("quantize", model, out, "--to", "compressed-tensors", "--bits", "8", "--overwrite")
    succeeded("dequantize", out, tmp_path / "plain", "--overwrite")
    name = "model.layers.0.mlp.up_proj.weight"
    assert not np.array_equal(tensors_in(tmp_path / "plain")[name], before[name])
    said = failed("dequantize", out, out, "--overwrite")
    assert "has the source in it" in said
    assert tensors_in(out)


@pytest.mark.parametrize("dtype", ["float64", "int4", "a\nb"])
def test_a_dtype_that_no_weights_have(tmp_path: Path, dtype: str) -> None:
    hf_folders.write(tmp_path / "model")
    succeeded("quantize", tmp_path / "model", tmp_path / "coded", "--to", "mlx")
    config = tmp_path / "coded/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "dtype": dtype}))
    error = failed("dequantize", tmp_path / "coded", tmp_path / "out")
    assert error.startswith(f"Error: '{config}' says that the model's dtype is {dtype!r}. It must")
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
