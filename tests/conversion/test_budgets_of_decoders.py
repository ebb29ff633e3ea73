"""Budgets of language models: kinds of layers that matter more for predictions get more bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pyarrowquant import convert, plan

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")


def saved(path: Path, names: list[str]) -> Path:
    """Write matrices with weights of the same kind, of all sizes."""
    rng = np.random.default_rng(0)
    weights = {
        name: rng.standard_normal((64, 128), np.float32) * np.float32(10 ** rng.uniform(-2, 1))
        for name in names
    }
    save_file(weights, path)
    return path


def decoder() -> list[str]:
    attention = [f"self_attn.{name}" for name in ATTENTION]
    modules = [*attention, *(f"mlp.{name}" for name in FEED_FORWARD)]
    return [f"model.layers.{i}.{module}.weight" for i in range(3) for module in modules]


def widths(model: Path, bits: float) -> dict[str, list[int]]:
    planned = plan(model, model.with_name("out"), to="parquet", bits_per_weight=bits)
    found: dict[str, list[int]] = {}
    for layer in planned.layers:
        assert layer.settings is not None
        found.setdefault(layer.name.split(".")[-2], []).append(layer.settings.bit_width)
    return found


@pytest.mark.parametrize("bits", [4.7, 5.3, 6])
def test_what_matters_more_gets_more_bits_whatever_the_size_of_its_weights(
    tmp_path: Path, bits: float
) -> None:
    found = widths(saved(tmp_path / "m.safetensors", decoder()), bits)
    mean = {name: np.mean(each) for name, each in found.items()}
    assert mean["v_proj"] > mean["up_proj"] >= mean["gate_proj"]
    assert mean["v_proj"] >= mean["down_proj"] >= mean["q_proj"]
    assert mean["o_proj"] >= mean["q_proj"]
    done = convert(tmp_path / "m.safetensors", tmp_path / "m.parquet", bits_per_weight=bits)
    assert done.bits_per_weight <= bits


def test_errors_of_other_models_count_as_they_are(tmp_path: Path) -> None:
    names = [f"encoder.layer.{i}.output.dense.weight" for i in range(4)]
    model = saved(tmp_path / "m.safetensors", names)
    planned = plan(model, tmp_path / "out", to="parquet", bits_per_weight=5)
    found = {layer.name: layer.settings.bit_width for layer in planned.layers if layer.settings}
    sizes = {name: np.abs(weights).mean() for name, weights in load_file(model).items()}
    by_size = sorted(names, key=lambda name: sizes[name])
    assert [found[name] for name in by_size] == sorted(found.values())
    assert len(set(found.values())) > 1
