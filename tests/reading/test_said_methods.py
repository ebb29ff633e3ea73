"""Each method that config.json may say, with each kind of codes that a file may have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import failed
from kinds_of_codes import (
    MLX,
    Tensors,
    float_quantized,
    fp8,
    gpt_oss,
    int8,
    mlx,
    model,
    modelopt,
    mxfp4,
    mxfp8,
    nf4,
    nvfp4,
    packed,
)
from quantized_models import read

import pyarrowquant

KINDS = [fp8, float_quantized, mxfp8, int8, nvfp4, modelopt, mxfp4, gpt_oss, packed, nf4]
OF_8_BITS = {fp8, float_quantized, mxfp8}
FLOATS = OF_8_BITS | {nvfp4, modelopt, mxfp4, gpt_oss}
# What each method's programs write, as their documentation has it.
METHODS: dict[str, set[Callable[[str], Tensors]]] = {
    "fp8": OF_8_BITS,
    "fbgemm_fp8": OF_8_BITS,
    "mxfp8": OF_8_BITS,
    "mxfp4": {mxfp4, gpt_oss},
    "compressed-tensors": FLOATS | {int8, packed},
    "modelopt": FLOATS | {int8},
    "modelopt_fp4": FLOATS | {int8},
    "quark": FLOATS | {int8},
    "auto-round": FLOATS | {int8},
    "bitsandbytes": {nf4},
    "gptq": set(),
    "awq": set(),
    "torchao": set(),
    "quanto": set(),
    "hqq": set(),
    "one-of-next-year": set(KINDS),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_a_method_has_its_kinds(
    tmp_path: Path, method: str, kind: Callable[[str], Tensors]
) -> None:
    config = {"quantization_config": {"quant_method": method}}
    place = model(tmp_path / "model", kind, config, {})
    if kind in METHODS[method]:
        assert len(read(place)) == 2
        return
    for to in ("mlx", "compressed-tensors", "bitsandbytes"):
        error = failed("quantize", place, tmp_path / "out", "--to", to)
        assert error.startswith(f"Error: {place}/model.safetensors: 'model.layers.0.")
        assert "has codes of " in error
        assert f", and config.json says quant_method {method}. Fetch the files again" in error
        assert error.count("\n") == 1
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_mlx_has_its_own_alone(tmp_path: Path, kind: Callable[[str], Tensors]) -> None:
    place = model(tmp_path / "model", kind, MLX, {})
    with pytest.raises(ValueError, match="says bits and group_size without a quant_method, as MLX"):
        pyarrowquant.read_weights(place)


@pytest.mark.parametrize("method", ["fp8", "mxfp4", "gptq", "one-of-next-year"])
def test_what_another_place_says_is_enough(tmp_path: Path, method: str) -> None:
    """MLX writes its key beside what came with the weights, which some versions leave there."""
    both: dict[str, Any] = {**MLX, "quantization_config": {"quant_method": method}}
    assert len(read(model(tmp_path / "mlx", mlx, both, {}))) == 2
    part = {"text_config": {"quantization_config": {"quant_method": "fp8"}}}
    assert len(read(model(tmp_path / "part", fp8, {**both, **part}, {}))) == 2
