"""What folders become as GGUF, read by gguf."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from commands import succeeded


def floats(folder: Path, dtype: str = "float32") -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The keys and tensors of the GGUF that a folder becomes, without quantizing."""
    path = folder.parent / f"{folder.name}-{dtype}.gguf"
    succeeded("dequantize", folder, path, "--dtype", dtype)
    return contents(path)


def contents(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    reader = gguf.GGUFReader(path)
    keys = {key: field.contents() for key, field in reader.fields.items()}
    tensors = {
        tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        for tensor in reader.tensors
    }
    return keys, tensors
