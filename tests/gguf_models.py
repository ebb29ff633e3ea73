"""GGUF models to quantize, written by gguf itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import ml_dtypes
import numpy as np

TYPES = gguf.GGUFValueType
# Keys of all types that the format has.
METADATA: dict[str, tuple[Any, ...]] = {
    "llama.block_count": (2, TYPES.UINT32),
    "a.int8": (-3, TYPES.INT8),
    "a.uint64": (2**63, TYPES.UINT64),
    "a.float64": (1 / 3, TYPES.FLOAT64),
    "a.bool": (True, TYPES.BOOL),
    "a.text": ("zwölf", TYPES.STRING),
    "tokenizer.ggml.tokens": (["a", "bé", ""], TYPES.ARRAY, TYPES.STRING),
    "tokenizer.ggml.scores": ([0.5, -1.0], TYPES.ARRAY, TYPES.FLOAT32),
    "tokenizer.ggml.token_type": ([1, 3], TYPES.ARRAY, TYPES.INT32),
    "a.flags": ([True, False], TYPES.ARRAY, TYPES.BOOL),
    "general.file_type": (1, TYPES.UINT32),
}


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "blk.0.up.weight": rng.standard_normal((24, 64)).astype(np.float16),
        "blk.0.norm.weight": np.ones(64, np.float32),
        "blk.0.down.weight": rng.standard_normal((64, 96), np.float32),
        "small.weight": np.ones((2, 3), np.float32),
        "blk.1.up.weight": rng.standard_normal((8, 32)).astype(ml_dtypes.bfloat16),
    }


def saved(path: Path, tensors: dict[str, np.ndarray] | None = None) -> Path:
    """Write a model as llama.cpp's converter does, with one quantized tensor too."""
    writer = gguf.GGUFWriter(path, "llama")
    for key, (value, *types) in METADATA.items():
        writer.add_key_value(key, value, *types)
    for name, array in (arrays() if tensors is None else tensors).items():
        if array.dtype == ml_dtypes.bfloat16:
            bf16 = gguf.GGMLQuantizationType.BF16
            writer.add_tensor(name, array.view(np.uint8), raw_dtype=bf16)
        else:
            writer.add_tensor(name, array)
    blocks = gguf.quants.quantize(np.ones((4, 32), np.float32), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("quantized.weight", blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def llama(path: Path, *, layers: int, tied: bool = False, odd: int | None = None) -> Path:
    """A model with the tensors of llama.cpp; one layer's feed-forward part has odd columns."""
    rng = np.random.default_rng(1)

    def weights(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) / 50).astype(np.float32)

    model = {"token_embd.weight": weights(64, 256), "output_norm.weight": weights(256)}
    if not tied:
        model["output.weight"] = weights(64, 256)
    for i in range(layers):
        for kind in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up"):
            model[f"blk.{i}.{kind}.weight"] = weights(32, 256)
        model[f"blk.{i}.ffn_down.weight"] = weights(32, 288 if i == odd else 512)
        model[f"blk.{i}.attn_norm.weight"] = weights(256)
    return written(path, model, block_count=layers)


def written(
    path: Path, model: dict[str, np.ndarray], architecture: str = "llama", **keys: int
) -> Path:
    """Write tensors and keys of an architecture, whose dots are underscores for two parts."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in keys.items():
        writer.add_uint32(f"{architecture}.{key.replace('attention_', 'attention.')}", value)
    for name, array in model.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def imatrix(
    path: Path,
    layers: dict[str, tuple[np.ndarray, np.ndarray]],
    kind: str = "imatrix",
    tensors: dict[str, np.ndarray] | None = None,
) -> Path:
    """Write sums of squares, of matrices by columns, and counts, as llama-imatrix does."""
    writer = gguf.GGUFWriter(path, "")
    writer.add_type(kind)
    writer.add_array("imatrix.datasets", ["wiki.txt", "other.txt"])
    writer.add_uint32("imatrix.chunk_count", 7)
    writer.add_uint32("imatrix.chunk_size", 512)
    for name, (sums, counts) in layers.items():
        writer.add_tensor(f"{name}.in_sum2", np.atleast_2d(sums).astype(np.float32))
        writer.add_tensor(f"{name}.counts", counts.reshape(-1, 1).astype(np.float32))
    for name, array in (tensors or {}).items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
