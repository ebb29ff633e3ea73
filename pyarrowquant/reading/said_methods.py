"""Which kinds of codes models have, by the quant_method that their config.json says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pyarrowquant.reading.coded_layer import CodedLayer
from pyarrowquant.reading.config import CONFIG, is_of_mlx
from pyarrowquant.reading.numbers import FLOAT8

# Kinds of codes that reading decodes, where they are not called by their coding.
_FP8, _PACKED, _BYTES, _FLAT, _MLX = "FP8", "packed", "8-bit integers", "flat", "MLX"
_FLOATS = frozenset({_FP8, "MXFP8", "MXFP4", "NVFP4"})
_OF_8_BITS = frozenset({_FP8, "MXFP8"})
# Which of them models have, by their quant_method; others may have any.
_KINDS: dict[str, frozenset[str]] = {
    "bitsandbytes": frozenset({_FLAT}),
    "compressed-tensors": _FLOATS | {_BYTES, _PACKED},
    "mxfp4": frozenset({"MXFP4"}),
    **dict.fromkeys(("fp8", "fbgemm_fp8", "mxfp8"), _OF_8_BITS),
    **dict.fromkeys(("modelopt", "modelopt_fp4", "modelopt_mixed"), _FLOATS | {_BYTES}),
    **dict.fromkeys(("quark", "auto-round"), _FLOATS | {_BYTES}),
    # Those of which nothing is decoded.
    **dict.fromkeys(("gptq", "awq", "aqlm", "bitnet", "eetq", "fp_quant", "gguf"), frozenset()),
    **dict.fromkeys(("higgs", "hqq", "quanto", "sinq", "spqr", "torchao", "vptq"), frozenset()),
}


def kind_problem(said: Iterable[Mapping[str, Any]], layer: CodedLayer) -> str | None:
    """Say that a layer is of a kind that no method of config.json has; None if one has it.

    Parameters
    ----------
    said : iterable of mapping
        All that config.json says of how weights are quantized: the parts of a model, and programs
        that have worked one after the other, each say it in a place of their own.
    layer : CodedLayer
    """
    kind = _kind_of(layer)
    others = []
    for each in said:
        kinds, told = _kinds_by(each)
        if kinds is None or kind in kinds:
            return None
        others.append(told)
    if not others:
        return None
    return f"{layer.stored_as}, and {CONFIG} says {others[0]}"


def _kind_of(layer: CodedLayer) -> str:
    if layer.parts["codes"].tensor.dtype == "U32":  # which MLX alone has
        return _MLX
    if layer.coding in FLOAT8:
        return _FP8
    if layer.coding in ("NF4", "FP4"):
        return _FLAT
    return _PACKED if layer.coding.endswith("compressed-tensors") else layer.coding


def _kinds_by(said: Mapping[str, Any]) -> tuple[frozenset[str] | None, str]:
    """Return the kinds that models have of which this is said, None for any; and what it is."""
    if is_of_mlx(said):
        return frozenset({_MLX}), "bits and group_size without a quant_method, as MLX does"
    method = said.get("quant_method")
    kinds = _KINDS.get(method) if isinstance(method, str) else None
    return kinds, f"quant_method {method}"
