"""Other quantizers, called as their users call them, with two threads at most.

Each takes one float32 matrix and says how to quantize it, how to decode the result, and how many
bits that takes. Packages are imported when used only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from ggml import ggml
from quantizer import Prepared, Quantizer, bits_of, each
from torch_peers import hqq, llmcompressor, nf4, torchao

GGML_TYPES = ("Q2_K", "Q3_K", "Q4_0", "Q4_1", "Q4_K", "Q5_K", "Q6_K", "Q8_0")


def numpy_formulas(weights: np.ndarray) -> Prepared:
    """The formulas of round-to-nearest in numpy, without packing."""

    def call() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        groups = weights.reshape(-1, 128)
        low = np.minimum(groups.min(axis=1, keepdims=True), 0)
        high = np.maximum(groups.max(axis=1, keepdims=True), 0)
        scale = (high - low) / np.float32(15)
        zero = np.clip(np.rint(-low / scale), 0, 15)
        return np.clip(np.rint(groups / scale + zero), 0, 15).astype(np.uint8), scale, zero

    def decode(result: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
        codes, scale, zero = result
        return ((codes - zero) * scale).reshape(weights.shape)

    return Prepared(call, decode, lambda result: bits_of(*result))


def mlx(bits: int, group_size: int) -> Callable[[np.ndarray], Prepared]:
    """MLX's affine mode; scales and biases as float16, which is what models on disk have."""

    def prepare(weights: np.ndarray) -> Prepared:
        import mlx.core as mx

        array = mx.array(weights)
        mx.eval(array)

        def call() -> Any:
            codes, scales, biases = mx.quantize(array, group_size=group_size, bits=bits)
            result = codes, scales.astype(mx.float16), biases.astype(mx.float16)
            mx.eval(result)
            return result

        def decode(result: Any) -> np.ndarray:
            codes, scales, biases = result
            scales, biases = scales.astype(mx.float32), biases.astype(mx.float32)
            return np.array(mx.dequantize(codes, scales, biases, group_size, bits))

        return Prepared(call, decode, lambda result: bits_of(*result))

    return prepare


def onnxruntime(weights: np.ndarray) -> Prepared:
    from onnxruntime.capi._pybind_state import quantize_matmul_4bits

    columns, rows = weights.shape[1], weights.shape[0]
    transposed = np.ascontiguousarray(weights.T)  # [K, N], as the function takes it
    blocks = columns // 128
    packed = np.zeros((rows, blocks, 64), np.uint8)
    scales = np.zeros(rows * blocks, np.float32)
    zeros = np.zeros(rows * ((blocks + 1) // 2), np.uint8)

    def call() -> object:
        quantize_matmul_4bits(packed, transposed, scales, zeros, 128, rows, columns, False)
        return packed

    def decode(_: object) -> np.ndarray:
        codes = np.stack([packed & 15, packed >> 4], axis=-1).reshape(-1, 128).astype(np.float32)
        zero = np.stack([zeros & 15, zeros >> 4], axis=-1).reshape(rows, -1)[:, :blocks]
        zero = zero.reshape(-1, 1).astype(np.float32)
        return ((codes - zero) * scales[:, None]).reshape(weights.shape)

    return Prepared(call, decode, lambda _: bits_of(packed, scales, zeros))


# 4 bits each, for the comparison of speed. HQQ takes a hundred times as long as the others.
SPEED_PEERS = {
    "numpy": Quantizer("numpy", "numpy", each(numpy_formulas)),
    "ggml Q4_0": Quantizer("ggml", "ggml Q4_0", each(ggml("Q4_0"))),
    "ggml Q4_1": Quantizer("ggml", "ggml Q4_1", each(ggml("Q4_1"))),
    "MLX": Quantizer("MLX", "MLX", each(mlx(4, 128))),
    "onnxruntime": Quantizer("onnxruntime", "onnxruntime", each(onnxruntime)),
    "torchao": Quantizer("torchao", "torchao", each(torchao)),
    "torch HQQ": Quantizer("torch HQQ", "torch HQQ", each(hqq(4, 128, axis=0)), fraction=8),
    "torch HQQ, axis 1": Quantizer("torch HQQ", "torch HQQ, axis 1", each(hqq(4, 128)), fraction=8),
}


def quality_peers() -> Iterator[Quantizer]:
    """All formats and widths, for the comparison of errors."""
    for kind in GGML_TYPES:
        family = "ggml K" if kind.endswith("_K") else "ggml"
        yield Quantizer(family, f"ggml {kind}", each(ggml(kind)))
    for bits, group_size in ((2, 64), (3, 64), (4, 64), (8, 64), (4, 128)):
        name = f"MLX {bits} bits, g {group_size}"
        yield Quantizer("MLX", name, each(mlx(bits, group_size)))
    for group_size in (64, 128):
        for bits in (2, 3, 4):
            name = f"torch HQQ {bits} bits, g {group_size}"
            yield Quantizer("torch HQQ", name, each(hqq(bits, group_size)), fraction=16)
    for observer, fraction in (("memoryless_minmax", 1), ("memoryless_mse", 8)):
        family = f"llm-compressor {observer.removeprefix('memoryless_')}"
        name = f"{family} 4 bits, g 128"
        yield Quantizer(family, name, each(llmcompressor(observer, 4, 128)), fraction)
    for double in (False, True):
        family = "bitsandbytes NF4"
        yield Quantizer(family, family + (", double" if double else ""), each(nf4(double)))
