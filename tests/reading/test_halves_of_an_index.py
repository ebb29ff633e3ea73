"""An index that names codes and not their scales, or the reverse: an error before any work."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kinds_of_codes import FIRST, FP8, MLX, SECOND, Tensors, fp8, mlx, packed
from quantized_models import read, save

import pyarrowquant

NORM = {"model.norm.weight": np.ones(8, np.float32)}


def indexed(
    path: Path, tensors: Mapping[str, np.ndarray], config: dict[str, Any], without: set[str]
) -> Path:
    path.mkdir()
    name = "model-00001-of-00001.safetensors"
    save(path / name, tensors)
    said = {"weight_map": {each: name for each in tensors if each not in without}}
    (path / "model.safetensors.index.json").write_text(json.dumps(said))
    (path / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    return path


@pytest.mark.parametrize(
    ("kind", "config", "unnamed", "named"),
    [
        (fp8, FP8, FIRST + "_scale_inv", FIRST),
        (fp8, FP8, FIRST, FIRST + "_scale_inv"),
        (packed, {}, FIRST + "_zero_point", FIRST + "_packed"),
        (mlx, MLX, "model.layers.0.up.biases", FIRST),
    ],
)
def test_a_half_is_named(
    tmp_path: Path,
    kind: Callable[[str], Tensors],
    config: dict[str, Any],
    unnamed: str,
    named: str,
) -> None:
    tensors = {**kind(FIRST), **kind(SECOND), **NORM}
    place = indexed(tmp_path / "m", tensors, config, {unnamed})
    with pytest.raises(ValueError, match="Fetch the files again") as caught:
        pyarrowquant.read_weights(place)
    error = str(caught.value)
    assert error.startswith(f"{place}/model.safetensors.index.json: '{FIRST}")
    assert f"'{unnamed}' is not named, and '{named}' is" in error


def test_both_halves_are_taken_with_a_warning(tmp_path: Path) -> None:
    tensors = {**fp8(FIRST), **fp8(SECOND), **NORM}
    place = indexed(tmp_path / "m", tensors, FP8, set(fp8(FIRST)))
    with pytest.warns(UserWarning, match="does not name all tensors of its shards"):
        assert read(place).keys() == {FIRST, SECOND, "model.norm.weight"}


def test_a_float_that_is_not_named_is_taken_with_a_warning(tmp_path: Path) -> None:
    place = indexed(tmp_path / "m", {**fp8(FIRST), **NORM}, FP8, set(NORM))
    with pytest.warns(UserWarning, match="'model.norm.weight'"):
        assert read(place).keys() == {FIRST, "model.norm.weight"}
