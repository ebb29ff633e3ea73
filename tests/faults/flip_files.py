"""Small files of every kind that is read."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import gguf
import ml_dtypes
import numpy as np
import onnx_models
import pyarrow as pa
import pyarrow.parquet as pq
import quantized_models
from safetensors.numpy import save_file

from pyarrowquant import Recipe, Rule, convert, numpy_to_arrow_table, quantize_batch_arrow

LAYERS = {"a.weight": np.sin(np.arange(64, dtype=np.float32)).reshape(4, 16)}
ENCODED = {
    name: np.sin(np.arange(256, dtype=np.float32)).reshape(1, 256)
    for name in ("q4_k", "nvfp4", "iq4_xs", "fp8")
}


def make(path: Path) -> None:
    """Write the file that its name asks for: results.*, or a model."""
    if path.stem in QUANTIZED:
        QUANTIZED[path.stem](path)
        return
    table = numpy_to_arrow_table(LAYERS)
    if path.stem == "results":
        table = quantize_batch_arrow(table, group_size=16, metrics=path.suffix == ".feather")
    if path.stem == "encoded":
        rules = [Rule(name, encoding=name) for name in ENCODED]
        table = quantize_batch_arrow(numpy_to_arrow_table(ENCODED), recipe=Recipe(rules))
    if path.stem == "views":
        table = _views(table)
    if path.suffix == ".parquet":
        pq.write_table(table, path, compression="none")
    elif path.suffix in (".arrow", ".feather", ".ipc"):
        new = pa.ipc.new_stream if path.suffix == ".ipc" else pa.ipc.new_file
        with pa.OSFile(str(path), "wb") as sink, new(sink, table.schema) as writer:
            writer.write_table(table)
    elif path.suffix == ".safetensors":
        save_file(LAYERS, path)
    elif path.suffix == ".npz":
        np.savez(path, **LAYERS)
    elif path.suffix == ".onnx":
        onnx_models.mlp(8).save(path)
    else:
        _write_gguf(path)


def _views(table: pa.Table) -> pa.Table:
    name = pa.array(["a.weight"]).dictionary_encode()
    weights = pa.array([LAYERS["a.weight"].tobytes()], pa.binary_view())
    return pa.table(
        {"layer_name": name, "weights": weights, "dtype": ["F32"], "shape": table["shape"]}
    )


def _write_gguf(path: Path) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    for name, array in LAYERS.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_fp8(path: Path) -> None:
    weights = LAYERS["a.weight"].astype(ml_dtypes.float8_e4m3fn)
    scales = np.full((4, 1), 0.5, np.float32)
    quantized_models.save(path, {"a.weight": weights, "a.weight_scale": scales})


def _write_converted(path: Path, to: str, **options: Any) -> None:
    """Write what a folder for an engine has of codes, and its config.json beside it."""
    source, folder = path.with_name("floats"), path.with_name(to)
    weights = np.tile(LAYERS["a.weight"], (1, 4))
    convert(quantized_models.folder(source, {"a.weight": weights}), folder, to=to, **options)
    shutil.move(folder / "model.safetensors", path)
    shutil.move(folder / "config.json", path.parent)


def _write_gguf_codes(path: Path) -> None:
    """Write layers of K types, IQ4 and MXFP4."""
    names = ("q2_k", "q3_k", "q4_k", "q6_k", "iq4_nl", "mxfp4")
    source = path.with_name("floats.npz")
    np.savez(source, **{f"{name}.weight": ENCODED["q4_k"] for name in names})
    convert(source, path, recipe=Recipe([Rule(f"{name}*", encoding=name) for name in names]))


QUANTIZED = {
    "fp8": _write_fp8,
    "packed": lambda path: _write_converted(path, "compressed-tensors", group_size=32),
    "mlx": lambda path: _write_converted(path, "mlx", group_size=32),
    "nested": lambda path: _write_converted(path, "bitsandbytes", double=True),
    "codes": _write_gguf_codes,
}
