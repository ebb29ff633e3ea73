"""What engines do not load, though compressed-tensors can hold it."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping

from pyarrowquant._core.group_sizes import BLOCK, TENSOR
from pyarrowquant._core.layout import Coded
from pyarrowquant._core.quoting import first_names
from pyarrowquant.errors import users_level
from pyarrowquant.formats._compressed_config import EXPERT
from pyarrowquant.formats._compressed_schemes import scheme_of
from pyarrowquant.formats._fused import one_scheme, sets_of
from pyarrowquant.reading.tensors import Tensor


def warn_of_different(
    layers: Mapping[str, Coded], tensors: Mapping[str, Tensor], int8: bool
) -> None:
    """Warn of layers that engines join, and which have different schemes."""
    matrices = [name for name, tensor in tensors.items() if len(tensor.shape) == 2]
    different = []
    for names in sets_of(matrices, one_scheme):
        schemes = {scheme_of(layers[name], int8) if name in layers else None for name in names}
        different += names if len(schemes) > 1 else []
    if different:
        warnings.warn(
            "vLLM joins these layers to others, and does not load them where their settings "
            f"differ, or some are not quantized: {first_names(sorted(different))}",
            UserWarning,
            stacklevel=users_level(),
        )


def warn_of_experts(layers: Iterable[Coded]) -> None:
    """Warn of experts that transformers loads wrong, or that it or vLLM does not load."""
    experts = [layer for layer in layers if EXPERT.search(layer.name)]
    for found, what in (
        (
            [each.name for each in experts if each.encoding == "nvfp4"],
            "transformers 5.24 loads experts in NVFP4 without their global scale, and so wrong",
        ),
        (
            [each.name for each in experts if each.group_size == BLOCK],
            "transformers 5.24 does not load experts in blocks of FP8",
        ),
        (
            [each.name for each in experts if each.encoding == "mxfp8"],
            "transformers 5.24 does not load experts in MXFP8",
        ),
        (
            [each.name for each in experts if each.group_size == TENSOR],
            "vLLM 0.32 does not load experts in FP8 with one scale a layer",
        ),
    ):
        _warn(found, what)


def warn_of_int8_experts(layers: Iterable[Coded]) -> None:
    """Warn of experts whose activations have 8 bits, as `warn_of_experts` does of others."""
    experts = [layer for layer in layers if EXPERT.search(layer.name)]
    found = [each.name for each in experts if scheme_of(each, int8=True).int8]
    _warn(found, "transformers 5.24 does not load experts with activations of 8 bits")


def _warn(experts: Collection[str], what: str) -> None:
    if experts:
        warnings.warn(
            f"{what}: {first_names(sorted(experts))}. Quantize experts to "
            "another encoding for it, such as fp8 by row or mxfp4",
            UserWarning,
            stacklevel=users_level(),
        )
