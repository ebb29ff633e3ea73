"""Small files of every kind that is read."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import onnx_models
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from pyarrowquant import numpy_to_arrow_table, quantize_batch_arrow

LAYERS = {"a.weight": np.sin(np.arange(64, dtype=np.float32)).reshape(4, 16)}


def make(path: Path) -> None:
    """Write the file that its name asks for: results.*, or a model."""
    table = numpy_to_arrow_table(LAYERS)
    if path.stem == "results":
        table = quantize_batch_arrow(table, group_size=16, metrics=path.suffix == ".feather")
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
