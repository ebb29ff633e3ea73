"""What serves codes that are not there, or floats, so that a model would lack the layer."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pyarrowquant._core.quoting import quoted
from pyarrowquant.reading.beside import SCALES, WEIGHT
from pyarrowquant.reading.config import CONFIG
from pyarrowquant.reading.numbers import FLOAT8
from pyarrowquant.reading.said import Said
from pyarrowquant.reading.stored import Stored
from pyarrowquant.reading.tensors import FLOATS, Tensor

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


def lone_problem(tensor: Tensor, stored: Mapping[str, Stored], said: Said) -> str | None:
    """Say of a tensor that is part of no layer what it lacks to be; None of others.

    Parameters
    ----------
    tensor : Tensor
    stored : mapping of str to Stored
        All tensors of the model.
    said : Said
        What config.json says.
    """
    return _uncoded_problem(tensor, stored, said) or _orphan_problem(tensor, stored, said)


def _uncoded_problem(tensor: Tensor, stored: Mapping[str, Stored], said: Said) -> str | None:
    """Say of a weight of floats that it should be codes, as it has a scale.

    Some programs write scales beside floats, which config.json then says.
    """
    if tensor.dtype not in FLOATS or not tensor.name.endswith(WEIGHT):
        return None
    scale = next((name for end in SCALES if (name := tensor.name + end) in stored), None)
    if scale is None or (key := said.key_of_codes) is None:
        return None
    return f"it has dtype {tensor.dtype}, {quoted(scale)} is there, and {CONFIG} says {key}"


def _orphan_problem(tensor: Tensor, stored: Mapping[str, Stored], said: Said) -> str | None:
    """Say what is missing beside a tensor that serves codes."""
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
    if found is None or (weight := f"{found['module']}.weight") in stored:
        return None
    is_there = said.is_of_mlx_with(found["module"], stored)
    return f"{quoted(weight)} is missing" if is_there else None
