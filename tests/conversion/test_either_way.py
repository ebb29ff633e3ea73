"""Outputs have the same bytes whether results are placed as they come or collected first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hf_folders
import numpy as np
import onnx
import pytest
from exports import files
from onnx_models import mlp

from pyarrowquant import convert

CASES: dict[str, dict[str, Any]] = {
    "gguf": {"to": "gguf", "bit_width": 4, "zero_point": "integer"},
    "mix": {"to": "gguf"},
    "compressed-tensors": {"to": "compressed-tensors", "bit_width": 4, "zero_point": "integer"},
    "nvfp4": {"to": "compressed-tensors", "recipe": "NVFP4A16"},
    "mlx": {"to": "mlx"},
    "bitsandbytes": {"to": "bitsandbytes"},
}


def balanced() -> dict[str, np.ndarray]:
    """Weights of which some layers have zero-points in the middle, as symmetric ones are."""
    tensors = hf_folders.llama()
    for name in ("self_attn.q_proj", "mlp.down_proj"):
        shape = tensors[f"model.layers.0.{name}.weight"].shape
        signs = np.where(np.arange(shape[0] * shape[1]) % 2, 1, -1).astype(np.float32)
        tensors[f"model.layers.0.{name}.weight"] = signs.reshape(shape) / 4
    return tensors


@pytest.mark.parametrize("name", list(CASES))
def test_models(tmp_path: Path, name: str) -> None:
    model = hf_folders.write(tmp_path / "model", balanced(), torch_dtype="float32")
    convert(model, tmp_path / "placed", **CASES[name])
    convert(model, tmp_path / "kept", continue_on_error=True, **CASES[name])
    assert same(tmp_path / "placed") == same(tmp_path / "kept")


def same(path: Path) -> dict[str, bytes] | bytes:
    return files(path) if path.is_dir() else path.read_bytes()


def test_onnx(tmp_path: Path) -> None:
    source = mlp().save(tmp_path / "model.onnx")
    found = []
    for place, kept in (("placed", False), ("kept", True)):
        (tmp_path / place).mkdir()
        out = tmp_path / place / "out.onnx"
        convert(source, out, bit_width=4, continue_on_error=kept)
        onnx.checker.check_model(str(out))
        found.append(files(tmp_path / place))
    assert found[0] == found[1]
