"""What serves codes that are not there, so that a model would lack the layer."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pyarrowquant._core.quoting import quoted
from pyarrowquant.reading.numbers import FLOAT8
from pyarrowquant.reading.said import Said
from pyarrowquant.reading.stored import Stored
from pyarrowquant.reading.tensors import Tensor

# Of compressed-tensors, FP8 and bitsandbytes; plain models have none by these names.
_SERVING = re.compile(
    r"(?P<weight>(?:.+\.)?weight)(?:_shape|_zero_point|_g_idx|_global_scale|_scale_2|_scale_inv|"
    r"\.absmax|\.quant_map|\.nested_absmax|\.nested_quant_map|\.quant_state\..+)",
    re.DOTALL,
)
_PACKED = re.compile(r"(?:.+\.)?weight_packed", re.DOTALL)
_SCALE = re.compile(r"(?P<weight>(?:.+\.)?weight)_scale", re.DOTALL)
_BESIDE = re.compile(r"(?P<stem>.+\.)q?scale_weight", re.DOTALL)  # of FP8 by other programs
_OF_BLOCKS = re.compile(r"(?P<layer>.+)_scales", re.DOTALL)  # of gpt-oss
_OF_MLX = re.compile(r"(?P<module>.+)\.(?:scales|biases)", re.DOTALL)


def orphan_problem(tensor: Tensor, stored: Mapping[str, Stored], said: Said) -> str | None:
    """Say what is missing beside a tensor that is none of a layer; None of others.

    Parameters
    ----------
    tensor : Tensor
    stored : mapping of str to Stored
        All tensors of the model.
    said : Said
        What config.json says.
    """
    name = tensor.name
    if _PACKED.fullmatch(name) and name.removesuffix("_packed") not in stored:
        return (
            f"it has dtype {tensor.dtype} and shape {quoted(list(tensor.shape))}, and must be a "
            "matrix of I32 or U8"
        )
    found = _SERVING.fullmatch(name) or _SCALE.fullmatch(name)
    if found is not None and (found.re is _SERVING or said.method is not None):
        weight = found["weight"]
        is_there = weight in stored or f"{weight}_packed" in stored
        return None if is_there else f"{quoted(weight)} is missing"
    if tensor.dtype == "U8" and (found := _OF_BLOCKS.fullmatch(name)) is not None:
        blocks = f"{found['layer']}_blocks"
        is_there = blocks in stored or found["layer"] in stored
        return None if is_there else f"{quoted(blocks)} is missing"
    if (found := _BESIDE.fullmatch(name)) is not None and f"{found['stem']}weight" not in stored:
        is_of_fp8 = any(one.tensor.dtype in FLOAT8 for one in stored.values())
        return f"{quoted(found['stem'] + 'weight')} is missing" if is_of_fp8 else None
    found = _OF_MLX.fullmatch(name)
    if found is not None and (weight := f"{found['module']}.weight") not in stored:
        of_module = said.mlx(found["module"])
        is_affine = of_module is None or of_module.get("mode", "affine") == "affine"
        needed = ("scales", "biases") if is_affine else ("scales",)
        if said.is_of_mlx and all(f"{found['module']}.{end}" in stored for end in needed):
            return f"{quoted(weight)} is missing"
    return None
