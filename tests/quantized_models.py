"""Checkpoints of codes, written byte for byte, and the weights that reading gives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

import pyarrowquant

DTYPES = {
    np.dtype(np.float32): "F32",
    np.dtype(np.float16): "F16",
    np.dtype(ml_dtypes.bfloat16): "BF16",
    np.dtype(ml_dtypes.float8_e4m3fn): "F8_E4M3",
    np.dtype(ml_dtypes.float8_e5m2): "F8_E5M2",
    np.dtype(ml_dtypes.float8_e8m0fnu): "F8_E8M0",
    np.dtype(np.uint8): "U8",
    np.dtype(np.int8): "I8",
    np.dtype(np.int32): "I32",
    np.dtype(np.uint32): "U32",
    np.dtype(np.int64): "I64",
}
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
E2M1 = np.concatenate([E2M1, -E2M1])


def save(path: Path, tensors: Mapping[str, np.ndarray]) -> Path:
    """Write safetensors, also of dtypes that the package for numpy does not write."""
    header: dict[str, Any] = {}
    position = 0
    for name, array in tensors.items():
        header[name] = {
            "dtype": DTYPES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [position, position + array.nbytes],
        }
        position += array.nbytes
    text = json.dumps(header).encode()
    data = b"".join(np.ascontiguousarray(array).tobytes() for array in tensors.values())
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def folder(path: Path, tensors: Mapping[str, np.ndarray], **config: Any) -> Path:
    """Write the folder of a model, with what config.json says else."""
    path.mkdir()
    save(path / "model.safetensors", tensors)
    (path / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    return path


def read(path: Path) -> dict[str, np.ndarray]:
    """Layers as `read_weights` gives them."""
    found = {}
    for batch in pyarrowquant.read_weights(path):
        for row in batch.to_pylist():
            if isinstance(row["weights"], bytes):
                dtypes = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
                array = np.frombuffer(row["weights"], dtypes[row["dtype"]])
            else:
                array = np.array(row["weights"], np.float32)
            assert row["layer_name"] not in found
            found[row["layer_name"]] = array.reshape(row["shape"])
    return found


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    assert found.tobytes() == np.asarray(expected, np.float32).tobytes()


def pairs(codes: np.ndarray) -> np.ndarray:
    """Pack codes of 4 bits, that of the even column into the low bits."""
    return (codes[..., ::2] | codes[..., 1::2] << 4).astype(np.uint8)
