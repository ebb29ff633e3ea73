"""The models that most tests of the command line quantize."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file


@pytest.fixture
def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(6)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (40, 128),
        "model.layers.0.mlp.up_proj.weight": (64, 256),
        "model.layers.0.mlp.down_proj.weight": (128, 64),
        "model.norm.weight": (64,),
    }
    return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


@pytest.fixture
def model(weights: dict[str, np.ndarray], tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_file({**weights, "model.position_ids": np.arange(4)}, path)
    return path


@pytest.fixture
def llama(weights: dict[str, np.ndarray], tmp_path: Path) -> Path:
    """A model folder as transformers has it, as far as writing looks at it."""
    folder = tmp_path / "llama"
    folder.mkdir()
    heads = {"lm_head.weight": weights["model.embed_tokens.weight"]}
    save_file({**weights, **heads}, folder / "model.safetensors")
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    return folder
