"""A model in shards, and a run over it that was killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from conversion.killing import DYING_AFTER_TWO, SHARDS


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model of several shards, each of which is a batch."""
    folder = tmp_path / "model"
    folder.mkdir()
    rng = np.random.default_rng(0)
    weight_map = {}
    for shard in range(SHARDS):
        name = f"model-{shard + 1:05d}-of-{SHARDS:05d}.safetensors"
        tensors = {
            f"layers.{shard}.up.weight": rng.standard_normal((64, 128), np.float32),
            f"layers.{shard}.down.weight": rng.standard_normal((128, 64), np.float32),
            f"layers.{shard}.norm": np.ones(64, np.float32),
        }
        save_file(tensors, folder / name)
        weight_map |= dict.fromkeys(tensors, name)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


@pytest.fixture
def interrupted(model: Path, tmp_path: Path) -> Path:
    """The destination of a run that was killed after its second part."""
    out = tmp_path / "out.parquet"
    command = [sys.executable, "-c", DYING_AFTER_TWO, "quantize", model, out]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    return out
