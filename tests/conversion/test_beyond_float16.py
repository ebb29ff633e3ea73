"""Layers of FP8 that decode to more than float16 has, which config.json says is the dtype."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from quantized_models import folder

from conversion.killing import killed_after
from pyarrowquant import convert
from pyarrowquant.conversion.partial.work import Work

NAME = "model.layers.0.mlp.up_proj.weight"
OPTIONS: list[dict[str, Any]] = [
    {"recipe": "FP8_DYNAMIC"},
    {"recipe": "NVFP4A16"},
    {"recipe": "W8A8"},
    {"to": "bitsandbytes"},
    {"to": "bitsandbytes", "double": True},
    {"to": "mlx", "encoding": "mxfp4"},
    {"to": "mlx", "scale_dtype": "float32"},
]


def fp8(path: Path, largest: float, dtype: str) -> Path:
    """Write a layer of two scales, with which weights are up to `largest`."""
    codes = np.random.default_rng(0).integers(-16, 17, (256, 128)).astype(np.float32)
    codes[130, 5] = 16
    tensors = {
        NAME: codes.astype(ml_dtypes.float8_e4m3fn),
        f"{NAME}_scale_inv": np.float32([[0.01], [largest / 16]]),
    }
    said = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    return folder(path, tensors, quantization_config=said, dtype=dtype)


def arguments(options: dict[str, Any]) -> dict[str, Any]:
    return {"to": "compressed-tensors", **options}


@pytest.mark.filterwarnings("ignore:Quantized already")
@pytest.mark.parametrize("options", OPTIONS)
def test_they_are_told(tmp_path: Path, options: dict[str, Any]) -> None:
    source = fp8(tmp_path / "model", 131072, "float16")
    told = f"'{source}': layer '{NAME}' decodes to weights of up to 1[0-9]+, .* float16 is 65504"
    with pytest.warns(UserWarning, match=told) as caught:
        convert(source, tmp_path / "out", **arguments(options))
    assert len([each for each in caught if "65504" in str(each.message)]) == 1


@pytest.mark.filterwarnings("ignore:Quantized already")
@pytest.mark.parametrize(("largest", "dtype"), [(16384, "float16"), (131072, "bfloat16")])
@pytest.mark.parametrize("options", OPTIONS)
def test_what_the_dtype_has_is_not(
    tmp_path: Path, options: dict[str, Any], largest: float, dtype: str
) -> None:
    source = fp8(tmp_path / "model", largest, dtype)
    convert(source, tmp_path / "out", **arguments(options))  # warnings are errors


@pytest.mark.filterwarnings("ignore:Quantized already")
@pytest.mark.parametrize("more", [{}, {"continue_on_error": True}])
def test_a_resumed_run_tells_them(tmp_path: Path, more: dict[str, Any]) -> None:
    source = fp8(tmp_path / "model", 131072, "float16")
    options = {"to": "compressed-tensors", "recipe": "FP8_DYNAMIC", **more}
    with killed_after(Work, "publish", 1):
        convert(source, tmp_path / "out", **options)
    with pytest.warns(UserWarning, match="float16 is 65504") as caught:
        convert(source, tmp_path / "out", resume=True, **options)
    assert len([each for each in caught if "65504" in str(each.message)]) == 1
