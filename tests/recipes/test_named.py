"""Recipes by name, path and plain values, wherever one is taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hf_folders
import numpy as np
import pyarrow as pa
import pytest
from commands import failed, run, succeeded
from conftest import plain

from pyarrowquant import (
    Recipe,
    Rule,
    UsageError,
    convert,
    quantize_batch,
    quantize_batch_arrow,
    quantize_stream,
)

NAMES = ["model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight"]
ARRAYS = {name: np.arange(512, dtype=np.float32).reshape(2, 256) for name in NAMES}
TEXT = {"rules": [{"match": "*embed*", "skip": True}], "default": {"bits": 8}}


def by_convert(recipe: Any) -> list[int]:
    import pyarrow.parquet as pq

    np.savez("in.npz", **ARRAYS)
    convert("in.npz", "out.parquet", recipe=recipe, overwrite=True)
    found: list[int] = pq.read_table("out.parquet")["bit_width"].to_pylist()
    return found


def widths(result: pa.Table) -> list[int]:
    found: list[int] = result["bit_width"].to_pylist()
    return found


TAKERS: dict[str, Callable[[Any], list[int]]] = {
    "quantize_batch_arrow": lambda recipe: widths(quantize_batch_arrow(table(), recipe=recipe)),
    "quantize_batch": lambda recipe: [
        layer["bit_width"] for layer in quantize_batch(ARRAYS, recipe=recipe).values()
    ],
    "quantize_stream": lambda recipe: widths(quantize_stream(table(), recipe=recipe).read_all()),
    "convert": by_convert,
}


def table() -> pa.Table:
    return plain(list(ARRAYS), list(ARRAYS.values()))


@pytest.mark.parametrize("taker", TAKERS)
def test_names_paths_and_dicts(taker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    take = TAKERS[taker]
    Path("mine.json").write_text(json.dumps(TEXT))
    for recipe in (TEXT, "mine.json", Path("mine.json"), Recipe.from_dict(TEXT)):
        assert take(recipe) == [8]
    assert take("text") == [4]
    assert take("edge") == [2, 2]
    assert take("text-cloud") == [8]


def test_fitting_takes_them_too() -> None:
    fitted = Recipe.fit(table(), 8, recipe="text")
    assert fitted.settings_of(NAMES[0], (2, 256)) is None
    assert fitted.settings_of(NAMES[1], (2, 256)) is not None


def test_what_is_no_recipe_names_what_is_near() -> None:
    with pytest.raises(UsageError, match=r"'txt' is no file, and none of .* Did you mean 'text'\?"):
        quantize_batch_arrow(table(), recipe="txt")


def test_a_recipe_extends_another_one() -> None:
    said = {
        "extends": "text-local",
        "rules": [{"match": "*up_proj*", "bits": 6}],
        "default": {"group_size": 64},
    }
    recipe = Recipe.from_dict(said)
    assert recipe.rules[0] == Rule("*up_proj*", bit_width=6)
    assert recipe.rules[1:] == Recipe.preset("text").rules
    assert recipe.default == Rule(bit_width=4, group_size=64, method="mse")
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert Recipe.from_dict({"extends": "text", "default": "skip"}).default.skip
    assert Recipe.from_yaml("extends: edge").default.bit_width == 2
    with pytest.raises(ValueError, match="Did you mean 'text'"):
        Recipe.from_dict({"extends": "tex"})
    with pytest.raises(TypeError, match="Recipe: extends must be a str, got list"):
        Recipe.from_dict({"extends": ["text"]})


def test_bits_and_bit_width_are_the_same() -> None:
    assert Recipe(default={"bits": 3}) == Recipe(default={"bit_width": 3})
    rules = {"rules": [{"match": "a", "bits": 3}]}
    assert Recipe.from_dict(rules) == Recipe([Rule("a", bit_width=3)])
    assert Recipe.fit(table(), 12, [{"bits": 8}]).rules[0].bit_width == 8
    with pytest.raises(ValueError, match="bits and bit_width mean the same"):
        Recipe(default={"bits": 3, "bit_width": 3})


def test_the_command_line_lists_them() -> None:
    shown = run("recipe", "list")
    lines = shown.stdout.splitlines()
    assert [line.split()[0] for line in lines] == [
        *("text", "diffusion", "vision"),
        *("edge", "local", "cloud", "all"),
        *("FP8_DYNAMIC", "FP8_BLOCK", "MXFP8A16", "NVFP4A16", "MXFP4A16"),
        *("W4A16", "W4A16_ASYM", "W8A16", "W8A8"),
        *("Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_0", "Q4_1", "Q4_K_S", "Q4_K_M", "Q5_0"),
        *("Q5_1", "Q5_K_S", "Q5_K_M", "Q6_K", "Q8_0", "IQ4_NL", "IQ4_XS", "MXFP4_MOE"),
    ]
    assert all(len(line.split()) > 3 for line in lines)
    told = json.loads(run("recipe", "list", "--json").stdout)
    assert list(told) == [line.split()[0] for line in lines]
    for name in told:
        assert run("recipe", "show", name).exit_code == 0


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("FP8", "FP8_DYNAMIC"),
        ("fp8", "FP8_DYNAMIC"),
        ("NVFP4", "NVFP4A16"),
        ("MXFP4", "MXFP4A16"),
        ("MXFP8", "MXFP8A16"),
        ("INT8", "W8A8"),
        ("W4AFP8", "W4A16"),
        ("W3A16", "--bits 3"),
    ],
)
def test_schemes_that_are_not_written_name_the_next(
    tmp_path: Path, name: str, way_out: str
) -> None:
    model = hf_folders.write(tmp_path / "model")
    command = ["quantize", model, tmp_path / "out", "--to", "compressed-tensors"]
    error = failed(*command, "--recipe", name, code=2)
    assert f"Recipe '{name}': the scheme {name.upper()} of compressed-tensors is none" in error
    assert f"Take {way_out}" in error
    if way_out.startswith("--"):
        succeeded(*command, *way_out.split())
    else:
        succeeded(*command, "--recipe", way_out)
