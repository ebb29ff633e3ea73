"""Layers that engines join have one global scale of NVFP4, wherever their weights lie."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from formats.packed_models import read_model
from models import write_two_shards
from safetensors.numpy import save_file

from pyarrowquant import (
    convert,
    dequantize_batch_arrow,
    quantize_batch_arrow,
    read_weights,
)
from pyarrowquant.formats import write_compressed_tensors

ATTENTION, MLP = "model.layers.0.self_attn", "model.layers.0.mlp"
SIZES = {
    f"{ATTENTION}.q_proj.weight": 1.0,
    f"{ATTENTION}.k_proj.weight": 100.0,
    f"{ATTENTION}.v_proj.weight": 1e-3,
    f"{ATTENTION}.o_proj.weight": 3.0,
    f"{MLP}.gate_proj.weight": 1.0,
    f"{MLP}.up_proj.weight": 7.0,
    f"{MLP}.down_proj.weight": 50.0,
}
CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "dtype": "float32"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model in two shards, of which each has a part of what is joined."""
    rng = np.random.default_rng(3)
    weights = {
        name: size * rng.standard_normal((32, 64), np.float32) for name, size in SIZES.items()
    }
    weights[f"{ATTENTION}.v_proj.weight"][:, :16] *= 1e-5  # whose scales the others' leave nothing
    return write_two_shards(tmp_path / "model", weights, CONFIG)


def global_scales(folder: Path) -> dict[str, float]:
    return {
        name.removesuffix("_global_scale"): float(np.frombuffer(data, np.float32)[0])
        for name, (_, _, data) in read_model(folder).items()
        if name.endswith("_global_scale")
    }


@pytest.mark.parametrize("options", [{"recipe": "nvfp4a16"}, {"encoding": "nvfp4"}])
def test_conversions_share_them(model: Path, tmp_path: Path, options: dict[str, str]) -> None:
    convert(model, tmp_path / "out", to="compressed-tensors", **options)
    scales = global_scales(tmp_path / "out")
    assert scales.keys() == SIZES.keys()
    # what divides the scales of the largest alone, by its own: 2688 / amax, rounded to a power of 2
    alone = quantize_batch_arrow(read_weights(model), encoding="nvfp4")
    own = {
        row["layer_name"]: 1 / row["super_scales"][0]
        for row in alone.select(["layer_name", "super_scales"]).to_pylist()
    }
    assert len(set(own.values())) > 4
    for part, layers in ((ATTENTION, "qkv"), (MLP, ("gate", "up"))):
        names = [f"{part}.{layer}_proj.weight" for layer in layers]
        assert {scales[name] for name in names} == {min(own[name] for name in names)}
    for name in (f"{ATTENTION}.o_proj.weight", f"{MLP}.down_proj.weight"):
        assert scales[name] == own[name]


def test_shared_scales_cost_little(model: Path, tmp_path: Path) -> None:
    done = convert(model, tmp_path / "out", to="compressed-tensors", encoding="nvfp4")
    assert done.relative_error < 0.085


def test_results_that_fit_are_written_with_the_scale_of_the_largest(tmp_path: Path) -> None:
    """Tables have a scale for each layer; powers of two are exact."""
    rng = np.random.default_rng(1)
    names = [f"{MLP}.gate_proj.weight", f"{MLP}.up_proj.weight"]
    weights = {
        name: (size * rng.standard_normal((8, 64))).astype(ml_dtypes.bfloat16)
        for name, size in zip(names, (1, 9), strict=True)
    }
    (tmp_path / "model").mkdir()
    save_file(weights, tmp_path / "model" / "model.safetensors")
    (tmp_path / "model" / "config.json").write_text(json.dumps({**CONFIG, "dtype": "bfloat16"}))
    results = quantize_batch_arrow(read_weights(tmp_path / "model"), encoding="nvfp4")
    assert len({tuple(each) for each in results["super_scales"].to_pylist()}) == 2
    write_compressed_tensors(results, tmp_path / "out", model=tmp_path / "model")
    assert len(set(global_scales(tmp_path / "out").values())) == 1
    again = {
        row["layer_name"]: np.frombuffer(row["weights"], np.float32)
        for batch in read_weights(tmp_path / "out")
        for row in batch.to_pylist()
    }
    for row in dequantize_batch_arrow(results).to_pylist():
        np.testing.assert_array_equal(again[row["layer_name"]], row["weights"])


def test_results_that_do_not_fit_are_refused(model: Path, tmp_path: Path) -> None:
    results = quantize_batch_arrow(read_weights(model), encoding="nvfp4")
    with pytest.raises(ValueError, match="its scales are too small for the global scale") as caught:
        write_compressed_tensors(results, tmp_path / "out", model=model)
    assert f"layer '{ATTENTION}.v_proj.weight'" in str(caught.value)
    assert "convert() and `pyarrowquant quantize` choose one global scale" in str(caught.value)
