"""Commands on models whose codes lack a scale, or have one that is none: one line, no work."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from commands import failed, succeeded
from quantized_models import folder

from cli.outputs import names_in

UP = "model.layers.{}.mlp.up_proj.weight"
SCALE = f"{UP.format(1)}_scale_inv"


@pytest.mark.parametrize(
    ("scale", "problem"),
    [
        (None, "is missing"),
        (-0.01, "has -0.01 at index 1, which is no scale"),
        (np.nan, "has NaN at index 1, which is no scale"),
    ],
)
def test_every_command_says_it_in_one_line(
    tmp_path: Path, scale: float | None, problem: str
) -> None:
    tensors: dict[str, np.ndarray] = {}
    for number in range(4):
        name = UP.format(number)
        tensors[name] = np.ones((64, 256), ml_dtypes.float8_e4m3fn)
        tensors[f"{name}_scale_inv"] = np.float32([[0.01, 0.02]])
    if scale is None:
        del tensors[SCALE]
    else:
        tensors[SCALE] = np.float32([[0.01, scale]])
    said = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    model = folder(tmp_path / "m", tensors, quantization_config=said, dtype="bfloat16")
    out = tmp_path / "out"
    for command in (
        ["quantize", model, out, "--to", "mlx", "--dry-run"],
        ["quantize", model, out, "--to", "mlx"],
        ["quantize", model, out, "--to", "gguf", "--tensors-only"],
        ["quantize", model / "model.safetensors", tmp_path / "out.parquet"],
        ["dequantize", model, tmp_path / "out.safetensors"],
        ["compare", model, model],
        ["report", model, "--original", model, "--html", tmp_path / "out.html"],
    ):
        error = failed(*command)
        assert len(error.splitlines()) == 1, error
        assert f"m/model.safetensors: '{UP.format(1)}' is quantized already" in error
        assert f"'{SCALE}' {problem}. Fetch the files again" in error
        assert names_in(tmp_path) == ["m"]
    listed = json.loads(succeeded("inspect", model, "--json"))["layers"]
    problems = {layer["layer_name"]: layer.get("problem") for layer in listed}
    assert problems[UP.format(0)] is None
    assert problems[UP.format(1)] == f"'{SCALE}' {problem}"
