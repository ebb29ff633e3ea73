"""Some layers of a compressed-tensors folder, decoded by what the format says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

BITS, GROUP = 4, 128
CHECKED = (
    "model.layers.0.self_attn.k_proj.weight",
    "model.layers.9.mlp.down_proj.weight",
)


def relative_error(source: Path, target: Path) -> float:
    """Of the layers that are checked, together."""
    error = norm = 0.0
    for name in CHECKED:
        weights = _bfloat16(_read(source, name))
        error += float(np.square(_decoded(target, name) - weights, dtype=np.float64).sum())
        norm += float(np.square(weights, dtype=np.float64).sum())
    return (error / norm) ** 0.5


def _decoded(folder: Path, name: str) -> np.ndarray:
    codes = _unpacked(_read(folder, f"{name}_packed"), axis=1)
    scales = _bfloat16(_read(folder, f"{name}_scale"))
    zero_points = _unpacked(_read(folder, f"{name}_zero_point"), axis=0)[: len(codes)]
    steps = codes.astype(np.float32) - np.repeat(zero_points, GROUP, 1)
    return steps * np.repeat(scales, GROUP, 1)


def _unpacked(words: np.ndarray, axis: int) -> np.ndarray:
    """Codes of four bits, the low ones first, along an axis."""
    shifts = np.arange(0, 32, BITS, dtype=np.uint32)
    if axis == 0:
        return _unpacked(words.T, 1).T
    codes = np.ascontiguousarray(words).view(np.uint32)[:, :, None] >> shifts & 2**BITS - 1
    return codes.reshape(len(words), -1)


def _bfloat16(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _read(folder: Path, name: str) -> np.ndarray:
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    path = folder / index["weight_map"][name]
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        tensor = json.loads(file.read(length))[name]
        begin, end = tensor["data_offsets"]
        file.seek(8 + length + begin)
        dtype = {"BF16": np.uint16, "I32": np.int32}[tensor["dtype"]]
        return np.frombuffer(file.read(end - begin), dtype).reshape(tensor["shape"])
