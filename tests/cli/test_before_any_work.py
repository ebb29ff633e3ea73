"""What a format cannot hold is refused before any work."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from commands import failed
from safetensors.numpy import save_file

from cli.onnx_products import onnx_model
from cli.outputs import names_in
from pyarrowquant import Recipe, Rule


def test_what_a_format_cannot_hold_is_found_before_any_work(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("there was work")

    monkeypatch.setattr("pyarrowquant.conversion.job.Job.run", never)
    out, recipe = tmp_path / "out", tmp_path / "recipe.json"
    for to, option, value, said in (
        ("gguf", "bits", 3, "3 bits"),
        ("gguf", "group_size", 64, "group_size 64"),
        ("onnx", "bits", 5, "5 bits"),
        ("onnx", "group_size", 48, "group_size 48"),
        ("mlx", "group_size", 256, "group_size 256"),
    ):
        words = "--" + option.replace("_", "-"), value, "--recipe", "text"
        assert said in failed("quantize", model, out, "--to", to, *words, code=2)
        recipe.write_text(json.dumps({"extends": "text", "default": {option: value}}))
        error = failed("quantize", model, out, "--to", to, "--recipe", recipe)
        assert "cannot hold layer" in error
        assert said in error, (to, error)


def test_compressed_tensors_is_refused_before_any_work(
    llama: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyarrowquant.conversion.job.Job.run", None)
    out = tmp_path / "out"
    to = ["--to", "compressed-tensors", "--group-size", 32]
    assert "zero-points are not integers" in failed(
        "quantize", llama, out, *to, "--zero-point", "float", code=2
    )
    config = json.loads((llama / "config.json").read_text())
    (llama / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    assert "--scale-dtype bfloat16" in failed(
        "quantize", llama, out, *to, "--scale-dtype", "float32"
    )
    Recipe([Rule("*up_proj*", bit_width=8)]).save(tmp_path / "mixed.json")
    mixed = [*to, "--recipe", tmp_path / "mixed.json", "--zero-point", "integer"]
    assert "only with symmetric zero-points" in failed("quantize", llama, out, *mixed)
    assert "is a file" in failed("quantize", model, out, *to)
    assert "out" not in names_in(tmp_path)


def test_settings_that_do_not_fit_are_refused_before_any_work(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyarrowquant.conversion.job.Job.run", None)
    model, out = tmp_path / "model.onnx", tmp_path / "out"
    onnx_model(model, np.float16)
    to = ["quantize", model, out, "--to", "onnx", "--group-size", 32]
    assert "--scale-dtype float16" in failed(*to, "--scale-dtype", "float32")
    assert "zero_point integer or symmetric" in failed(*to, "--zero-point", "float")
    to = ["quantize", llama, out, "--to", "compressed-tensors", "--zero-point", "integer"]
    for option in (["--bits-per-weight", 5], ["--quality-floor", 0.99]):
        assert "--zero-point symmetric" in failed(*to, *option, code=2)
    for text in ("{", "[]"):
        (llama / "config.json").write_text(text)
        assert "config.json" in failed("quantize", llama, out, "--to", "mlx")
    monkeypatch.undo()
    long = tmp_path / ("x" * 230)
    assert "too long" in failed("quantize", model, long, "--to", "gguf", code=2)


@pytest.mark.parametrize(
    ("to", "said", "reason"),
    [
        ("gguf", {"scale_dtype": "bfloat16"}, "its scales are not float16: quantize with "),
        ("gguf", {"group_size": 64}, "group_size 64"),
        ("gguf", {"bits": 3}, "3 bits"),
        ("onnx", {"bits": 5}, "5 bits"),
        ("mlx", {"group_size": 256}, "group_size 256"),
    ],
)
def test_what_all_layers_lack_is_said_once(
    tmp_path: Path, to: str, said: dict[str, object], reason: str
) -> None:
    """Of what a recipe says, which may be for some layers alone."""
    names = [f"layers.{number}.weight" for number in range(9)]
    weights = np.ones((64, 256), np.float32)
    save_file(dict.fromkeys(names, weights), tmp_path / "model.safetensors")
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"rules": [{"match": "layers.*", **said}]}))
    to_format = ["quantize", tmp_path / "model.safetensors", tmp_path / "out", "--to", to]
    error = failed(*to_format, "--recipe", recipe)
    first, second = error.splitlines()
    shown = ", ".join(f"'{name}'" for name in names[:3])
    assert f"cannot hold layers {shown} and 6 more: {reason}" in first
    assert "uantize" in second
