"""Quantizers that work on torch tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from quantizer import THREADS, Prepared, UnavailableError, bits_of


def tensor_of(weights: np.ndarray) -> Any:
    """The same memory as a tensor; from now on torch uses as many threads as all others."""
    import torch

    torch.set_num_threads(THREADS)
    return torch.from_numpy(weights)


def torchao(weights: np.ndarray) -> Prepared:
    """Codes of 4 bits, a byte each."""
    tensor = tensor_of(weights)
    import torch
    from torchao.quantization.quant_primitives import (
        MappingType,
        choose_qparams_affine,
        dequantize_affine,
        quantize_affine,
    )

    block = (1, 128)

    def call() -> Any:
        scale, zero = choose_qparams_affine(
            tensor, MappingType.ASYMMETRIC, block, torch.uint8, quant_min=0, quant_max=15
        )
        codes = quantize_affine(tensor, block, scale, zero, torch.uint8, 0, 15)
        return codes, scale, zero

    def decode(result: Any) -> np.ndarray:
        codes, scale, zero = result
        return dequantize_affine(codes, block, scale, zero, torch.uint8, 0, 15).numpy()

    return Prepared(call, decode, lambda result: bits_of(*result))


def hqq(bits: int, group_size: int, axis: int = 1) -> Callable[[np.ndarray], Prepared]:
    """Half-quadratic quantization.

    axis 1 has groups along rows, as everybody else; 0, its default, takes a group's weights from
    all over the matrix. Scales and zero-points are kept as HQQ's own layers keep them, as float16.
    HQQ packs 2 bits only if the number of groups is a multiple of 4: groups of zeros are added,
    and counted.
    """

    def prepare(weights: np.ndarray) -> Prepared:
        groups = weights.reshape(-1, group_size)
        padded = np.pad(groups, ((0, -len(groups) % 4), (0, 0)))
        tensor = tensor_of(padded if axis == 1 else weights)
        import torch
        from hqq.core.quantize import Quantizer

        def call() -> Any:
            codes, meta = Quantizer.quantize(
                tensor, nbits=bits, group_size=group_size, axis=axis, device="cpu"
            )
            meta["scale"], meta["zero"] = meta["scale"].half(), meta["zero"].half()
            return codes, meta

        def decode(result: Any) -> np.ndarray:
            codes, meta = result
            wide = {"scale": meta["scale"].float(), "zero": meta["zero"].float()}
            wide["compute_dtype"] = torch.float32
            decoded = Quantizer.dequantize(codes, {**meta, **wide}).numpy()
            return decoded.reshape(-1, group_size)[: len(groups)].reshape(weights.shape)

        def stored_bits(result: Any) -> int:
            codes, meta = result
            return bits_of(codes, meta["scale"], meta["zero"])

        return Prepared(call, decode, stored_bits)

    return prepare


def sinq(bits: int, group_size: int) -> Callable[[np.ndarray], Prepared]:
    """SINQ as its configuration "sinq" has it: rows and columns are normalized before rounding.

    Scales and zero-points get 8 bits, and what they are multiples of counts as float16, as do the
    factors of columns.
    """

    def prepare(weights: np.ndarray) -> Prepared:
        tensor = tensor_of(weights)
        import torch
        from sinq.sinqlinear import Quantizer, sinq_base_quant_config

        config = sinq_base_quant_config(nbits=bits, group_size=group_size, method="sinq")

        def call() -> Any:
            return Quantizer.quantize(
                tensor,
                None,
                device="cpu",
                compute_dtype=torch.float32,
                **config["weight_quant_params"],
            )

        def stored_bits(result: Any) -> int:
            codes, meta = result
            small = [meta["scale"][0], meta["zero"][0]]
            halves = [meta["scale2"], *meta["scale"][1:3], *meta["zero"][1:3]]
            return bits_of(codes, *small, *(each.half() for each in halves))

        return Prepared(call, lambda result: Quantizer.dequantize(*result).numpy(), stored_bits)

    return prepare


def llmcompressor(
    observer: str, bits: int, group_size: int, symmetric: bool = False
) -> Callable[[np.ndarray], Prepared]:
    """An observer of llm-compressor chooses scales, compressed-tensors quantizes and packs.

    Scales are rounded to float16 before codes are chosen, as they are for a float16 model.
    """

    def prepare(weights: np.ndarray) -> Prepared:
        tensor = tensor_of(weights)
        import torch
        from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
        from compressed_tensors.quantization import QuantizationArgs
        from compressed_tensors.quantization.lifecycle.forward import dequantize, quantize
        from llmcompressor.observers import Observer

        def arguments() -> Any:
            return QuantizationArgs(
                num_bits=bits, symmetric=symmetric, strategy="group", group_size=group_size
            )

        def call() -> Any:
            args = arguments()
            chosen = Observer.load_from_registry(observer, base_name="weight", args=args)
            found = chosen(tensor).get_qparams()
            scale, zero = found["scale"].half(), found["zero_point"]
            codes = quantize(tensor, scale.float(), zero, args, dtype=torch.int8)
            packed = pack_to_int32(codes, bits), pack_to_int32(zero.to(torch.int8), bits, 0)
            return codes, scale, zero, packed

        def decode(result: Any) -> np.ndarray:
            codes, scale, zero, _ = result
            return dequantize(codes, scale.float(), zero, arguments()).numpy()

        def stored_bits(result: Any) -> int:
            _, scale, _, (codes, zero) = result
            return bits_of(scale, codes) if symmetric else bits_of(scale, codes, zero)

        return Prepared(call, decode, stored_bits)

    return prepare


def nf4(double: bool) -> Callable[[np.ndarray], Prepared]:
    """NF4 of bitsandbytes in blocks of 64; `double` quantizes their scales to 8 bits as well."""

    def prepare(weights: np.ndarray) -> Prepared:
        tensor = tensor_of(weights)
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit

        def call() -> Any:
            return quantize_4bit(tensor, blocksize=64, quant_type="nf4", compress_statistics=double)

        def stored_bits(result: Any) -> int:
            codes, state = result
            nested = [state.state2.absmax, state.offset] if state.nested else []
            return bits_of(codes, state.absmax, *nested)

        try:
            call()
        except (RuntimeError, NotImplementedError) as failed:
            raise UnavailableError(f"bitsandbytes on this CPU: {failed}") from failed
        return Prepared(call, lambda result: dequantize_4bit(*result).numpy(), stored_bits)

    return prepare
