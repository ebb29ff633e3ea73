"""What `vllm_decoding` has, for experts: vLLM loads and joins them, and then has floats of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
import vllm_decoding
from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import (
    UnquantizedFusedMoEMethod,
)
from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors_moe import (
    compressed_tensors_moe_w4a4_mxfp4 as mxfp4,
)
from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors_moe import (
    compressed_tensors_moe_w4a4_nvfp4 as nvfp4,
)
from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors_moe import (
    compressed_tensors_moe_w8a8_fp8 as fp8,
)
from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors_moe import (
    compressed_tensors_moe_w8a8_int8 as int8,
)
from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors_moe import (
    compressed_tensors_moe_w8a8_mxfp8 as mxfp8,
)
from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors_moe import (
    compressed_tensors_moe_wna16 as wna16,
)

Layer = Any
JOINED = ("w13", "w2")  # of gate and up, and of down


class NoKernel:
    """What vLLM takes for the kernel that it would choose."""

    @staticmethod
    def is_monolithic() -> bool:
        return False


def parts_of(layer: Layer, joined: str, expert: int) -> SimpleNamespace:
    """Return what one expert has of the layers that vLLM joins, by the names that layers have."""
    prefix = f"{joined}_"
    named = {name: value.data for name, value in layer.named_parameters()}
    found = {
        n.removeprefix(prefix): each[expert] for n, each in named.items() if n.startswith(prefix)
    }
    if "weight_packed" in found:
        found["weight"] = found["weight_packed"]
    if "weight_global_scale" in found:
        (scale,) = found["weight_global_scale"].unique()
        found["weight_global_scale"] = 1 / scale
    return SimpleNamespace(**found)


def decoding(decode: vllm_decoding.Decode) -> Any:
    """Return how a method is to end its loading."""

    def process_weights_after_loading(self: Any, layer: Layer) -> None:
        for joined in JOINED:
            experts = [
                decode(parts_of(layer, joined, i)) for i in range(len(layer.w2_weight_scale))
            ]
            weights = torch.stack(experts).to(torch.get_default_dtype())
            setattr(layer, f"{joined}_weight", torch.nn.Parameter(weights, requires_grad=False))
        plain = UnquantizedFusedMoEMethod(self.moe)
        plain.process_weights_after_loading(layer)
        layer._replace_quant_method(plain)

    return process_weights_after_loading


def of_packed(bits: int) -> vllm_decoding.Decode:
    def decode(layer: Layer) -> torch.Tensor:
        columns = layer.weight_packed.shape[1] * 32 // bits
        codes = vllm_decoding.unpacked(layer.weight_packed, bits, columns)
        scales = vllm_decoding.spread(layer.weight_scale.float(), codes.shape)
        return (codes - 2.0 ** (bits - 1)) * scales

    return decode


def take_these() -> None:
    """Let vLLM take these for experts, in this process."""

    def none(*_: Any, **__: Any) -> tuple[None, type[NoKernel]]:
        return None, NoKernel

    wna16.select_wna16_moe_backend = none
    nvfp4.select_nvfp4_moe_backend = none
    nvfp4.is_global_sf_supported_for_nvfp4_backend = lambda _: False
    mxfp4.MarlinExperts = NoKernel
    mxfp8.select_mxfp8_moe_backend = none
    fp8.select_fp8_moe_backend = none
    int8.select_int8_moe_backend = none

    def of_whole_numbers(self: Any, layer: Layer) -> None:
        decoding(of_packed(self.num_bits))(self, layer)

    for method, ends in (
        (wna16.CompressedTensorsWNA16MoEMethod, of_whole_numbers),
        (nvfp4.CompressedTensorsW4A4Nvfp4MoEMethod, decoding(vllm_decoding.of_nvfp4)),
        (mxfp4.CompressedTensorsW4A4Mxfp4MoEMethod, decoding(vllm_decoding.of_mxfp4)),
        (mxfp8.CompressedTensorsW8A8Mxfp8MoEMethod, decoding(vllm_decoding.of_mxfp8)),
        (fp8.CompressedTensorsW8A8Fp8MoEMethod, decoding(vllm_decoding.of_parts)),
        (int8.CompressedTensorsW8A8Int8MoEMethod, decoding(vllm_decoding.of_parts)),
    ):
        method.process_weights_after_loading = ends
