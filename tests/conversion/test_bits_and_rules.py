"""Bits a weight of layers and of the whole output, and the rules that decide about layers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from commands import run, succeeded
from models import source_for
from safetensors import safe_open
from safetensors.numpy import save_file

from pyarrowquant import Recipe, Rule, convert, plan

SHAPES: dict[str, tuple[int, ...]] = {
    "model.layers.0.mlp.up_proj.weight": (64, 256),
    "model.layers.0.mlp.down_proj.weight": (256, 64),
    "model.norm.weight": (64,),
}
WEIGHTS = 2 * 64 * 256


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(3)
    path = tmp_path / "model"
    path.mkdir()
    tensors = {name: rng.standard_normal(shape, np.float32) for name, shape in SHAPES.items()}
    save_file(tensors, path / "model.safetensors")
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "dtype": "float32"}
    (path / "config.json").write_text(json.dumps(config))
    return path


def bytes_in(path: Path, to: str) -> int:
    """Bytes of the tensors of layers in an output."""
    if to == "gguf":
        import gguf

        tensors = gguf.GGUFReader(path).tensors
        return sum(int(t.n_bytes) for t in tensors if "norm" not in t.name)
    if to == "onnx":
        model = onnx.load(path)
        return sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    with safe_open(path / "model.safetensors", "np") as file:
        names = [n for n in file.keys() if "norm" not in n and not n.endswith("_shape")]  # noqa: SIM118
        header_bytes = int.from_bytes((path / "model.safetensors").read_bytes()[:8], "little")
    header = json.loads((path / "model.safetensors").read_bytes()[8 : 8 + header_bytes])
    return sum(end - begin for begin, end in (header[name]["data_offsets"] for name in names))


@pytest.mark.parametrize(
    ("to", "zero_point"),
    [
        ("gguf", "symmetric"),
        ("gguf", "integer"),
        ("mlx", "float"),
        ("mlx", "symmetric"),
        ("onnx", "symmetric"),
        ("onnx", "integer"),
        ("onnx", "float"),
        ("compressed-tensors", "symmetric"),
        ("compressed-tensors", "integer"),
    ],
)
def test_bits_are_those_of_the_output(
    folder: Path, tmp_path: Path, to: str, zero_point: str
) -> None:
    out = tmp_path / "out"
    done = convert(source_for(folder, to), out, to=to, zero_point=zero_point)
    bits = 8 * bytes_in(out, to)
    assert done.weights == WEIGHTS
    assert done.bits_per_weight == bits / WEIGHTS
    kept = 0 if to == "onnx" else 64
    assert done.model_bits_per_weight == (bits + 32 * kept) / (WEIGHTS + kept)


def test_both_are_said(folder: Path, tmp_path: Path) -> None:
    said = succeeded("quantize", source_for(folder, "gguf"), tmp_path / "a.gguf")
    assert "32,768 weights, 4.50 bits a weight (4.55 over the whole model), relative" in said
    said = succeeded("quantize", folder, tmp_path / "a.parquet")
    assert "32,768 weights, 4.75 bits a weight, relative" in said
    found = json.loads(
        succeeded("quantize", source_for(folder, "gguf"), tmp_path / "b.gguf", "--json")
    )
    assert found["bits_per_weight"] == 4.5
    assert round(found["model_bits_per_weight"], 2) == 4.55


def test_a_resumed_run_says_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrowquant.conversion.job as job

    source = source_for(folder, "gguf")
    whole = convert(source, tmp_path / "whole.gguf", bits_per_weight=5)

    def fails(*_: object) -> None:
        raise OSError("no")

    with monkeypatch.context() as patched:
        patched.setattr(job.Job, "_write", fails)
        assert run("quantize", source, tmp_path / "a.gguf", "--bits-per-weight", 5).exit_code == 1
    done = convert(source, tmp_path / "a.gguf", bits_per_weight=5, resume=True)
    assert (done.bits_per_weight, done.layers) == (whole.bits_per_weight, 2)


def test_layers_are_listed_by_rule(folder: Path, tmp_path: Path) -> None:
    recipe = Recipe([Rule("*up*", bit_width=8), Rule("*norm*", skip=True)], {"bit_width": 3})
    recipe.save(tmp_path / "r.json")
    options = ["--recipe", tmp_path / "r.json", "--dry-run"]
    said = succeeded("quantize", folder, tmp_path / "a.parquet", *options)
    down, up = "model.layers.0.mlp.down_proj.weight", "model.layers.0.mlp.up_proj.weight"
    assert f"  1 with 3 bits in groups of 128: {down}\n" in said
    assert f"  1 with 8 bits in groups of 128, by recipe rule ('*up*'): {up}\n" in said
    assert "Left out, the recipe leaves them out ('*norm*'): model.norm.weight" in said
    found = json.loads(succeeded("quantize", folder, tmp_path / "a.parquet", *options, "--json"))[
        "layers"
    ]
    assert {layer["layer_name"]: layer["rule"] for layer in found}[up] == {
        "match": "*up*",
        "bit_width": 8,
    }
    for budget in (None, 5):
        layers = plan(folder, tmp_path / "a.arrow", recipe=recipe, bits_per_weight=budget).layers
        rules = {layer.name: layer.rule for layer in layers}
        assert rules[up] == Rule("*up*", bit_width=8)
        assert rules[down] is None


def test_rules_that_match_nothing_are_named(folder: Path, tmp_path: Path) -> None:
    mine = [Rule("*up*", bit_width=8), Rule("*q_prj*", bit_width=8)]
    recipe = Recipe([*mine, *Recipe.preset("text").rules])
    recipe.save(tmp_path / "r.json")
    options = ["--recipe", tmp_path / "r.json"]
    for more in (["--dry-run"], []):
        said = run("quantize", folder, tmp_path / "a.parquet", *options, *more)
        assert said.exit_code == 0
        assert "No layer matches: Recipe rule 2 ('*q_prj*')\n" in said.stderr
    said = run("quantize", folder, tmp_path / "b.parquet", "--recipe", "text")
    assert "No layer matches" not in said.stderr
