"""Models in files, what they quantize to, and where files are mapped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from conftest import Arrays, assert_same
from pyarrow import feather
from safetensors.numpy import save_file

from pyarrowquant import numpy_to_arrow_table, quantize_batch_arrow, quantize_stream

SCHEMA = pa.schema(
    [
        ("layer_name", pa.string()),
        ("weights", pa.large_binary()),
        ("shape", pa.list_(pa.int64())),
        ("dtype", pa.string()),
    ]
)


def source_for(folder: Path, to: str) -> Path:
    """What of a folder is written with its own names: for gguf and onnx the file, else all.

    The file lies elsewhere, without config.json beside it, so that it is no model.
    """
    if to not in ("gguf", "onnx"):
        return folder
    alone = folder.parent / f"{folder.name}-weights" / "weights.safetensors"
    alone.parent.mkdir(exist_ok=True)
    alone.unlink(missing_ok=True)
    alone.hardlink_to(folder / "model.safetensors")
    return alone


def floats(model: Mapping[str, np.ndarray]) -> Arrays:
    return {name: array for name, array in model.items() if array.dtype.kind in "fV"}


def expected(model: Mapping[str, np.ndarray], **options: Any) -> pa.Table:
    """The result for the arrays themselves, sorted by name."""
    return quantize_batch_arrow(numpy_to_arrow_table(dict(model)), **options)


def assert_reads(reader: pa.RecordBatchReader, model: Mapping[str, np.ndarray]) -> None:
    """The stream has these layers, and they quantize to the bytes of the arrays."""
    batches = list(reader)
    streamed = pa.RecordBatchReader.from_batches(reader.schema, batches)
    result = quantize_stream(streamed, metrics=True).read_all()
    wanted = expected(model, metrics=True)
    assert_same(result.sort_by("layer_name"), wanted)
    assert_same(quantize_batch_arrow(pa.Table.from_batches(batches), metrics=True), wanted)


def write_shards(folder: Path, shards: Mapping[str, Arrays], **more: str) -> Path:
    """Write shards and their index; `more` has what the index says else."""
    weight_map = {tensor: name for name, arrays in shards.items() for tensor in arrays}
    for name, arrays in shards.items():
        save_file(arrays, folder / name)
    index = {"metadata": {"total_size": 1}, "weight_map": {**weight_map, **more}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def write_two_shards(folder: Path, weights: Arrays, config: Mapping[str, Any]) -> Path:
    """Make the folder of a model whose tensors lie in one and the other of two shards in turn."""
    folder.mkdir()
    names = sorted(weights)
    shards = {f"model-0000{i + 1}-of-00002.safetensors": names[i::2] for i in (0, 1)}
    write_shards(
        folder, {file: {name: weights[name] for name in each} for file, each in shards.items()}
    )
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def mappings_of(path: Path) -> list[range]:
    """Addresses at which this process has a file mapped."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    found = [line.split()[0].split("-") for line in lines if line.endswith(str(path))]
    return [range(int(begin, 16), int(end, 16)) for begin, end in found]


def write_table(table: pa.Table, path: Path, rows: int = 4) -> None:
    """Write a table by the path's suffix; rows are those of a row group of Parquet."""
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=rows)
    elif path.suffix == ".feather":
        feather.write_feather(table, str(path), compression="lz4")
    else:
        kind = pa.ipc.new_file if path.suffix == ".arrow" else pa.ipc.new_stream
        with pa.OSFile(str(path), "wb") as file, kind(file, table.schema) as writer:
            writer.write_table(table)
