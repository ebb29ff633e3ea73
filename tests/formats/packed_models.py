"""Models in folders as transformers has them, and what is packed in them, decoded by numpy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa
from exports import decoded, weights
from safetensors import safe_open
from safetensors.numpy import save_file

from pyarrowquant import Recipe, Rule, quantize_batch_arrow, read_weights

NUMPY = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
ONLY_LINEAR = Recipe([Rule(["*embed*", "*norm*", "*.bias", "lm_head*", "ids*"], skip=True)])
LINEAR = ["model.layers.0.up.weight", "model.layers.1.down.weight", "model.layers.1.up.weight"]
CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "dtype": "float32"}
Arrays = dict[str, np.ndarray]


def arrays(dtype: Any = np.float32, rows: int = 5, columns: int = 64) -> Arrays:
    """A model of three linear layers, an embedding, and kept tensors of several dtypes."""
    linear = {name: weights(i, rows, columns) for i, name in enumerate(LINEAR)}
    return {
        "model.embed_tokens.weight": weights(7, 6, 8).astype(dtype),
        **{name: array.astype(dtype) for name, array in linear.items()},
        "model.layers.0.up.bias": weights(8, 1, rows)[0].astype(dtype),
        "model.norm.weight": np.arange(3, dtype=np.float32),
        "ids": np.arange(3, dtype=np.int64),
        "flags": np.array([True, False, True]),
        "double": np.array([1 / 3], np.float64),
        "small": np.arange(5).astype(ml_dtypes.float8_e4m3fn),
    }


def saved(folder: Path, tensors: Arrays, config: dict[str, Any] | None = None) -> Path:
    folder.mkdir()
    floats = {name: array for name, array in tensors.items() if array.dtype.name[:6] != "float8"}
    save_file(floats, folder / "model.safetensors")
    if len(floats) < len(tensors):
        rewrite_with_bytes(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text(json.dumps(CONFIG if config is None else config))
    return folder


def rewrite_with_bytes(path: Path, tensors: Arrays) -> None:
    """Write a file with tensors that safetensors.numpy does not know."""
    codes = {
        "float8_e4m3fn": "F8_E4M3", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
        "int64": "I64", "bool": "BOOL", "float64": "F64",
    }  # fmt: skip
    header, data = {}, b""
    for name, array in sorted(tensors.items(), key=lambda item: -item[1].itemsize):
        header[name] = {
            "dtype": codes[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + array.nbytes],
        }
        data += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def results_of(model: Path, recipe: Recipe = ONLY_LINEAR, **options: Any) -> pa.Table:
    return quantize_batch_arrow(read_weights(model), recipe=recipe, **options)


def read_file(path: Path) -> dict[str, tuple[str, list[int], bytes]]:
    """Dtype, shape and bytes of each tensor; checks the file as safetensors does."""
    with safe_open(path, "np") as file:
        names = set(file.keys())
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    assert header.pop("__metadata__", {"format": "pt"}) == {"format": "pt"}
    assert header.keys() == names
    data = raw[8 + size :]
    return {
        name: (said["dtype"], said["shape"], data[slice(*said["data_offsets"])])
        for name, said in header.items()
    }


def read_model(folder: Path) -> dict[str, tuple[str, list[int], bytes]]:
    tensors: dict[str, tuple[str, list[int], bytes]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= read_file(path)
    return tensors


def config_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())["quantization_config"]


def unpacked(words: np.ndarray, bits: int, count: int) -> np.ndarray:
    """Codes of rows of int32 words, by the format's definition: one stream of bits a row."""
    rows = words.astype("<i4").view(np.uint8).reshape(len(words), -1)
    stream = np.unpackbits(rows, axis=1, bitorder="little")[:, : count * bits]
    return stream.reshape(len(words), count, bits) @ (1 << np.arange(bits))


def decode(tensors: dict[str, tuple[str, list[int], bytes]], name: str, bits: int) -> np.ndarray:
    """Weights of a packed layer, in float32."""
    dtype, shape, data = tensors[f"{name}_packed"]
    assert dtype == "I32"
    words = np.frombuffer(data, "<i4").reshape(shape)
    dtype, shape, data = tensors[f"{name}_shape"]
    assert (dtype, shape) == ("I64", [2])
    rows, columns = np.frombuffer(data, "<i8")
    assert words.shape == (rows, -(-columns * bits // 32))
    dtype, shape, data = tensors[f"{name}_scale"]
    scales = np.frombuffer(data, NUMPY[dtype]).astype(np.float32).reshape(shape)
    zeros = np.full(scales.shape, 2 ** (bits - 1))
    if f"{name}_zero_point" in tensors:
        dtype, shape, data = tensors[f"{name}_zero_point"]
        assert (dtype, shape) == ("I32", [-(-rows * bits // 32), scales.shape[1]])
        down = np.ascontiguousarray(np.frombuffer(data, "<i4").reshape(shape).T)
        zeros = unpacked(down, bits, rows).T
    group = columns // scales.shape[1]
    codes = unpacked(words, bits, columns)
    shifted = (codes - np.repeat(zeros, group, 1)).astype(np.float32)
    return shifted * np.repeat(scales, group, 1)


def assert_decodes(folder: Path, results: pa.Table) -> None:
    tensors = read_model(folder)
    bits = dict(
        zip(*(results[name].to_pylist() for name in ("layer_name", "bit_width")), strict=True)
    )
    for name, values in decoded(results).items():
        np.testing.assert_array_equal(decode(tensors, name, bits[name]), values)
        assert name not in tensors


def assert_kept(folder: Path, tensors: Arrays) -> None:
    written = read_model(folder)
    for name in tensors.keys() - set(LINEAR):
        assert written[name][1] == list(tensors[name].shape)
        assert written[name][2] == tensors[name].tobytes()
