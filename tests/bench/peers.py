"""Other quantizers, called as their users call them: 4 bits, two threads at most.

Each `prepare` imports the package, checks one result, and gives the call to time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

THREADS = 2


@dataclass(frozen=True)
class Peer:
    """A quantizer to compare with.

    Attributes
    ----------
    prepare : callable
        From float32 weights [rows, 4096] to the call to time; ImportError if not installed.
    fraction : int
        Measure with one part in so many of the weights, and 5 times, for what takes very long.
    """

    prepare: Callable[[Any], Callable[[], object]]
    fraction: int = 1


def check(decoded: np.ndarray, weights: np.ndarray) -> None:
    """4 bits leave an error of about 0.1; a peer that was called wrongly has more."""
    error = np.linalg.norm(decoded - weights) / np.linalg.norm(weights)
    assert 0.01 < error < 0.2, error


def numpy_reference(weights: np.ndarray) -> Callable[[], object]:
    """The formulas of round-to-nearest in numpy, without packing."""

    def call() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        groups = weights.reshape(-1, 128)
        low = np.minimum(groups.min(axis=1, keepdims=True), 0)
        high = np.maximum(groups.max(axis=1, keepdims=True), 0)
        scale = (high - low) / np.float32(15)
        zero = np.clip(np.rint(-low / scale), 0, 15)
        return np.clip(np.rint(groups / scale + zero), 0, 15).astype(np.uint8), scale, zero

    codes, scale, zero = call()
    check(((codes - zero) * scale).reshape(weights.shape), weights)
    return call


def ggml(kind: str) -> Callable[[np.ndarray], Callable[[], object]]:
    """ggml_quantize_chunk of llama-cpp-python, on threads of our own as it has none."""

    def prepare(weights: np.ndarray) -> Callable[[], object]:
        import ctypes
        from concurrent.futures import ThreadPoolExecutor

        from llama_cpp import _ggml

        library = _ggml.libggml_base if hasattr(_ggml, "libggml_base") else _ggml.libggml
        number, block_bytes = {"Q4_0": (2, 18), "Q4_1": (3, 20)}[kind]
        quantize = library.ggml_quantize_chunk
        pointer = ctypes.c_void_p
        quantize.argtypes = [ctypes.c_int, pointer, pointer, *[ctypes.c_int64] * 3, pointer]
        quantize.restype = ctypes.c_size_t
        rows, columns = weights.shape
        packed = np.empty((rows, columns // 32 * block_bytes), np.uint8)

        def chunk(first: int, count: int) -> int:
            return int(
                quantize(
                    number,
                    weights.ctypes.data,
                    packed.ctypes.data,
                    first * columns,
                    count,
                    columns,
                    None,
                )
            )

        pool = ThreadPoolExecutor(THREADS)
        step = rows // THREADS

        def call() -> object:
            return list(pool.map(chunk, range(0, rows, step), [step] * THREADS))

        call()
        blocks = packed.reshape(-1, block_bytes)
        scale = blocks[:, :2].copy().view(np.float16).astype(np.float32)
        codes = blocks[:, -16:]
        codes = np.concatenate([codes & 15, codes >> 4], axis=1).astype(np.float32)
        if kind == "Q4_0":
            decoded = (codes - 8) * scale
        else:
            decoded = codes * scale + blocks[:, 2:4].copy().view(np.float16).astype(np.float32)
        check(decoded.reshape(weights.shape), weights)
        return call

    return prepare


def mlx(weights: np.ndarray) -> Callable[[], object]:
    import mlx.core as mx

    array = mx.array(weights)
    mx.eval(array)

    def call() -> object:
        result = mx.quantize(array, group_size=128, bits=4)
        mx.eval(result)
        return result

    check(np.array(mx.dequantize(*call(), group_size=128, bits=4)), weights)  # type: ignore[misc]
    return call


def onnxruntime(weights: np.ndarray) -> Callable[[], object]:
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

    call()
    codes = np.stack([packed & 15, packed >> 4], axis=-1).reshape(-1, 128).astype(np.float32)
    zero = np.stack([zeros & 15, zeros >> 4], axis=-1).reshape(-1, 1).astype(np.float32)
    check(((codes - zero) * scales[:, None]).reshape(weights.shape), weights)
    return call


def torchao(weights: np.ndarray) -> Callable[[], object]:
    import torch
    from torchao.quantization.quant_primitives import (
        MappingType,
        choose_qparams_affine,
        dequantize_affine,
        quantize_affine,
    )

    torch.set_num_threads(THREADS)
    tensor = torch.from_numpy(weights)
    block = (1, 128)

    def call() -> Any:
        scale, zero = choose_qparams_affine(
            tensor, MappingType.ASYMMETRIC, block, torch.uint8, quant_min=0, quant_max=15
        )
        codes = quantize_affine(tensor, block, scale, zero, torch.uint8, 0, 15)
        return codes, scale, zero

    codes, scale, zero = call()
    decoded = dequantize_affine(codes, block, scale, zero, torch.uint8, 0, 15)
    check(decoded.numpy(), weights)
    return call


def hqq(weights: np.ndarray) -> Callable[[], object]:
    import torch
    from hqq.core.quantize import Quantizer

    torch.set_num_threads(THREADS)
    tensor = torch.from_numpy(weights)

    def call() -> Any:
        return Quantizer.quantize(
            tensor,
            nbits=4,
            group_size=128,
            optimize=True,
            device="cpu",
            compute_dtype=torch.float32,
        )

    check(Quantizer.dequantize(*call()).float().numpy(), weights)
    return call


PEERS = {
    "numpy": Peer(numpy_reference),
    "ggml Q4_0": Peer(ggml("Q4_0")),
    "ggml Q4_1": Peer(ggml("Q4_1")),
    "MLX": Peer(mlx),
    "onnxruntime": Peer(onnxruntime),
    "torchao": Peer(torchao),
    "torch HQQ": Peer(hqq, fraction=8),
}
