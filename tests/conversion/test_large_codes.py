"""Codes of FP8 whose finite scales decode to weights that no float of the model is."""

from __future__ import annotations

from pathlib import Path

import hf_folders
import ml_dtypes
import numpy as np
import pytest
from commands import failed, run
from quantized_models import save

from pyarrowquant import convert

UP, HEAD = "model.layers.0.mlp.up_proj.weight", "lm_head.weight"
BY_CLASS = ["compressed-tensors", "bitsandbytes"]
Tensors = dict[str, np.ndarray]


def source(path: Path, name: str, scales: np.ndarray, dtype: str, nan: bool = False) -> Path:
    """Write a model one layer of which is of FP8, whose first code may be NaN."""
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    tensors: Tensors = {key: value.astype(kind) for key, value in hf_folders.llama().items()}
    codes = np.full(tensors[name].shape, 256.0, ml_dtypes.float8_e4m3fn)
    if nan:
        codes[0, 0] = np.nan
    tensors |= {name: codes, f"{name}_scale_inv": scales.astype(np.float32)}
    hf_folders.write(path, dtype=dtype)
    save(path / "model.safetensors", tensors)
    return path


@pytest.mark.parametrize("place", [(0, 0), (3, 1)])
def test_the_file_and_the_layer_are_named(tmp_path: Path, place: tuple[int, int]) -> None:
    scales = np.ones((4, 2))
    scales[place] = 3e38
    model = source(tmp_path / "model", UP, scales, "bfloat16")
    index = place[0] * 128 * 256 + place[1] * 128
    what = f"{model}/model.safetensors: Layer '{UP}' contains NaN or Inf at index {index} (Inf)"
    for to in (*BY_CLASS, "mlx", "parquet"):
        error = failed("quantize", model, tmp_path / to, "--to", to)
        assert what in error
        assert "overflow encountered" not in error
    error = failed("dequantize", model, tmp_path / "plain")
    told = f"Error: {model}/model.safetensors: '{UP}' has Inf at index {index}, which is no weight"
    assert error.startswith(told)
    assert error.count("\n") == 1
    going_on = ["quantize", model, tmp_path / "rest.parquet", "--continue-on-error"]
    done = run(*going_on)
    assert done.exit_code == 0
    assert f"Skipped: Layer '{UP}' contains NaN or Inf" in done.stderr


@pytest.mark.parametrize("to", BY_CLASS)
def test_heads_that_stay_decoded(tmp_path: Path, to: str) -> None:
    scales = np.full((3, 2), 300.0)  # 76,800
    model = source(tmp_path / "model", HEAD, scales, "float16")
    for command in (["quantize", model, tmp_path / "out", "--to", to], ["dequantize", model]):
        error = failed(*command, *([tmp_path / "out"] if command[0] == "dequantize" else []))
        assert f"{model}/model.safetensors: '{HEAD}' decodes to weights of up to " in error
        assert not (tmp_path / "out").exists()
    same = source(tmp_path / "wide", HEAD, scales, "bfloat16")
    assert run("quantize", same, tmp_path / "out", "--to", to).stderr == ""


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("to", BY_CLASS)
def test_codes_of_nan_that_stay_decoded(tmp_path: Path, to: str, dtype: str) -> None:
    model = source(tmp_path / "model", HEAD, np.full((3, 2), 0.001), dtype, nan=True)
    with pytest.warns(UserWarning, match=f"'{HEAD}', which is not quantized, has NaN at index 0"):
        convert(model, tmp_path / "out", to=to)
