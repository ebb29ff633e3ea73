"""Values of single rows, of which none may be null."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pyarrowquant._core.binary import bytes_at

Bytes = npt.NDArray[np.uint8]


def value(batch: pa.RecordBatch, column: str, i: int, row: int) -> Any:
    value = batch.column(column)[i]
    if not value.is_valid:
        raise ValueError(f"Row {row}: {column} is null")
    return value


def numbers(batch: pa.RecordBatch, column: str, i: int, row: int) -> npt.NDArray[Any]:
    values = value(batch, column, i, row).values
    if values.null_count:
        raise ValueError(f"Row {row}: {column} has a null")
    array: npt.NDArray[Any] = values.to_numpy()
    return array


def raw(batch: pa.RecordBatch, column: str, i: int, row: int) -> Bytes:
    try:
        value = bytes_at(batch.column(column), i)
    except ValueError as error:
        raise ValueError(f"Row {row}: {column} is corrupt: {error}") from None
    if value is None:
        raise ValueError(f"Row {row}: {column} is null")
    return value
