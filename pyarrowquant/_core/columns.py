"""Columns over the memory of numpy arrays, one chunk an array, without a copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

_LARGEST_OFFSET = 2**31 - 1


def lists(arrays: Sequence[np.ndarray[Any, Any] | None], element: pa.DataType) -> pa.ChunkedArray:
    """Return a column of lists, null for None."""
    large = any(array is not None and array.size > _LARGEST_OFFSET for array in arrays)
    list_type, offset_type = (
        (pa.large_list(element), np.int64) if large else (pa.list_(element), np.int32)
    )
    chunks = []
    for array in arrays:
        if array is None:
            chunks.append(pa.nulls(1, list_type))
            continue
        values = pa.Array.from_buffers(element, array.size, [None, _buffer(array)])
        offsets = pa.py_buffer(np.array([0, array.size], offset_type))
        chunks.append(pa.Array.from_buffers(list_type, 1, [None, offsets], children=[values]))
    return pa.chunked_array(chunks, list_type)


def binaries(arrays: list[np.ndarray[Any, Any]]) -> pa.ChunkedArray:
    large = any(array.nbytes > _LARGEST_OFFSET for array in arrays)
    binary_type, offset_type = (pa.large_binary(), np.int64) if large else (pa.binary(), np.int32)
    chunks = []
    for array in arrays:
        offsets = pa.py_buffer(np.array([0, array.nbytes], offset_type))
        chunks.append(pa.Array.from_buffers(binary_type, 1, [None, offsets, _buffer(array)]))
    return pa.chunked_array(chunks, binary_type)


def _buffer(array: np.ndarray[Any, Any]) -> pa.Buffer:
    # bfloat16 has no format in the buffer protocol, its bytes do.
    return pa.py_buffer(np.asarray(array).reshape(-1).view(np.uint8))
