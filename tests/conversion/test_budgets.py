"""A budget of bits together with recipes, floors and what formats hold."""

from __future__ import annotations

import json
from pathlib import Path

import hf_folders
import numpy as np
import pyarrow.parquet as pq
import pytest
from commands import failed, run, succeeded
from mixture_models import GPT_OSS, gpt_oss
from safetensors.numpy import save_file

from pyarrowquant import Recipe, Rule, convert, plan

LAYERS = {
    "a.up.weight": (64, 256),
    "b.up.weight": (64, 256),
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rng = np.random.default_rng(5)
    weights = {name: rng.standard_normal(shape, np.float32) for name, shape in LAYERS.items()}
    weights["b.up.weight"][0] *= 100
    path = tmp_path / "m.safetensors"
    save_file(weights, path)
    return path


def test_bits_that_the_budget_replaces_are_not_refused(source: Path, tmp_path: Path) -> None:
    done = convert(source, tmp_path / "m.gguf", recipe="edge", bits_per_weight=5)
    assert done.layers == 2
    assert "2 bits" in failed("quantize", source, tmp_path / "n.gguf", "--recipe", "edge", code=2)


def test_what_the_budget_leaves_is_refused_before_any_work(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyarrowquant.conversion.job.Job.run", None)
    recipe = tmp_path / "r.json"
    Recipe([Rule("a.*", group_size=64)]).save(recipe)
    said = failed(
        "quantize", source, tmp_path / "m.gguf", "--recipe", recipe, "--bits-per-weight", 5
    )
    assert "cannot hold layer 'a.up.weight': group_size 64" in said


def test_group_sizes_of_a_recipe_are_used(source: Path, tmp_path: Path) -> None:
    recipe = Recipe([Rule("a.*", group_size=32)], default={"group_size": 64, "bit_width": 2})
    convert(source, tmp_path / "m.parquet", recipe=recipe, bits_per_weight=6)
    table = pq.read_table(tmp_path / "m.parquet").sort_by("layer_name")
    assert table["group_size"].to_pylist() == [32, 64]
    assert set(table["bit_width"].to_pylist()) != {2}


def test_zero_points_of_rules_have_the_bits_of_the_format(source: Path, tmp_path: Path) -> None:
    recipe = Recipe([Rule("a.*", zero_point="integer")])
    planned = plan(source, tmp_path / "m.gguf", recipe=recipe, bits_per_weight=8.5)
    widths = {layer.name: layer.settings.bit_width for layer in planned.layers if layer.settings}
    assert widths == {"a.up.weight": 5, "b.up.weight": 8}


def test_a_floor_and_a_budget_hold_together(source: Path, tmp_path: Path) -> None:
    floor = {"relative_error": 0.05}
    done = convert(source, tmp_path / "m.parquet", bits_per_weight=6.6, quality_floor=floor)
    assert done.missed == ()
    assert done.bits_per_weight is not None
    assert done.bits_per_weight <= 6.6
    assert max(pq.read_table(tmp_path / "m.parquet")["relative_error"].to_pylist()) <= 0.05


def test_a_floor_that_a_budget_has_no_room_for_is_said(source: Path, tmp_path: Path) -> None:
    options = ["--bits-per-weight", 3.5, "--quality-floor", "relative_error=0.05"]
    for more in (["--dry-run"], []):
        said = failed("quantize", source, tmp_path / "m.parquet", *options, *more)
        assert "The smallest candidates that pass the quality_floor take 6.0" in said
    assert not (tmp_path / "m.parquet").exists()


def test_layers_that_never_pass_get_the_most_bits(source: Path, tmp_path: Path) -> None:
    options = ["--bits-per-weight", 9, "--quality-floor", "relative_error=1e-9", "--json"]
    said = succeeded("quantize", source, tmp_path / "m.parquet", *options, "--continue-on-error")
    assert len(json.loads(said)["missed"]) == 2
    assert pq.read_table(tmp_path / "m.parquet")["bit_width"].to_pylist() == [8, 8]


@pytest.mark.parametrize("options", [["--bits-per-weight", 5], ["--quality-floor", 0.99]])
def test_models_whose_layers_share_their_bits_are_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[object]
) -> None:
    monkeypatch.setattr("pyarrowquant.conversion.job.Job.run", None)
    folder = tmp_path / "model"
    folder.mkdir()
    weights = np.ones((64, 128), np.float32)
    save_file({"model.layers.0.mlp.up_proj.weight": weights}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"dtype": "float32", "text_config": {}}))
    command = ["quantize", folder, tmp_path / "out", "--to", "compressed-tensors"]
    for more in ([], ["--dry-run"]):
        error = " ".join(failed(*command, *options, *more, code=2).split())
        assert "that have text_config or vision_config only if all layers have" in error
        assert "--bits instead" in error


@pytest.mark.parametrize("to", ["gguf", "parquet", "mlx"])
@pytest.mark.parametrize("floor", [None, 0.5])
def test_a_budget_of_more_than_there_is_needs_no_measuring(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str, floor: float | None
) -> None:
    monkeypatch.setattr("pyarrowquant.conversion.fitting_bits.chosen", None)
    out = tmp_path / to
    done = convert(source, out, to=to, bits_per_weight=12, quality_floor=floor)
    assert done.bits_per_weight > 8
    assert done.layers == 2
    assert not done.missed


def test_a_size_of_more_than_there_is(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(source, tmp_path / "8.gguf", bit_width=8)
    size = (tmp_path / "8.gguf").stat().st_size
    convert(source, tmp_path / "less.gguf", size=size - 1)
    assert (tmp_path / "less.gguf").stat().st_size < size
    monkeypatch.setattr("pyarrowquant.conversion.fitting_bits.chosen", None)
    for name, wanted in (("same.gguf", size), ("more.gguf", 10 * size)):
        convert(source, tmp_path / name, size=wanted)
        assert (tmp_path / name).read_bytes() == (tmp_path / "8.gguf").read_bytes()


def test_weights_that_a_budget_does_not_count_are_said(tmp_path: Path) -> None:
    """Where they are most of the model: all experts of gpt-oss stay floats there."""
    tensors = gpt_oss(coded=False)
    source = hf_folders.write(tmp_path / "model", tensors, model_type="gpt_oss", **GPT_OSS)
    counted = sum(array.size for name, array in tensors.items() if name.endswith("_proj.weight"))
    others = sum(array.size for array in tensors.values()) - counted
    with pytest.warns(UserWarning, match="bits_per_weight=5 is a budget of the") as caught:
        done = convert(source, tmp_path / "out", to="compressed-tensors", bits_per_weight=5)
    (said,) = (str(each.message) for each in caught)
    assert f"the {counted:,} weights that are quantized. The other {others:,} stay floats" in said
    bits = float(said.split("up to ")[1].split()[0])
    assert bits >= done.model_bits_per_weight > bits - 0.5 > 20
    assert "mlp.experts.gate_up_proj" in said
    command = ["quantize", source, tmp_path / "again", "--to", "compressed-tensors"]
    told = run(*command, "--bits-per-weight", 5, "--dry-run")
    assert told.stderr == said.replace("bits_per_weight=5", "--bits-per-weight 5") + "\n"
    convert(source, tmp_path / "mlx", to="mlx", bits_per_weight=5)  # warnings are errors
