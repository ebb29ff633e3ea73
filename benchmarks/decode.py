"""Some layers of a compressed-tensors folder, decoded by what the format says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

BITS, GROUP = 4, 128
BLOCK = 128  # rows and columns of FP8 that share a scale
NVFP4_GROUP = 16
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
CHECKED = (
    "model.layers.0.self_attn.k_proj.weight",
    "model.layers.9.mlp.down_proj.weight",
)


def relative_error(source: Path, target: Path) -> float:
    """Of the layers that are checked, together."""
    error = norm = 0.0
    for name in CHECKED:
        weights = _read(source, name)
        error += float(np.square(_decoded(target, name) - weights, dtype=np.float64).sum())
        norm += float(np.square(weights, dtype=np.float64).sum())
    return (error / norm) ** 0.5


def _decoded(folder: Path, name: str) -> np.ndarray:
    names = _index(folder)
    if f"{name}_global_scale" in names:
        return _nvfp4(folder, name)
    scales = _read(folder, f"{name}_scale")
    if f"{name}_packed" not in names:
        codes = _read(folder, name)
        by_rows = np.repeat(scales, BLOCK, 0)[: len(codes)]
        return codes * np.repeat(by_rows, BLOCK, 1)[:, : codes.shape[1]]
    codes = _unpacked(_read(folder, f"{name}_packed"), axis=1)
    if f"{name}_zero_point" in names:
        zero_points = _unpacked(_read(folder, f"{name}_zero_point"), axis=0)[: len(codes)]
        steps = codes.astype(np.float32) - np.repeat(zero_points, GROUP, 1)
    else:
        steps = codes.astype(np.float32) - 2 ** (BITS - 1)
    return steps * np.repeat(scales, GROUP, 1)


def _nvfp4(folder: Path, name: str) -> np.ndarray:
    packed = _read(folder, f"{name}_packed")
    codes = np.stack([packed & 15, packed >> 4], -1).reshape(len(packed), -1)
    scales = _read(folder, f"{name}_scale") / _read(folder, f"{name}_global_scale")
    return E2M1[codes] * np.repeat(scales, NVFP4_GROUP, 1)


def _unpacked(words: np.ndarray, axis: int) -> np.ndarray:
    """Codes of four bits, the low ones first, along an axis."""
    shifts = np.arange(0, 32, BITS, dtype=np.uint32)
    if axis == 0:
        return _unpacked(words.T, 1).T
    codes = np.ascontiguousarray(words).view(np.uint32)[:, :, None] >> shifts & 2**BITS - 1
    return codes.reshape(len(words), -1)


def _index(folder: Path) -> dict[str, str]:
    """Files by the names of their tensors."""
    path = folder / "model.safetensors.index.json"
    return dict(json.loads(path.read_text())["weight_map"])


def _read(folder: Path, name: str) -> np.ndarray:
    """Floats as float32, others as they are."""
    with (folder / _index(folder)[name]).open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        tensor = json.loads(file.read(length))[name]
        begin, end = tensor["data_offsets"]
        file.seek(8 + length + begin)
        data = file.read(end - begin)
    dtype = {"BF16": np.uint16, "I32": np.int32, "F32": np.float32}.get(tensor["dtype"], np.uint8)
    values = np.frombuffer(data, dtype).reshape(tensor["shape"])
    if tensor["dtype"] == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return _E4M3[values] if tensor["dtype"] == "F8_E4M3" else values


def _e4m3() -> np.ndarray:
    """What each byte means: sign, four bits of exponent, three of mantissa."""
    bits = np.arange(256)
    exponent, mantissa = bits >> 3 & 15, bits & 7
    normal = (8 + mantissa) * 2.0 ** (exponent - 10)
    values = np.where(exponent > 0, normal, mantissa * 2.0**-9)
    values[(bits & 127) == 127] = np.nan
    return (np.where(bits > 127, -1, 1) * values).astype(np.float32)


_E4M3 = _e4m3()
