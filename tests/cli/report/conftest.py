"""A model and a result of it to report."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from commands import succeeded
from safetensors.numpy import save_file

from pyarrowquant import Recipe, Rule

RECIPE = Recipe(
    [
        Rule("left.*", skip=True),
        Rule("b.*", bit_width=3, group_size=32),
        Rule("c.*", bit_width=8, group_size=-1),
        Rule("d.*", bit_width=5, zero_point="float"),
    ]
)


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(12)
    return {
        "left.weight": rng.standard_normal((8, 8), np.float32),
        "b.weight": rng.standard_normal((40, 100), np.float32),
        "d.weight": rng.standard_normal((24, 3, 5), np.float32).astype(np.float16),
        "c.weight": rng.standard_normal((16, 256), np.float32).astype(ml_dtypes.bfloat16),
        "a.bias": rng.standard_normal(300, np.float32),
    }


@pytest.fixture(scope="module")
def model(weights: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_file(weights, path)
    return path


@pytest.fixture(scope="module")
def result(model: Path) -> Path:
    path = model.with_name("result.parquet")
    RECIPE.save(model.with_name("recipe.json"))
    succeeded("quantize", model, path, "--recipe", model.with_name("recipe.json"))
    return path
