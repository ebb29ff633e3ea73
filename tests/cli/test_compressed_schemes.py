"""What the command line writes as schemes of compressed-tensors, it reads."""

from __future__ import annotations

import json
from pathlib import Path

import hf_folders
import numpy as np
import pytest
from commands import failed, run, succeeded
from mixture_models import DEEPSEEK, deepseek
from quantized_models import folder
from safetensors.numpy import load_file, save_file

import pyarrowquant
from pyarrowquant.recipes.schemes import SCHEMES

UP, DOWN = "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.down_proj.weight"
CODINGS = {
    "FP8_DYNAMIC": "F8_E4M3",
    "FP8_BLOCK": "F8_E4M3",
    "MXFP8A16": "MXFP8",
    "NVFP4A16": "NVFP4",
    "MXFP4A16": "MXFP4",
    "W4A16": "4-bit compressed-tensors",
    "W4A16_ASYM": "4-bit compressed-tensors",
    "W8A16": "8-bit compressed-tensors",
    "W8A8": "8-bit integers",
}


@pytest.mark.parametrize("name", CODINGS)
def test_round_trip(tmp_path: Path, name: str) -> None:
    assert CODINGS.keys() == SCHEMES.keys()
    model, out = tmp_path / "model", tmp_path / "out"
    model.mkdir()
    arrays = {
        each: np.random.default_rng(i).standard_normal((128, 256), np.float32)
        for i, each in enumerate((UP, DOWN))
    }
    save_file(arrays, model / "model.safetensors")
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "dtype": "float32"}
    (model / "config.json").write_text(json.dumps(config))
    command = ["quantize", model, out, "--to", "compressed-tensors", "--recipe", name.lower()]
    done = json.loads(succeeded(*command, "--json"))
    assert (done["layers"], done["mix"]) == (2, name)
    shown = json.loads(succeeded("inspect", out, "--json"))["layers"]
    assert {layer["dtype"] for layer in shown} == {CODINGS[name]}
    # what a table decodes to that has the same settings
    results = pyarrowquant.quantize_batch_arrow(
        pyarrowquant.read_weights(model), recipe=name, method="mse"
    )
    succeeded("dequantize", out, tmp_path / "decoded.safetensors")
    decoded = load_file(tmp_path / "decoded.safetensors")
    for row in pyarrowquant.dequantize_batch_arrow(results).to_pylist():
        weights = np.reshape(np.float32(row["weights"]), row["shape"])
        np.testing.assert_array_equal(decoded[row["layer_name"]], weights)
    compared = json.loads(succeeded("compare", model, out, "--json"))
    assert compared["totals"]["relative_error"] == pytest.approx(done["relative_error"], rel=1e-6)
    succeeded("report", out, "--original", model, "--html", tmp_path / "report.html")
    assert "up_proj" in (tmp_path / "report.html").read_text()


def test_experts_with_zero_points_name_what_works(tmp_path: Path) -> None:
    said = {**DEEPSEEK, "model_type": "deepseek_v3", "dtype": "float32"}
    model = hf_folders.write(tmp_path / "model", deepseek(), **said)
    command = ["quantize", model, tmp_path / "out", "--to", "compressed-tensors"]
    for options in (["--recipe", "W4A16_ASYM"], ["--zero-point", "integer"]):
        error = failed(*command, *options)
        assert "Take --zero-point symmetric; in place of the scheme W4A16_ASYM, W4A16" in error
    succeeded(*command, "--zero-point", "symmetric")
    succeeded(*command, "--recipe", "W4A16", "--overwrite")


@pytest.mark.parametrize("floor", [[], ["--quality-floor", "0.5"]])
def test_a_warning_is_printed_once(tmp_path: Path, floor: list[str]) -> None:
    """Settings are checked anew where a floor has chosen them."""
    names = [f"model.layers.0.mlp.experts.0.{each}_proj.weight" for each in ("gate", "up", "down")]
    tensors = {name: np.eye(128, dtype=np.float32) for name in names}
    source = folder(tmp_path / "model", tensors, model_type="qwen2_moe", dtype="float32")
    for number in range(2):  # in one process
        options = ["--to", "compressed-tensors", "--recipe", "FP8_BLOCK", *floor]
        done = run("quantize", source, tmp_path / f"out{number}", *options)
        assert done.exit_code == 0, done.output
        assert done.stderr.count("does not load experts in blocks of FP8") == 1
