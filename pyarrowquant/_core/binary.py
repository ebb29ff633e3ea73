"""Values of binary columns, without the copy that PyArrow's scalars make."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_OFFSETS: dict[pa.DataType, str] = {pa.binary(): "<i4", pa.large_binary(): "<i8"}
_VIEW_BYTES = 16
_INLINE = 12  # longest value that lies in its view itself


def is_binary(type_: pa.DataType) -> bool:
    return type_ in _OFFSETS or type_ == pa.binary_view()


def bytes_at(column: pa.Array, i: int) -> npt.NDArray[np.uint8] | None:
    """View a value; None for null.

    Raises
    ------
    ValueError
        Offsets are beyond the data, which PyArrow does not check.
    """
    if column.null_count and not column[i].is_valid:
        return None
    buffers = column.buffers()
    if column.type in _OFFSETS:
        begin, end = _offsets(column)[i : i + 2].tolist()
        buffer, size = buffers[2], end - begin
    else:
        at = _VIEW_BYTES * (column.offset + i)
        size, _, number, begin = np.frombuffer(buffers[1], "<i4", 4, at).tolist()
        if size <= _INLINE:
            buffer, begin = buffers[1], at + 4
        else:
            buffer = buffers[2 + number] if 0 <= number < len(buffers) - 2 else None
    most = 0 if buffer is None else buffer.size
    if begin < 0 or size < 0 or begin + size > most:
        raise ValueError("its offsets are beyond its data")
    if size == 0:
        return np.empty(0, np.uint8)
    return np.frombuffer(buffer, np.uint8, size, begin)


def lengths(column: pa.Array) -> list[int]:
    """Bytes of each value; 0 for null."""
    if column.type in _OFFSETS:
        found: list[int] = np.diff(_offsets(column)).tolist()
        return found
    return [value.as_buffer().size if value.is_valid else 0 for value in column]


def _offsets(column: pa.Array) -> npt.NDArray[Any]:
    if len(column) == 0:
        return np.zeros(1, np.int64)
    whole: npt.NDArray[Any] = np.frombuffer(column.buffers()[1], _OFFSETS[column.type])
    return whole[column.offset : column.offset + len(column) + 1]
