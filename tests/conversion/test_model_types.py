"""Folders whose config.json does not say what model they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hf_folders
import pytest
from commands import failed, run, succeeded
from mixture_models import GPT_OSS, gpt_oss
from safetensors.numpy import load_file

from pyarrowquant import UsageError, convert

BY_CLASS = ["compressed-tensors", "bitsandbytes"]


def said_again(folder: Path, **config: Any) -> Path:
    """Change what config.json says; None takes a key out."""
    path = folder / "config.json"
    said = {**json.loads(path.read_text()), **config}
    kept = {key: value for key, value in said.items() if value is not None}
    path.write_text(json.dumps(kept))
    return folder


@pytest.mark.parametrize("options", [[], ["--dry-run"], ["--encoding", "mxfp4"]])
@pytest.mark.parametrize("said", [{}, {"model_type": ""}, {"auto_map": {"AutoModel": "a.B"}}])
def test_mlx_wants_one(tmp_path: Path, said: dict[str, Any], options: list[str]) -> None:
    """Nor would experts be joined: what is written of these lay apart, as floats."""
    source = hf_folders.write(tmp_path / "model", gpt_oss(coded=True), **GPT_OSS)
    said_again(source, model_type=None)
    said_again(source, **said)
    command = ["quantize", source, tmp_path / "out", "--to", "mlx", *options]
    error = failed(*command, code=2)
    assert f"'{source / 'config.json'}' has no model_type" in error
    assert '"model_type": "llama"' in error
    assert "--tensors-only" in error
    assert not (tmp_path / "out").exists()
    said_again(source, model_type="gpt_oss")
    succeeded(*command)
    if "--dry-run" not in options:
        tensors = load_file(tmp_path / "out/model.safetensors")
        assert "model.layers.0.mlp.experts.gate_proj.scales" in tensors


def test_tensors_alone_need_none(tmp_path: Path) -> None:
    source = said_again(hf_folders.write(tmp_path / "model"), model_type=None)
    with pytest.raises(UsageError, match="has no model_type"):
        convert(source, tmp_path / "out", to="mlx")
    done = convert(source, tmp_path / "out", to="mlx", tensors_only=True)
    assert done.layers


@pytest.mark.parametrize("to", BY_CLASS)
def test_transformers_needs_the_class(tmp_path: Path, to: str) -> None:
    source = said_again(hf_folders.write(tmp_path / "model"), model_type=None)
    place = rf"{source}/config\.json' has no model_type: neither AutoModel of transformers nor vLLM"
    with pytest.warns(UserWarning, match=place):
        convert(source, tmp_path / "out", to=to)
    with pytest.warns(UserWarning, match="has no model_type"):
        convert(source, tmp_path / "again", to=to, overwrite=True)
    said_again(source, auto_map={"AutoModel": "own.Model"})
    convert(source, tmp_path / "with-code", to=to)  # warnings are errors


def test_decoded_folders_say_it_too(tmp_path: Path) -> None:
    source = hf_folders.write(tmp_path / "model")
    convert(source, tmp_path / "packed", to="compressed-tensors")
    said_again(tmp_path / "packed", model_type=None)
    told = run("dequantize", tmp_path / "packed", tmp_path / "plain")
    assert told.exit_code == 0
    assert f"'{tmp_path}/packed/config.json' has no model_type" in told.stderr


@pytest.mark.parametrize("kind", [5, ["llama"], {"a": 1}, True])
@pytest.mark.parametrize("to", [*BY_CLASS, "mlx"])
def test_what_is_no_text(tmp_path: Path, to: str, kind: object) -> None:
    source = said_again(hf_folders.write(tmp_path / "model"), model_type=kind)
    error = failed("quantize", source, tmp_path / "out", "--to", to)
    assert f"'{source / 'config.json'}' has model_type {json.dumps(kind)}, which must be" in error
    assert error.count("\n") == 1
