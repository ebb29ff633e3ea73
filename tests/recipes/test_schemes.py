"""Schemes of compressed-tensors as recipes: for tables, and for its folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import failed, run
from conftest import plain
from safetensors.numpy import save_file

from pyarrowquant import Recipe, Rule, UsageError, convert, plan, quantize_batch_arrow
from pyarrowquant.recipes.schemes import SCHEMES

UP, HEAD = "model.layers.0.mlp.up_proj.weight", "lm_head.weight"
EMBEDDING = "model.embed_tokens.weight"
ARRAYS = {
    name: np.random.default_rng(i).standard_normal((128, 256), np.float32)
    for i, name in enumerate((UP, HEAD, EMBEDDING))
}
# Encoding, bits and group of each, as tables have them.
EXPECTED = {
    "FP8_DYNAMIC": ("fp8", 8, -1),
    "FP8_BLOCK": ("fp8", 8, 128),
    "MXFP8A16": ("mxfp8", 8, 32),
    "NVFP4A16": ("nvfp4", 4, 16),
    "MXFP4A16": ("mxfp4", 4, 32),
    "W4A16": ("int", 4, 128),
    "W4A16_ASYM": ("int", 4, 128),
    "W8A16": ("int", 8, 128),
    "W8A8": ("int", 8, -1),
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(ARRAYS, folder / "model.safetensors")
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("name", EXPECTED)
def test_tables(name: str) -> None:
    assert EXPECTED.keys() == SCHEMES.keys()
    table = plain(list(ARRAYS), list(ARRAYS.values()))
    for recipe in (name, name.lower(), Recipe.preset(name.title()), {"extends": name}):
        (row,) = quantize_batch_arrow(table, recipe=recipe).to_pylist()
        assert row["layer_name"] == UP
        found = (row.get("encoding", "int"), row["bit_width"], row["group_size"])
        assert found == EXPECTED[name]


def test_folders_of_the_first_and_the_last(model: Path, tmp_path: Path) -> None:
    """The method is free, and what is left out is what the preset text leaves out."""
    done = convert(model, tmp_path / "w8", to="compressed-tensors", recipe="w8a8", method="rtn")
    assert (done.mix, done.layers) == ("W8A8", 1)
    config = json.loads((tmp_path / "w8" / "config.json").read_text())["quantization_config"]
    assert config["format"] == "int-quantized"
    assert config["config_groups"]["group_0"]["input_activations"]["dynamic"] is True
    by_settings: dict[str, Any] = {"bit_width": 8, "group_size": -1, "zero_point": "symmetric"}
    convert(model, tmp_path / "w16", to="compressed-tensors", **by_settings)
    config = json.loads((tmp_path / "w16" / "config.json").read_text())["quantization_config"]
    assert config["format"] == "pack-quantized"
    assert "input_activations" not in config["config_groups"]["group_0"]


def test_recipes_extend_them(model: Path, tmp_path: Path) -> None:
    recipe = Recipe.from_dict({"extends": "w4a16", "rules": [{"match": "lm_head*", "bits": 8}]})
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert recipe == Recipe([Rule("lm_head*", bit_width=8)], extends="W4A16")
    planned = plan(model, tmp_path / "out", to="compressed-tensors", recipe=recipe)
    widths = {layer.name: layer.settings and layer.settings.bit_width for layer in planned.layers}
    assert widths == {UP: 4, HEAD: 8, EMBEDDING: None}
    assert recipe.decisions.outcome(HEAD, (128, 256))[0].bit_width == 8
    assert recipe.decisions.outcome(UP, (128, 256))[0] == recipe.resolved.default


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--to", "onnx"], "--recipe W4A16 is none of --to onnx: W4A16 is of parquet, arrow and "),
        (["--to", "mlx"], "--recipe W4A16 is none of --to mlx"),
        (["--to", "compressed-tensors", "--bits", 8], "leave out --bits"),
        (["--to", "compressed-tensors", "--bits-per-weight", 5], "leave out --bits-per-weight"),
    ],
)
def test_what_does_not_go_with_them(
    model: Path, tmp_path: Path, options: list[object], said: str
) -> None:
    for more in (["--dry-run"], []):
        command = ["quantize", model, tmp_path / "out.onnx", "--recipe", "w4a16", *options, *more]
        assert said in failed(*command, code=2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--encoding", "fp8", "--group-size", 64], "group_size 64 is none that fp8 has there"),
        (["--encoding", "nf4"], "holds encoding 'int', 'fp8', 'mxfp8', 'mxfp4', 'nvfp4', and not"),
    ],
)
def test_settings_that_no_scheme_has(
    model: Path, tmp_path: Path, options: list[object], said: str
) -> None:
    command = ["quantize", model, tmp_path / "out", "--to", "compressed-tensors", "--dry-run"]
    result = run(*command, *options)
    assert result.exit_code in (1, 2)
    assert said in result.stderr


def test_they_are_shown() -> None:
    shown = run("recipe", "show", "fp8_block")
    assert json.loads(shown.stdout) == {"name": "FP8_BLOCK", "extends": "FP8_BLOCK"}
    assert "the rules of the preset text, and encoding fp8, group_size block" in shown.stderr
    with pytest.raises(UsageError, match=r"Did you mean 'W4A16'\?"):
        quantize_batch_arrow(plain([UP], [ARRAYS[UP]]), recipe="w4a61")
