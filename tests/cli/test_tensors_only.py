"""Models of which a format can have the tensors alone are refused, unless that is wanted."""

from __future__ import annotations

import json
from pathlib import Path

import hf_folders
import numpy as np
import pytest
from commands import failed, succeeded
from models import write_table
from safetensors.numpy import save_file

from pyarrowquant import UsageError, convert, numpy_to_arrow_table, plan


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
    assert "or use --tensors-only if only tensors are wanted" in error
    assert not (tmp_path / "a.onnx").exists()
    shown = succeeded("quantize", folder, tmp_path / "a.onnx", "--tensors-only", *options)
    assert "Tensors alone, which ONNX Runtime does not load as a model\n" in shown


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
    ):
        planned = plan(source, tmp_path / name, to=to)
        assert planned.layers
        assert not planned.tensors_only


ENGINES = {"gguf": "llama.cpp", "mlx": "mlx-lm", "onnx": "ONNX Runtime"}


@pytest.mark.parametrize("to", ENGINES)
def test_a_folder_without_config(folder: Path, tmp_path: Path, to: str) -> None:
    (folder / "config.json").unlink()
    command = ("quantize", folder, tmp_path / "a", "--to", to)
    error = failed(*command, code=2)
    if to != "onnx":
        assert f"'{folder / 'config.json'}' is missing. Copy it, and the tokenizer, there" in error
    assert "or use --tensors-only" in error
    assert failed(*command, "--dry-run", code=2) == error
    said = f"Tensors alone, which {ENGINES[to]} does not load as a model\n"
    assert said in succeeded(*command, "--tensors-only", "--dry-run")
    assert said in succeeded(*command, "--tensors-only")


@pytest.mark.parametrize("to", ENGINES)
def test_a_file_of_a_folder(folder: Path, tmp_path: Path, to: str) -> None:
    command = ("quantize", folder / "model.safetensors", tmp_path / "a", "--to", to)
    error = failed(*command, code=2)
    if to != "onnx":
        assert f"Give the folder '{folder}/', or use --tensors-only" in error
    assert failed(*command, "--dry-run", code=2) == error
    assert json.loads(succeeded(*command, "--tensors-only", "--json"))["tensors_only"] is True


@pytest.mark.parametrize("name", ["w.npz", "w.safetensors", "w.parquet", "w.arrow"])
@pytest.mark.parametrize("to", ENGINES)
def test_files_of_weights_need_no_option(tmp_path: Path, name: str, to: str) -> None:
    weights = {"up.weight": np.ones((64, 64), np.float32)}
    source = tmp_path / name
    if name == "w.npz":
        np.savez(source, **weights)
    elif name == "w.safetensors":
        save_file(weights, source)
    else:
        write_table(numpy_to_arrow_table(weights), source)
    shown = succeeded("quantize", source, tmp_path / "a", "--to", to)
    assert f"Tensors alone, which {ENGINES[to]} does not load as a model\n" in shown
    assert "Tensors alone" not in succeeded("quantize", source, tmp_path / "b.parquet")


@pytest.mark.filterwarnings("ignore:Quantized already")
def test_tensors_alone_stay_so(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", **{"up.weight": np.ones((64, 256), np.float32)})
    succeeded("quantize", tmp_path / "w.npz", tmp_path / "w.gguf", "--bits", 8)
    for to in ENGINES:
        assert plan(tmp_path / "w.gguf", tmp_path / "a", to=to).tensors_only


def test_in_python(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="use tensors_only=True if only tensors are wanted"):
        plan(folder, tmp_path / "a.onnx")
    assert convert(folder, tmp_path / "a.onnx", tensors_only=True).layers
    with pytest.raises(TypeError, match="tensors_only must be"):
        plan(folder, tmp_path / "b.onnx", tensors_only="yes")  # type: ignore[arg-type]
