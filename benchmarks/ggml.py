"""The quantizers of ggml, which llama-cpp-python carries, on threads of our own: it has none."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from quantizer import THREADS, Prepared, bits_of

POOL = ThreadPoolExecutor(THREADS)


def ggml(kind: str, importance: np.ndarray | None = None) -> Callable[[np.ndarray], Prepared]:
    """Quantize a matrix to a type of ggml, by its name there.

    K-quants need rows of a multiple of 256 weights, and llama.cpp falls back to other types for
    a tensor that has not. Here some of its rows are read as one, so that all methods have the
    same weights: blocks follow each other along a row, and where one goes over the end of a row
    of 384, its sub-blocks of 16 or 32, which have scales of their own, do not.
    """

    def prepare(weights: np.ndarray) -> Prepared:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
        from gguf.quants import dequantize

        type_ = GGMLQuantizationType[kind]
        block, block_bytes = GGML_QUANT_SIZES[type_]
        together = math.lcm(weights.shape[1], block) // weights.shape[1]
        rows = weights.reshape(-1, together * weights.shape[1])
        matters = None if importance is None else np.tile(importance, together)
        packed = np.empty((len(rows), rows.shape[1] // block * block_bytes), np.uint8)
        quantize_rows = quantizer(type_.value, rows, packed, matters)
        step = -(-len(rows) // THREADS)
        firsts = range(0, len(rows), step)

        def call() -> np.ndarray:
            list(POOL.map(lambda first: quantize_rows(first, min(step, len(rows) - first)), firsts))
            return packed

        return Prepared(
            call, lambda result: dequantize(result, type_).reshape(weights.shape), bits_of
        )

    return prepare


def quantizer(
    type_: int, rows: np.ndarray, packed: np.ndarray, importance: np.ndarray | None
) -> Callable[[int, int], int]:
    """ggml_quantize_chunk with its arguments, but for the first row and the number of rows."""
    import ctypes

    from llama_cpp import _ggml

    library: Any = _ggml.libggml_base if hasattr(_ggml, "libggml_base") else _ggml.libggml
    quantize = library.ggml_quantize_chunk
    pointer = ctypes.c_void_p
    quantize.argtypes = [ctypes.c_int, pointer, pointer, *[ctypes.c_int64] * 3, pointer]
    quantize.restype = ctypes.c_size_t
    columns = rows.shape[1]
    source, target = rows.ctypes.data, packed.ctypes.data

    def quantize_rows(first: int, number: int) -> int:  # which keeps the arrays it points into
        matters = None if importance is None else importance.ctypes.data
        return int(quantize(type_, source, target, first * columns, number, columns, matters))

    return quantize_rows
