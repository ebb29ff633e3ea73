"""Models of which a format can have the tensors alone are refused, unless that is wanted."""

from __future__ import annotations

from pathlib import Path

import hf_folders
import pytest
from commands import failed, succeeded

from pyarrowquant import UsageError, convert, plan


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return hf_folders.write(tmp_path / "model")


@pytest.fixture
def model(folder: Path, tmp_path: Path) -> Path:
    """Make a model of llama.cpp."""
    succeeded("dequantize", folder, tmp_path / "model.gguf")
    return tmp_path / "model.gguf"


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_a_folder_to_onnx(folder: Path, tmp_path: Path, options: list[str]) -> None:
    error = failed("quantize", folder, tmp_path / "a.onnx", *options, code=2)
    assert f"'{folder}' would become tensors by themselves" in error
    assert "an ONNX model alone" in error
    assert "Use --tensors-only if that is wanted" in error
    assert not (tmp_path / "a.onnx").exists()
    succeeded("quantize", folder, tmp_path / "a.onnx", "--tensors-only", *options)


@pytest.mark.parametrize("to", ["mlx", "onnx"])
def test_a_model_of_llama_cpp(model: Path, tmp_path: Path, to: str) -> None:
    error = failed("quantize", model, tmp_path / "a", "--to", to, code=2)
    assert f"'{model}' would become tensors by themselves" in error
    succeeded("quantize", model, tmp_path / "a", "--to", to, "--tensors-only")


def test_what_engines_load_needs_no_option(folder: Path, model: Path, tmp_path: Path) -> None:
    for source, name, to in (
        (folder, "a.gguf", "gguf"),
        (folder, "a", "mlx"),
        (model, "b.gguf", "gguf"),
        (model, "b.parquet", "parquet"),
        (folder / "model.safetensors", "c.onnx", "onnx"),  # which is a file of weights
        (folder / "model.safetensors", "c.gguf", "gguf"),
    ):
        assert plan(source, tmp_path / name, to=to).layers


def test_in_python(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Use tensors_only=True if that is wanted"):
        plan(folder, tmp_path / "a.onnx")
    assert convert(folder, tmp_path / "a.onnx", tensors_only=True).layers
    with pytest.raises(TypeError, match="tensors_only must be"):
        plan(folder, tmp_path / "b.onnx", tensors_only="yes")  # type: ignore[arg-type]
