"""What the tests of the export formats share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa
from conftest import plain

from pyarrowquant import dequantize_batch_arrow, quantize_batch_arrow

KEPT_ARRAYS = {
    "norm.weight": np.arange(7, dtype=np.float32) / 3,
    "half.weight": (np.arange(15) / 7).astype(np.float16).reshape(3, 5),
    "brain.weight": (np.arange(8) / 7).astype(ml_dtypes.bfloat16).reshape(2, 4),
}
KEPT_CODES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def kept_table(arrays: dict[str, np.ndarray] = KEPT_ARRAYS) -> pa.Table:
    """Unquantized layers as raw bytes."""
    return pa.table(
        {
            "layer_name": list(arrays),
            "weights": [array.tobytes() for array in arrays.values()],
            "dtype": [KEPT_CODES[array.dtype.name] for array in arrays.values()],
            "shape": [list(array.shape) for array in arrays.values()],
        }
    )


def data_file(model: Path) -> Path:
    """The one file of external data beside an ONNX model."""
    (found,) = model.parent.glob(f"{model.name}.*.data")
    return found


def weights(seed: int, rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, columns), dtype=np.float32)


def quantized(
    *arrays: np.ndarray, names: Sequence[str] = ("a.weight", "b.weight", "c.weight"), **options: Any
) -> pa.Table:
    return quantize_batch_arrow(plain(names[: len(arrays)], arrays), **options)


def decoded(result: pa.Table) -> dict[str, np.ndarray]:
    """What this package decodes, by name."""
    rows = dequantize_batch_arrow(result).to_pylist()
    return {
        row["layer_name"]: np.asarray(row["weights"], np.float32).reshape(row["shape"])
        for row in rows
    }


def codes_of(row: dict[str, Any]) -> np.ndarray:
    """Codes of a row of a result, by the README's definition."""
    rows, columns = row["shape"]
    bits = row["bit_width"]
    packed = np.frombuffer(row["quantized_data"], np.uint8).reshape(rows, -1)
    stream = np.unpackbits(packed, axis=1, bitorder="little")[:, : columns * bits]
    return stream.reshape(rows, columns, bits) @ (1 << np.arange(bits))


def spread(values: Sequence[float], row: dict[str, Any]) -> np.ndarray:
    """Values of groups as values of their columns."""
    rows, columns = row["shape"]
    group = columns if row["group_size"] == -1 else row["group_size"]
    return np.repeat(np.asarray(values, np.float32).reshape(rows, -1), group, 1)[:, :columns]


def failing_stream(result: pa.Table, error: BaseException) -> pa.RecordBatchReader:
    """Gives the result's batches of one row each, and fails."""

    def batches() -> Any:
        yield from result.to_batches(max_chunksize=1)
        raise error

    return pa.RecordBatchReader.from_batches(result.schema, batches())


def files(folder: Path) -> dict[str, bytes]:
    """All that is in a folder, hidden files included."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"folder"
        for path in folder.rglob("*")
    }
