"""Models whose weights mlx-lm multiplies or divides when it loads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import failed
from quantized_models import folder

from pyarrowquant import plan

PROJECTION = "model.layers.0.mamba.in_proj.weight"
CONVOLUTION = "model.layers.0.mamba.conv1d.weight"


def falcon_h1(path: Path, convolution: tuple[int, ...], **config: Any) -> Path:
    tensors = {
        PROJECTION: np.ones((128, 64), np.float32),
        CONVOLUTION: np.ones(convolution, np.float32),
    }
    return folder(path, tensors, **{"model_type": "falcon_h1", **config})


def test_a_model_whose_layers_are_multiplied(tmp_path: Path) -> None:
    source = falcon_h1(tmp_path / "model", (96, 1, 4))
    for more in ([], ["--dry-run"]):
        error = failed("quantize", source, tmp_path / "out", "--to", "mlx", *more)
        assert error.startswith(f"Error: '{source}/config.json' has model_type 'falcon_h1', whose ")
        assert error.count("\n") == 1
        assert not (tmp_path / "out").exists()


def test_the_same_as_mlx_has_it(tmp_path: Path) -> None:
    source = falcon_h1(tmp_path / "model", (96, 4, 1))
    planned = plan(source, tmp_path / "out", to="mlx")
    assert [tensor.name for tensor in planned.unquantized] == [CONVOLUTION]


def test_the_same_for_other_engines(tmp_path: Path) -> None:
    source = falcon_h1(tmp_path / "model", (96, 1, 4))
    assert plan(source, tmp_path / "out", to="compressed-tensors", recipe="all").layers
    source = falcon_h1(tmp_path / "llama", (96, 1, 4), model_type="llama")
    assert plan(source, tmp_path / "out", to="mlx").layers


@pytest.mark.parametrize(
    ("config", "is_float"),
    [
        ({"model_type": "baichuan_m1"}, True),
        ({"model_type": "bailing_moe", "norm_head": True}, True),
        ({"model_type": "bailing_moe_linear", "norm_head": True}, True),
        ({"model_type": "bailing_moe", "norm_head": False}, False),
        ({"model_type": "bailing_moe"}, False),
        ({"model_type": "llama", "norm_head": True}, False),
    ],
)
def test_heads_whose_rows_get_another_length(
    tmp_path: Path, config: dict[str, Any], is_float: bool
) -> None:
    names = ("lm_head.weight", "model.layers.0.mlp.dense.weight")
    source = folder(
        tmp_path / "model", {name: np.ones((96, 64), np.float32) for name in names}, **config
    )
    assert json.loads((source / "config.json").read_text())["model_type"] == config["model_type"]
    planned = plan(source, tmp_path / "out", to="mlx", recipe="all")
    kept = {tensor.name: tensor.reason for tensor in planned.unquantized}
    assert kept == ({"lm_head.weight": "heads that mlx-lm scales"} if is_float else {})
