"""Kernels for vLLM on the CPU that decode weights and multiply by them.

vLLM has none of the CPU for these layers. All else is its own: what it makes of config.json, which
layers it joins, and where it loads what of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from vllm.model_executor.layers.quantization.compressed_tensors.schemes import (
    compressed_tensors_w4a4_mxfp4,
    compressed_tensors_w4a4_nvfp4,
    compressed_tensors_w8a8_fp8,
    compressed_tensors_w8a8_mxfp8,
    compressed_tensors_wNa16,
)

E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
Layer = torch.nn.Module
Decode = Callable[[Layer], torch.Tensor]


class Decoding:
    """A kernel of any scheme."""

    def __init__(self, decode: Decode) -> None:
        self._decode = decode

    def process_weights_after_loading(self, layer: Layer) -> None:
        layer.decoded = self._decode(layer).to(torch.get_default_dtype())

    def apply_weights(
        self, layer: Layer, x: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        return torch.nn.functional.linear(x, layer.decoded, bias)

    def input_quant_key(self) -> None:
        """Say that activations are not rounded."""


class Packed(Decoding):
    """Whole numbers of any bits."""

    def __init__(self, config: Any, **names: str) -> None:
        super().__init__(self._unpacked)
        self._bits = config.weight_type.size_bits
        self._columns = config.partition_weight_shape[0]
        self._has_zero_points = config.zero_points

    def _unpacked(self, layer: Layer) -> torch.Tensor:
        scales = layer.weight_scale.float()
        codes = unpacked(layer.weight_packed.data, self._bits, self._columns)
        zeros = torch.tensor(2.0 ** (self._bits - 1))
        if self._has_zero_points:
            packed = layer.weight_zero_point.data.T.contiguous()
            zeros = spread(unpacked(packed, self._bits, len(scales)).T, codes.shape)
        return (codes - zeros) * spread(scales, codes.shape)


def unpacked(words: torch.Tensor, bits: int, columns: int) -> torch.Tensor:
    """Return the codes of rows that are streams of bits, the lowest first."""
    stream = np.unpackbits(words.numpy().view(np.uint8), axis=1, bitorder="little")
    codes = stream[:, : columns * bits].reshape(len(words), columns, bits)
    return torch.from_numpy(codes @ (1 << np.arange(bits))).float()


def spread(each: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Repeat what each group has, or each block, over its values."""
    rows, columns = (-(-whole // part) for whole, part in zip(shape, each.shape, strict=True))
    repeated = each.repeat_interleave(rows, 0).repeat_interleave(columns, 1)
    return repeated[: shape[0], : shape[1]]


def pairs(layer: Layer) -> torch.Tensor:
    """Return the values of codes of which a byte has two, the lower bits first."""
    packed = layer.weight
    codes = torch.stack((packed & 15, packed >> 4), -1).reshape(packed.shape[0], -1).int()
    return E2M1[codes & 7] * torch.where(codes > 7, -1.0, 1.0)


def exponents(layer: Layer) -> torch.Tensor:
    return torch.exp2(layer.weight_scale.float() - 127)


def of_mxfp4(layer: Layer) -> torch.Tensor:
    values = pairs(layer)
    return values * spread(exponents(layer), values.shape)


def of_nvfp4(layer: Layer) -> torch.Tensor:
    values = pairs(layer)
    return values * spread(layer.weight_scale.float(), values.shape) * layer.weight_global_scale


def of_mxfp8(layer: Layer) -> torch.Tensor:
    return layer.weight.float() * spread(exponents(layer), layer.weight.shape)


def of_parts(layer: Layer) -> torch.Tensor:
    return layer.weight.float() * spread(layer.weight_scale.float(), layer.weight.shape)


def take_these() -> None:
    """Let vLLM take these kernels in this process."""

    def of(decode: Decode) -> Callable[..., Decoding]:
        return lambda *_, **__: Decoding(decode)

    whole = compressed_tensors_w8a8_fp8.init_fp8_linear_kernel

    def of_blocks(*, weight_quant_key: Any, **others: Any) -> Any:
        if weight_quant_key.scale.group_shape.row > 1:
            return Decoding(of_parts)
        return whole(weight_quant_key=weight_quant_key, **others)

    compressed_tensors_w4a4_mxfp4.init_mxfp4_linear_kernel = of(of_mxfp4)
    compressed_tensors_w4a4_nvfp4.init_nvfp4_linear_kernel = of(of_nvfp4)
    compressed_tensors_w8a8_mxfp8.init_mxfp8_linear_kernel = of(of_mxfp8)
    compressed_tensors_w8a8_fp8.init_fp8_linear_kernel = of_blocks
    compressed_tensors_wNa16.choose_mp_linear_kernel = lambda _: Packed
