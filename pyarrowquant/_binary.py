"""Values of binary columns, without the copy that PyArrow's scalars make."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_OFFSETS: dict[pa.DataType, str] = {pa.binary(): "<i4", pa.large_binary(): "<i8"}


def is_binary(type_: pa.DataType) -> bool:
    return type_ in _OFFSETS or type_ == pa.binary_view()


def bytes_at(column: pa.Array, i: int) -> npt.NDArray[np.uint8] | None:
    """View a value; one of a binary view is copied. None for null."""
    if column.null_count and not column.is_valid()[i].as_py():
        return None
    if column.type not in _OFFSETS:
        return _view(column[i].as_buffer())
    begin, end = _offsets(column)[i : i + 2]
    return _view(column.buffers()[2])[begin:end]


def lengths(column: pa.Array) -> list[int]:
    """Bytes of each value; 0 for null."""
    if column.type in _OFFSETS:
        found: list[int] = np.diff(_offsets(column)).tolist()
        return found
    return [value.as_buffer().size if value.is_valid else 0 for value in column]


def _offsets(column: pa.Array) -> npt.NDArray[np.int64]:
    if len(column) == 0:
        return np.zeros(1, np.int64)
    whole: npt.NDArray[Any] = np.frombuffer(column.buffers()[1], _OFFSETS[column.type])
    return whole[column.offset : column.offset + len(column) + 1].astype(np.int64)


def _view(buffer: pa.Buffer | None) -> npt.NDArray[np.uint8]:
    if buffer is None or buffer.size == 0:
        return np.empty(0, np.uint8)
    return np.frombuffer(buffer, np.uint8)
