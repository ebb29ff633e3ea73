"""Codes to weights, through the Go library."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pyarrowquant._core import arguments, library
from pyarrowquant._core.cells import Bytes
from pyarrowquant._core.results import Floats
from pyarrowquant._core.source import RESULT_COLUMNS, Source


def decode(source: Source, dtype: str = "float32", threads: int | None = None) -> pa.Table:
    """Decode all rows of a result; see `dequantize_batch_arrow`."""
    options = {
        "dtype": arguments.text("dtype", dtype),
        "threads": arguments.thread_count(threads),
        "kernel": arguments.kernel(),
        "type_names": source.type_names,
    }
    return library.dequantize(source.read_all(), library.encode(options))


def decode_matrix(
    name: str,
    codes: Bytes,
    scales: Floats,
    zero_points: Floats,
    columns: int,
    bits: int,
    group_size: int,
) -> Floats:
    """Decode some rows of a layer.

    Parameters
    ----------
    name : str
        What errors call the layer.
    codes : array of uint8
        A row of bytes for each row, as in results.
    scales, zero_points : array of float32
        A row of a value for each group.
    columns, bits, group_size : int
    """
    return _decoded(
        codes,
        columns,
        {
            "layer_name": [name],
            "scales": [scales.ravel()],
            "zero_points": [zero_points.ravel()],
            "bit_width": pa.array([bits], pa.uint8()),
            "group_size": pa.array([group_size], pa.int32()),
        },
    )


def decode_levels(
    codes: Bytes, levels: Floats, scales: Floats, columns: int, group_size: int
) -> Floats:
    """Decode rows of bytes that stand for finite levels, with a scale for each group."""
    return _decoded(
        codes,
        columns,
        {
            "layer_name": ["codes"],
            "scales": [scales.ravel()],
            "zero_points": pa.nulls(1, pa.list_(pa.float32())),
            "bit_width": pa.array([8], pa.uint8()),
            "group_size": pa.array([group_size], pa.int32()),
            "encoding": ["fp8"],
            "levels": [levels],
            "super_scales": pa.nulls(1, pa.list_(pa.float32())),
            "super_minimums": pa.nulls(1, pa.list_(pa.float32())),
        },
    )


def _decoded(codes: Bytes, columns: int, row: dict[str, Any]) -> Floats:
    """Decode the only row of a table, whose codes are not copied."""
    ends = pa.py_buffer(np.array([0, codes.size], np.int64))
    data = [None, ends, pa.py_buffer(np.ascontiguousarray(codes))]  # pa.array would copy it
    row["quantized_data"] = pa.Array.from_buffers(pa.large_binary(), 1, data)
    row["shape"] = [[len(codes), columns]]
    source = Source(pa.table(row), RESULT_COLUMNS)
    weights: Floats = decode(source)["weights"][0].values.to_numpy()
    return weights.reshape(len(codes), columns)


def unpacked(codes: npt.NDArray[np.uint8], columns: int, bits: int) -> Floats:
    """Unpack codes, as numbers: with scales of 1 they decode to themselves."""
    ones = np.ones((len(codes), min(columns, 1)), np.float32)
    return decode_matrix("codes", codes, ones, np.zeros_like(ones), columns, bits, -1)
