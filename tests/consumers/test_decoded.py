"""Checkpoints that compressed-tensors packs decode to what it decodes them to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from safetensors.torch import save_file

import pyarrowquant

WEIGHTS = torch.randn(200, 384, generator=torch.Generator().manual_seed(0))
SIZES = WEIGHTS.abs()
FP8 = {"num_bits": 8, "type": "float"}


def largest(columns: int) -> torch.Tensor:
    """The largest size in each group of a row."""
    return SIZES.reshape(200, -1, columns).amax(2)


def in_blocks() -> torch.Tensor:
    padded = torch.zeros(256, 384)
    padded[:200] = SIZES
    return padded.reshape(2, 128, 3, 128).amax((1, 3))


def asymmetric(bits: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    groups = WEIGHTS.reshape(200, -1, columns)
    low, high = groups.amin(2), groups.amax(2)
    scale, least = (high - low) / (2**bits - 1), -(2 ** (bits - 1))
    zero_point = (least - (low / scale).round()).clamp(least, -least - 1)
    return scale, zero_point.to(torch.int8)


def group(bits: int, columns: int = 128, **more: Any) -> dict[str, Any]:
    return {"num_bits": bits, "type": "int", "strategy": "group", "group_size": columns, **more}


ROWS = SIZES.amax(1, keepdim=True)
DIVISOR = (448 * 6 / SIZES.max()).reshape(1)
NVFP4 = (largest(16) / 6 * DIVISOR).to(torch.float8_e4m3fn).float()
CASES: dict[str, tuple[str, dict[str, Any], tuple[torch.Tensor, ...]]] = {
    "tensor": ("float-quantized", {**FP8, "strategy": "tensor"}, ((SIZES.max() / 448).reshape(1),)),
    "rows": ("naive-quantized", {**FP8, "strategy": "channel"}, (ROWS / 448,)),
    "blocks": (
        "float-quantized",
        {**FP8, "strategy": "block", "block_structure": [128, 128]},
        (in_blocks() / 448,),
    ),
    "int8": (
        "int-quantized",
        {"num_bits": 8, "type": "int", "strategy": "channel"},
        (ROWS / 127,),
    ),
    "int8 with zero-points": (
        "int-quantized",
        {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": False},
        asymmetric(8, 384),
    ),
    **{
        f"packed {bits}": ("pack-quantized", group(bits), (largest(128) / (2 ** (bits - 1) - 1),))
        for bits in (2, 3, 4, 5, 6, 8)
    },
    **{
        f"packed {bits} with zero-points": (
            "pack-quantized",
            group(bits, symmetric=False),
            asymmetric(bits, 128),
        )
        for bits in (2, 3, 4, 5, 6, 8)
    },
    "mxfp4": (
        "mxfp4-pack-quantized",
        {**group(4, 32, scale_dtype="torch.uint8"), "type": "float"},
        (2.0 ** torch.floor(torch.log2(largest(32) / 6) + 1),),
    ),
    "mxfp8": (
        "mxfp8-quantized",
        {**group(8, 32, scale_dtype="torch.uint8"), "type": "float"},
        (2.0 ** torch.floor(torch.log2(largest(32) / 448) + 1),),
    ),
    "nvfp4": (
        "nvfp4-pack-quantized",
        {
            **group(4, 16, scale_dtype="torch.float8_e4m3fn"),
            "type": "float",
            "strategy": "tensor_group",
        },
        (NVFP4,),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_compressed_tensors_packs(tmp_path: Path, case: str) -> None:
    name, settings, (scale, *zero_point) = CASES[case]
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**settings))
    compressor = BaseCompressor.get_value_from_registry(name)
    state = {"weight": WEIGHTS, "weight_scale": scale}
    if zero_point:
        state["weight_zero_point"] = zero_point[0]
    if case == "nvfp4":
        state["weight_global_scale"] = DIVISOR
    packed = compressor.compress(state, scheme)
    expected = compressor.decompress(packed, scheme)["weight"].float().numpy()
    module = "model.layers.0.mlp.up_proj"
    save_file(
        {f"{module}.{key}": value.contiguous() for key, value in packed.items()},
        tmp_path / "model.safetensors",
    )
    said = {
        "quant_method": "compressed-tensors",
        "format": name,
        "config_groups": {"group_0": json.loads(scheme.model_dump_json())},
    }
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": said}))
    (row,) = pyarrowquant.read_weights(tmp_path).read_all().to_pylist()
    assert row["layer_name"] == f"{module}.weight"
    found = np.frombuffer(row["weights"], np.float32).reshape(row["shape"])
    if case == "nvfp4":  # whose values pass through bfloat16 there
        np.testing.assert_allclose(found, expected, rtol=2**-7)
    else:
        assert np.array_equal(found, expected)
