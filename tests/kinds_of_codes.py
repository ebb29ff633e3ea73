"""Layers of 8 rows and 32 columns as each kind of checkpoint has codes, and what config.json says.

Those of gpt-oss are stacks of two matrices of 6 rows and 96 columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from quantized_models import folder, pairs

E4M3 = ml_dtypes.float8_e4m3fn
Tensors = dict[str, np.ndarray]
Changed = Mapping[str, np.ndarray | None]
UP = "model.layers.{}.up.weight"
FIRST, SECOND = UP.format(0), UP.format(1)
EXPERTS = "model.layers.{}.mlp.experts.down_proj"


def fp8(name: str, scale: str = "_scale_inv") -> Tensors:
    return {name: np.ones((8, 32), E4M3), name + scale: np.ones((1, 1), np.float32)}


def comfy(name: str) -> Tensors:
    return {name: np.ones((8, 32), E4M3), name.replace("weight", "scale_weight"): np.float32(1)}


def float_quantized(name: str) -> Tensors:
    return fp8(name, "_scale")


def int8(name: str) -> Tensors:
    rows = np.ones((8, 1), np.float32)
    return {
        name: np.ones((8, 32), np.int8),
        f"{name}_scale": rows,
        f"{name}_zero_point": rows.astype(np.int8),
    }


def nvfp4(name: str) -> Tensors:
    return {
        f"{name}_packed": np.ones((8, 16), np.uint8),
        f"{name}_scale": np.ones((8, 2), E4M3),
        f"{name}_global_scale": np.ones(1, np.float32),
    }


def modelopt(name: str) -> Tensors:
    return {
        name: np.ones((8, 16), np.uint8),
        f"{name}_scale": np.ones((8, 2), E4M3),
        f"{name}_scale_2": np.float32(1),
    }


def packed(name: str) -> Tensors:
    return {
        f"{name}_packed": np.ones((8, 4), np.int32),
        f"{name}_scale": np.ones((8, 1), np.float32),
        f"{name}_zero_point": np.ones((1, 1), np.int32),
        f"{name}_shape": np.int64([8, 32]),
    }


def gpt_oss(name: str) -> Tensors:
    return {
        f"{name}_blocks": pairs(np.ones((2, 6, 3, 32), np.uint8)),
        f"{name}_scales": np.full((2, 6, 3), 127, np.uint8),
    }


def mlx(name: str) -> Tensors:
    module = name.removesuffix(".weight")
    return {
        name: np.ones((8, 4), np.uint32),
        f"{module}.scales": np.ones((8, 1), np.float16),
        f"{module}.biases": np.ones((8, 1), np.float16),
    }


def groups(**weights: Any) -> dict[str, Any]:
    said = {"quant_method": "compressed-tensors", "config_groups": {"group_0": {}}}
    return {"quantization_config": said | {"config_groups": {"group_0": {"weights": weights}}}}


FP8 = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
MLX = {"quantization": {"bits": 4, "group_size": 32}}
ASYMMETRIC = {"type": "int", "symmetric": False}


def model(
    path: Path, kind: Callable[[str], Tensors], config: dict[str, Any], changed: Changed
) -> Path:
    """Write two layers of a kind; of the first one tensor is another, or is missing if None."""
    name = UP
    if kind is gpt_oss:
        name, config = EXPERTS, {"model_type": "gpt_oss", **config}
    tensors = {**kind(name.format(0)), **kind(name.format(1)), **changed}
    left = {key: array for key, array in tensors.items() if array is not None}
    return folder(path, left, **config)


def mxfp4(name: str) -> Tensors:
    return {
        f"{name}_packed": np.ones((8, 16), np.uint8),
        f"{name}_scale": np.full((8, 1), 127, np.uint8),
    }


def mxfp8(name: str) -> Tensors:
    return {name: np.ones((8, 64), E4M3), f"{name}_scale": np.full((8, 2), 127, np.uint8)}


NF4 = np.array(
    [
        *(-1, -0.69619280, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004, 0),
        *(0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1),
    ],
    np.float32,
)


def nf4(name: str) -> Tensors:
    state = b'{"quant_type": "nf4", "blocksize": 64, "shape": [8, 32], "dtype": "float16"}'
    return {
        name: np.ones((128, 1), np.uint8),
        f"{name}.absmax": np.ones(4, np.float32),
        f"{name}.quant_map": NF4,
        f"{name}.quant_state.bitsandbytes__nf4": np.frombuffer(state, np.uint8),
    }
